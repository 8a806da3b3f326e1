"""Make the generated parts of the pages on augmentation: an image of each op, and two tables.

`python -m demo.op_images`, or `make docs`. Each image shows a made photo, with outlines of what is
cut from it, beside rows as a network would receive them, from the code that producers run. The
tables come from the ops' own structs, between two marks in the text; a test compares them.

Writes docs/images/ and the marked parts of `PAGES`, and nothing else.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from PIL import Image, ImageDraw, ImageFont

from augd.cli.contact_sheet import Sheet
from augd.cli.preview import make_sheet, make_strip
from augd.cli.recipes import summarise
from augd.diagnostics.sample_renderer import SampleRenderer
from augd.plan.ops.all_ops import IMAGENET_EIGVAL, IMAGENET_EIGVEC, OPS_BY_NAME
from augd.plan.ops.base import BaseOp, name_of
from augd.plan.recipe.mix import Mix
from augd.plan.recipe.phases import parse_stream_recipe
from augd.plan.recipe.published_presets import published_recipes
from augd.plan.recipe.recipe import Recipe, parse_recipe
from demo.photos import make_photo

DOCS = Path(__file__).resolve().parents[1] / "docs"
# The page of each table, and of the sections on the ops of each module of augd.plan.ops.
PAGES: Mapping[str, Path] = {
    "ops": DOCS / "augmentation.md",
    "settings": DOCS / "augmentation" / "rendering.md",
}
SECTIONS: Mapping[str, str] = {
    "crop": "augmentation/crops.md",
    "affine": "augmentation/geometry.md",
    "colour": "augmentation/colour.md",
    "pixel_steps": "augmentation/pixel-steps.md",
    "erase": "augmentation/boxes.md",
    "groups": "augmentation/groups.md",
    "policies": "augmentation/policies.md",
    "views": "augmentation/views.md",
}
IMAGES = DOCS / "images"

_SIDE_PX = 168
_CELLS = 4
_CELLS_PER_ROW = 5  # of view ops
_QUALITY = 78
_TOGETHER_TITLE = "eight ops in one resample and one colour pass"
_DRAWN_CROPS = ("random_resized_crop", "random_crop", "scale_jitter")
_SHORT = {"op": "resize", "short": _SIDE_PX}
_SQUARE = {"op": "center_crop", "size": _SIDE_PX}

# What an image shows: a recipe, and the seed whose first epochs show most of it.
Scene = tuple[dict[str, Any], int]


def _after_crop(op: str, **parameters: Any) -> dict[str, Any]:
    return {"ops": [_SHORT, _SQUARE, {"op": op, **parameters}]}


SCENES: Mapping[str, Scene] = {
    "random_resized_crop": ({"ops": [{"op": "random_resized_crop", "size": _SIDE_PX}]}, 0),
    "random_crop": ({"ops": [_SHORT | {"short": 200}, {"op": "random_crop", "size": _SIDE_PX}]}, 0),
    "scale_jitter": (
        {"ops": [{"op": "scale_jitter", "short": [176, 352], "crop": _SIDE_PX}]},
        0,
    ),
    "resize": ({"ops": [{"op": "resize", "size": [_SIDE_PX, _SIDE_PX]}]}, 0),
    "center_crop": ({"ops": [_SHORT | {"short": 192}, _SQUARE]}, 0),
    "mirror": (_after_crop("mirror", p=0.5), 3),
    "vertical_flip": (_after_crop("vertical_flip", p=0.5), 3),
    "rotate": (_after_crop("rotate", degrees=30), 0),
    "zoom": (_after_crop("zoom", height=0.4), 0),
    "shear": (_after_crop("shear", x=0.4, y=0.2), 0),
    "stretch": (_after_crop("stretch", x=0.5, y=0.5), 0),
    "translate": (_after_crop("translate", x=0.25, y=0.25), 0),
    "lens": (_after_crop("lens", k=[-0.3, 0.5]), 0),
    "local_warp": (_after_crop("local_warp", alpha=80, sigma=8), 0),
    "pca": (_after_crop("pca", alpha_std=0.5), 0),
    "rgb_shift": (_after_crop("rgb_shift", max=40), 0),
    "brightness": (_after_crop("brightness"), 0),
    "contrast": (_after_crop("contrast", v=0.8), 0),
    "saturation": (_after_crop("saturation", v=0.9), 0),
    "hue": (_after_crop("hue", h=0.25), 0),
    "grayscale": (_after_crop("grayscale", p=0.5), 3),
    "posterize": (_after_crop("posterize", bits=[1, 5]), 0),
    "solarize": (_after_crop("solarize", threshold=[0, 256]), 0),
    "solarize_add": (_after_crop("solarize_add", add=[0, 110]), 0),
    "invert": (_after_crop("invert", p=0.5), 3),
    "gamma": (_after_crop("gamma", gamma=[0.4, 2.5]), 0),
    "equalize": (_after_crop("equalize", p=0.5), 3),
    "autocontrast": (_after_crop("autocontrast", p=0.5), 3),
    "sharpness": (_after_crop("sharpness", factor=[0, 6]), 0),
    "gaussian_blur": (_after_crop("gaussian_blur", sigma=[0.1, 4]), 0),
    "gaussian_noise": (_after_crop("gaussian_noise", std=[0, 50]), 0),
    "jpeg": (_after_crop("jpeg", quality=[2, 40]), 0),
    "color_jitter": (
        _after_crop("color_jitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        0,
    ),
    "erase": (_after_crop("erase"), 0),
    "coarse_dropout": (_after_crop("coarse_dropout", count=[2, 8]), 0),
    "cutout": (_after_crop("cutout", size=80), 0),
    "one_of": (
        _after_crop(
            "one_of",
            ops=[
                {"op": "grayscale"},
                {"op": "solarize", "threshold": 128},
                {"op": "gamma", "gamma": [0.4, 2.5]},
            ],
        ),
        0,
    ),
    "all_of": (
        _after_crop(
            "all_of",
            ops=[{"op": "contrast", "v": 0.8}, {"op": "hue", "h": 0.1}],
            p=0.5,
        ),
        3,
    ),
    "rand_augment": ({**_after_crop("rand_augment"), "fill": "constant"}, 60),
    "trivial_augment": ({**_after_crop("trivial_augment"), "fill": "constant"}, 1),
    "auto_augment": ({**_after_crop("auto_augment"), "fill": "constant"}, 169),
    "three_augment": (_after_crop("three_augment"), 0),
    "aug_mix": ({**_after_crop("aug_mix", severity=8), "fill": "constant"}, 0),
    "five_crop": ({"ops": [_SHORT | {"short": 200}, {"op": "five_crop", "size": _SIDE_PX}]}, 0),
    "ten_crop": ({"ops": [_SHORT | {"short": 200}, {"op": "ten_crop", "size": _SIDE_PX}]}, 0),
    "multi_scale": ({"ops": [{"op": "multi_scale", "short": [176, 320], "crop": _SIDE_PX}]}, 0),
}
DRAWN_PRESETS = ("torchvision-v2", "deit")
FILLS = ("reflect", "constant", "nearest", "wrap")
TOGETHER: dict[str, Any] = {
    "ops": [
        {"op": "random_resized_crop", "size": _SIDE_PX, "scale": [0.3, 1.0]},
        {"op": "mirror"},
        {"op": "rotate", "degrees": 15},
        {"op": "lens", "k": [-0.1, 0.2]},
        {"op": "contrast"},
        {"op": "hue", "h": 0.05},
        {"op": "pca"},
        {"op": "erase", "p": 0.3},
    ]
}


def make_images(folder: Path) -> None:
    """Write an image of each op, of the fills, of many ops together, and of two presets."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        photos = Path(scratch) / "photos"
        _make_photos(photos)
        for name, (recipe, seed) in SCENES.items():
            _draw(photos, recipe, seed, folder / f"{name}.webp")
        for fill in FILLS:
            moved = {**_after_crop("translate", x=0.5, y=0.5), "fill": fill}
            _draw(photos, moved, 0, folder / f"fill_{fill}.webp")
        _draw(photos, TOGETHER, 0, folder / "together.webp", _TOGETHER_TITLE, 2)
        for name in DRAWN_PRESETS:
            _draw_preset(photos, name, folder / f"preset_{name}.webp")


