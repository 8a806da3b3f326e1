"""docs/augmentation.md: its tables are those of the code, and every op has all that it needs."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from augd.plan.ops.registry import OPS_BY_NAME
from augd.plan.recipe.recipe import PRESETS, parse_recipe
from demo.pictures import PAGE, PICTURES, SCENES, TOGETHER, fill_page

TEXT = PAGE.read_text(encoding="utf-8")


def section_of(op: str) -> str:
    found = re.search(rf"^### {op}\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"no section ### {op}"
    return found[1]


def test_the_tables_are_those_of_the_structs() -> None:
    assert fill_page(TEXT) == TEXT, "run `make docs`"
    stale = TEXT.replace("`alpha_std=0.1`", "`alpha_std=0.2`")
    assert stale != TEXT
    assert fill_page(stale) == TEXT


@pytest.mark.parametrize("op", OPS_BY_NAME)
def test_every_op_has_picture_source_and_warning(op: str) -> None:
    section = section_of(op)
    assert f"![](pictures/{op}.webp)" in section
    assert "*Source*: " in section
    assert "*Not*: " in section
    assert any(one["op"] == op for one in SCENES[op][0]["ops"])
    parse_recipe(SCENES[op][0])


def test_no_section_is_of_an_op_that_is_gone() -> None:
    sections = set(re.findall(r"^### (\w+)$", TEXT, re.MULTILINE))
    assert sections == set(OPS_BY_NAME)


def test_every_picture_is_shown_and_opens() -> None:
    shown = set(re.findall(r"\(pictures/([\w.]+)\)", TEXT))
    files = {path.name: path.stat().st_size for path in PICTURES.iterdir()}
    assert shown == set(files)
    assert sum(files.values()) < 2_000_000
    for name in files:
        with Image.open(PICTURES / name) as picture:
            assert 200 < picture.width < 1300
    parse_recipe(TOGETHER)


def test_presets_that_are_named_exist_and_all_are() -> None:
    table = TEXT.partition("| for | training")[2].partition("\n\n")[0]
    named = {name for name in re.findall(r"`([\w-]+)`", table) if name not in OPS_BY_NAME}
    assert named == set(PRESETS)
