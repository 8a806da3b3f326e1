"""The pages on augmentation: their tables are those of the code, and every op has all it needs."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from augd.plan.ops.all_ops import OPS_BY_NAME
from augd.plan.recipe.published_presets import EVALUATION_OF
from augd.plan.recipe.recipe import PRESETS, Recipe, parse_recipe
from demo.op_images import DOCS, IMAGES, PAGES, SCENES, SECTIONS, TOGETHER, fill_page, page_of

LIBRARIES = (DOCS / "from-other-libraries.md").read_text(encoding="utf-8")
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
    text = "".join([*(page.read_text() for page in pages), LIBRARIES])
    shown = set(re.findall(r"\((?:\.\./)?images/([\w.-]+)\)", text))
    files = {path.name: path.stat().st_size for path in IMAGES.iterdir()}
    assert shown == set(files)
    assert sum(files.values()) < 3_000_000
    for name in files:
        with Image.open(IMAGES / name) as image:
            assert 200 < image.width < 1300
    parse_recipe(TOGETHER)


def test_presets_that_are_named_exist_and_all_are() -> None:
    usual = TEXTS["ops"].partition("| for | training")[2].partition("\n\n")[0]
    published = LIBRARIES.partition("| recipe | preset")[2].partition("\n\n")[0]
    columns = [line.split("|")[2:4] for line in published.splitlines()[2:]]
    text = usual + " ".join(cell for row in columns for cell in row)
    named = {name for name in re.findall(r"`([\w-]+)`", text) if name not in OPS_BY_NAME}
    assert named == set(PRESETS)
    for training, evaluation in columns:
        for name in re.findall(r"`([\w-]+)`", training):
            assert f"`{EVALUATION_OF[name]}`" in evaluation


def test_what_other_libraries_ops_are_called_exists() -> None:
    ops, policies = (LIBRARIES.partition(f"## {name}")[2] for name in ("Ops", "Policies"))
    sections = [text.partition("\n## ")[0] for text in (ops, policies)]
    rows = re.findall(r"^\| `.*", "\n".join(sections), re.MULTILINE)
    assert len(rows) > 40
    known = {*OPS_BY_NAME, *Recipe.__struct_fields__}
    for op in OPS_BY_NAME.values():
        known |= set(op.__struct_fields__)
    for row in rows:
        for words in re.findall(r"`([^`]+)`", row.split(" | ")[1]):
            if words.startswith(("augd ", "augd.", "--")):
                continue
            assert re.match(r"\w+", words)[0] in known, row
