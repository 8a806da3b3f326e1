"""Chooses samples of a dataset: split, classes, limit and balance become a list of ids.

Called by the daemon when a stream opens. The list goes to the producers as a sealed file, and
streams with the same choice share one. The order is: split, classes, limit, grouping by class.

Invariants: the choice depends on the index alone. A file added to the dataset moves no other file
from one split to another. A list never changes once it is handed out. Imports no NumPy.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate, compress, count
from typing import Final, Literal

import msgspec

from augd.dataset.index_file import IndexFile
from augd.dataset.index_format import ITEM_BYTES, ArrayName, read_index_header
from augd.dataset.scan_result import SPLIT_CODES, SPLITS, spelled_alike
from augd.errors import OptionError, counted

Split = Literal["train", "val", "test"]

_CLASSES_NAMED: Final = 10
_TOP_SHIFT: Final = 48  # leaves 16 bits of a hash: about 15 samples of a million share them
_IDLE_MAX: Final = 4  # lists kept for the next stream with the same choice, such as a validation's


class SampleSelection(msgspec.Struct, frozen=True):
    """Chosen samples; the arrays hold int64.

    `ids` are ascending, or with `balance` sorted by class. `offsets` is empty unless balanced:
    where in `ids` each class begins that has samples, and the end. `picked` is empty unless
    classes were named: the old number of each. `num_unlabelled` of the samples have no label.
    """

    ids: array[int]
    offsets: array[int]
    picked: array[int]
    num_unlabelled: int = 0

    @property
    def num_groups(self) -> int:
        """Classes with samples, when balanced; else 0."""
        return max(0, len(self.offsets) - 1)


def select(
    index: IndexFile,
    *,
    split: Split | None = None,
    val_fraction: float = 0.1,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    balance: Literal["class"] | None = None,
) -> SampleSelection:
    """Choose samples.

    Args:
        index: of the dataset.
        split: as the dataset records it, in folders or a manifest's column. Without any record the
            hash of a sample's path decides: it is in "val" if the hash, as a fraction of 2**64,
            lies below `val_fraction`, else in "train".
        val_fraction: see `split`.
        classes: only samples of these; their place here is their new number. Of a multi-label
            dataset, samples for which one of them is above 0.
        limit: keep at most this many, those with the smallest second hash of their path.
        balance: group by class. Samples without a class are left out.

    Raises:
        OptionError: an unknown split or class, or nothing is left.
    """
    return _Selector(index).select(split, val_fraction, classes, limit, balance)


def seal(choice: SampleSelection) -> int:
    """Write a choice into a sealed file in memory: ids, offsets, picked; returns the fd."""
    fd = os.memfd_create("augd-choice", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        for part in (choice.ids, choice.offsets, choice.picked):
            file.write(part)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


class _Selector:
    """One selection in progress: the index's arrays, and what each step left."""

    def __init__(self, index: IndexFile) -> None:
        header, start = read_index_header(index.fd)
        self._header = header
        mapped = memoryview(mmap.mmap(index.fd, 0, mmap.MAP_SHARED, mmap.PROT_READ))
        parts: dict[ArrayName, memoryview] = {}
        for place in header.arrays:
            at = start + place.offset
            parts[place.name] = mapped[at : at + place.length * ITEM_BYTES[place.dtype]]
        self._splits = parts["splits"]
        self._labels = parts["labels"].cast("q")
        self._targets = parts["targets"].cast("f")
        self._split_hashes = parts["split_hashes"].cast("Q")
        self._limit_hashes = parts["limit_hashes"].cast("Q")
        self._steps = [f"the dataset has {counted(header.num_samples, 'sample')}"]

    def select(
        self,
        split: Split | None,
        val_fraction: float,
        classes: Sequence[str] | None,
        limit: int | None,
        balance: Literal["class"] | None,
    ) -> SampleSelection:
        ids: Sequence[int] = range(self._header.num_samples)
        picked = array("q")
        if split is not None:
            ids = self._of_split(split, val_fraction)
        if classes is not None:
            picked = self._find(classes)
            ids = self._left(
                f"of classes {', '.join(classes)}"[:400], self._of_classes(ids, picked)
            )
        if limit is not None and limit < len(ids):
            ids = self._smallest(ids, limit)
        if balance is not None:
            return self._grouped(ids, picked)
        return SampleSelection(array("q", ids), array("q"), picked, self._count_unlabelled(ids))

    def _count_unlabelled(self, ids: Sequence[int]) -> int:
        labels = self._labels
        if self._header.num_targets or min(labels) >= 0:
            return 0
        return sum(labels[sample] < 0 for sample in ids)

    def _left(self, step: str, ids: Sequence[int]) -> Sequence[int]:
        """Record how many samples a step left. Raises OptionError if it left none."""
        self._steps.append(f"{len(ids)} {step}")
        if not ids:
            raise OptionError(f"no sample is selected: {', '.join(self._steps)}. Ask for others.")
        return ids

    def _of_split(self, split: Split, val_fraction: float) -> Sequence[int]:
        if self._header.has_splits:
            code, recorded = SPLIT_CODES[split], self._splits
            ids = [sample for sample, found in enumerate(recorded) if found == code]
            if not ids:
                said = "".join(f" ({note})" for note in self._header.notes)
                raise OptionError(f"split: expected {self._recorded()}, got {split!r}.{said}")
            return self._left(f"in split {split!r}", ids)
        hashes = self._split_hashes
        end = int(val_fraction * 2.0**64)
        if split == "test":
            raise OptionError(
                "split: expected 'train' or 'val', got 'test': this dataset records no splits, "
                "so that val_fraction divides it in two. Serve folders train/, val/ and test/, "
                "or a manifest with a column 'split'."
            )
        if split == "val":
            ids = [sample for sample, found in enumerate(hashes) if found < end]
        else:
            ids = [sample for sample, found in enumerate(hashes) if found >= end]
        return self._left(f"in split {split!r} by val_fraction={val_fraction:g}", ids)

    def _recorded(self) -> str:
        """Describe the splits that the dataset has, with their sizes."""
        recorded = bytes(self._splits)
        counts = {name: recorded.count(SPLIT_CODES[name]) for name in SPLITS}
        return " or ".join(
            f"{name!r} ({counted(count, 'sample')})" for name, count in counts.items() if count
        )

    def _find(self, classes: Sequence[str]) -> array[int]:
        known = {spelled_alike(name): k for k, name in enumerate(self._header.classes)}
        classes = list(map(spelled_alike, classes))
        seen: set[str] = set()
        for name in classes:
            if name not in known:
                raise OptionError(f"classes: {self._unknown(name, list(known))}")
            if name in seen:
                raise OptionError(f"classes: {name!r} is there twice. Name each class once.")
            seen.add(name)
        return array("q", [known[name] for name in classes])

    def _unknown(self, name: str, known: list[str]) -> str:
        from difflib import get_close_matches

        if not known:
            return f"this dataset has no classes, got {name!r}. Leave classes out."
        close = get_close_matches(name, known, 1) or get_close_matches(
            name.lower(), {k.lower(): k for k in known}, 1
        )
        near = next((k for k in known if close and k.lower() == close[0].lower()), None)
        hint = f", did you mean {near!r}?" if near else "."
        more = ", ..." if len(known) > _CLASSES_NAMED else ""
        return (
            f"{name!r} is no class of this dataset{hint} It has {len(known)}: "
            f"{', '.join(known[:_CLASSES_NAMED])}{more}"
        )

    def _of_classes(self, ids: Sequence[int], picked: Iterable[int]) -> Sequence[int]:
        if self._header.num_targets:
            marks = bytearray(self._header.num_samples)
            is_above_0 = (0.0).__lt__
            for column in picked:
                values = self._targets[column :: self._header.num_targets]
                for sample in compress(count(), map(is_above_0, values)):
                    marks[sample] = 1
            return [sample for sample in ids if marks[sample]]
        wanted = bytearray(len(self._header.classes) + 1)  # the last one counts label -1
        for number in picked:
            wanted[number] = 1
        labels = self._labels
        return [sample for sample in ids if wanted[labels[sample]]]

    def _smallest(self, ids: Sequence[int], limit: int) -> Sequence[int]:
        """Keep the `limit` samples with the smallest hashes, without sorting all of them."""
        hashes = self._limit_hashes
        tops = [hashes[sample] >> _TOP_SHIFT for sample in ids]
        counts, edge, num_below = Counter(tops), 0, 0
        while num_below + counts[edge] < limit:
            num_below += counts[edge]
            edge += 1
        below = [sample for sample, top in zip(ids, tops, strict=True) if top < edge]
        at_edge = [sample for sample, top in zip(ids, tops, strict=True) if top == edge]
        at_edge.sort(key=hashes.__getitem__)
        return sorted(below + at_edge[: limit - num_below])

    def _grouped(self, ids: Sequence[int], picked: array[int]) -> SampleSelection:
        header, labels = self._header, self._labels
        if header.num_targets or not header.classes:
            found = "several labels per sample" if header.num_targets else "no classes"
            raise OptionError(
                f'balance: "class" needs one class per sample, and this dataset has {found}. '
                f"Leave balance out."
            )
        groups = [array("q") for _ in range(len(header.classes) + 1)]
        for sample in ids:
            groups[labels[sample]].append(sample)
        order = picked or range(len(header.classes))
        filled = [groups[number] for number in order if groups[number]]
        together = array("q")
        for group in filled:
            together.extend(group)
        self._left("with a class", together)
        return SampleSelection(
            together, array("q", accumulate(map(len, filled), initial=0)), picked
        )


