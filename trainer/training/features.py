"""Features of a frozen base: computed once, stored, and read by every training of a head.

Runs in the training process, between a stream and a head. The forward pass through the base is the
cost of training a head, and its result does not change. So it is computed once per image (once per
augmented pass) and kept in mapped files. The *key* names all that decides a number in them:
weights, recipes, data.

Invariants: a store of another key is refused by name, so no feature is stale; a store is complete
or does not exist.

    DIR/key.json                     what the features are of
    DIR/training-0.npy, ...          float32 (N, D), one file per pass over the training samples
    DIR/training-0-labels.npy, -ids  int64 (N,)
    DIR/validation.npy, ...          the same, one pass
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import augd

from ..data.constants import IMAGENET
from ..data.host_feed import Batch, range_of
from ..data.source import BatchSource, usable_rows
from ..models.build_network import StagedNetwork
from ..models.stages import Stages

Key = dict[str, Any]

_VALIDATION = "validation"


class FeaturePass(NamedTuple):
    """One pass over some samples: features float32 (N, D), labels and ids int64 (N,)."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


def digest_of_base(staged: StagedNetwork) -> str:
    """Return the digest of all weights and buffers but the head's: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, one in sorted(staged.network.state_dict().items()):
        if not staged.stages.is_of_head(name):
            digest.update(f"{name} {one.dtype} {tuple(one.shape)}\n".encode())
            digest.update(one.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


class Base(nn.Module):
    """A network without its head, in evaluation mode: images to features (B, D)."""

    def __init__(self, staged: StagedNetwork) -> None:
        """Take the network; it is without a head from now on.

        Raises:
            OptionError: layers follow the head, so that features alone decide nothing.
        """
        super().__init__()
        arch, self.network, stages = staged
        if not stages.is_head_last:
            raise augd.OptionError(
                f"--arch: in {arch} other layers follow the classifier, so there are no features "
                "to store; choose another network, or trainer fit --strategy head"
            )
        above, _, name = stages.head.rpartition(".")
        setattr(self.network.get_submodule(above), name, nn.Identity())
        self.network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return what the head would get; float32."""
        self.network.eval()
        features: Tensor = self.network(images)
        return features.float()


