"""The notebook is executed, cell by cell; the page of results is made, in small."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples import results
from tests.support.scenes import make_coloured
from trainer.cli.app import main

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "transfer_learning.ipynb"


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text())["cells"]


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path):
    code = ["".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"]
    program = tmp_path / "notebook.py"
    program.write_text("\n\n".join(code))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "QUICK": "1", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=115,
    )
    assert done.returncode == 0, done.stderr
    assert "Strategy" not in done.stdout, "each was named"
    assert done.stdout.count("Best: ") == 1 + 5 + 2
    assert "refused, as it must be: 1" in done.stdout
    assert re.search(r"--size 96|of something else: recipe: ", done.stderr)
    assert "head, 5 epochs: 1,026 weights learn, {'fc': 1.0}" in done.stdout
    (made,) = tmp_path.glob("transfer-*")
    images = {path.name for path in (made / "inspection").glob("*.png")}
    assert images == {"filters.png", "pca.png", "tsne.png", "patches.png", "grad-cam.png"}
    assert json.loads((made / "ten-crop" / "results.json").read_text())["views"] == "ten-crop"


def test_the_notebook_is_kept_without_what_a_machine_printed():
    document = json.loads(NOTEBOOK.read_text())
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 4)
    for cell in document["cells"]:
        assert cell["source"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


class TestResults:
    def test_the_page_is_made_of_runs(self, tmp_path, monkeypatch, capsys):
        make_coloured(tmp_path / "data" / "train", 6)
        make_coloured(tmp_path / "data" / "test", 3)
        asked: list[list[str]] = []

        def made(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            """Answer as the commands do; they have tests of their own."""
            asked.append(arguments[3:])
            value = 0.5 + 0.1 * ("keras-small" in arguments) + 0.02 * ("ten-crop" in arguments)
            seed = arguments[arguments.index("--seed") + 1] if "--seed" in arguments else "0"
            value += 0.01 * int(seed)
            answer = {"epochs": [{"val_accuracy": value}], "accuracy": value + 0.01}
            return subprocess.CompletedProcess(arguments, 0, json.dumps(answer))

        monkeypatch.setattr(subprocess, "run", made)
        given = [
            *("--data", str(tmp_path / "data"), "--work", str(tmp_path / "work"), "--seeds", "3"),
            *("--epochs", "6", "--size", "80", "--out", str(tmp_path / "results.md")),
        ]
        results.main(given)
        page = (tmp_path / "results.md").read_text()
        assert "| 2 | 52.0 % | 62.0 % |" in page
        assert (
            "Gain of augmentation and dropout: +10.0 points (95 %: +10.0 to +10.0, 3 seeds)" in page
        )
        assert "| head | 51.0 % | +0.0 points (95 %: +0.0 to +0.0, 3 seeds) |" in page
        assert (
            "The head alone, 2 epochs, whole commands with nothing beside them: online 0 s" in page
        )
        assert str(tmp_path) not in page
        assert len(asked) == 3 * 3 + 1 + 3 * 6 + 2
        turned = list((tmp_path / "work" / "turned").rglob("*.jpg"))
        assert len(turned) == 4 * (12 + 2), "all photos of train/, a quarter of test/"

        asked.clear()
        results.main(given)
        assert asked == [], "what was run is not run again"
        assert (tmp_path / "results.md").read_text() == page

    def test_its_commands_are_understood(self, tmp_path, monkeypatch):
        """Every run for real, in this process and as small as can be."""
        make_coloured(tmp_path / "data" / "train", 4)
        make_coloured(tmp_path / "data" / "test", 2)

        run = subprocess.run

        def here(arguments: list[str], **more: object) -> subprocess.CompletedProcess[str]:
            if arguments[:3] != [sys.executable, "-m", "trainer"]:
                return run(arguments, **more)  # Matplotlib asks for fonts where nobody has yet
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                try:
                    main(arguments[3:])
                except SystemExit as ended:
                    assert not ended.code
            return subprocess.CompletedProcess(arguments, 0, printed.getvalue())

        monkeypatch.setattr(subprocess, "run", here)
        # The commands take signals, which only the main thread may.
        monkeypatch.setattr(results.Lab, "by_seed", lambda lab, one: [*map(one, range(lab.seeds))])
        strategies = ("scratch", "two-phase")
        monkeypatch.setattr(results, "_STRATEGIES", strategies)
        lab = results.Lab(tmp_path / "data", tmp_path / "work", 80, 1, 1, 1, 1)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        page = "\n".join([*results.augmentation(lab), *results.transfer(lab)])
        torch.set_num_threads(before)
        assert re.search(r"\| 0 \| [\d.]+ % \| [\d.]+ % \| [\d.]+ % \|", page)
        assert "(one seed, no interval)" in page
        for name in (*strategies, "features"):
            assert re.search(rf"\| {name} \| [\d.]+ % \|", page), name

    def test_intervals(self):
        mean, low, high = results.interval([1.0, 2.0, 3.0, 4.0, 5.0])
        assert mean == 3 and high - mean == pytest.approx(2.78 * math.sqrt(2.5 / 5))
        assert mean - low == pytest.approx(high - mean)
        assert math.isnan(results.interval([1.0])[1])
