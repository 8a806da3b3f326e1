"""`augd.torch.connect`, and the stream of tensor batches that it returns.

Runs in the training process. The stream is an `augd.Stream` with another kind of batch. Device and
dtype are checked before connecting. It starts no thread and no process, and keeps no batch that it
has handed out.
"""

from __future__ import annotations

import inspect
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, Unpack

import torch
from torch import Tensor

import augd

from .constants import Constants, choose_constants
from .cuda_feed import CudaCopier, CudaFeed, DeviceNormaliser
from .host_feed import Batch, HostFeed, HostNormaliser

Connect = TypeVar("Connect", bound=Callable[..., Any])
_DEVICES = ("cpu", "cuda")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class _Feed(Protocol):
    """The passes over a stream, on whatever device."""

    @property
    def transfer_s(self) -> float: ...

    def epoch(self, epoch: int) -> Iterator[Batch]: ...

    def forget(self) -> None: ...

    def close(self) -> None: ...


class Stream:
    """A stream of tensor batches. Iterate `epoch(n)` for batches, or the stream for pairs.

    For one thread at a time. `close()` it, or use it in `with`. A stream that is dropped closes
    itself; so does the end of the process, however it ends.

    Attributes:
        device: where its tensors are.
        world, drop_last: as given to `connect`.
        constants: `mean` and `std` of its images; None where they come as uint8.
    """

    def __init__(
        self,
        stream: augd.Stream,
        feed: _Feed,
        device: torch.device,
        *,
        world: int = 1,
        drop_last: bool = False,
        constants: Constants | None = None,
    ) -> None:
        self.device, self.world, self.drop_last = device, world, drop_last
        self.constants = constants
        self._stream = stream
        self._feed = feed
        self._next_pass: int = stream.state_dict()["epoch"]  # not 0 where a shared one is joined
        self._last: tuple[int, int] | None = None  # epoch and position of what was handed out
        self._num_batches = 0
        self._num_samples = 0
        self._compute_s = 0.0
        self._told_s = 0.0  # of the time for transfers
        self._closer = weakref.finalize(self, _close, feed, stream)

    @property
    def num_samples(self) -> int:
        """Samples per epoch that this rank gets, padding not counted."""
        return self._stream.num_samples

    @property
    def classes(self) -> list[str]:
        """Names of the classes by label; empty for a dataset without labels."""
        return self._stream.classes

    @property
    def content(self) -> str:
        """Digest of everything that decides a sample's pixels and their order."""
        return self._stream.content

    @property
    def dataset(self) -> str:
        """The dataset's name at the daemon."""
        return self._stream.dataset

    @property
    def num_unlabelled(self) -> int:
        """Samples of an epoch, over all ranks, that have no class: their label is -1."""
        return self._stream.num_unlabelled

    @property
    def num_targets(self) -> int:
        """K of `labels` (B, K), which are targets then; 0 if a label is a class."""
        return self._stream.num_targets

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._stream)

    def epoch(self, epoch: int) -> DevicePass:
        """Yield the batches of one epoch, in order; the same batches at every call.

        On CUDA the tensors are ready for the CUDA stream that is current when they are handed out.
        The copy of the next batch is running by then, if that batch has arrived. A new pass ends an
        unfinished one.

        Args:
            epoch: counted from 0.

        Returns:
            An iterator; its `len` is the number of batches: the rest, if a state was loaded.

        Raises:
            BatchesHeld: with `normalize=False` on the CPU, the caller holds every slot.
            ConnectError: the daemon ended, or nothing came within `timeout_s`.
            SampleFailed: with `bad="fail"`, a sample cannot be read.
            ProducersUnhealthy: producers die again and again.
        """
        return DevicePass(self, epoch, self._feed.epoch(epoch), self._stream.batches_of(epoch))

    def __repr__(self) -> str:
        return f"<Stream to {self.device} from {self._stream!r}>"

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        """Yield (images, labels) of the epoch after the last one that was begun, at first of 0.

        A recipe with view groups gives (views, labels) instead.
        """
        return map(_pair, self.next_epoch())

    def next_epoch(self) -> DevicePass:
        """Yield the batches of the next epoch, counted as `for images, labels in stream` does."""
        return self.epoch(self._next_pass)

    def _count(self, batch: Batch) -> None:
        transfer_s = self._feed.transfer_s
        self._stream.note_transfer(transfer_s - self._told_s)
        self._told_s = transfer_s
        self._num_batches += 1
        self._num_samples += len(batch)
        self._last = (batch.epoch, batch.position)
        self._next_pass = batch.epoch + 1

    def stats(self) -> dict[str, float]:
        """Return what was handed out so far, and how the time was spent.

        Returns:
            Those of `augd.Stream.stats`, with `batches` and `samples` that were handed out;
            `transfer_s`: on the CPU, seconds spent turning slots into tensors, on CUDA, seconds
            spent waiting for copies; `compute_s`: seconds that the caller spent between two batches
            of a pass (on CUDA the time to issue work, unless the caller waits for the device).
        """
        return self._stream.stats() | {
            "batches": self._num_batches,
            "samples": self._num_samples,
            "transfer_s": self._feed.transfer_s,
            "compute_s": self._compute_s,
        }

    def receipt(self, epoch: int) -> dict[str, Any]:
        """Return what arrived of an epoch, and its digests; see `augd.Stream.receipt`.

        On CUDA batches arrive ahead of the one in hand: ask when the epoch has ended.
        """
        return self._stream.receipt(epoch)

    def paths(self, ids: Iterable[int]) -> list[str]:
        """Return the paths of samples; see `augd.Stream.paths`. `ids` may be `batch.ids` itself."""
        return self._stream.paths([int(one) for one in ids])

    @property
    def notices(self) -> list[str]:
        """Warnings that stop nothing, oldest first; see `augd.Stream.notices`."""
        return self._stream.notices

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, as JSON data; the batch in hand is counted."""
        return self._stream.state_dict(self._last)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken: the next pass, if over its epoch, yields the rest of it.

        Raises:
            SpecMismatch: the content differs; the message names each field and both values.
            OptionError: this is no state of a stream.
        """
        self._stream.load_state_dict(state)
        self._feed.forget()
        self._last = None
        self._next_pass = state["epoch"]

    def close(self) -> None:
        """End the stream; tensors that were handed out stay valid."""
        self._closer()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DevicePass:
    """One pass over an epoch: counts its batches, and the caller's time between them.

    Not a generator: its frame would hold the batch, and so the slot, until the next one.
    """

    def __init__(
        self, stream: Stream, epoch: int, batches: Iterator[Batch], num_batches: int
    ) -> None:
        self._stream, self._epoch = stream, epoch
        self._batches, self._num_batches = batches, num_batches
        self._broke_off = ""  # a text: an error would hold its frames
        self._left_s: float | None = None  # when the caller got the last batch

    def __iter__(self) -> DevicePass:
        return self

    def __len__(self) -> int:
        """Batches of the whole pass, those that came already included."""
        return self._num_batches

    def __next__(self) -> Batch:
        if self._left_s is not None:
            self._stream._compute_s += time.perf_counter() - self._left_s
            self._left_s = None
        if self._broke_off:  # the generator below would just end
            raise augd.StreamClosed(
                f"this pass over epoch {self._epoch} broke off ({self._broke_off}) and can't go "
                "on: begin the epoch again, or load the state that was saved last"
            )
        try:
            batch = next(self._batches)
        except StopIteration:
            self._stream._next_pass = self._epoch + 1
            raise
        except BaseException as error:
            self._broke_off = f"{type(error).__name__}: {error}"
            raise
        self._stream._count(batch)
        self._left_s = time.perf_counter()
        return batch


