"""Reads a manifest: a table that lists the samples, one row or line for each.

Runs in the daemon, the first time that it opens a dataset that is a `.csv` or `.jsonl` file. Paths
are relative to the dataset's root, or full paths below it. The root is the manifest's folder unless
the operator names another. Sample ids are the rows, in their order.

Invariants: one `lstat` per file, and no file is opened. Nothing outside the root is a sample,
except where the operator allows links. An ambiguous row is rejected by its line, never guessed.
Imports no NumPy.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from augd.dataset.access import is_below
from augd.dataset.scan.label_encoding import LabelEncoding, label_encoding_of
from augd.dataset.scan.manifest_csv_jsonl import BadManifestRow, Columns, Row, open_rows
from augd.dataset.scan.split_names import split_named
from augd.dataset.scan_result import REPORT_EVERY, SPLITS, Progress, ScanResult, shown
from augd.errors import DatasetError, counted, verb
from augd.pixels.headers.formats import HEAD_BYTES, IMAGE_ENDINGS, describe
from augd.process.paths import time_of

_NAMED: Final = 3  # names shown of the missing files
_UNREAD_NAMED: Final = 8  # names shown of the columns without a meaning


def read_manifest(
    path: str | bytes | os.PathLike[str],
    *,
    progress: Progress | None = None,
    root: bytes | None = None,
    links_to: Sequence[bytes] = (),
) -> ScanResult:
    """Read a `.csv` or `.jsonl` manifest with its files' sizes and times.

    CSV: a header row with `path`, and either `label` or columns of numbers, whose names are the
    classes. JSONL: one object per line with "path", and "label" (a name or a number) or "labels"
    (names or numbers). Both may have `split`: train, val or test. `root` is the real path of the
    folder that paths are relative to. Links out of it may lead below `links_to`.

    Raises:
        DatasetError: the manifest is missing, unreadable or empty; a row does not fit (the error
            names its line); or files are missing, listed twice or outside the folder.
    """
    source = real_manifest(path)
    return _Reader(source, progress, root or os.path.dirname(source), links_to).read()


def real_manifest(path: str | bytes | os.PathLike[str]) -> bytes:
    """Resolve a manifest's path.

    Raises:
        DatasetError: missing, not a file, or not reachable.
    """
    given = os.fsencode(path)
    try:
        real = os.path.realpath(given, strict=True)
        is_file = stat.S_ISREG(os.stat(real).st_mode)
    except OSError as error:
        raise DatasetError(
            f"manifest {shown(given)} cannot be read: {error.strerror}. Check the path."
        ) from None
    if not is_file:
        raise DatasetError(f"manifest {shown(given)}: expected a file. Give a .csv or .jsonl file.")
    return real


class _Reader:
    def __init__(
        self, source: bytes, progress: Progress | None, root: bytes, links_to: Sequence[bytes]
    ) -> None:
        self._source = source
        self._root = root
        self._links_to = tuple(links_to)
        self._prefix = os.path.join(self._root, b"")
        self._progress = progress
        self._folders: dict[bytes, bool] = {}
        self._missing: list[str] = []
        self._num_missing = 0
        self._there = b""  # the first missing path, with an ending added
        self._has_splits = False

    def read(self) -> ScanResult:
        is_beside = self._root == os.path.dirname(self._source)
        name = os.path.basename(self._source) if is_beside else self._source
        try:
            watched = {name: time_of(os.stat(self._source))}
            result = ScanResult(self._source, self._root, watched)
            self._read_rows(result)
        except BadManifestRow as bad:
            raise DatasetError(f"{shown(self._source)}, line {bad.line}: {bad}") from None
        except (OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError):
                reason = f"{error.strerror}. Mend the file."
            else:
                reason = _no_text(self._source)
            raise DatasetError(f"manifest {shown(self._source)} cannot be read: {reason}") from None
        if self._progress is not None:
            self._progress(result.num_samples)
        result.links_to = self._links_to
        return result

    def _read_rows(self, result: ScanResult) -> None:
        encoding: LabelEncoding | None = None
        columns = Columns()
        for num_seen, row in enumerate(open_rows(self._source, columns), 1):
            if encoding is None:
                encoding = label_encoding_of(row)
                self._has_splits = row.split is not None
            path, found = self._look_at(row)
            encoding.add(row)
            result.append(path, -1, self._split(row), found)
            if self._progress is not None and num_seen % REPORT_EVERY == 0:
                self._progress(num_seen)
        if encoding is None:
            raise DatasetError(
                f"manifest {shown(self._source)} lists no samples. Give it a row for each image."
            )
        self._refuse_missing(result.num_samples)
        self._refuse_twice(result)
        encoding.finish(result, shown(self._source))
        result.notes = [*columns.notes, *encoding.notes()]
        if unread := sorted(columns.unread):
            names = ", ".join(map(ascii, unread[:_UNREAD_NAMED]))
            more = ", ..." if len(unread) > _UNREAD_NAMED else ""
            result.notes.append(f"columns that mean nothing here: {names}{more}")

    def _split(self, row: Row) -> int:
        if (row.split is not None) != self._has_splits:
            found = "none" if row.split is None else repr(row.split)
            expected = "a split as in the rows before" if self._has_splits else "none as before"
            raise BadManifestRow(
                row.line, f"split: expected {expected}, got {found}. Give all rows one."
            )
        if row.split is None:
            return 0
        if not (code := split_named(row.split)):
            raise BadManifestRow(
                row.line,
                f"split: expected one of {', '.join(SPLITS)}, got {row.split!r}. Correct it.",
            )
        return code

    def _look_at(self, row: Row) -> tuple[bytes, tuple[int, int]]:
        path = self._relative(row)
        full = self._prefix + path
        try:
            found = os.lstat(full)
            if stat.S_ISLNK(found.st_mode):
                self._refuse_way_out(row, path, os.path.realpath(full, strict=True))
                found = os.stat(full)
        except (FileNotFoundError, NotADirectoryError):
            self._num_missing += 1
            if self._num_missing == 1:
                # Lists of competitions hold ids: the files' names without endings.
                endings = (b"." + one for ending in IMAGE_ENDINGS for one in _cases(ending))
                named = (path + ending for ending in endings)
                self._there = next((n for n in named if os.path.exists(self._prefix + n)), b"")
            if len(self._missing) < _NAMED:
                self._missing.append(f"{shown(path)} (line {row.line})")
            return path, (0, 0)
        except OSError as error:
            raise BadManifestRow(
                row.line, f"path: {shown(path)} cannot be read: {error.strerror}. Check it."
            ) from None
        if not stat.S_ISREG(found.st_mode):
            raise BadManifestRow(
                row.line, f"path: expected a file, got {shown(path)}, which is none."
            )
        return path, (found.st_size, time_of(found))

    def _relative(self, row: Row) -> bytes:
        """Normalise a path below the root."""
        try:
            path = os.fsencode(row.path)
        except UnicodeEncodeError:
            raise BadManifestRow(
                row.line,
                f"path: expected bytes, got {ascii(row.path)[:80]}, which stands for none. "
                f"Write it as it is listed.",
            ) from None
        if not path or b"\0" in path:
            raise BadManifestRow(
                row.line, "path: expected the path of a file, got nothing. Fill it in."
            )
        if b"." in path[:1] or b"//" in path or b"/." in path:
            path = os.path.normpath(path)
        if path.startswith(b"/"):
            path = self._from_root(path)
        is_outside = path.startswith((b"/", b"../")) or path == b".."
        folder = path.rpartition(b"/")[0]
        if not is_outside and folder and folder not in self._folders:
            real = os.path.realpath(os.path.join(self._root, folder))
            self._folders[folder] = self._is_let(real)
        if is_outside or not self._folders.get(folder, True):
            self._refuse_way_out(row, path, b"")
        return path

    def _from_root(self, path: bytes) -> bytes:
        """Make a full path relative to the root if it lies below it. Leave any other."""
        if path.startswith(self._prefix):
            return path.removeprefix(self._prefix)
        # The path as written may pass links that the root's real path does not.
        folder, _, name = path.rpartition(b"/")
        real = os.path.join(os.path.realpath(folder or b"/"), name)
        return real.removeprefix(self._prefix)

    def _is_let(self, real: bytes) -> bool:
        return any(is_below(real, folder) for folder in (self._root, *self._links_to))

    def _refuse_way_out(self, row: Row, path: bytes, real: bytes) -> None:
        if not real or not self._is_let(real):
            raise BadManifestRow(
                row.line,
                f"path: expected one relative to {shown(self._root)} and below it, got "
                f"{shown(path)}. Make it relative, or name the folder that all images lie below: "
                f"--root DIR; links may leave it with --links-to DIR.",
            )

    def _refuse_missing(self, num_samples: int) -> None:
        if self._num_missing:
            more = ", ..." if self._num_missing > _NAMED else ""
            todo = "correct them, take the rows out, or name another folder: --root DIR."
            if self._there:
                todo = f"{shown(self._there)} is there: write paths with their endings."
            raise DatasetError(
                f"{shown(self._source)}: {self._num_missing:,} of {counted(num_samples, 'file')} "
                f"{verb(self._num_missing, 'is', 'are')} missing: "
                f"{', '.join(self._missing)}{more}. Paths are relative to {shown(self._root)}; "
                f"{todo}"
            )

    def _refuse_twice(self, result: ScanResult) -> None:
        """Compare paths only if hashes agree: a set of all would take ten times the memory."""
        # The limit's hash serves as well as the split's: both depend on the path alone.
        ordered = sorted(result.limit_hashes)
        twice = {a for a, b in pairwise(ordered) if a == b}
        seen: set[bytes] = set()
        for sample in (i for i, h in enumerate(result.limit_hashes) if twice and h in twice):
            path = result.path(sample)
            if path in seen:
                raise DatasetError(
                    f"{shown(self._source)}: {shown(path)} is listed twice, the second time as "
                    f"sample {sample} (counted from 0). Keep one of the rows."
                )
            seen.add(path)


def _cases(ending: bytes) -> tuple[bytes, bytes]:
    return ending, ending.upper()


def _no_text(source: bytes) -> str:
    """Return what is wrong with a manifest that is not UTF-8, and what to do."""
    with open(source, "rb") as file:
        start = file.read(HEAD_BYTES)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is not UTF-8, but UTF-16. Save it as UTF-8 (iconv -f UTF-16 -t UTF-8)."
    if start.isascii() or b"\0" not in start:
        return "it is not UTF-8. Save it as UTF-8 (of Latin-1: iconv -f LATIN1 -t UTF-8)."
    return f"it is not UTF-8, but {describe(start)}. Give a .csv or .jsonl file of text."
