"""Competitor: a training process with a GPU, fed by augd; its arena pinned, or not.

`step` is what is done with a batch: "none", its images are normalised on the GPU and let go; or the
name of a torchvision network, trained in bfloat16 with random weights. The GPU is busy from the
first kernel of a step to its last, as CUDA's own events tell; it waits for the rest of the time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import augd
import trainer
from augd.diagnostics.measure import all_batches
from benchmarks._rounds import answer_rounds, settle
from benchmarks._tree import cpu_between, cpu_by_pid, tree
from trainer.data import cuda_feed as trainer_cuda

_cuda: Any = torch.cuda  # its events are typed in some versions of torch, and not in others
_WARM_UP_STEPS = 12
_IDLE_AFTER_S = 120.0
_COPIES = 10


# What the stream's lane made of its arena: one, unless the stream had to open another.
_made: list[trainer_cuda.PinnedArena] = []


class PinnedArena(trainer_cuda.PinnedArena):
    """An arena that is registered, and can be looked at."""

    def __init__(self, arena: memoryview, cudart: Any) -> None:
        """Register it, or warn."""
        super().__init__(arena, cudart)
        _made.append(self)


class Pageable(trainer_cuda.PinnedArena):
    """An arena that is left as it is, and can be looked at."""

    def __init__(self, arena: memoryview, cudart: Any) -> None:
        """Register nothing."""
        self.arena = arena
        self.is_pinned = False
        _made.append(self)


def make_step(name: str) -> Callable[[Any], None]:
    """Return what is done with a batch's images, float (B, 3, 224, 224) on the GPU."""
    if name == "none":
        return lambda batch: None
    import torchvision.models  # type: ignore[import-untyped]

    network = torchvision.models.get_model(name, weights=None)
    network = network.to("cuda", memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    loss_of = torch.nn.CrossEntropyLoss()

    def step(batch: Any) -> None:
        labels = batch.labels.clamp(min=0)  # a folder without classes has the label -1
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(network(batch.images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def copy_gb_per_s(arena: memoryview) -> dict[str, float]:
    """Time copies to the GPU from the arena as it is now, and from torch's own pinned memory."""
    source = torch.from_numpy(np.frombuffer(arena, np.uint8))
    size = min(len(source), 1 << 28)
    target = torch.empty(size, dtype=torch.uint8, device="cuda")
    own = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    return {
        "arena_gb_per_s": _timed_copies(target, source[:size]),
        "torch_pinned_gb_per_s": _timed_copies(target, own),
    }


def _timed_copies(target: torch.Tensor, source: torch.Tensor) -> float:
    target.copy_(source, non_blocking=True)
    _cuda.synchronize()
    started = time.monotonic()
    for _ in range(_COPIES):
        target.copy_(source, non_blocking=True)
    _cuda.synchronize()
    return _COPIES * len(target) / (time.monotonic() - started) / 1e9


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, step, is_pinned."""
    vars(trainer_cuda).update(PinnedArena=PinnedArena if arguments["is_pinned"] else Pageable)
    with (
        augd.serve(arguments["photos"], producers=arguments["workers"]) as daemon,
        trainer.connect(
            daemon.address,
            recipe=arguments["recipe"],
            batch_size=arguments["batch_size"],
            drop_last=True,
            device="cuda",
        ) as stream,
    ):
        step = make_step(arguments["step"])
        batches = all_batches(stream)
        for _ in range(_WARM_UP_STEPS):
            step(next(batches))
        _cuda.synchronize()
        copies = copy_gb_per_s(_made[-1].arena)

        def run_round(seconds: float) -> dict[str, float]:
            for _ in range(_WARM_UP_STEPS):
                step(next(batches))  # and what was made ahead is gone
            _cuda.synchronize()
            before = cpu_by_pid(os.getpid())
            own_s, waited_s = time.process_time(), stream.stats()["wait_s"]
            steps: list[tuple[Any, Any]] = []
            started, images = time.monotonic(), 0
            while time.monotonic() - started < seconds:
                batch = next(batches)
                begin, end = _event(), _event()
                begin.record()
                step(batch)
                end.record()
                steps.append((begin, end))
                images += len(batch)
                if len(steps) > 1:
                    steps[-2][1].synchronize()  # a step ahead, as a loop that logs its loss is
            _cuda.synchronize()
            passed_s = time.monotonic() - started
            busy_s = sum(begin.elapsed_time(end) for begin, end in steps) / 1000
            own_s = time.process_time() - own_s
            used_s = cpu_between(before, cpu_by_pid(os.getpid()))
            waited_s = stream.stats()["wait_s"] - waited_s
            _cuda.empty_cache()  # the others need it
            settle(tree(os.getpid()), _IDLE_AFTER_S)
            return {
                "images": images,
                "seconds": passed_s,
                "cpu_s": used_s,
                "gpu_waits": max(0.0, 1 - busy_s / passed_s),
                "client_waits": waited_s / passed_s,
                "trainer_cpu_s_per_1000": 1000 * own_s / images,
                **copies,
            }

        ready = {"gpu": _cuda.get_device_name(), "is_pinned": _made[-1].is_pinned}
        answer_rounds(run_round, ready)


def _event() -> Any:
    return _cuda.Event(enable_timing=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
