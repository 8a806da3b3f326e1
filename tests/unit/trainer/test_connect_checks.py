"""What `trainer.connect` refuses before it connects to anything."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

import augd
import trainer
from trainer.cli.app import main

NOWHERE = "ipc:///nonexistent/augd"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"device": "gpu"}, 'device: expected "cpu", "cuda" or "cuda:N", got \'gpu\''),
        ({"device": "meta"}, 'device: expected "cpu", "cuda" or "cuda:N", got \'meta\''),
        ({"device": 1.5}, 'device: expected "cpu", "cuda" or "cuda:N", got 1.5'),
        (
            {"dtype": torch.uint8},
            "dtype: expected one of torch.float32, torch.float16, torch.bfloat16, torch.float64, "
            "got torch.uint8",
        ),
        (
            {"dtype": "float32"},
            "dtype: expected one of torch.float32, torch.float16, torch.bfloat16, torch.float64, "
            "got 'float32'",
        ),
        (
            {"dtype": torch.float16, "normalize": False},
            "dtype: normalize=False gives uint8 images as rendered, got dtype=torch.float16; "
            "leave dtype out, or normalize",
        ),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(augd.OptionError, match=f"^{re.escape(text)}$"):
        trainer.connect(NOWHERE, **options)


def test_a_device_that_does_not_exist(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    text = (
        'device: "cuda:2" does not exist, PyTorch finds 2 CUDA devices here; '
        'use one that exists, or device="cpu"'
    )
    with pytest.raises(augd.OptionError, match=f"^{re.escape(text)}$"):
        trainer.connect(NOWHERE, device="cuda:2")


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(augd.OptionError, match='"cuda" does not exist, PyTorch finds 0 CUDA'):
        trainer.connect(NOWHERE, device="cuda")


def test_good_options_get_as_far_as_the_daemon():
    with pytest.raises(augd.ConnectError):
        trainer.connect(NOWHERE, device="cpu", dtype=torch.bfloat16)


def test_the_keywords_are_those_of_augd_and_six_more():
    ours = inspect.signature(trainer.connect).parameters
    theirs = dict(inspect.signature(augd.connect).parameters)
    del theirs["mixed"]  # tensors are mixed on their device
    assert list(ours) == [*theirs, "device", "dtype", "channels_last", "normalize", "mean", "std"]
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default, name
        assert ours[name].kind == parameter.kind, name


@pytest.mark.parametrize("connect", [augd.connect, trainer.connect])
def test_a_keyword_that_there_is_none_of_is_named(connect):
    with pytest.raises(TypeError, match=r"connect\(\) got an unexpected keyword argument 'batch'"):
        connect(NOWHERE, batch=3)


def test_the_options_have_their_defaults_and_no_others():
    parameters = inspect.signature(augd.connect).parameters
    assert list(parameters) == ["address", *augd.ConnectOptions.__annotations__, "mixed"]
    assert parameters["batch_size"].default == 256
    assert parameters["batch_size"].annotation is int
    assert parameters["timeout_s"].default == 60.0


def test_a_stream_has_what_augds_stream_has():
    missing = (
        set(dir(augd.Stream))
        - set(dir(trainer.Stream))
        - {
            "arena",
            "batches_of",
            "has_colour",
            "is_ready",
            "note_transfer",
        }
    )
    assert {name for name in missing if not name.startswith("_")} == set()


def test_inspect_looks_at_so_many_images_at_most(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "photos", "--limit", str(2**70)])
    assert ended.value.code == 2
    assert "'--limit'" in capsys.readouterr().err
