"""Own sources: datasets that an operator's class reads, from anywhere.

Theory of operation. `augd serve NAME=plugin:MODULE:CLASS?ARGUMENT` names a class with `__len__` and
`read(i) -> (bytes, label)`. The daemon never imports the module. A short-lived process
(`augd.plugins.sources FD PID NAME SOURCE`) creates an object of the class, reads its labels, names
and version, and ends. From this survey the daemon writes an index, as for any dataset. Each
producer creates an object of its own before it confines itself, and reads samples with it in the
same thread. So a class needs no lock, and opens its files while the process is still allowed to.

The index holds the source's identity: a digest of the module's code, the class's name, and the
version that the class returns. A producer whose object has another identity or length never uses
it.

Invariants: an exception or a wrong result of `read` makes its sample bad. If the length changed,
the source is at fault, and its streams end. This module imports no NumPy, and no plug-in until it
must.
"""

from __future__ import annotations

import hashlib
import operator
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from augd.dataset.scan_result import ScanResult
from augd.dataset.source_spec import OwnSource, parse_own
from augd.errors import PluginFailed, counted
from augd.pixels.headers.read_header import BadImage, read_header
from augd.plugins.ops import digest_of, tail_of
from augd.plugins.survey_process import Report, ask, begin
from augd.process import interpreter
from augd.protocol.limits import HEADER_BYTES_MAX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augd.dataset.index_arrays import IndexArrays
    from augd.dataset.index_file import IndexFile

_DIGEST_BYTES: Final = 16
_NO_LABEL: Final = -1
_PATIENCE_S: Final = 300.0  # for one method of the class, or one item of what it yields
_PROBES: Final = 16  # samples whose sizes represent all, if not every sample is read anyway
_TRACE_MAX: Final = HEADER_BYTES_MAX // 40  # up to eight of them are in one message
_Label = int | str | None


class _Survey(msgspec.Struct, omit_defaults=True):
    """What the surveying process writes. Arrays are sent as their bytes."""

    identity: str = ""
    digest: str = ""
    labels: bytes = b""
    sizes_bytes: bytes = b""
    classes: list[str] = []
    names: list[str] | None = None
    first_size_px: tuple[int, int] | None = None
    error: str = ""


# in the surveying process, and in producers


