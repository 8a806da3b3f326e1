"""`trainer export`: write a trained network for other programs, and check what was written.

The file is read again and run on images of the stream. Its probabilities must be those of
`trainer predict`, within 1e-5; otherwise the file is removed.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import augd
from augd.errors import counted

from ..data.images_by_path import open_images
from ..evaluation.export import (
    INPUT,
    OUTPUT,
    Program,
    Runner,
    run_onnx,
    run_torchscript,
    runner_of,
    write_onnx,
    write_torchscript,
)
from ..evaluation.predict import probabilities
from ..models.build_network import build_staged_network
from ..models.pretrained_weights import load_state
from ..models.weights_files import read_weights, write_weights
from ..training.load_trained import Trained, read_trained
from .options import ExportOptions
from .predict import check_images

_RUN = Path("run")
_NUM_CHECKED = 20
_DIFFERENCE_MAX = 1e-5
_PROGRAMS = {
    ".onnx": (write_onnx, run_onnx),
    ".torchscript": (write_torchscript, run_torchscript),
}
_WEIGHTS = (".safetensors", ".pt")


def run_export(options: ExportOptions) -> int:
    """Export; returns the exit status 0.

    Raises:
        AugdError: an option, the checkpoint or the images do not fit, or what was written says
            something else than the network.
    """
    check_images(options)
    out = options.out
    if out.suffix not in (*_PROGRAMS, *_WEIGHTS):
        raise augd.OptionError(
            f"--out: expected a file that ends with {', '.join((*_PROGRAMS, *_WEIGHTS))}, got {out}"
        )
    trained = read_trained(options.checkpoint or _RUN, options.arch)
    if trained.size_px is None:
        raise augd.OptionError(
            f"--checkpoint: {trained.path} was trained on images as they are, of no size that "
            "could be written down; train with a recipe that has one"
        )
    told = preprocessing(trained, is_program=out.suffix in _PROGRAMS)
    with ExitStack() as cleaning:
        images, expected = _checked_images(options, trained, cleaning)
        unfinished = out.with_name(f".unfinished.{out.name}")
        cleaning.callback(_remove, unfinished)
        run = _write(unfinished, trained, told)
        difference = float(np.abs(run(images) - expected).max())
        if not difference <= _DIFFERENCE_MAX:
            raise augd.AugdError(
                f"{out} was not written: its probabilities differ from those of the network by "
                f"{difference:.2g}, expected {_DIFFERENCE_MAX:g} at most"
            )
        _finish(unfinished, out, told)
    print(
        f"Written: {out} and {out}.json. Checked against predict on "
        f"{counted(len(images), 'image')}: probabilities differ by {difference:.1g} at most."
    )
    return 0


def preprocessing(trained: Trained, *, is_program: bool) -> dict[str, Any]:
    """Return what has to be done to an image before, as JSON data."""
    assert trained.size_px is not None
    height, width = trained.size_px
    constants = {name: list(one) for name, one in trained.constants._asdict().items()}
    steps = [
        "decode to RGB, 8 bits; turn as EXIF says",
        f"resize and crop as `recipe` says, to {height} x {width} px (docs/augmentation.md)",
        "divide by 255; order as (3, height, width)",
    ]
    if not is_program:
        steps.append("subtract mean, divide by std, per channel")
    return {
        "arch": trained.staged.arch,
        "head": list(trained.staged.stages.heads),
        "classes": trained.classes,
        "input": {"name": INPUT, "shape": ["batch", 3, height, width], "type": "float32"},
        "output": {"name": OUTPUT if is_program else "logits", "shape": ["batch", "classes"]},
        "steps": steps,
        "recipe": trained.validation,
        **constants,
        "normalises_itself": is_program,
    }


def _checked_images(
    options: ExportOptions, trained: Trained, cleaning: ExitStack
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return images in 0..1 as another program would give them, and what predict says of them.

    Raises:
        DatasetError: no image can be read.
    """
    pixels: list[NDArray[np.uint8]] = []
    shares = []
    for is_normalised in (False, True):
        constants = trained.constants._asdict() if is_normalised else {"normalize": False}
        opened = open_images(
            options.paths,
            cleaning,
            address=options.connect,
            dataset=options.dataset,
            producers=options.producers,
            keys=options.keys,
            recipe=trained.validation,
            batch_size=_NUM_CHECKED,
            device="cpu",
            max_bad_fraction=options.max_bad_fraction,
            **constants,
        )
        batches = islice((batch for one in opened for batch in one.stream.epoch(0)), 2)
        for batch in batches:
            rows = batch.images[batch.valid]
            if is_normalised and len(rows):
                shares.append(probabilities(trained.staged.network, rows, _NUM_CHECKED).numpy())
            elif not is_normalised:
                pixels.append(rows.numpy().copy())
                batch.release()
    if not shares:
        raise augd.DatasetError("none of the images can be read, so nothing can be checked")
    images = np.concatenate(pixels)[:_NUM_CHECKED].astype(np.float32) / np.float32(255)
    ordered = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return ordered, np.concatenate(shares)[:_NUM_CHECKED]


def _write(path: Path, trained: Trained, told: dict[str, Any]) -> Runner:
    """Write a file, and return what runs it."""
    assert trained.size_px is not None
    network = trained.staged.network
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in _PROGRAMS:
        write, run = _PROGRAMS[path.suffix]
        write(Program(network, trained.constants), trained.size_px, path)
        return run(path)
    texts = {"arch": trained.staged.arch, "classes": json.dumps(trained.classes)}
    write_weights(path, network.state_dict(), texts | {"preprocessing": json.dumps(told)})
    again = build_staged_network(
        trained.staged.arch, len(trained.classes), trained.size_px, head=_head_of(trained)
    )
    load_state(again, read_weights(path).state, str(path), "--out")
    return runner_of(Program(again.network.eval(), trained.constants))


def _head_of(trained: Trained) -> str | None:
    heads = trained.staged.stages.heads
    return heads[0] if len(heads) == 1 else None


def _finish(unfinished: Path, out: Path, told: dict[str, Any]) -> None:
    try:
        unfinished.replace(out)
        Path(f"{out}.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise augd.AugdError(f"{out} cannot be written ({error}); choose another --out") from None


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