def _make_photos(folder: Path) -> None:
    """Write a wall with a letter on it, whose sides are told apart, and pebbles."""
    for name, number in (("bricks", 3), ("pebbles", 8)):
        (folder / name).mkdir(parents=True)
        photo = Image.open(io.BytesIO(make_photo(name, number, megapixels=0.19))).convert("RGB")
        if name == "bricks":
            font = ImageFont.load_default(300)
            middle = photo.width / 2, photo.height / 2
            ImageDraw.Draw(photo).text(middle, "R", (250, 240, 225), font, anchor="mm")
        photo.save(folder / name / f"{name}.png")


def _draw(
    photos: Path, plain: dict[str, Any], seed: int, out: Path, title: str = "", num_photos: int = 1
) -> None:
    recipe = parse_recipe(plain)
    num_said = sum(op.num_said for op in recipe.ops if not op.is_sizing)
    is_drawn = num_said or any(name_of(op) in _DRAWN_CROPS for op in recipe.ops)
    epochs = range(_CELLS if is_drawn else 1)
    with SampleRenderer(str(photos), recipe, seed) as renderer:
        sheet = Sheet(
            renderer.tools_at(0).sizes[0],
            len(epochs) * recipe.num_views,
            num_lines=min(4, max(1, num_said)),
            cells_per_row=_CELLS_PER_ROW,
        )
        strips = [make_strip(renderer, sample, epochs) for sample in range(num_photos)]
        image = sheet.draw(title or _title(plain), [f"epoch {epoch}" for epoch in epochs], strips)
    image.save(out, quality=_QUALITY, method=6)


