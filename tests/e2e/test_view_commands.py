"""The commands that show: run as a person would, their texts and images looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import augd
from augd.cli.recipes import print_recipe
from augd.pixels import native
from augd.plan.recipe.phases import parse_stream_recipe
from augd.plan.recipe.recipe import PRESETS, expand, parse_recipe, recipe_from_toml
from augd.plan.recipe.recipe_toml import stream_recipe_from_toml
from tests.support.commands import run_augd as run
from tests.support.commands import start_augd
from tests.support.scenes import SMALL, make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("views") / "set", num_classes=2, per_class=8)


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[augd.ServedDaemon]:
    with augd.serve(folder, producers=1) as daemon:
        yield daemon


@pytest.mark.parametrize(
    "command", ["status", "doctor", "check", "preview", "explain", "recipes", "pca"]
)
def test_help_has_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"Example: augd {command} " in done.stdout


@pytest.mark.parametrize(
    ("program", "typed", "offered"),
    [("augd", "augd st", "status"), ("augd", "augd serve --http-", "--http-token"),
     ("trainer", "trainer eval", "evaluate")],
)  # fmt: skip
def test_the_shell_completes(program: str, typed: str, offered: str) -> None:
    asked = {f"_{program.upper()}_COMPLETE": "complete_bash", "COMP_WORDS": typed}
    done = subprocess.run(
        [Path(sys.executable).with_name(program)],
        env={**os.environ, **asked, "COMP_CWORD": str(typed.count(" "))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == [offered], done.stderr


def test_doctor_tells_what_is_there() -> None:
    done = run("doctor")
    assert done.returncode == 0, done
    for subject in ("versions", "processor", "kernels", "formats", "shared memory", "confinement"):
        assert any(line.startswith(subject) for line in done.stdout.splitlines()), done.stdout
    found = {one["subject"]: one for one in json.loads(run("doctor", "--json").stdout)}
    assert not [one for one in found.values() if one["verdict"] == "bad"]
    # What it tries in other processes is what such a process finds.
    holds = subprocess.run(
        [sys.executable, "-c", "from augd.process.sandbox import confine; print(confine())"],
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.strip()
    assert (holds or "none") in found["confinement"]["found"]
    assert ("entropy" in found["kernels"]["found"]) is (native.kernels is not None)


def test_doctor_says_what_to_do_where_torch_sees_no_gpu(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("torch sees one here")
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\n")
    driver.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "augd", "doctor", "--json"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    found = next(one for one in json.loads(done.stdout) if one["subject"] == "trainer")
    assert found["verdict"] == "better" and found["found"].endswith(": no device")
    assert found["advice"].startswith("there is an NVIDIA driver, but torch sees no CUDA device:")


def test_doctor_says_what_to_do_without_kernels() -> None:
    code = "import sys; from augd.cli.app import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"],
        env={**os.environ, "AUGD_KERNELS": "off"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    kernels = next(one for one in json.loads(done.stdout) if one["subject"] == "kernels")
    assert kernels["verdict"] == "better"
    assert "libjpeg-dev" in kernels["advice"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_print_as_toml_that_reads_back(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_recipe(parse_stream_recipe(name))
    assert stream_recipe_from_toml(capsys.readouterr().out) == parse_stream_recipe(name)


def test_presets_are_listed() -> None:
    listed = run("recipes")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(PRESETS)
    assert recipe_from_toml(run("recipes", "imagenet").stdout) == parse_recipe("imagenet")
    unknown = run("recipes", "imagenett")
    assert unknown.returncode == 1
    assert f"recipe: expected one of {', '.join(sorted(PRESETS))}, got" in unknown.stderr


def test_check_finds_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    clean = run("check", folder)
    assert clean.returncode == 0, clean
    assert "16 files looked at" in clean.stdout
    assert "every one decodes" in clean.stdout
    bad = make_folder(tmp_path / "bad", num_classes=2, per_class=4)
    files = sorted(bad.rglob("*.jpg"))
    files[0].write_bytes(files[0].read_bytes()[:-40])
    files[1].write_bytes(b"no image at all")
    files[5].write_bytes(files[4].read_bytes())
    found = run("check", bad)
    assert found.returncode == 1
    for path in files[:2]:
        assert str(path.relative_to(bad)) in found.stdout
    said = json.loads(run("check", bad, "--json").stdout)
    assert files[5].name in json.dumps(said), "equal files are named"
    assert run("check", tmp_path / "missing").returncode == 2


def test_preview_shows_what_a_stream_delivers(
    folder: Path, served: augd.ServedDaemon, tmp_path: Path
) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'filter = "linear"\n[[ops]]\nop = "random_resized_crop"\nsize = 32\n'
        '[[ops]]\nop = "mirror"\np = 0.5\n[[ops]]\nop = "pca"\nalpha_std = 0.1\n'
    )
    out = tmp_path / "sheet.png"
    done = run("preview", folder, "--recipe", recipe, "--out", out, "--rows", 3, "--columns", 2)
    assert done.returncode == 0, done
    assert str(out) in done.stdout
    with Image.open(out) as image:
        sheet = np.asarray(image.convert("RGB"))
    with augd.connect(served.address, recipe=SMALL, batch_size=3) as stream:
        delivered = next(stream.epoch(0)).images.copy()
    for row in delivered:
        assert holds(sheet, row), "a cell is not what a stream delivers"
    assert not holds(sheet, np.ascontiguousarray(delivered[0][::-1])), "the search finds anything"


BENT = """
shuffle_colour = true
[[ops]]
op = "random_resized_crop"
size = 32
[[ops]]
op = "rotate"
degrees = 30
[[ops]]
op = "local_warp"
alpha = 20
sigma = 3
[[ops]]
op = "contrast"
[[ops]]
op = "pca"
[[ops]]
op = "erase"
p = 0.5
"""
TEN = """
[[ops]]
op = "resize"
short = 40
[[ops]]
op = "ten_crop"
size = 32
"""
TWO = """
views = 2
[[ops]]
op = "random_resized_crop"
size = 32
[[ops]]
op = "mirror"
[[ops]]
op = "rgb_shift"
"""


SCALED = """
scaled_decode = "auto"
[[ops]]
op = "random_resized_crop"
size = 24
scale = [0.8, 1]
ratio = [1, 1]
[[ops]]
op = "rotate"
degrees = 5
p = 0.5
"""


@pytest.mark.parametrize(("text", "num_views"), [(BENT, 1), (TEN, 10), (TWO, 2), (SCALED, 1)])
def test_preview_shows_every_recipe_as_delivered(
    folder: Path, served: augd.ServedDaemon, tmp_path: Path, text: str, num_views: int
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    out = tmp_path / "sheet.png"
    done = run("preview", folder, "--recipe", recipe, "--out", out, "--rows", 2, "--columns", 1)
    assert done.returncode == 0, done
    assert (f"{num_views} views" if num_views > 1 else "1 epoch") in done.stdout
    with Image.open(out) as image:
        sheet = np.asarray(image.convert("RGB"))
    plain = expand(recipe_from_toml(text))
    with augd.connect(served.address, recipe=plain, batch_size=2) as stream:
        delivered = next(stream.epoch(0)).images.copy()
    rows = delivered.reshape(-1, *delivered.shape[-3:])
    assert len(rows) == 2 * num_views
    for row in rows:
        assert holds(sheet, row), "a cell is not what a stream delivers"


def test_colours_of_the_device_are_shown_as_it_makes_them(folder: Path, tmp_path: Path) -> None:
    sheets = []
    for place in ("producer", "device"):
        recipe = tmp_path / f"{place}.toml"
        recipe.write_text(f'colour_on = "{place}"\n' + BENT.partition('[[ops]]\nop = "erase')[0])
        out = tmp_path / f"{place}.png"
        assert run("preview", folder, "--recipe", recipe, "--out", out).returncode == 0
        with Image.open(out) as image:
            # The title names the recipe's file.
            sheets.append(np.asarray(image.convert("RGB"))[50:].astype(int))
    apart = np.abs(sheets[0] - sheets[1])
    assert apart.max() <= 1, "further apart than rounding"


def test_explain_says_what_every_view_drew(
    folder: Path, served: augd.ServedDaemon, tmp_path: Path
) -> None:
    recipe = tmp_path / "two.toml"
    recipe.write_text(TWO)
    words = ("explain", folder, "--recipe", recipe, "--id", 3)
    with augd.connect(served.address, recipe=expand(recipe_from_toml(TWO)), params=True) as stream:
        batch = next(stream.epoch(0))
        row = batch.ids.tolist().index(3)
        assert batch.params is not None
        drawn = {name: values[row].copy() for name, values in batch.params.items()}
        del batch
    said = json.loads(run(*words, "--json").stdout)["views"]
    assert [view["crop"] for view in said] == drawn["crop"].tolist()
    assert [view["mirror"] for view in said] == drawn["mirror"].astype(bool).tolist()
    assert [view["ops"][1]["shift"] for view in said] == drawn["colour"][:, :, 3].tolist()
    assert [view["scale"] for view in said] == [1, 1]
    text = run(*words).stdout
    assert "decoded at" not in text
    assert "view 0 " in text
    assert "view 1 " in text
    assert "rgb_shift          shift [" in text


def test_explain_says_at_which_scale_a_photo_was_decoded(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "scaled.toml"
    recipe.write_text(SCALED.replace("size = 24", "size = 8"))
    words = ("explain", folder, "--recipe", recipe, "--id", 3)
    said = json.loads(run(*words, "--json").stdout)
    assert said["scale"] in (4, 8)
    assert f"decoded at         1/{said['scale']}" in run(*words).stdout


def holds(sheet: np.ndarray, cell: np.ndarray) -> bool:
    """Say whether the image contains this one, pixel for pixel, as it is or enlarged."""
    sheet, cell = as_numbers(sheet), as_numbers(cell)
    for factor in range(1, 9):
        large = cell.repeat(factor, 0).repeat(factor, 1)
        height, width = large.shape
        if height >= sheet.shape[0] or width >= sheet.shape[1]:
            return False
        # Few places have the colours of two corners.
        corner = sheet[:-height, :-width] == large[0, 0]
        corner &= sheet[height - 1 : -1, width - 1 : -1] == large[-1, -1]
        for y, x in np.argwhere(corner):
            if np.array_equal(sheet[y : y + height, x : x + width], large):
                return True
    return False


def as_numbers(image: np.ndarray) -> np.ndarray:
    """Write each pixel's colour as one number."""
    return image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)


