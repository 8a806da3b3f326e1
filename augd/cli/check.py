"""`augd check`: report what a dataset holds, and which of its files cannot be used.

`examine` reads every file. The command writes nothing but the dataset's index in the user's cache.
"""

from __future__ import annotations

import json
import os
import sys
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.index_file import IndexFile
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.scan.likely_mistakes import doubts_of
from augd.dataset.scan_result import say_splits, shown
from augd.diagnostics.check_workers import Examined, examine_all
from augd.diagnostics.formatting import say_size, section
from augd.diagnostics.progress_bar import ProgressBar
from augd.errors import DatasetError, counted
from augd.process.resource_limits import num_cores

_HUGE_PIXELS = 12_000_000
_CLASSES_SHOWN = 20
_TRUTHS = "0/1"
_OF_TRUTHS = {"kind": _TRUTHS}
_NOTHING_BAD, _BAD_FILES, _NOT_LOOKED = 0, 1, 2


def run_check(path: str, as_json: bool) -> int:
    """Check every file and print the result; returns the exit status that `--help` documents."""
    try:
        report = check(path)
    except DatasetError as error:
        print(f"augd: error: {error}", file=sys.stderr)
        return _NOT_LOOKED
    if as_json:
        print(json.dumps(report))
    else:
        print("\n".join(lines(report)))
    return _BAD_FILES if report["bad"] else _NOTHING_BAD


def check(path: str) -> dict[str, Any]:
    """Check every file of a folder or manifest; returns the result as plain data.

    Raises:
        DatasetError: there is no dataset at `path`.
    """
    started = time.monotonic()
    with ProgressBar("indexing") as progress:
        index = load_or_build(path, rebuild=True, progress=progress)
    try:
        arrays = IndexArrays(index.fd, index.dims_fd)
        report = _describe(path, index, arrays)
        report |= _Findings(arrays).of(_watched(index))
    finally:
        index.close()
    return {**report, "seconds": time.monotonic() - started}


def _watched(index: IndexFile) -> Iterator[Examined]:
    num_workers = min(num_cores(), index.num_samples)
    with ProgressBar("looking at files", index.num_samples) as progress:
        for num_done, found in enumerate(examine_all(index, num_workers), 1):
            yield found
            progress(num_done)


def _describe(path: str, index: IndexFile, arrays: IndexArrays) -> dict[str, Any]:
    """Describe what the index records, without reading a file."""
    targets = _targets(index.classes, arrays)
    if arrays.targets is not None:
        counts = (arrays.targets > 0).sum(axis=0).tolist()
        is_of_truths = all(one["kind"] == _TRUTHS for one in targets.values())
        num_unlabelled = int((~(arrays.targets > 0).any(axis=1)).sum()) if is_of_truths else 0
    else:
        labels = arrays.labels[arrays.labels >= 0]
        counts = np.bincount(labels, minlength=len(index.classes)).tolist()
        num_unlabelled = index.num_samples - len(labels)
    classes = dict(zip(index.classes, counts, strict=False))
    return {
        "path": path,
        "num_samples": index.num_samples,
        "size_bytes": int(arrays.sizes_bytes.sum()),
        "is_multi_label": arrays.targets is not None,
        "splits": {name or "none": count for name, count in index.count_splits().items()},
        "notes": [*index.notes, *doubts_of(index)],
        "classes": classes,
        "targets": targets,
        "empty_classes": [
            name
            for name, count in classes.items()
            if not count and targets.get(name, _OF_TRUTHS)["kind"] == _TRUTHS
        ],
        "num_unlabelled": num_unlabelled,
        "not_read": [
            {"kind": one.kind, "count": one.count, "names": list(map(shown, one.names))}
            for one in index.skipped
        ],
    }


def _targets(names: Sequence[str], arrays: IndexArrays) -> dict[str, dict[str, Any]]:
    """Describe the numbers of each target column; empty for a dataset of classes."""
    if arrays.targets is None:
        return {}
    found = {}
    for name, column in zip(names, arrays.targets.T, strict=True):
        is_of_truths = bool(((column == 0) | (column == 1)).all())
        ends = {"min": float(column.min()), "max": float(column.max())}
        found[name] = {"kind": _TRUTHS if is_of_truths else "float", **ends}
    return found


class _Findings:
    """Collects the results for the files; keeps only the size of an ordinary one."""

    def __init__(self, arrays: IndexArrays) -> None:
        self._arrays = arrays
        self._formats: Counter[str] = Counter()
        self._widths, self._heights = array("i"), array("i")
        self._bad: list[dict[str, Any]] = []
        self._rotated: list[dict[str, Any]] = []
        self._huge: list[dict[str, Any]] = []
        self._twins: defaultdict[str, list[int]] = defaultdict(list)

    def of(self, found: Iterable[Examined]) -> dict[str, Any]:
        for one in found:
            if one.reason:
                self._bad.append({**self._name(one.sample), "reason": one.reason})
            else:
                self._take(one)
        return {
            "formats": dict(self._formats.most_common()),
            "width_px": _spread(self._widths),
            "height_px": _spread(self._heights),
            "bad": self._bad,
            "rotated": self._rotated,
            "huge": self._huge,
            "duplicates": [self._twin(them) for them in self._twins.values() if len(them) > 1],
        }

    def _take(self, one: Examined) -> None:
        self._formats[one.format] += 1
        self._widths.append(one.width)
        self._heights.append(one.height)
        if one.orientation != 1:
            self._rotated.append({**self._name(one.sample), "orientation": one.orientation})
        if one.width * one.height > _HUGE_PIXELS:
            size = {"width": one.width, "height": one.height}
            self._huge.append({**self._name(one.sample), **size})
        if one.digest:
            self._twins[one.digest].append(one.sample)

    def _name(self, sample: int) -> dict[str, Any]:
        return {"id": sample, "path": self._arrays.path(sample)}

    def _twin(self, samples: Sequence[int]) -> dict[str, Any]:
        labels = self._arrays.labels if self._arrays.targets is None else self._arrays.targets
        is_torn = any((labels[sample] != labels[samples[0]]).any() for sample in samples)
        return {"labels_differ": is_torn, "files": [self._name(sample) for sample in samples]}


