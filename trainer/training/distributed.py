"""The processes that train one network together, one rank each.

Runs in each training process. Under `torchrun`, RANK, WORLD_SIZE and LOCAL_RANK are set, and
DistributedDataParallel averages the gradients. In a single process every method is the identity,
and torch.distributed is not loaded. Ranks exchange nothing about batches: each opens its own shard
of the stream. Small numbers go by gloo on the CPU, so that counting rows never waits for a device.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

import augd

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


class Ranks:
    """One process of `world`; only `rank` 0 prints and writes files."""

    def __init__(self, rank: int = 0, world: int = 1, local_rank: int = 0) -> None:
        self.rank, self.world, self.local_rank = rank, world, local_rank

    @property
    def is_first(self) -> bool:
        """Whether this rank prints and writes files."""
        return self.rank == 0

    def sums(self, *numbers: float) -> list[float]:
        """Add numbers up over the ranks; every rank gets the sums."""
        if self.world == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return [float(number) for number in total]

    def text_of_first(self, text: str) -> str:
        """Return rank 0's text on every rank; the others' text is ignored."""
        if self.world == 1:
            return text
        content = torch.zeros(1024, dtype=torch.uint8)
        if self.is_first:
            data = text.encode()
            content[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        torch.distributed.broadcast(content, 0)
        return bytes(content.tolist()).rstrip(b"\0").decode()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every rank's tensor, of equal shapes, on the CPU."""
        if self.world == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        torch.distributed.all_gather(parts, tensor)
        return parts

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the values that rank 0 has."""
        if self.world > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait until every rank gets here."""
        if self.world > 1:
            torch.distributed.barrier()

    def parallel(self, network: nn.Module) -> nn.Module:
        """Average the ranks' gradients, without those of parameters that are frozen now."""
        if self.world == 1:
            return network
        return nn.parallel.DistributedDataParallel(network)


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the ranks that the environment names; a single process if it names none.

    Raises:
        OptionError: the environment sets only some of the three variables.
        ConnectError: another rank ended.
    """
    given = [os.environ.get(name) for name in _NAMES]
    if given[1] in (None, "1"):
        yield Ranks()
        return
    try:
        rank, world, local_rank = (int(value or "") for value in given)
    except ValueError:
        told = ", ".join(f"{name}={value}" for name, value in zip(_NAMES, given, strict=True))
        raise augd.OptionError(
            f"expected whole numbers in RANK, WORLD_SIZE and LOCAL_RANK, got {told}: start the "
            "ranks with torchrun, or take WORLD_SIZE out of the environment"
        ) from None
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, rank=rank, world_size=world)
    try:
        yield Ranks(rank, world, local_rank)
    except RuntimeError as error:
        if not _is_of_the_connection(error):
            raise
        raise augd.ConnectError(
            f"rank {rank} of {world} lost the others: one of them ended; its own error says why"
        ) from error
    finally:
        torch.distributed.destroy_process_group()


def _is_of_the_connection(error: RuntimeError) -> bool:
    """Say whether an error means a lost rank; gloo has no exception class for that."""
    return isinstance(error, torch.distributed.DistBackendError) or "gloo" in str(error)