def _pair(batch: Batch) -> tuple[Any, Tensor]:
    return batch.views or batch.images, batch.labels


def _close(feed: _Feed, stream: augd.Stream) -> None:
    try:
        feed.close()
    finally:
        stream.close()


def _takes_options_of_augd(function: Connect) -> Connect:
    """Show the options of `augd.connect` in the signature of a function that passes them on."""
    address, *own, _ = inspect.signature(function).parameters.values()
    defaults = inspect.signature(augd.connect).parameters
    options = [defaults[name] for name in augd.ConnectOptions.__annotations__]
    shown = inspect.Signature([address, *options, *own], return_annotation=Stream)
    function.__signature__ = shown  # type: ignore[attr-defined]
    return function


@_takes_options_of_augd
def connect(
    address: str | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    normalize: bool = True,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    **options: Unpack[augd.ConnectOptions],
) -> Stream:
    """Connect to a daemon and open a stream of tensors; production starts at once.

    The arguments that are not named below are those of `augd.connect`.

    Args:
        device: "cpu", "cuda" or "cuda:N"; None is "cuda" where there is one, else "cpu".
        dtype: of the images: float32, float16, bfloat16 or float64; the arithmetic is float32.
        channels_last: keep memory in the order of the pixels, with which convolutions on CUDA are
            fastest; False gives one plane per channel. The shape is (B, 3, H, W) either way. With
            True, an `images.view(...)` that joins channels and pixels, such as
            `images.view(len(images), -1)`, raises torch's RuntimeError. Write `images.flatten(1)`
            or `.reshape(...)`, which copy, or connect with False.
        normalize: compute (x / 255 - mean) / std on the device. False gives uint8 (B, H, W, 3) as
            rendered, on the CPU without any copy; `channels_last` then does not matter.
        mean: of R, G, B in [0, 1], as the network's weights want it: three numbers, or "imagenet",
            "inception" (0.5 each), "clip" or "none" (0, with a std of 1: images in [0, 1]).
            None is what `std` names, or "imagenet".
        std: in the same form. None is what `mean` names. Neither is part of `content`: the rows
            are the same.

    Returns:
        A `Stream`, to be closed. Its batches have images (B, 3, H, W) in `dtype`, channels RGB,
        and labels int64 (B,), both on `device`. A recipe with view groups gives `views` by name,
        (B, V, 3, H, W), in place of images.

    Raises:
        ConnectError: no daemon answers.
        Forbidden: the daemon wants a key, doesn't know this one, or not for this dataset.
        OptionError: an argument is out of range, the device does not exist, or the dtype doesn't
            fit.
        RecipeError: the recipe is invalid.
        DatasetError: the daemon has no such dataset, or it cannot be read.
        OverLimit: the stream needs more memory than the daemon may take.
    """
    target = _check_device(device)
    _check_dtype(dtype, normalize)
    constants = _choose_constants(mean, std, normalize)
    defaults = inspect.signature(augd.connect).parameters.values()
    chosen: dict[str, Any] = {one.name: one.default for one in defaults} | dict(options)
    stream = augd.connect(address, mixed=False, **options)
    try:
        if stream.has_colour and not normalize:
            raise augd.OptionError(
                "normalize: False gives the pixels as they were rendered, which with "
                'colour_on="device" lack their colours; leave normalize out, or take colour_on out '
                "of the recipe"
            )
        feed: _Feed
        if target.type == "cpu":
            feed = _host_feed(stream, dtype, channels_last, constants)
        else:
            feed = _cuda_feed(stream, target, dtype, channels_last, constants, chosen["prefetch"])
    except BaseException:
        stream.close()
        raise
    return Stream(
        stream,
        feed,
        target,
        world=chosen["world"],
        drop_last=chosen["drop_last"],
        constants=constants,
    )