def _spread(values: Sequence[int]) -> dict[str, int] | None:
    if not values:
        return None
    return {"min": min(values), "median": int(median(values)), "max": max(values)}


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a report for people, line by line."""
    bad, num_samples = report["bad"], report["num_samples"]
    where = shown(os.fsencode(report["path"]))
    yield f"{where}: {counted(num_samples, 'image')}, {say_size(report['size_bytes'])}"
    yield from _statistics(report)
    yield from section(
        f"{counted(len(bad), 'bad file')}, whose rows would be masked",
        [f"{one['path']}: {one['reason']}" for one in bad],
    )
    rotated = report["rotated"]
    yield from section(
        f"{counted(len(rotated), 'file')} rotated by EXIF: augd takes pixels as they are stored",
        [f"{one['path']}: orientation {one['orientation']}" for one in rotated],
    )
    huge = report["huge"]
    yield from section(
        f"{counted(len(huge), 'file')} of more than 12 megapixels: "
        f"decoding them takes most of the time",
        [f"{one['path']}: {one['width']}×{one['height']}" for one in huge],
    )
    duplicates = report["duplicates"]
    yield from section(
        f"{counted(len(duplicates), 'group')} of equal files",
        [_say_twins(one) for one in duplicates],
    )
    yield from section("not read", list(map(_say_not_read, report["not_read"])))
    empty = report["empty_classes"]
    yield from section(f"{counted(len(empty), 'class', 'classes')} without an image", empty)
    yield ""
    checked = f"{counted(num_samples, 'file')} looked at in {report['seconds']:.1f} s"
    yield f"{checked}: {f'{len(bad):,} bad' if bad else 'every one decodes'}."


def _statistics(report: Mapping[str, Any]) -> Iterator[str]:
    if report["formats"]:
        formats = (f"{count:,} {name}" for name, count in report["formats"].items())
        yield f"  format   {', '.join(formats)}"
    for side in ("width", "height"):
        if (spread := report[f"{side}_px"]) is not None:
            yield f"  {side:8} {spread['min']:,} to {spread['max']:,}, median {spread['median']:,}"
    if report["splits"]:
        yield f"  splits   {say_splits(report['splits'])}"
    if report["targets"]:
        yield f"  targets  {_list_targets(report['targets'], report['classes'])}"
    elif report["classes"]:
        yield f"  classes  {_say_classes(report['classes'])}"
        yield f"           {_list_classes(report['classes'])}"
    else:
        yield "  classes  none: the images have no labels"
    if report["classes"] and report["num_unlabelled"]:
        yield f"  no label {counted(report['num_unlabelled'], 'image')}"
    for note in report["notes"]:
        yield f"  note     {note}"


def _say_classes(classes: Mapping[str, int]) -> str:
    least, most = min(classes, key=classes.__getitem__), max(classes, key=classes.__getitem__)
    if classes[least] == classes[most]:
        return f"{len(classes):,}, of {counted(classes[least], 'image')} each"
    fewest, largest = (f"{classes[name]:,} ({shown(name.encode())})" for name in (least, most))
    return (
        f"{len(classes):,}, of {fewest} to {largest} images, median {median(classes.values()):,.0f}"
    )


def _list_classes(classes: Mapping[str, int]) -> str:
    """List classes as labels number them, each with its images."""
    first = list(classes.items())[:_CLASSES_SHOWN]
    said = ", ".join(f"{k} {shown(name.encode())} ({n:,})" for k, (name, n) in enumerate(first))
    left = len(classes) - len(first)
    return f"{said}, and {left:,} more (--json has all)" if left else said


def _list_targets(targets: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    """List the columns of targets, and what their numbers are."""
    said = [
        f"{shown(name.encode())} 0/1 ({counts[name]:,})"
        if one["kind"] == _TRUTHS
        else f"{shown(name.encode())} float ({one['min']:g} to {one['max']:g})"
        for name, one in list(targets.items())[:_CLASSES_SHOWN]
    ]
    left = len(targets) - len(said)
    return ", ".join(said) + (f", and {left:,} more (--json has all)" if left else "")


def _say_not_read(kind: Mapping[str, Any]) -> str:
    more = ", ..." if kind["count"] > len(kind["names"]) else ""
    return f"{kind['count']:,} {kind['kind']}: {', '.join(kind['names'])}{more}"


def _say_twins(group: Mapping[str, Any]) -> str:
    paths = [one["path"] for one in group["files"]]
    said = " = ".join(paths[:3]) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")
    return f"{said} (their labels differ)" if group["labels_differ"] else said
