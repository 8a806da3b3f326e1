"""`augd recipes --from-weights`, and evaluation recipes by size and crop_pct."""

from __future__ import annotations

import math
import sys
import tomllib
from pathlib import Path

import pytest

from augd.cli.weights import recipe as weights
from augd.cli.weights.read import read_torchvision
from augd.errors import OptionError
from augd.plan.recipe.evaluation import evaluation_recipe
from augd.plan.recipe.recipe import PRESETS, parse_recipe
from tests.support.commands import run_augd

# What `read_timm` calls of timm, with configurations as timm 1.0.31 has them.
_TIMM = """
__version__ = "1.0.31"
CONFIGS = {
    "resnet50.a1_in1k": dict(tag="a1_in1k", architecture="resnet50", input_size=(3, 224, 224),
        test_input_size=(3, 288, 288), crop_pct=0.95, test_crop_pct=1.0),
    "convnext_base.fb_in22k_ft_in1k_384": dict(tag="fb_in22k_ft_in1k_384",
        architecture="convnext_base", input_size=(3, 384, 384), crop_pct=1.0, crop_mode="squash"),
    "vit_base_patch16_clip_224.openai": dict(tag="openai",
        architecture="vit_base_patch16_clip_224", input_size=(3, 224, 224), crop_pct=0.9,
        mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
    "naflexvit.border": dict(tag="border", architecture="naflexvit", input_size=(3, 384, 384),
        crop_pct=1.0, crop_mode="border", mean=(0.5,) * 3, std=(0.5,) * 3),
    "naflexvit.cut": dict(tag="cut", architecture="naflexvit", input_size=(3, 384, 384),
        crop_pct=0.9, crop_mode="border"),
    "volo_d4.wide": dict(tag="wide", architecture="volo_d4", input_size=(3, 384, 384),
        crop_pct=1.15),
    "vit_base.high": dict(tag="high", architecture="vit_base", input_size=(3, 1024, 768),
        crop_pct=1.0, crop_mode="squash"),
}
CONFIGS["resnet50"] = CONFIGS["resnet50.a1_in1k"]

def is_model(name):
    return name in CONFIGS

def list_models(pretrained):
    return sorted(CONFIGS)
"""
_MODELS = """
from timm import CONFIGS

class Config(dict):
    def to_dict(self):
        return dict(self)

def get_pretrained_cfg(name, allow_unregistered):
    if name not in CONFIGS:
        raise RuntimeError("Invalid pretrained tag")
    return Config(CONFIGS[name])
"""
_DATA = """
def resolve_data_config(pretrained_cfg, use_test_size):
    get = pretrained_cfg.get
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    usual = dict(input_size=get("input_size"), crop_pct=get("crop_pct"), interpolation="bicubic",
        crop_mode=get("crop_mode", "center"), mean=get("mean", mean), std=get("std", std))
    if use_test_size:
        usual["input_size"] = get("test_input_size", usual["input_size"])
        usual["crop_pct"] = get("test_crop_pct", usual["crop_pct"])
    return usual
"""


@pytest.fixture
def timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that answers as timm does, for this process and its children."""
    for name, text in (("timm", _TIMM), ("timm/models", _MODELS), ("timm/data", _DATA)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(text)
    info = tmp_path / "timm-1.0.31.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 1.0.31\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torchvision, which takes seconds to load, asked here: one test asks as commands do."""
    monkeypatch.setattr(weights, "_run", lambda name, library: read_torchvision(name))


def printed(*words: str) -> tuple[list[str], dict]:
    """The comments of a recipe that was printed, and its data."""
    done = run_augd("recipes", *words)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    parse_recipe(tomllib.loads(text))
    return [line for line in text.splitlines() if line.startswith("#")], tomllib.loads(text)


def refused(*words: str) -> str:
    done = run_augd("recipes", *words)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("size", "crop_pct", "mode", "ops"),
    [
        (224, 0.875, "center", [("short", 256), 224]),
        (224, 0.95, "center", [("short", 235), 224]),
        (224, 0.9, "center", [("short", 248), 224]),
        (288, 1.0, "center", [("short", 288), 288]),
        (384, 1.0, "squash", [("size", [384, 384])]),
        (384, 0.95, "squash", [("size", [404, 404]), 384]),
    ],
)
def test_the_resize_is_that_of_timm(size, crop_pct, mode, ops):
    resize, *crop = ops
    found = evaluation_recipe(size, crop_pct, "antialias", mode)
    assert found["ops"][0] == {"op": "resize", resize[0]: resize[1]}
    assert found["ops"][1:] == [{"op": "center_crop", "size": side} for side in crop]
    assert math.floor(size / crop_pct) == (resize[1] if mode == "center" else resize[1][0])
    parse_recipe(found)


def test_presets_of_evaluation_are_made_by_size_and_share():
    assert parse_recipe(evaluation_recipe(224)) == parse_recipe("eval")


def test_an_evaluation_of_another_size():
    _, plain = printed("eval", "--size", "160", "--crop-pct", "0.95", "--filter", "linear")
    assert plain["filter"] == "linear"
    assert [op.get("short", op.get("size")) for op in plain["ops"]] == [168, [160, 160]]
    _, plain = printed("--size", "160", "--crop-pct", "1", "--squash")
    assert plain["ops"] == [{"op": "resize", "size": [160, 160], "p": 1.0}]


