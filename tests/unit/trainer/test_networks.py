"""Networks of any source: torchvision, timm, Hugging Face, own code; their stages and heads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import augd
from tests.support.learning import learner_of, settings_of, train
from trainer.data.constants import IMAGENET_MEAN
from trainer.models.build_network import StagedNetwork, build_staged_network, check_arch
from trainer.models.pretrained_weights import find_weights, put_weights
from trainer.models.stages import find_stages
from trainer.models.torchvision_networks import torchvision_models
from trainer.models.weights_files import write_weights

CLASSES = ["a", "b", "c"]
pytestmark = pytest.mark.usefixtures("one_torch_thread")

TIMM = [
    "resnet18", "resnetv2_18", "convnext_atto", "convnextv2_atto", "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "levit_128s", "efficientnet_b0",
    "tf_efficientnet_lite0", "mobilenetv3_small_050", "regnety_002", "densenet121", "vgg11",
    "inception_v3", "mixer_s32_224", "coatnet_nano_rw_224", "efficientformer_l1", "mobilevit_xxs",
    "edgenext_xx_small", "xcit_nano_12_p16_224", "dla34", "rexnet_100", "repvgg_a0", "fastvit_t8",
    "crossvit_tiny_240", "nfnet_l0", "poolformer_s12",
]  # fmt: skip
SEVERAL_HEADS = {
    "deit_tiny_distilled_patch16_224", "levit_128s", "efficientformer_l1", "crossvit_tiny_240"
}  # fmt: skip


def assert_divided(staged: StagedNetwork) -> None:
    """Every parameter is in exactly one stage, or in a head; and the heads give the classes."""
    stages = staged.stages
    inside = [name for stage in stages.stages for name in stage.parameters]
    names = [name for name, _ in staged.network.named_parameters()]
    inside += [name for name in names if stages.is_of_head(name)]
    assert sorted(inside) == sorted(names)
    assert stages.stages and len({stage.name for stage in stages.stages}) == len(stages.stages)
    for head in stages.heads:
        layers = [
            one
            for one in staged.network.get_submodule(head).modules()
            if isinstance(one, nn.Linear | nn.Conv2d)
        ]
        assert layers and layers[-1].weight.shape[0] == len(CLASSES)


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks without memory; RegNet counts its widths with tensors, which need some."""
    regnet = torchvision_models().regnet
    real = regnet.BlockParams.from_init_params

    def on_cpu(*arguments: object, **named: object) -> object:
        with torch.device("cpu"):
            return real(*arguments, **named)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", on_cpu)
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("arch", torchvision_models().list_models(module=torchvision_models()))
def test_all_of_torchvision(arch: str, meta: None) -> None:
    staged = build_staged_network(arch, len(CLASSES))
    assert_divided(staged)
    assert len(staged.stages.stages) >= 4


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.filterwarnings("ignore")
def test_networks_of_timm(name: str) -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    with torch.device("meta"):
        staged = build_staged_network(f"timm:{name}", len(CLASSES))
    assert_divided(staged)
    assert (len(staged.stages.heads) > 1) == (name in SEVERAL_HEADS)


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_timm_learns_and_reads_its_weights(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    arch = "timm:convnext_atto"
    torch.manual_seed(3)
    state = timm.create_model("convnext_atto", num_classes=7).state_dict()
    torch.save(state, tmp_path / "seven.pt")
    staged = build_staged_network(arch, 3, (32, 32))
    said = put_weights(staged, find_weights(arch, str(tmp_path / "seven.pt")), CLASSES)
    assert said.endswith("the head head.fc is new: 7 x 320 there, 3 x 320 for 3 classes here")
    assert torch.equal(staged.network.get_parameter("stem.0.weight"), state["stem.0.weight"])
    train(learner_of(staged, arch=arch, strategy="partial", epochs=1))


@pytest.mark.filterwarnings("ignore")
def test_unknown_networks_of_timm() -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    with pytest.raises(augd.OptionError, match="timm has no network 'resnet_18'; did you mean one"):
        check_arch("timm:resnet_18")
    with pytest.raises(augd.OptionError, match="timm has no network 'hf-hub:somebody/net'"):
        check_arch("timm:hf-hub:somebody/net")


def write_hf(folder: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    small = {
        "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2],
                   "layer_type": "basic"},
        "ViT": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
                "intermediate_size": 32, "image_size": 32, "patch_size": 8},
        "ConvNext": {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [2, 2]},
        "Swin": {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4,
                 "image_size": 32, "patch_size": 4},
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**small[kind], num_labels=5)
    torch.manual_seed(11)
    network = getattr(transformers, f"{kind}ForImageClassification")(config)
    config.save_pretrained(folder)
    write_weights(folder / "model.safetensors", network.state_dict(), {})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "head", "num_stages"),
    [("ResNet", "classifier.1", 2), ("ViT", "classifier", 4), ("ConvNext", "classifier", 2),
     ("Swin", "classifier", 4)],
)  # fmt: skip
def test_image_classifiers_of_hugging_face(
    tmp_path: Path, kind: str, head: str, num_stages: int
) -> None:
    write_hf(tmp_path / "net", kind)
    arch = f"hf:{tmp_path / 'net'}"
    staged = build_staged_network(arch, 3, (32, 32))
    assert_divided(staged)
    assert staged.stages.heads == (head,) and len(staged.stages.stages) == num_stages
    said = put_weights(staged, find_weights(arch, "DEFAULT"), CLASSES)
    assert f"the head {head} is new: 5 x" in said
    logits = staged.network(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 3)
    train(learner_of(staged, arch=arch, strategy="full", epochs=1))


