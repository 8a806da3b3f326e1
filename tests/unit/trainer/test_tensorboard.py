"""What reaches TensorBoard, and what happens where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import augd
from tests.support.learning import OPTIONS, settings_of
from trainer.cli.fit import _replayer
from trainer.data.recipes import choose_recipes
from trainer.training.distributed import Ranks
from trainer.training.loop import Training
from trainer.training.options import FitOptions
from trainer.training.tensorboard import TensorBoardLog


def steps_of(folder: Path) -> list[int]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.step for event in events.Scalars("loss")]


def write(folder: Path, first_step: int, *steps: int) -> None:
    with TensorBoardLog(folder, first_step) as log:
        for step in steps:
            log.numbers(step, {"loss": 1.0})


def test_a_resume_keeps_the_epochs_that_were_finished(tmp_path):
    write(tmp_path, 0, 5, 10)
    write(tmp_path, 10, 15)
    assert steps_of(tmp_path) == [5, 10, 15]


def test_a_resume_strikes_out_what_a_crashed_run_wrote_beyond(tmp_path):
    write(tmp_path, 0, 5, 10, 15)
    write(tmp_path, 7, 11, 16)
    assert steps_of(tmp_path) == [5, 11, 16]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "run").write_text("a file")
    folder = tmp_path / "run" / "tensorboard"
    with (
        pytest.raises(augd.AugdError, match=r"run/tensorboard cannot be written .*another --out"),
        TensorBoardLog(folder) as log,
    ):
        log.numbers(1, {"loss": 1.0})


class _ImageLog(TensorBoardLog):
    def __init__(self) -> None:
        super().__init__(None)
        self.names: list[str] = []

    def image(self, step: int, name: str, image: Any) -> None:
        self.names.append(name)


def test_a_first_batch_without_a_valid_row_is_not_shown():
    training = object.__new__(Training)
    training._log = log = _ImageLog()
    training.settings = settings_of()
    training._show(torch.zeros(0, 3, 8, 8))
    assert log.names == []
    training._show(torch.zeros(2, 3, 8, 8))
    assert log.names == ["batch"]


def test_a_failed_loss_is_told_where_the_recipe_cannot_be_written(tmp_path):
    (tmp_path / "run").write_text("a file")
    options = FitOptions(**OPTIONS | {"out": tmp_path / "run"})
    say = _replayer(options, settings_of(), choose_recipes("imagenet", 32), Ranks())
    assert say(1, 2).startswith("batch 2 of augd.connect(..., recipe={'ops': ")