def test_an_evaluation_that_cannot_be():
    assert "expected the NAME eval, got 'imagenet'" in refused("imagenet", "--size", "9")
    assert "--crop-pct: expected above 0, and 1 at most, got 0" in refused("--crop-pct", "0")
    assert "recipe.filter: expected one of " in refused("--filter", "sinc")
    assert "--training: belongs to --from-weights" in refused("--training")
    assert "--from-weights: stands alone" in refused("eval", "--from-weights", "resnet18")
    assert "--schema: stands alone" in refused("--schema", "--size", "9")


@pytest.mark.usefixtures("in_this_process")
def test_weights_of_torchvision():
    pytest.importorskip("torchvision")
    comments, plain = printed("--from-weights", "resnet50")
    assert "ResNet50_Weights.IMAGENET1K_V2" in comments[0] and "crop_pct 0.9655" in comments[0]
    assert "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in comments[1]
    assert plain["filter"] == "antialias"
    assert [op.get("short", op.get("size")) for op in plain["ops"]] == [232, [224, 224]]
    name = "ResNet18_Weights.IMAGENET1K_V1"
    comments, plain = printed("--from-weights", name, "--training")
    assert comments[0] == f"# Training of {name}: the preset torchvision-v1."
    assert parse_recipe(plain) == parse_recipe("torchvision-v1")


@pytest.mark.usefixtures("in_this_process")
def test_weights_of_torchvision_that_are_not_there():
    pytest.importorskip("torchvision")
    line = refused("--from-weights", "resnet55")
    assert "expected a name of torchvision's weights, got 'resnet55'; closest: resnet50" in line
    line = refused("--from-weights", "fcn_resnet50")
    assert "expected weights of a classifier of images" in line and "SemanticSegm" in line
    line = refused("--from-weights", "mobilenet_v3_small", "--training")
    assert "--training: no preset is known for MobileNet_V3_Small_Weights.IMAGENET1K_V1" in line


@pytest.mark.usefixtures("timm")
def test_weights_of_timm():
    comments, plain = printed("--from-weights", "timm:resnet50.a1_in1k")
    assert comments[0] == (
        "# Evaluation of resnet50.a1_in1k, as timm 1.0.31 has it: 224 px, crop_pct 0.95, bicubic, "
        "center."
    )
    assert "eval --size 288 --crop-pct 1 --filter bicubic" in comments[1]
    assert plain["filter"] == "bicubic"
    assert [op.get("short", op.get("size")) for op in plain["ops"]] == [235, [224, 224]]
    comments, _ = printed("--from-weights", "timm:vit_base_patch16_clip_224.openai")
    assert comments[1].endswith(
        "--mean 0.48145466,0.4578275,0.40821073 --std 0.26862954,0.26130258,0.27577711"
    )
    _, plain = printed("--from-weights", "timm:convnext_base.fb_in22k_ft_in1k_384")
    assert plain["ops"] == [{"op": "resize", "size": [384, 384], "p": 1.0}]
    _, plain = printed("--from-weights", "timm:vit_base.high")
    assert plain["ops"] == [{"op": "resize", "size": [1024, 768], "p": 1.0}]
    _, plain = printed("--from-weights", "timm:naflexvit.border")
    assert plain["ops"] == [{"op": "resize", "longest": [384, 384], "p": 1.0}]
    assert (plain["fill"], plain["fill_value"]) == ("constant", 128.0)


@pytest.mark.usefixtures("timm")
def test_weights_of_timm_that_cannot_be():
    line = refused("--from-weights", "timm:resnet50.a9")
    assert (
        "expected a name of timm's weights" in line
        and "closest: resnet50, resnet50.a1_in1k" in line
    )
    line = refused("--from-weights", "timm:naflexvit.cut")
    assert "crop_pct 0.9 and crop mode 'border'; expected a square" in line
    line = refused("--from-weights", "timm:volo_d4.wide")
    assert "384 x 384 px, interpolation bicubic, crop_pct 1.15 and" in line


def test_a_library_that_is_not_there_or_is_broken(tmp_path, monkeypatch):
    def absent(name: str) -> str:
        raise weights.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(weights.metadata, "version", absent)
        line = refused("--from-weights", "timm:resnet50")
        assert (
            "is looked up in timm, which is not installed here; python -m pip install -e '.[timm]'"
            in line
        )
        line = refused("--from-weights", "resnet50")
        assert "in torchvision, which is not installed here; python -m pip install -e" in line
    monkeypatch.setattr(weights.metadata, "version", lambda name: "1")
    (tmp_path / "timm.py").write_text("raise ImportError('no torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    line = refused("--from-weights", "timm:resnet50")
    assert "timm could not be read: ImportError: no torch; is it whole?" in line
    (tmp_path / "timm.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(weights, "_ANSWER_S", 1.0)
    assert "timm gave no answer within 1 s" in refused("--from-weights", "timm:resnet50")


def test_nothing_of_torch_is_loaded_here():
    pytest.importorskip("torchvision")
    before = "torch" in sys.modules
    weights.ask_library("resnet18")
    assert ("torch" in sys.modules) == before


def test_every_preset_that_weights_lead_to_exists():
    names = {*weights._TORCHVISION.values(), *weights._TIMM_TAGS.values()}
    assert names | set(weights._TIMM_NAMES.values()) <= set(PRESETS)


def test_what_no_library_says():
    facts = {"library": "timm 1", "name": "x.y", "made_by": "y", "size": [224, 224]}
    with pytest.raises(OptionError, match=r"no preset is known for x\.y"):
        weights.training_of(facts)