class Shared(msgspec.Struct):
    """A sealed choice with the streams that use it."""

    fd: int
    num_samples: int
    num_groups: int
    num_picked: int
    num_unlabelled: int
    streams: set[int]


class Choices:
    """The choices that streams use: one for all with the same key. Owns their fds."""

    def __init__(self) -> None:
        self._shared: dict[Hashable, Shared] = {}  # the last one used stands last

    def take(self, stream: int, key: Hashable, make: Callable[[], SampleSelection]) -> Shared:
        """Give a stream the choice of `key`. Calls `make` if there is none."""
        shared = self._shared.pop(key, None)
        if shared is None:
            choice = make()
            sizes = (
                *(len(choice.ids), choice.num_groups, len(choice.picked)),
                choice.num_unlabelled,
            )
            shared = Shared(seal(choice), *sizes, set())
        self._shared[key] = shared
        shared.streams.add(stream)
        return shared

    def fd(self, stream: int) -> int:
        """Return the fd of the stream's choice; it stays with this object."""
        return next(shared.fd for shared in self._shared.values() if stream in shared.streams)

    def drop(self, stream: int) -> None:
        """Forget a stream, which need not have a choice; the last few choices are kept."""
        for shared in self._shared.values():
            shared.streams.discard(stream)
        idle = [key for key, shared in self._shared.items() if not shared.streams]
        for key in idle[: max(0, len(idle) - _IDLE_MAX)]:
            os.close(self._shared.pop(key).fd)

    def close(self) -> None:
        for shared in self._shared.values():
            os.close(shared.fd)
        self._shared.clear()