class OwnSamples:
    """An object of a source's class, opened, with its length and identity."""

    def __init__(self, name: str, asked: OwnSource, report: Report | None = None) -> None:
        """Import the module and create the object. In a survey, `report` is told each step.

        Raises:
            PluginFailed: names the source and the exception.
        """
        self.name = f"source {name} ({asked})"
        self._report = report
        self._begin(f"import {asked.module}")
        try:
            module = interpreter.import_named(asked.module)
        except Exception as error:
            if interpreter.is_absence_of(asked.module, error):
                raise PluginFailed(
                    f"{self.name}: its module cannot be imported: {error}. {interpreter.HOW_NAMED}"
                ) from None
            raise self._failure("its module cannot be imported", error) from None
        made: Any = getattr(module, asked.class_name, None)
        if not isinstance(made, type):
            raise PluginFailed(
                f"{self.name}: expected a class {asked.class_name} in {module.__file__}, got "
                f"{type(made).__name__}. Name the class that reads the samples"
            )
        for method in ("__len__", "read"):
            if not callable(getattr(made, method, None)):
                raise PluginFailed(
                    f"{self.name}: expected a method {method} of {asked.class_name}, got none; "
                    "see docs/own-sources.md"
                )
        self._begin(f"{asked.class_name}()")
        self.object = self._ask(
            "cannot be made", made if asked.argument is None else lambda: made(asked.argument)
        )
        self.length: int = self._ask("__len__ failed", lambda: len(self.object))
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        version = self._optional("digest") or ""
        for part in (digest_of(module), asked.class_name, str(version)):
            digest.update(f"{len(part)} {part}\n".encode())
        self.identity = digest.hexdigest()

    def _begin(self, step: str) -> None:
        if self._report is not None:
            self._report.step(step)

    def _ask(self, what: str, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except Exception as error:
            raise self._failure(what, error) from None

    def _failure(self, what: str, error: Exception) -> PluginFailed:
        return PluginFailed(f"{self.name}: {what}: {tail_of(error)}")

    def _optional(self, method: str) -> Any:
        """Call a method that a class may have; None if it has none."""
        question = getattr(self.object, method, None)
        if question is None:
            return None
        self._begin(f"{method}()")
        return self._ask(f"{method}() failed", question)

    def _optional_list(self, method: str) -> list[Any] | None:
        """Call such a method and collect what it gives. Each item of a generator is progress."""
        given = self._optional(method)
        if given is None:
            return None
        watched = self._watched(method, given)
        found: list[Any] = self._ask(f"{method}() failed", lambda: list(watched))
        return found

    def _watched(self, method: str, given: Iterable[Any]) -> Iterator[Any]:
        for number, item in enumerate(given):
            if self._report is not None:
                self._report.item(f"{method}(), item {number}")
            yield item

    def read(self, sample: int) -> tuple[bytes, _Label]:
        """Read a sample.

        Raises:
            BadImage: this sample cannot be read, or is invalid.
            PluginFailed: the length of the source changed.
        """
        try:
            answer = self.object.read(sample)
        except Exception as error:
            length = self._ask("__len__ failed", lambda: len(self.object))
            if length != self.length:
                raise PluginFailed(
                    f"{self.name} changed: expected {counted(self.length, 'sample')}, got "
                    f"{length}. Restart "
                    "the daemon"
                ) from error
            trace = tail_of(error)[-_TRACE_MAX:]
            raise BadImage(f"{self.name}: read({sample}) raised {trace}") from None
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise BadImage(
                f"{self.name}: read({sample}): expected (bytes, label), got {_kind(answer)}"
            )
        content, label = answer
        if not isinstance(content, bytes | bytearray | memoryview):
            raise BadImage(
                f"{self.name}: read({sample}): expected bytes and a label, got {_kind(content)}"
            )
        return bytes(content), _plain(label)

    def survey(self) -> _Survey:
        """Collect what an index holds. Without `labels()`, every sample is read once."""
        if not self.length:
            raise PluginFailed(f"{self.name}: expected samples, got 0; give it some")
        given = self._optional_list("labels")
        sizes = array("q", bytes(8 * self.length))
        if given is None:
            labels = [self._look(sample, sizes) for sample in range(self.length)]
        else:
            labels = [_plain(label) for label in given]
            probes = range(0, self.length, -(-self.length // _PROBES))
            for sample in probes:
                self._look(sample, sizes)
            sizes = array("q", [max(sizes)]) * self.length
        self._check_count("labels()", labels)
        names = self._optional_list("names")
        if names is not None:
            names = [str(name) for name in names]
            self._check_count("names()", names)
            if len(set(names)) != len(names):
                raise PluginFailed(f"{self.name}: names(): expected each name once")
        numbers, classes = self._number(labels)
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES, person=b"augd.own.1")
        digest.update(msgspec.msgpack.encode((self.identity, classes, names)))
        digest.update(numbers.tobytes())
        return _Survey(
            identity=self.identity,
            digest=digest.hexdigest(),
            labels=numbers.tobytes(),
            sizes_bytes=sizes.tobytes(),
            classes=classes,
            names=names,
            first_size_px=self._first_size_px(),
        )

    def _look(self, sample: int, sizes: array[int]) -> _Label:
        """Record a sample's size and return its label. A bad one has neither."""
        if self._report is not None:
            self._report.item(f"read({sample})")
        try:
            content, label = self.read(sample)
        except BadImage:
            return None
        sizes[sample] = len(content)
        return label

    def _check_count(self, what: str, found: Sequence[Any]) -> None:
        if len(found) != self.length:
            raise PluginFailed(
                f"{self.name}: {what}: expected {self.length} as __len__ says, got {len(found)}"
            )

    def _number(self, labels: list[_Label]) -> tuple[array[int], list[str]]:
        """Turn labels into numbers, and name the classes."""
        given = self._optional_list("classes")
        classes = None if given is None else [str(name) for name in given]
        kinds = {type(label) for label in labels if label is not None}
        if kinds - {int, str} or len(kinds) > 1:
            found = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise PluginFailed(
                f"{self.name}: expected labels that are all numbers, all names, or None, got "
                f"{found}"
            )
        if str in kinds:
            if classes is None:
                classes = sorted({label for label in labels if isinstance(label, str)})
            places: dict[_Label, int] = {name: at for at, name in enumerate(classes)}
        else:
            highest = max((label for label in labels if isinstance(label, int)), default=-1)
            if classes is None:
                classes = [str(number) for number in range(highest + 1)]
            places = {number: number for number in range(len(classes))}
        wrong = next((label for label in labels if label is not None and label not in places), None)
        if wrong is not None:
            raise PluginFailed(
                f"{self.name}: expected a label of {counted(len(classes), 'class', 'classes')}, "
                f"got {wrong!r}"
            )
        places[None] = _NO_LABEL
        return array("q", [places[label] for label in labels]), classes

    def _first_size_px(self) -> tuple[int, int] | None:
        try:
            header = read_header(bytearray(self.read(0)[0]))
        except BadImage:
            return None
        return header.width, header.height


class OwnReader:
    """The samples of an own source in a producer, read by one thread; see
    `dataset.readers.source`."""

    def __init__(self, samples: OwnSamples, index: IndexArrays) -> None:
        """Use an opened source for the dataset of an index.

        Raises:
            PluginFailed: it is not the source that was indexed.
        """
        self._samples, self._index = samples, index
        self.sizes_bytes: NDArray[np.int64] = index.sizes_bytes
        self._numbers: dict[_Label, int] = {name: at for at, name in enumerate(index.classes)}
        if samples.length != index.num_samples:
            raise PluginFailed(
                f"{samples.name} changed: expected {index.num_samples} samples, got "
                f"{samples.length}. Restart the daemon"
            )
        if samples.identity != index.own:
            raise PluginFailed(
                f"{samples.name} changed: its module's code or its digest() is not what it was "
                "when the daemon started. Restart the daemon"
            )

    def path(self, sample: int) -> str:
        """Name a sample for messages."""
        return self._index.path(sample)

    def read(self, sample: int) -> bytearray:
        """Read a sample. Raises BadImage, or PluginFailed if the source is at fault."""
        content, label = self._samples.read(sample)
        number = self._numbers.get(label, _NO_LABEL) if isinstance(label, str) else label
        expected = int(self._index.labels[sample])
        if (_NO_LABEL if number is None else number) != expected:
            raise BadImage(
                f"{self._samples.name}: read({sample}): expected label {expected} as when it was "
                f"indexed, got {label!r}"
            )
        if not content:
            raise BadImage(f"{self._samples.name}: read({sample}): expected bytes, got none")
        return bytearray(content)

    def read_region(self, sample: int, region: object) -> bytearray:
        """Read the whole sample: where in it a region lies is unknown."""
        return self.read(sample)

    def close(self) -> None:
        """Do nothing: the object lives as long as its process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OwnSources:
    """All own sources of a producer, created before it confines itself."""

    def __init__(self, asked: Mapping[str, str]) -> None:
        """Create an object for each source, by dataset. `open` reports failures."""
        self._made: dict[str, OwnSamples | PluginFailed] = {}
        for name, text in asked.items():
            source = parse_own(text)
            assert source is not None
            try:
                self._made[name] = OwnSamples(name, source)
            except PluginFailed as failure:
                self._made[name] = failure

    def open(self, name: str, index: IndexArrays) -> OwnReader:
        """Return the source of a dataset. Raises PluginFailed if it cannot be used."""
        made = self._made[name]
        if isinstance(made, PluginFailed):
            raise made
        return OwnReader(made, index)


def _plain(label: Any) -> _Label:
    """Read a label: a name, None, or any whole number, such as NumPy's."""
    if label is None or isinstance(label, str):
        return label
    try:
        return int(operator.index(label))
    except TypeError:
        return label  # type: ignore[no-any-return]  # the caller names a bad one


def _kind(answer: Any) -> str:
    if isinstance(answer, tuple):
        return f"({', '.join(type(part).__name__ for part in answer)})"
    return type(answer).__name__


# for the daemon


def index_own(name: str, asked: OwnSource) -> IndexFile:
    """Survey a source in another process, and write its index.

    Raises:
        PluginFailed: it cannot be used, with the traceback; or one of its methods takes longer than
            five minutes.
    """
    from augd.dataset.scan.build_index import store_own

    text = ask(
        *("augd.plugins.sources", name, str(asked)),
        subject=f"source {name} ({asked})",
        patience_s=_PATIENCE_S,
        advice="labels() and names() may be generators: each item is progress",
    )
    said = msgspec.msgpack.decode(text, type=_Survey)
    if said.error:
        raise PluginFailed(said.error)
    return store_own(_found(asked, said), said.identity, said.first_size_px)


def _found(asked: OwnSource, said: _Survey) -> ScanResult:
    """Turn a survey into a scan result."""
    labels, sizes = array("q", said.labels), array("q", said.sizes_bytes)
    place = str(asked).encode("utf-8", "surrogateescape")
    found = ScanResult(place, place, {}, said.classes, digest=said.digest)
    names = said.names or (f"{sample:08}" for sample in range(len(labels)))
    for label, size_bytes, name in zip(labels, sizes, names, strict=True):
        found.append(name.encode("utf-8", "surrogateescape"), label, 0, (size_bytes, 0))
    return found


def _main(fd: str, parent_pid: str, name: str, text: str) -> None:
    report = begin(fd, parent_pid)
    asked = parse_own(text)
    assert asked is not None
    try:
        said = OwnSamples(name, asked, report).survey()
    except PluginFailed as failure:
        said = _Survey(error=str(failure))
    report.answer(msgspec.msgpack.encode(said))


if __name__ == "__main__":
    _main(*sys.argv[1:])
