"""Images of any paths as streams, without labels: files, folders, manifests, or a daemon's.

Used by `trainer predict` and `trainer export`. Folders and manifests are served as they are, and
files by a manifest that is made for them and removed at the end.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import augd

from .stream import Stream, connect

_MANIFESTS = (".csv", ".jsonl")
# Samples whose paths are asked for at once: each question is a connection.
_NAMED_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class NamedImages:
    """A stream, and what its samples are called.

    Attributes:
        folder: what the paths are below, as it was given.
        names: of files that were given one by one, by their paths.
    """

    stream: Stream
    folder: Path
    names: Mapping[str, str]

    def paths(self, ids: Sequence[int]) -> Iterator[str]:
        """Yield the paths of samples, in this order."""
        for first in range(0, len(ids), _NAMED_AT_ONCE):
            for path in self.stream.paths(ids[first : first + _NAMED_AT_ONCE]):
                yield self.names.get(path) or str(self.folder / path)


def open_images(
    paths: Sequence[str],
    cleaning: ExitStack,
    *,
    address: str | None,
    dataset: str | None,
    producers: int | None,
    **options: Any,
) -> list[NamedImages]:
    """Open a stream for each folder and manifest, and one for all files.

    Args:
        paths: image files, folders and manifests; empty for a daemon that runs.
        cleaning: closes what is opened.
        address: of a daemon that runs; None serves `paths`.
        dataset: which one, if that daemon serves several.
        producers: of a daemon that is started; None is one per core.
        options: of `augd.torch.connect`.

    Raises:
        OptionError: a path does not exist.
        AugdError: as `augd.serve` and `augd.torch.connect` say.
    """
    options = {"shuffle": False, "split": "all", **options}
    if not paths:
        stream = cleaning.enter_context(connect(address, dataset=dataset, **options))
        return [NamedImages(stream, Path(), {})]
    files, others = _sorted(paths)
    names: dict[str, str] = {}
    if files:
        manifest, root, names = _manifest_of(files, cleaning)
        served = augd.serve({"files": manifest}, producers=producers, root=root)
    else:
        served = augd.serve({f"{n}": path for n, path in enumerate(others)}, producers=producers)
    daemon = cleaning.enter_context(served)
    opened = []
    for name in ["files"] if files else map(str, range(len(others))):
        stream = cleaning.enter_context(connect(daemon.address, dataset=name, **options))
        folder = Path() if files else _folder_of(others[int(name)])
        opened.append(NamedImages(stream, folder, names))
    return opened


def _sorted(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return single files, and what is served as it is: there may be one of the two.

    Raises:
        OptionError: a path does not exist, or there are both.
    """
    files: list[str] = []
    others: list[str] = []
    for path in dict.fromkeys(paths):
        is_address = "://" in path
        if not is_address and not Path(path).exists():
            raise augd.OptionError(f"PATH: {path} does not exist")
        is_whole = is_address or Path(path).is_dir() or path.endswith(_MANIFESTS)
        (others if is_whole else files).append(path)
    if files and others:
        raise augd.OptionError(
            f"PATH: expected files alone, or folders and manifests, got both ({files[0]}, "
            f"{others[0]}); give them to two commands"
        )
    return files, others


def _folder_of(path: str) -> Path:
    """Return what the paths of a folder's or a manifest's samples are below."""
    if "://" in path:
        return Path()
    return Path(path) if Path(path).is_dir() else Path(path).parent


def _manifest_of(files: list[str], cleaning: ExitStack) -> tuple[str, str, dict[str, str]]:
    """Write a manifest of files: its path, the folder that they have in common, and their names."""
    whole = [os.path.normpath(Path(path).absolute()) for path in files]
    root = os.path.commonpath([Path(path).parent for path in whole])
    names = {os.path.relpath(path, root): given for path, given in zip(whole, files, strict=True)}
    folder = cleaning.enter_context(tempfile.TemporaryDirectory(prefix="augd-"))
    manifest = Path(folder) / "files.jsonl"
    lines = (json.dumps({"path": name}) for name in names)
    manifest.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(manifest), root, names
