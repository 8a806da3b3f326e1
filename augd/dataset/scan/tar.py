"""Walks a tar shard in WebDataset's layout: members that share a key are one sample.

Called by `shards`, which makes a dataset of several shards. A key is a member's path up to the
first dot of its name. The rest is a field: `cat/017.jpg` and `cat/017.cls` are one sample, whose
class is in the second one. `_Group` defines an image in a field with dots (`017.seg.png`). Members
of one key need not be neighbours. Links to members are read as these. Concatenated archives (`cat
a.tar b.tar`) are read one after the other.

Members that are neither images nor labels are skipped and counted.

Invariants: only headers of members are read, and the small members that hold labels. A file that is
no uncompressed tar is rejected by name. No member lies outside its shard. No member that cannot be
read makes others unreadable. Imports no NumPy.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from typing import IO, Any, Final

import msgspec

from augd.dataset.scan.shard_sidecars import CLS_BYTES_MAX, JSON_BYTES_MAX, SidecarLabels
from augd.dataset.scan.skipped_files import HIDDEN, NO_ENDING, SkipCounter, is_image_kind, kind_of
from augd.dataset.scan_result import shown
from augd.errors import DatasetError
from augd.pixels.headers.formats import HEAD_BYTES, IMAGE_ENDINGS, describe

_BLOCK: Final = 512
_ZEROS_AT_ONCE: Final = 1 << 20
_LINKS_MAX: Final = 8  # links that lead to each other
_SIDECARS: Final = {b"cls": CLS_BYTES_MAX, b"json": JSON_BYTES_MAX}
_PRECEDENCE: Final = {ending: place for place, ending in enumerate(IMAGE_ENDINGS)}
_NOTHING: Final = SidecarLabels()
_AGAIN: Final = "whose name comes again in its sample"


class Member(msgspec.Struct):
    """An image in a shard, with its sidecars. `seen` belongs to the caller."""

    path: bytes
    offset: int
    size_bytes: int
    said: SidecarLabels
    seen: Any = None


class _Entry(msgspec.Struct, array_like=True, gc=False):
    """A member's content: its number in the shard, its path, and where it lies."""

    number: int
    path: bytes
    offset: int
    size_bytes: int


def walk_tar(
    file: IO[bytes], path: bytes, size_bytes: int, skips: SkipCounter | None = None
) -> Iterator[Member]:
    """Yield the images of a shard, in their order. `path` is for messages.

    Skipped members are counted in `skips`.

    Raises:
        DatasetError: it is no uncompressed tar, is damaged or cut off, or holds two images of a key
            that cannot be told apart.
        OSError: it cannot be read.
    """
    walk = _Walk(file, path, size_bytes, SkipCounter() if skips is None else skips)
    try:
        yield from walk.members()
    except (tarfile.TarError, ValueError, OverflowError, EOFError, MemoryError) as error:
        file.seek(0)
        head = file.read(HEAD_BYTES)
        raise DatasetError(
            f"shard {shown(path)} is not a whole, uncompressed tar, but {describe(head)}: {error}. "
            f"Get it again, or unpack it (gunzip)."
        ) from None