@pytest.mark.filterwarnings("ignore")
def test_weights_bring_their_own_constants(tmp_path: Path) -> None:
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def constants(arch: str, **more: object) -> dict[str, object]:
        settings = settings_of(arch=arch, weights="DEFAULT", **more)
        return {"mean": settings.mean, "std": settings.std}

    arch = f"hf:{tmp_path}"
    assert constants(arch)["mean"] == IMAGENET_MEAN
    told = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    assert constants(arch) == half
    assert constants(arch, mean="clip")["mean"] == (0.48145466, 0.4578275, 0.40821073)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    assert constants(arch)["mean"] == (0, 0, 0)
    pytest.importorskip("timm", reason="the extra timm is not installed")
    assert constants("timm:tf_efficientnet_lite0") == half
    assert constants("timm:resnet18.a1_in1k")["mean"] == IMAGENET_MEAN


def test_no_folder_of_hugging_face(tmp_path: Path) -> None:
    with pytest.raises(augd.OptionError, match=r"--arch: hf:.*: there is no .*config\.json; give"):
        check_arch(f"hf:{tmp_path}")


OWN = '''
from torch import nn

class Net(nn.Module):
    """It begins with layers without weights."""
    def __init__(self, num_classes, width=8, name=None):
        super().__init__()
        self.front = nn.ModuleDict({"pad": nn.ZeroPad2d(1), "pool": nn.AvgPool2d(2)})
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3), nn.ReLU(),
        )
        self.top = nn.Sequential(nn.Linear(2 * width, 16), nn.ReLU(), nn.Linear(16, num_classes))
    def forward(self, images):
        images = self.front["pool"](self.front["pad"](images))
        return self.top(self.body(images).mean((2, 3)))

def thousand():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))

def linear(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))

def broken(num_classes):
    raise RuntimeError("no such luck")

def tuples(num_classes):
    class Two(nn.Module):
        def forward(self, images):
            return images, images
    return Two()

def norm(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes),
                         nn.LayerNorm(num_classes))

def whatever(num_classes):
    return 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_net_{tmp_path.name}".replace("-", "_").replace(".", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return name


def test_own_code(own: str) -> None:
    staged = build_staged_network(f"{own}:Net?width=4&name=x", 3, (32, 32))
    assert_divided(staged)
    assert staged.stages.heads == ("top.2",)
    assert [stage.name for stage in staged.stages.stages] == ["body.0", "body.4", "top.0"]
    assert staged.network.body[0].out_channels == 4
    train(learner_of(staged, arch=f"{own}:Net", strategy="partial", epochs=1))


def test_a_head_that_is_told(own: str) -> None:
    staged = build_staged_network(f"{own}:Net", 3, (32, 32), head="top")
    assert staged.stages.heads == ("top",)
    assert [stage.name for stage in staged.stages.stages] == ["body.0", "body.4"]
    learner = learner_of(staged, arch=f"{own}:Net", strategy="head", epochs=1)
    learning = {name for name, one in staged.network.named_parameters() if one.requires_grad}
    assert learning == {"top.0.weight", "top.0.bias", "top.2.weight", "top.2.bias"}
    train(learner)


def test_a_callable_without_a_number_of_classes_gets_another_head(own: str) -> None:
    staged = build_staged_network(f"{own}:thousand", 3, (32, 32))
    assert staged.stages.heads == ("2",) and staged.network(torch.zeros(2, 3, 32, 32)).shape[1] == 3


def test_a_network_of_one_size_and_one_layer(own: str) -> None:
    staged = build_staged_network(f"{own}:linear", 3, (32, 32))
    assert staged.stages.heads == ("1",) and staged.stages.stages == ()


@pytest.mark.parametrize(
    ("arch", "options", "says"),
    [
        ("Nat", {}, "has no callable 'Nat'; it has Net, thousand, linear, broken, tuples, norm"),
        ("Net?breadth=3", {}, "takes no 'breadth'; it takes num_classes, width, name"),
        ("Net?width", {}, "expected MODULE:CALLABLE?arg=value&arg=value, got 'width' in"),
        ("broken", {}, "broken(num_classes=3) raised RuntimeError: no such luck"),
        ("whatever", {}, "gives int, expected an nn.Module that gives logits (B, K)"),
        ("tuples", {}, "(it gives tuple, expected logits (B, K))"),
        ("Net", {"head": "bottom"}, "Net has no layer 'bottom' with weights; name the head by "
         "--head, one of body.0, body.4, top.0, top.2"),
        ("Net", {"head": "body.4"}, "after body.4 come layers with weights (top.0, top.2): name"),
        ("norm", {}, "the last layer with weights of Sequential is 3 (LayerNorm), expected a linear"
         " one that gives 3 numbers; name the head by --head, one of 2"),
        ("Net", {"dropout": 0.5, "head": "top"}, "--dropout: needs a linear classifier, and that "),
    ],
)  # fmt: skip
def test_refused(own: str, arch: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(augd.OptionError) as caught:
        build_staged_network(f"{own}:{arch}", 3, (32, 32), **options)  # type: ignore[arg-type]
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("arch", ["no_such_module:net", "sys:", ":net", "a b:net"])
def test_own_code_that_is_not_there(arch: str) -> None:
    with pytest.raises(augd.OptionError, match=r"^--arch: "):
        check_arch(arch)


def test_a_network_that_cannot_run_without_content() -> None:
    class Asks(nn.Module):
        """It decides by a number, which only a real image has."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.conv(images)
            logits: torch.Tensor = self.fc(maps.mean((2, 3)))
            return logits if float(maps.sum()) < 1e9 else logits + 1

    before = torch.get_rng_state()
    assert find_stages(Asks(), (16, 16)).heads == ("fc",)
    assert not torch.equal(torch.get_rng_state(), before)  # drawn by the layers, not by the search


def test_hf_names_of_classes(tmp_path: Path) -> None:
    from trainer.models.hugging_face_networks import classes_of

    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog"}}))
    assert classes_of(f"hf:{tmp_path}") == ["cat", "dog"]
    (tmp_path / "config.json").write_text("{}")
    assert classes_of(f"hf:{tmp_path}") is None
