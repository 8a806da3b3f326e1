"""Checkpoints: one file with the whole state of a run, for an exact resume.

Runs in the training process, between steps. Knows no network.

Invariants: whenever the machine stops, the file is the complete old one or the complete new one;
reading a checkpoint runs no code from it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import augd

FORMAT = 2

State = dict[str, Any]

_ELSE = {
    "--resume": "Name the run's folder with --out, or leave --resume out to start from the "
    "beginning."
}
_OTHER = {"--resume": "Start from the beginning with another --out."}


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain data to a file, or leave it as it was.

    Raises:
        AugdError: no space, no permission; the old file is unharmed.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
        raise augd.AugdError(
            f"checkpoint: {path} cannot be written ({str(error).partition(chr(10))[0]}). "
            "What was saved before is unharmed. Make space, or choose another --out."
        ) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def load_checkpoint(path: Path, option: str = "--resume") -> State:
    """Read a checkpoint into CPU memory; errors name `option`.

    Raises:
        OptionError: the file does not exist, or is no checkpoint.
    """
    if not path.is_file():
        raise augd.OptionError(
            f"{option}: {path} does not exist. {_ELSE.get(option, 'Check the path.')}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["format"]
    except Exception as error:  # whatever the unpickler meets in a file that is none
        raise augd.OptionError(
            f"{option}: {path} is no checkpoint of trainer fit, or a damaged one "
            f"({type(error).__name__}). {_OTHER.get(option, 'Give one that it wrote.')}"
        ) from None
    if found != FORMAT:
        raise augd.OptionError(
            f"{option}: {path} has format {found!r}, this trainer reads {FORMAT}. "
            "Use the version that wrote it."
        )
    return dict(state)


def check_same_run(path: Path, saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Compare the settings of two runs.

    Raises:
        SpecMismatch: they differ; the message names each field and both values.
    """
    names = [*here, *(saved.keys() - here.keys())]
    if differing := [name for name in names if saved.get(name) != here.get(name)]:
        named = "; ".join(
            f"{name}: {_brief(saved.get(name))} when saved, {_brief(here.get(name))} here"
            for name in differing
        )
        raise augd.SpecMismatch(
            f"{path} is of another run: {named}. Resume with the options it began with, or start "
            "a new run with another --out."
        )


def _brief(value: object) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"{len(value)} ({', '.join(map(str, value[:5]))}, ...)"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
