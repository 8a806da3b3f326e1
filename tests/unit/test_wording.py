"""Numbers of things agree with what they count, wherever people read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from augd.client.wait_notice import describe_standstill
from augd.dataset.scan.build_index import load_or_build
from augd.errors import counted, verb
from augd.server.daemon.startup import _introduce


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12_345, "12,345 images")],
)
def test_a_noun_agrees_with_its_number(number: int, said: str) -> None:
    assert counted(number, "image") == said


def test_a_noun_may_have_a_plural_of_its_own() -> None:
    assert counted(1, "class", "classes") == "1 class"
    assert counted(3, "batch", "batches") == "3 batches"
    assert [verb(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("path,label", ["a"], "photos (1 image, 1 class)"),
        ("path,label", ["a", "b"], "photos (2 images, 2 classes)"),
        ("path,age", ["1.5"], "photos (1 image, 1 target)"),
        ("path,age,size", ["1.5,2", "3,4"], "photos (2 images, 2 targets)"),
    ],
)
def test_a_data_set_is_introduced_in_number(
    tmp_path: Path, header: str, rows: list[str], said: str
) -> None:
    for number in range(len(rows)):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    listed = "".join(f"{number}.jpg,{row}\n" for number, row in enumerate(rows))
    (tmp_path / "list.csv").write_text(f"{header}\n{listed}")
    index = load_or_build(tmp_path / "list.csv", cache_dir=tmp_path / "cache")
    assert _introduce("photos", index) == said
    index.close()


def test_a_standstill_is_told_in_number() -> None:
    status = {"producers": [], "num_places": 1, "last_death": "", "daemon_deaths": 1}
    said = describe_standstill({**status, "last_daemon_death": "SIGKILL", "restarts": 0})
    assert (
        said == "0 of its 1 producer is ready; before it 1 daemon died there, the last by SIGKILL"
    )