class HeadOnly(nn.Module):
    """A head as a network of its own, on features (B, D)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        logits: Tensor = self.head(features)
        return logits

    def as_staged_network(self, arch: str) -> StagedNetwork:
        """Return what a `Learner` takes: a network without stages."""
        return StagedNetwork(arch, self, Stages((), ("head",), None, is_head_last=True))


class FeatureStore:
    """A folder of features; `open_store` makes sure that they are of the right key."""

    def __init__(self, folder: Path) -> None:
        """Read the key; arrays are mapped when they are asked for."""
        self._folder = folder
        content = json.loads((folder / "key.json").read_text(encoding="utf-8"))
        before = {name: list(of) for name, of in IMAGENET._asdict().items()}  # a key without them
        self.key: Key = before | content["key"]
        self.seconds: dict[str, float] = content["seconds"]
        self.classes: list[str] = self.key["classes"]

    def training(self, number: int) -> FeaturePass:
        """Return a pass over the training samples."""
        return self._pass(f"training-{number}")

    def validation(self) -> FeaturePass:
        """Return the pass over the validation samples."""
        return self._pass(_VALIDATION)

    def _pass(self, name: str) -> FeaturePass:
        parts = (self._folder / f"{name}{part}.npy" for part in ("", "-labels", "-ids"))
        return FeaturePass(*(np.load(path, mmap_mode="r") for path in parts))


def open_store(folder: Path, key: Key) -> FeatureStore | None:
    """Open the features of a key; None where the folder doesn't exist.

    Raises:
        SpecMismatch: they are of another key; the message names each field and both values.
    """
    if not folder.exists():
        return None
    try:
        store = FeatureStore(folder)
    except (OSError, ValueError, KeyError) as error:
        raise augd.OptionError(
            f"--out: {folder} holds no stored features ({type(error).__name__}); choose another "
            "--out, or remove the folder"
        ) from None
    # As JSON keeps it: a tuple comes back as a list.
    here = json.loads(json.dumps(key))
    if store.key != here:
        named = "; ".join(
            f"{name}: {_brief(store.key.get(name))} stored, {_brief(here.get(name))} here"
            for name in {**here, **store.key}
            if store.key.get(name) != here.get(name)
        )
        raise augd.SpecMismatch(
            f"the features in {folder} are of something else: {named}. Ask for what was stored, "
            "choose another --out, or remove the folder."
        )
    return store


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


@torch.inference_mode()
def store_features(
    folder: Path,
    key: Key,
    base: Callable[[Tensor], Tensor],
    training: BatchSource,
    validation: BatchSource,
    report: Callable[[str, int], None] = lambda what, rows: None,
) -> FeatureStore:
    """Compute and store the features of all passes that a key asks for.

    Args:
        folder: made when all is done; not there if anything fails.
        key: with "passes", how many epochs of the training stream, from 0 on.
        base: images (B, 3, H, W) to features (B, D).
        training, validation: rows that are not valid are left out.
        report: called with a pass's name and the rows of each batch that was done.

    Raises:
        AugdError: no space, or as the streams say.
    """
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    seconds = {}
    try:
        unfinished.mkdir(parents=True)
        for number in range(key["passes"]):
            name = f"training-{number}"
            seconds[name] = _store_pass(unfinished, name, base, training, number, report)
        seconds[_VALIDATION] = _store_pass(unfinished, _VALIDATION, base, validation, 0, report)
        content = json.dumps({"key": key, "seconds": seconds}, indent=2)
        (unfinished / "key.json").write_text(content, encoding="utf-8")
        unfinished.replace(folder)
    except OSError as error:
        raise augd.AugdError(
            f"features: {folder} cannot be written ({error}). Make space, or choose another --out."
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return FeatureStore(folder)


def _store_pass(
    folder: Path,
    name: str,
    base: Callable[[Tensor], Tensor],
    source: BatchSource,
    epoch: int,
    report: Callable[[str, int], None],
) -> float:
    """Write one pass; returns the seconds that it took."""
    started_s = time.perf_counter()
    mapped: Any = None
    labels, ids = [], []
    filled = 0
    for batch in source.epoch(epoch):
        images, truth = usable_rows(batch, source)
        if not len(truth):
            continue
        rows = base(images).cpu().numpy()
        if mapped is None:
            shape = (source.num_samples, rows.shape[1])
            mapped = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
        mapped[filled : filled + len(rows)] = rows
        filled += len(rows)
        labels.append(truth.cpu().numpy())
        of_rows = batch.ids if len(truth) == len(batch) else batch.ids[batch.valid]
        ids.append(of_rows.cpu().numpy())
        report(name, len(rows))
    if mapped is None:
        raise augd.DatasetError(f"dataset {source.dataset!r} has no readable image for {name}")
    mapped.flush()
    if filled < len(mapped):  # bad samples: the file was made for all of them
        np.save(folder / f"{name}.npy", np.array(mapped[:filled]))
    np.save(folder / f"{name}-labels.npy", np.concatenate(labels))
    np.save(folder / f"{name}-ids.npy", np.concatenate(ids))
    return time.perf_counter() - started_s


class StoredSource:
    """Stored features as batches, in an order that (seed, epoch) decides; a `BatchSource`.

    Epoch e reads pass e modulo their number. On the CPU a batch's rows are copied out of the mapped
    file; nothing else is allocated.
    """

    def __init__(
        self,
        passes: list[FeaturePass],
        classes: list[str],
        batch_size: int,
        device: torch.device,
        *,
        dataset: str,
        shuffle_seed: int | None,
    ) -> None:
        """Begin with epoch 0; `shuffle_seed` None keeps the order of the file."""
        self._passes, self._classes, self._batch_size = passes, classes, batch_size
        self._device, self._dataset, self._seed = device, dataset, shuffle_seed
        self._place = (0, 0)  # epoch, and batches of it that were handed out
        self._resume = (0, 0)
        self._counts = {"batches": 0.0, "samples": 0.0, "wait_s": 0.0}

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return self._device

    @property
    def num_samples(self) -> int:
        """Rows of a pass."""
        return len(self._passes[0].labels)

    @property
    def classes(self) -> list[str]:
        """Names of the classes by label."""
        return self._classes

    @property
    def dataset(self) -> str:
        """The dataset that the features are of."""
        return self._dataset

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.num_samples // self._batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield one epoch, or what a loaded state left of it; images are features (B, D)."""
        begin = self._resume[1] if self._resume[0] == epoch else 0
        self._resume = (0, 0)
        rows = self._passes[epoch % len(self._passes)]
        order = self._order(epoch, len(rows.labels))
        for number in range(begin, len(self)):
            first = number * self._batch_size
            chosen = order[first : first + self._batch_size]
            arrays = [np.asarray(part[chosen]) for part in rows]
            features, labels, ids = (torch.from_numpy(one).to(self._device) for one in arrays)
            self._place = (epoch, number + 1)
            self._counts["batches"] += 1
            self._counts["samples"] += len(chosen)
            tensors = (features, labels, ids, labels >= 0)
            yield Batch(tensors, (epoch, number, first), label_range=range_of(arrays[1]))

    def _order(self, epoch: int, count: int) -> NDArray[np.int64]:
        if self._seed is None:
            return np.arange(count)
        # A stream's seed may have 63 bits, and the generator takes no more than 64.
        mixed = (self._seed * 1_000_003 + epoch) % 2**63
        generator = torch.Generator().manual_seed(mixed)
        order: NDArray[np.int64] = torch.randperm(count, generator=generator).numpy()
        return order

    def stats(self) -> dict[str, float]:
        """Return how much was handed out; there is no waiting time."""
        return dict(self._counts)

    def state_dict(self) -> dict[str, Any]:
        """Return where the source stands."""
        return {"epoch": self._place[0], "batch": self._place[1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was taken."""
        self._place = self._resume = (state["epoch"], state["batch"])
