"""A trained network as a program of its own: ONNX or TorchScript, from RGB to probabilities.

What is written takes images in 0..1 and normalises them itself, so that whoever runs it has to
decode, resize and crop only. `preprocessing` says how.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import augd
from augd.errors import install_extra

from ..data.constants import Constants

INPUT, OUTPUT = "images", "probabilities"
Runner = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Program(nn.Module):
    """Images (B, 3, H, W), RGB in 0..1, to probabilities (B, K)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, constants: Constants) -> None:
        """Take a network in evaluation mode."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(constants.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(constants.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits.softmax(1)


def write_onnx(program: Program, size_px: tuple[int, int], path: Path) -> None:
    """Write ONNX; the number of images is free.

    Raises:
        OptionError: the libraries are missing, or the network cannot be expressed.
    """
    _load("onnxscript")
    batch = torch.export.Dim("batch")
    with _quiet():
        try:
            torch.onnx.export(
                program,
                (torch.zeros(2, 3, *size_px),),
                path,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # each network fails in its own way
            raise _refused("ONNX", program, error) from None


def run_onnx(path: Path) -> Runner:
    """Return a function that runs a file of ONNX by the format's own reference evaluator.

    It is slow, and says what the file means. onnxruntime would start its telemetry.
    """
    program = _load("onnx.reference").ReferenceEvaluator(str(path))

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = program.run([OUTPUT], {INPUT: images})[0]
        return found

    return run


def write_torchscript(program: Program, size_px: tuple[int, int], path: Path) -> None:
    """Write TorchScript, as traced on one batch.

    Raises:
        OptionError: the network cannot be expressed.
    """
    jit: Any = torch.jit
    with _quiet(), torch.no_grad():
        try:
            traced = jit.trace(program, (torch.zeros(2, 3, *size_px),), check_trace=False)
            jit.save(traced, str(path))
        except Exception as error:  # each network fails in its own way
            raise _refused("TorchScript", program, error) from None


def run_torchscript(path: Path) -> Runner:
    """Return a function that runs a file of TorchScript on the CPU."""
    jit: Any = torch.jit
    with _quiet():
        program = jit.load(str(path), map_location="cpu")
    return runner_of(program)


def runner_of(program: Any) -> Runner:
    """Return a function that runs a module."""

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = program(torch.from_numpy(images)).numpy()
        return found

    return run


def _load(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise augd.OptionError(
            f"--out: ONNX needs {name}, which cannot be loaded ({error}): {install_extra('onnx')}"
        ) from None


def _refused(form: str, program: Program, error: Exception) -> augd.OptionError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return augd.OptionError(
        f"--out: {form} cannot express {type(program.network).__name__} ({reason[:300]}); choose "
        "another form, such as .safetensors"
    )


@contextmanager
def _quiet() -> Any:
    """Keep the exporters' own words to themselves: warnings of old interfaces, and progress."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
