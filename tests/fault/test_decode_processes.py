"""Commands that look at files: none ends by a file, and who takes its decoder over has nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augd.cli.check import check
from augd.cli.explain import run_explain
from augd.cli.options import ExplainOptions, PcaOptions, PreviewOptions
from augd.cli.pca import run_pca
from augd.cli.preview import run_preview
from augd.dataset.scan.build_index import load_or_build
from augd.diagnostics import check_workers as examine_module
from augd.diagnostics import decode_process as apart_module
from augd.diagnostics.decode_process import DecodeProcess
from augd.pixels.decode import decode
from augd.pixels.headers.read_header import BadImage, read_header
from augd.plan.recipe.phases import parse_stream_recipe
from tests.support.processes import await_true

# What a hostile file may have brought about, done in the decoder's place.
SABOTAGE = """
import os, sys
if {{"augd.diagnostics.decode_process", "augd.diagnostics.check_workers",
    "augd.cli.pack.transcode_process"}} & set(sys.orig_argv):
    import cv2, signal, socket, subprocess, time
    imdecode = cv2.imdecode

    def attempts():
        yield "inet", lambda: socket.socket(socket.AF_INET)
        yield "unix", lambda: socket.socket(socket.AF_UNIX)
        yield "run", lambda: subprocess.run(["true"])
        yield "fork", os.fork
        yield "kill", lambda: os.kill(os.getppid(), 0)
        yield "write", lambda: open({victim!r}, "w")
        yield "remove", lambda: os.unlink({victim!r})

    def sabotaged(data, flags):
        if len(data) != {size}:
            return imdecode(data, flags)
        if {deed!r} == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if {deed!r} == "hang":
            time.sleep(60)
        done = []
        for name, attempt in attempts():
            try:
                attempt()
                done.append(name)
            except OSError:
                pass
        raise cv2.error("DONE: " + (" ".join(done) or "nothing"))

    cv2.imdecode = sabotaged
"""
RECIPE = parse_stream_recipe({"ops": [{"op": "center_crop", "size": 16}]})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    draw = np.random.default_rng(2)
    for number in range(6):
        pixels = draw.integers(0, 256, (20 + number, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def sabotage(photos: Path, patch: pytest.MonkeyPatch, deed: str) -> None:
    """Let what decodes 2.png do a deed instead."""
    victim = photos.parent / "victim"
    victim.write_text("mine")
    size = (photos / "2.png").stat().st_size
    written = SABOTAGE.format(victim=str(victim), size=size, deed=deed)
    (photos.parent / "sitecustomize.py").write_text(written)
    patch.setenv("PYTHONPATH", f"{photos.parent}{os.pathsep}{Path.cwd()}")


def shown(photos: Path) -> None:
    out = str(photos.parent / "sheet.png")
    run_preview(PreviewOptions(path=str(photos), recipe="mine", out=out, columns=1), RECIPE)
    with Image.open(out) as sheet:
        assert sheet.size[0] > 16


def measured(photos: Path) -> None:
    run_pca(PcaOptions(path=str(photos), out=str(photos.parent / "pca.toml"), num_samples=10))


def explained(photos: Path) -> None:
    out = str(photos.parent / "sample.png")
    run_explain(ExplainOptions(path=str(photos), sample=2, out=out), RECIPE)


@pytest.mark.parametrize("command", [shown, measured, explained])
def test_a_file_that_kills_its_decoder_ends_no_command(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: object,
) -> None:
    sabotage(photos, monkeypatch, "die")
    assert callable(command)
    command(photos)
    said = capsys.readouterr().out
    if command is measured:
        assert "5 of 6 photos, 1 bad skipped" in said
        assert "2.png: the decoder died of it (SIGSEGV)" in said


def test_check_names_the_file_that_kills_its_decoder(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(photos, monkeypatch, "die")
    bad = check(str(photos))["bad"]
    assert bad == [{"id": 2, "path": "2.png", "reason": "the decoder died of it (SIGSEGV)"}]


def test_a_decoder_that_is_silent_is_ended(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(photos, monkeypatch, "hang")
    monkeypatch.setattr(apart_module, "PATIENCE_S", 2.0)
    data = (photos / "2.png").read_bytes()
    header = read_header(data)
    whole = (0, 0, header.width, header.height)
    with DecodeProcess() as apart:
        with pytest.raises(BadImage, match=r"its decoder was silent for 2 s"):
            apart.decode(data, header, whole)
        other = (photos / "3.png").read_bytes()
        found = apart.decode(other, read_header(other), (0, 0, 30, 23))
        with Image.open(photos / "3.png") as right:
            assert np.array_equal(found, np.asarray(right))


def test_a_silent_worker_of_check_is_replaced(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(photos, monkeypatch, "hang")
    monkeypatch.setattr(examine_module, "PATIENCE_S", 2.0)
    bad = check(str(photos))["bad"]
    assert [(one["path"], one["reason"]) for one in bad] == [
        ("2.png", "its decoder was silent for 2 s")
    ]


def test_who_takes_a_decoder_over_finds_nothing_to_reach(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(load_or_build(str(photos))):
        pass
    sabotage(photos, monkeypatch, "reach")
    measured(photos)
    assert "DONE: nothing" in capsys.readouterr().out
    (reason,) = [one["reason"] for one in check(str(photos))["bad"]]
    assert "DONE: nothing" in reason
    assert (photos.parent / "victim").read_text() == "mine"


@pytest.mark.parametrize(("region", "scale"), [((3, 2, 8, 12), 1), ((8, 0, 16, 16), 8)])
def test_pixels_are_those_that_would_be_decoded_here(
    photos: Path, region: tuple[int, int, int, int], scale: int
) -> None:
    data = (photos / "4.png").read_bytes()
    header = read_header(data)
    with DecodeProcess() as apart:
        found = apart.decode(data, header, region, scale)
        assert np.array_equal(found, decode(data, header, region, scale))
        with pytest.raises(BadImage, match=r"gave up|does not decode"):
            apart.decode(data[:60] + bytes(40) + data[100:], header, region, scale)


def test_it_ends_with_its_asker(photos: Path) -> None:
    program = (
        "import sys, time\n"
        "from augd.diagnostics.decode_process import DecodeProcess\n"
        "from augd.pixels.headers.read_header import read_header\n"
        f"data = open({str(photos / '1.png')!r}, 'rb').read()\n"
        "header = read_header(data)\n"
        "apart = DecodeProcess()\n"
        "apart.decode(data, header, (0, 0, header.width, header.height))\n"
        "print(apart._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    asker = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert asker.stdout is not None and asker.stdin is not None
    pid = int(asker.stdout.readline())
    asker.send_signal(signal.SIGKILL)
    asker.wait(10)
    asker.stdin.close()
    asker.stdout.close()
    await_true(lambda: not Path(f"/proc/{pid}").exists(), 10, "the decoder's end")