class _Walk:
    """One shard that is walked: archive by archive, most often only one."""

    def __init__(self, file: IO[bytes], path: bytes, size_bytes: int, skips: SkipCounter) -> None:
        self._file = file
        self._path = path
        self._name = os.path.basename(path)
        self._size_bytes = size_bytes
        self._skips = skips
        self._number = 0

    def members(self) -> Iterator[Member]:
        start: int | None = 0
        while start is not None:
            groups = _Groups(self._path, self._note)
            self._file.seek(start)
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                for entry in self._entries(archive, start):
                    yield from self._sort_in(entry, groups)
                end = archive.offset
            yield from groups.rest()
            start = self._behind(start, end)

    def _note(self, kind: str, member: bytes, *, is_image: bool = False) -> None:
        self._skips.note(kind, self._name + b"/" + member, is_image=is_image)

    def _entries(self, archive: tarfile.TarFile, start: int) -> Iterator[_Entry]:
        targets: dict[bytes, _Entry | bytes] | None = None
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # it would keep every member
            name = _name_of(info)
            if info.islnk() or info.issym():
                if targets is None:
                    at = archive.offset
                    targets = self._targets(start)
                    self._file.seek(at)
                found = _follow(name, targets)
                if found is not None:
                    self._number += 1
                    yield _Entry(self._number, name, found.offset, found.size_bytes)
                else:
                    kind = "links that lead to no member"
                    self._note(kind, name, is_image=_is_image(name))
            elif info.isreg() and not info.issparse():
                self._check(name, info)
                self._number += 1
                yield _Entry(self._number, name, info.offset_data, info.size)
            elif not info.isdir():
                self._note("that are no files", name)

    def _check(self, name: bytes, info: tarfile.TarInfo) -> None:
        if info.offset_data + info.size > self._size_bytes:
            raise DatasetError(
                f"shard {shown(self._path)}: {shown(name)} ends at byte "
                f"{info.offset_data + info.size} of {self._size_bytes}. The shard is cut off; get "
                f"it again."
            )

    def _targets(self, start: int) -> dict[bytes, _Entry | bytes]:
        """Walk the archive separately, to learn where links lead. Few archives have any."""
        targets: dict[bytes, _Entry | bytes] = {}
        self._file.seek(start)
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                name = _name_of(info)
                if info.islnk():
                    targets.setdefault(name, _plain(os.fsencode(info.linkname)))
                elif info.issym():
                    beside = posixpath.join(posixpath.dirname(name), os.fsencode(info.linkname))
                    targets.setdefault(name, _plain(beside))
                elif info.isreg() and not info.issparse():
                    targets[name] = _Entry(0, name, info.offset_data, info.size)
        return targets

    def _sort_in(self, entry: _Entry, groups: _Groups) -> Iterator[Member]:
        folder, slash, last = entry.path.rpartition(b"/")
        stem, dot, field = last.partition(b".")
        field = field.lower()
        if not stem:
            self._note(HIDDEN, entry.path)
        elif entry.path.startswith(b"__MACOSX/"):
            self._note("in __MACOSX", entry.path)
        elif not dot:
            self._note(NO_ENDING, entry.path)
        else:
            ending = field.rpartition(b".")[2]
            if ending not in _SIDECARS and ending not in _PRECEDENCE:
                kind = kind_of(last)
                self._note(kind, entry.path, is_image=is_image_kind(kind))
                return
            yield from groups.begin(folder + slash + stem)
            if ending in _SIDECARS:
                groups.current.hear(field, entry, self._read(entry, _SIDECARS[ending]))
            else:
                if (earlier := groups.current.images.get(field)) is not None:
                    self._note(_AGAIN, earlier.path, is_image=True)
                groups.current.images[field] = entry

    def _read(self, entry: _Entry, most: int) -> bytes | None:
        if entry.size_bytes > most:
            return None
        self._file.seek(entry.offset)  # the walk seeks before it reads
        return self._file.read(entry.size_bytes)

    def _behind(self, start: int, end: int) -> int | None:
        """Find where the next archive begins behind one that ended; None at the end of the file."""
        self._file.seek(end)
        block = self._file.read(_BLOCK)
        if block and any(block):
            if start and end == start:
                self._note("bytes behind its end that are no tar", b"", is_image=True)
                return None
            raise DatasetError(
                f"shard {shown(self._path)}: at byte {end} of {self._size_bytes} expected a "
                f"member, got {describe(block)}. The shard is damaged or cut off; get it again."
            )
        while block:
            if any(block):
                return end + len(block) - len(block.lstrip(b"\0")) & -_BLOCK
            end += len(block)
            block = self._file.read(_ZEROS_AT_ONCE)
        return None


class _Group:
    """The members of one key: images by their fields, and sidecars by the stem of a field.

    An image's own sidecars are those with its name up to the last dot: `img.0001.jpg` has
    `img.0001.cls`. An image in a field without dots (`017.jpg`) is the image of its key; images
    beside it are other fields (`017.seg.png`). Without such an image, the key's `.cls` belongs to
    its only image; of several, it is unknown which one is meant. If no class is given, each image
    is a sample.
    """

    __slots__ = ("images", "key", "others", "said")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.images: dict[bytes, _Entry] = {}
        self.said: dict[bytes, SidecarLabels] = {}
        self.others: dict[bytes, bytes] = {}  # sidecars by stem

    def hear(self, field: bytes, entry: _Entry, content: bytes | None) -> None:
        stem, _, ending = field.rpartition(b".")
        self.said.setdefault(stem, SidecarLabels()).take(ending, content, entry.size_bytes)
        self.others[stem] = entry.path

    def unite(self, other: _Group) -> None:
        """Add the members of the same key that came later."""
        self.images |= other.images
        self.others |= other.others
        for stem, said in other.said.items():
            known = self.said.setdefault(stem, said)
            known.cls = said.cls if known.cls is None else known.cls
            known.json = said.json if known.json is None else known.json
            known.unread = known.unread or said.unread

    @property
    def is_settled(self) -> bool:
        """Whether its image has a label, or each of its images one of its own."""
        fields = [field for field in self.images if b"." not in field] or list(self.images)
        return bool(fields) and all(
            (said := self.said.get(_stem(field))) is not None and said.has_label for field in fields
        )