def _host_feed(
    stream: augd.Stream, dtype: torch.dtype, channels_last: bool, constants: Constants | None
) -> HostFeed:
    if constants is None:
        return HostFeed(stream, None)
    return HostFeed(stream, HostNormaliser(dtype, channels_last=channels_last, constants=constants))


def _cuda_feed(
    stream: augd.Stream,
    device: torch.device,
    dtype: torch.dtype,
    channels_last: bool,
    constants: Constants | None,
    prefetch: int,
) -> CudaFeed:
    normaliser = None
    if constants is not None:
        normaliser = DeviceNormaliser(
            device, dtype, channels_last=channels_last, constants=constants
        )
    copier = CudaCopier(device, normaliser, lambda: stream.arena)
    # The stream has prefetch + 1 slots, so one is always left for the producers.
    return CudaFeed(stream, copier, max_in_flight=prefetch)


def _check_device(device: str | torch.device | None) -> torch.device:
    """Resolve to one device that exists, its index included."""
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        device = "cuda" if num_cuda else "cpu"
    found = _parse_device(device)
    if found is None or found.type not in _DEVICES:
        raise augd.OptionError(f'device: expected "cpu", "cuda" or "cuda:N", got {device!r}')
    if found.type == "cpu":
        return torch.device("cpu")
    if (found.index or 0) >= num_cuda:
        raise augd.OptionError(
            f'device: "{found}" does not exist, PyTorch finds {num_cuda} CUDA devices here; '
            'use one that exists, or device="cpu"'
        )
    # Without an index torch uses the current device, which may change between calls.
    is_named = str(found) != "cuda"
    return found if is_named else torch.device("cuda", torch.cuda.current_device())


def _parse_device(device: str | torch.device) -> torch.device | None:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        return None


def _choose_constants(
    mean: str | Sequence[float] | None, std: str | Sequence[float] | None, normalize: bool
) -> Constants | None:
    """Return what to normalise with; None is nothing."""
    if normalize:
        return choose_constants(mean, std)
    for name, given in (("mean", mean), ("std", std)):
        if given is not None:
            raise augd.OptionError(
                f"{name}: normalize=False gives uint8 images as rendered, got {name}={given!r}; "
                f"leave {name} out, or normalize"
            )
    return None


def _check_dtype(dtype: object, normalize: bool) -> None:
    if not normalize and dtype != torch.float32:
        raise augd.OptionError(
            f"dtype: normalize=False gives uint8 images as rendered, got dtype={dtype}; "
            "leave dtype out, or normalize"
        )
    if dtype not in _DTYPES:
        expected = ", ".join(str(one) for one in _DTYPES)
        raise augd.OptionError(f"dtype: expected one of {expected}, got {dtype!r}")
