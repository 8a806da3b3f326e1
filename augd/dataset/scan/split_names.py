"""Recognises the names of splits: of folders, of shards, and in a column.

The scan of folders (`folder`), the walk of shards (`shards`) and manifests all use these rules. The
words are those that the Hugging Face libraries document, in any case, alone or with common
additions: `Train`, `test_set`, `trainset`, `val2017`.

Invariants: pure; a name is read by itself, and other names beside it count only if none was
recognised (`read_beside`). Imports no NumPy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

_WORDS: Final = {
    **dict.fromkeys(("train", "training", "trn"), 1),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "development"), 2),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), 3),
}
_FILLERS: Final = frozenset(
    ("set", "data", "dataset", "split", "images", "image", "imgs", "img", "photos", "pictures")
)
_YEAR: Final = re.compile(r"(?<![0-9])(?:19|20)[0-9]{2}(?![0-9])")  # as in COCO's train2017
_APART: Final = re.compile(r"[^a-z0-9]+")
_LEADING: Final = re.compile(r"([a-z]+)(?![a-z])")
_NEAR: Final = re.compile(f"(?i:{'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![a-z])")
# Names that are hardly classes, of folders beside splits.
_BESIDE: Final = frozenset(
    (
        *("unlabeled", "unlabelled", "unlabel", "unsup", "unsupervised", "extra", "holdout"),
        *("trainval", "predict", "pred", "prediction", "inference", "submission", "all"),
    )
)


def split_named(name: str) -> int:
    """Read a folder's name, or a value in a column, as a split: 1 train, 2 val, 3 test, else 0."""
    words = [word for word in _APART.split(_YEAR.sub(" ", name.lower())) if word]
    codes = [code for word in words if (code := _code(word))]
    rest = [word for word in words if not _code(word) and word not in _FILLERS]
    return codes[0] if len(codes) == 1 and not rest else 0


def split_begun(name: str) -> int:
    """Read a shard's name as a split, by the word that it begins with: `train-0017.tar`."""
    found = _LEADING.match(name.lower())
    return _code(found[1]) if found else 0


def read_beside(names: Iterable[str]) -> dict[str, int]:
    """Read splits from names that differ in nothing else: `seg_train` beside `seg_test`.

    One such name alone is no split: `crash-test`.
    """
    groups: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for name in names:
        found = [m for m in re.finditer(r"[a-z]+", name.lower()) if m[0] in _WORDS]
        if len(found) == 1:
            before, after = name[: found[0].start()], name[found[0].end() :]
            key = re.sub("[0-9]+", "0", before), re.sub("[0-9]+", "0", after)
            groups[key][name] = _WORDS[found[0][0]]
    return {
        name: code
        for codes in groups.values()
        if len(set(codes.values())) > 1
        for name, code in codes.items()
    }


def named_nearly(names: Iterable[str]) -> list[str]:
    """Return names that begin as different splits do, and are not read as such: trainA, test1."""
    found = {name: code for name in sorted(names) if (code := _begun_nearly(name))}
    return list(found) if len(set(found.values())) > 1 else []


def _begun_nearly(name: str) -> int:
    begun = _NEAR.match(name)
    is_longer = begun is not None and begun[0].isupper() and name[begun.end() :][:1].isalpha()
    return 0 if begun is None or is_longer else _WORDS[begun[0].lower()]


def is_beside_splits(name: str) -> bool:
    """Return whether a folder often lies beside splits, and is hardly a class."""
    return any(word in _BESIDE for word in _APART.split(name.lower()))


def _code(word: str) -> int:
    """Read one word; `trainset` and `testdata` count as two."""
    if word in _WORDS:
        return _WORDS[word]
    for filler in _FILLERS:
        if word.endswith(filler) and word.removesuffix(filler) in _WORDS:
            return _WORDS[word.removesuffix(filler)]
    return 0
