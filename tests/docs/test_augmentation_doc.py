"""The pages on augmentation: their tables are those of the code, and every op has all it needs."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from augd.plan.ops.all_ops import OPS_BY_NAME
from augd.plan.recipe.recipe import PRESETS, parse_recipe
from demo.op_images import DOCS, IMAGES, PAGES, SCENES, SECTIONS, TOGETHER, fill_page, page_of

TEXTS = {name: page.read_text(encoding="utf-8") for name, page in PAGES.items()}
OPS_PAGES = [DOCS / page for page in SECTIONS.values()]


def section_of(op: str) -> str:
    found = re.search(
        rf"^### {op}\n(.*?)(?=^##|\Z)", page_of(op).read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"no section ### {op}"
    return found[1]


@pytest.mark.parametrize(
    ("name", "now", "before"),
    [
        ("ops", "`alpha_std=0.1`", "`alpha_std=0.2`"),
        ("ops", "(augmentation/colour.md#hue)", "(augmentation/crops.md#hue)"),
        ("settings", "`antialias`, `linear`", "`antialias`"),
    ],
)
def test_the_tables_are_those_of_the_structs(name: str, now: str, before: str) -> None:
    text = TEXTS[name]
    assert fill_page(name, text) == text, "run `make docs`"
    stale = text.replace(now, before)
    assert stale != text
    assert fill_page(name, stale) == text


@pytest.mark.parametrize("op", OPS_BY_NAME)
def test_every_op_has_image_source_and_warning(op: str) -> None:
    section = section_of(op)
    assert f"![](../images/{op}.webp)" in section
    assert "*Source*: " in section
    assert "*Not*: " in section
    assert any(one["op"] == op for one in SCENES[op][0]["ops"])
    parse_recipe(SCENES[op][0])


def test_no_section_is_of_an_op_that_is_gone() -> None:
    text = "".join(page.read_text() for page in OPS_PAGES)
    sections = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert sorted(sections) == sorted(OPS_BY_NAME)


def test_every_image_is_shown_and_opens() -> None:
    pages = [*OPS_PAGES, *PAGES.values()]
    text = "".join(page.read_text() for page in pages)
    shown = set(re.findall(r"\((?:\.\./)?images/([\w.]+)\)", text))
    files = {path.name: path.stat().st_size for path in IMAGES.iterdir()}
    assert shown == set(files)
    assert sum(files.values()) < 3_000_000
    for name in files:
        with Image.open(IMAGES / name) as image:
            assert 200 < image.width < 1300
    parse_recipe(TOGETHER)


def test_presets_that_are_named_exist_and_all_are() -> None:
    table = TEXTS["ops"].partition("| for | training")[2].partition("\n\n")[0]
    named = {name for name in re.findall(r"`([\w-]+)`", table) if name not in OPS_BY_NAME}
    assert named == set(PRESETS)