class _Groups:
    """The keys of an archive. Complete neighbours are yielded at once, others at its end."""

    def __init__(self, path: bytes, note: Any) -> None:
        self._path = path
        self._note = note
        self.current = _Group(b"")
        self._waiting: dict[bytes, _Group] = {}
        self._done: set[int] = set()  # hashes of keys that were yielded

    def begin(self, key: bytes) -> Iterator[Member]:
        """Continue with a key. Yields what is complete by then."""
        if key != self.current.key:
            yield from self._end()
            self.current = _Group(key)

    def _end(self) -> Iterator[Member]:
        group = self.current
        if group.is_settled and not self._waiting:
            self._done.add(hash(group.key))
            yield from (member for _, member in self._told(group))
        elif hash(group.key) in self._done and not group.is_settled:
            for path in [*(entry.path for entry in group.images.values()), *group.others.values()]:
                self._note("far behind their sample", path, is_image=True)
        elif (waiting := self._waiting.get(group.key)) is not None:
            for field in waiting.images.keys() & group.images.keys():
                self._note(_AGAIN, waiting.images[field].path, is_image=True)
            waiting.unite(group)
        elif group.images or group.said:
            self._waiting[group.key] = group

    def rest(self) -> Iterator[Member]:
        """Yield the rest, in the order of the archive."""
        yield from self._end()
        told = [pair for group in self._waiting.values() for pair in self._told(group)]
        yield from (member for _, member in sorted(told, key=lambda pair: pair[0]))

    def _told(self, group: _Group) -> Iterator[tuple[int, Member]]:
        said, images = group.said, group.images
        plain = [field for field in images if b"." not in field]
        first = min(plain, key=lambda field: _PRECEDENCE[field], default=b"")
        heard: set[bytes] = set()
        undecided: list[_Entry] = []
        for field, entry in images.items():
            stem = _stem(field)
            own = said.get(stem)
            if field == first or (stem and own is not None and (own.has_label or not first)):
                heard.add(stem)
                yield entry.number, _member(entry, own)
            elif first:
                self._note(f".{field.decode('utf-8', 'replace')}", entry.path, is_image=True)
            else:
                undecided.append(entry)
        whole = said.get(b"")
        if len(undecided) > 1 and whole is not None and whole.has_label:
            raise self._which(group, undecided)
        for entry in undecided:
            heard.add(b"")
            yield entry.number, _member(entry, whole)
        for stem, one in said.items():
            if stem not in heard and one.has_label:
                self._note("labels without an image", group.others[stem], is_image=True)

    def _which(self, group: _Group, images: list[_Entry]) -> DatasetError:
        names = " and ".join(shown(entry.path) for entry in images[:2])
        return DatasetError(
            f"shard {shown(self._path)}: {names} are images of one sample, whose label is in "
            f"{shown(group.others[b''])}: which is it for? Name the image "
            f"{shown(group.key)}.jpg, or give each a label of its own."
        )


def _stem(field: bytes) -> bytes:
    return field.rpartition(b".")[0]


def _member(entry: _Entry, said: SidecarLabels | None) -> Member:
    return Member(entry.path, entry.offset, entry.size_bytes, _NOTHING if said is None else said)


def _is_image(name: bytes) -> bool:
    return name.rpartition(b".")[2].lower() in _PRECEDENCE


def _name_of(info: tarfile.TarInfo) -> bytes:
    return os.fsencode(info.name).removeprefix(b"./")


def _plain(name: bytes) -> bytes:
    """Normalise the name of a link's target to the form of members' names."""
    return posixpath.normpath(name).removeprefix(b"/")


def _follow(name: bytes, targets: dict[bytes, _Entry | bytes]) -> _Entry | None:
    """Find the member that a link leads to; None if there is none."""
    found: _Entry | bytes | None = targets.get(name)
    for _ in range(_LINKS_MAX):
        if found is None or isinstance(found, _Entry):
            return found
        found = targets.get(found)
    return None