def _draw_preset(photos: Path, name: str, out: Path) -> None:
    """Draw a published recipe on both photos, in rows as small as those of the ops."""
    found = published_recipes(name, _SIDE_PX)
    assert found is not None
    recipe = parse_stream_recipe(found.training)
    epochs = range(_CELLS)
    with SampleRenderer(str(photos), recipe, 0) as renderer:
        sheet = make_sheet(renderer, epochs)
        strips = [make_strip(renderer, sample, epochs) for sample in range(2)]
        image = sheet.draw(f"preset {name}", [f"epoch {epoch}" for epoch in epochs], strips)
    image.save(out, quality=_QUALITY, method=6)


def _title(plain: dict[str, Any]) -> str:
    """Say the recipe, without the crop that is there to make a row of it."""
    ops = plain["ops"]
    return summarise({**plain, "ops": ops[2:] if ops[:2] == [_SHORT, _SQUARE] else ops})


# --- the tables ----------------------------------------------------------------------------------


def fill_page(name: str, text: str) -> str:
    """Return the page of the table `name` with the table as the structs have it now."""
    table = table_of_ops() if name == "ops" else table_of_settings()
    begin, end = f"<!-- {name}: made by `make docs` -->", f"<!-- end of {name} -->"
    assert text.count(begin) == text.count(end) == 1, begin
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"


def page_of(op: str) -> Path:
    """Return the page with the section on an op."""
    return DOCS / SECTIONS[OPS_BY_NAME[op].__module__.rpartition(".")[2]]


def table_of_ops() -> str:
    """Write every op with its parameters and their defaults."""
    lines = ["| op | parameters | |", "|---|---|---|"]
    for name, cls in OPS_BY_NAME.items():
        summary = inspect.getdoc(cls) or ""
        page = page_of(name).relative_to(DOCS)
        said = _first_sentence(summary)
        lines.append(f"| [`{name}`]({page}#{name}) | {_parameters(cls)} | {said} |")
    return "\n".join(lines)


def table_of_settings() -> str:
    """Write the fields of a recipe beside its ops, their choices and defaults."""
    types = get_type_hints(Recipe)
    lines = ["| setting | default | choices |", "|---|---|---|"]
    for field in msgspec.structs.fields(Recipe):
        if field.name != "ops":
            choices = ", ".join(f"`{choice}`" for choice in _choices(types[field.name]))
            lines.append(f"| `{field.name}` | `{_plain(field.default)}` | {choices} |")
    return "\n".join(lines)


def _parameters(cls: type[BaseOp]) -> str:
    return ", ".join(map(_parameter, msgspec.structs.fields(cls)))


def _parameter(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return f"**`{field.name}`**"
    return f"`{field.name}`" if field.default is None else f"`{field.name}={_plain(field.default)}`"


def _plain(value: Any) -> str:
    if value in (IMAGENET_EIGVAL, IMAGENET_EIGVEC):
        return "ImageNet's"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _choices(kind: Any) -> Iterator[str]:
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    elif kind is bool:
        yield from ("true", "false")
    elif kind is int:
        yield "1, 2, ..."
    elif kind == Mix | None:
        yield from Mix.__struct_fields__
    else:
        yield from ("0..255", "[r, g, b]")
        for one in get_args(kind):
            yield from get_args(one) if get_origin(one) is Literal else ()


def _first_sentence(text: str) -> str:
    first = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=[.:]) (?=[A-Z~])", first)[0].rstrip(":.").replace("|", "\\|") + "."


def main() -> None:
    """Run `python -m demo.op_images`."""
    make_images(IMAGES)
    for name, page in PAGES.items():
        page.write_text(fill_page(name, page.read_text(encoding="utf-8")), encoding="utf-8")
    files = list(IMAGES.iterdir())
    size_kb = sum(file.stat().st_size for file in files) / 1000
    print(f"{IMAGES}: {len(files)} images, {size_kb:.0f} kB; {len(PAGES)} tables")


if __name__ == "__main__":
    main()