def test_explain_says_what_a_stream_drew(
    folder: Path, served: augd.ServedDaemon, tmp_path: Path
) -> None:
    with augd.connect(served.address, recipe="imagenet", batch_size=16) as stream:
        batch = next(stream.epoch(2))
        ids, row = batch.ids.tolist(), batch.images[5].copy()
        del batch
    out = tmp_path / "crop.png"
    words = ("explain", folder, "--epoch", 2, "--id", ids[5])
    said = json.loads(run(*words, "--json").stdout)
    assert said["position"] == 5
    assert said["path"].startswith(said["label"])
    x, y, width, height = said["crop"]
    assert 0 <= x < x + width <= said["size"][0]
    assert 0 <= y < y + height <= said["size"][1]
    text = run(*words, "--out", out)
    assert text.returncode == 0, text
    assert f"sample    {ids[5]}: {said['path']}" in text.stdout
    assert f"crop {width}x{height} at {x},{y}" in text.stdout
    with Image.open(out) as image:
        assert holds(np.asarray(image.convert("RGB")), row)


def test_bad_input_is_one_line(tmp_path: Path, folder: Path) -> None:
    for words in (
        ("preview", tmp_path / "missing"),
        ("preview", folder, "--recipe", tmp_path / "no.toml"),
        ("preview", folder, "--rows", 0),
        ("explain", folder, "--id", 99),
        ("explain", folder, "--id", 1, "--epoch", -1),
        ("pca", folder, "--samples", 1),
        ("pca", folder, "--out", tmp_path / "missing" / "pca.toml"),
        ("status", f"ipc://{tmp_path}/nobody"),
    ):
        done = run(*words)
        assert done.returncode == 1, done
        (line,) = done.stderr.splitlines()
        assert line.startswith("augd: error: "), line
    assert (
        start_augd("explain", folder, "--id", 99).stderr
        == run("explain", folder, "--id", 99).stderr
    ), "a process says the same"


def test_pca_writes_an_op_that_a_recipe_takes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pca.toml"
    done = run("pca", folder, "--out", out, "--samples", 9)
    assert done.returncode == 0, done
    assert "9 of 16 photos" in done.stdout
    assert done.stdout.count("±") == 3
    text = run("recipes", "eval").stdout + out.read_text()
    op = expand(recipe_from_toml(text))["ops"][-1]
    assert op["op"] == "pca"
    assert 0 < op["eigval"][2] < op["eigval"][1] < op["eigval"][0] < 0.75
    again = run("pca", folder, "--out", out, "--samples", 9)
    assert again.stdout == done.stdout


def test_status_of_a_running_daemon(folder: Path) -> None:
    with (
        augd.serve({"small": folder}, producers=2) as served,
        augd.connect(served.address, recipe=SMALL, batch_size=4) as stream,
    ):
        batch = next(stream.epoch(0))
        table = run("status", served.address)
        said = json.loads(run("status", served.address, "--json").stdout)
        del batch
    assert table.returncode == 0
    assert "small" in table.stdout
    assert len(said["producers"]) == 2
    assert len(said["streams"]) == 1
