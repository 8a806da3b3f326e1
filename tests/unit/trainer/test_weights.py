"""Weights from files and by torchvision's names: what fits, what is replaced, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import augd
from tests.support.learning import ARCH, changed_names, subject_of
from trainer.models.build_network import build_model
from trainer.models.pretrained_weights import find_weights, put_weights


def saved(tmp_path: Path, content: object) -> str:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    return str(path)


def other_weights(num_classes: int = 3, arch: str = ARCH) -> dict[str, torch.Tensor]:
    torch.manual_seed(77)
    return build_model(arch, num_classes).state_dict()


CLASSES = ["a", "b", "c"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: {f"module.{name}": one for name, one in state.items()},
        lambda state: {f"_orig_mod.{name}": one for name, one in state.items()},
    ],
    ids=["plain", "model", "state_dict", "of DistributedDataParallel", "of torch.compile"],
)
def test_files_of_the_same_network(tmp_path, wrap):
    state, staged = other_weights(), subject_of()
    said = put_weights(staged, find_weights(ARCH, saved(tmp_path, wrap(state))), CLASSES)
    assert not changed_names(state, staged.network.state_dict())
    assert said.endswith("weights.pt: the head fc is kept: it is for 3 classes, too")


def test_averaged_weights_are_preferred(tmp_path):
    state, average = other_weights(), {n: one + 1 for n, one in other_weights().items()}
    found = find_weights(ARCH, saved(tmp_path, {"model": state, "ema": average}))
    assert not changed_names(average, found.state)
    found = find_weights(ARCH, saved(tmp_path, {"model": state, "ema": None}))
    assert not changed_names(state, found.state)


@pytest.mark.parametrize(
    ("num_there", "classes_there", "says"),
    [
        (7, None, "the head fc is new: 7 x 1024 there, 3 x 1024 for 3 classes here"),
        (3, ["x", "y", "z"], "the head fc is new: it told x, y, z apart, here a, b, c"),
        (3, CLASSES, "the head fc is kept: it is of the same classes"),
        (0, None, "the head fc is new, the file has none"),
    ],
)
def test_the_head(tmp_path, num_there, classes_there, says):
    state, staged = other_weights(num_there or 3), subject_of()
    if not num_there:
        del state["fc.weight"], state["fc.bias"]
    content = {"model": state, "settings": {"arch": ARCH, "classes": classes_there}}
    said = put_weights(staged, find_weights(ARCH, saved(tmp_path, content)), CLASSES)
    assert said == f"weights {tmp_path}/weights.pt: {says}"
    now = staged.network.state_dict()
    for name in now:
        if "is kept" in says or not name.startswith("fc."):
            assert torch.equal(now[name], state[name]), name
        else:  # as nn.Linear draws them
            bound = 1024**-0.5
            assert 0.8 * bound < float(now[name].abs().max()) <= bound or name == "fc.bias"


def test_counters_that_old_files_lack_are_none_of_our_business(tmp_path):
    state = {n: one for n, one in other_weights().items() if "num_batches" not in n}
    put_weights(subject_of(), find_weights(ARCH, saved(tmp_path, state)), CLASSES)


def test_second_heads_are_left_out(tmp_path):
    from torchvision.models import get_model

    state = get_model("googlenet", aux_logits=True, init_weights=False).state_dict()
    assert any(name.startswith("aux1.") for name in state)
    said = put_weights(
        subject_of("googlenet"), find_weights("googlenet", saved(tmp_path, state)), CLASSES
    )
    assert "the head fc is new: 1000 x 1024 there" in said


def test_a_transformers_positions_are_stretched(tmp_path):
    from torchvision.models.vision_transformer import VisionTransformer

    def small(image_size: int) -> VisionTransformer:
        return VisionTransformer(image_size, 16, 1, 2, 24, 32, num_classes=3)

    from trainer.models.build_network import StagedNetwork
    from trainer.models.stages import find_stages

    there, here = small(32), small(64)
    nn.init.normal_(there.encoder.pos_embedding)
    staged = StagedNetwork("vit_b_16", here, find_stages(here, (64, 64)))
    found = find_weights("vit_b_16", saved(tmp_path, there.state_dict()))
    put_weights(staged, found, CLASSES)
    old, new = there.encoder.pos_embedding[0], here.encoder.pos_embedding[0]
    assert new.shape == (17, 24) and torch.equal(new[0], old[0]), "the class token's"
    corners = new[1:].view(4, 4, 24)[::3, ::3].reshape(4, 24)
    assert torch.allclose(corners, old[1:], atol=1e-5), "corners stay corners"


class TestRefused:
    def refused(self, arch: str, wanted: str) -> str:
        with pytest.raises(augd.OptionError) as caught:
            put_weights(subject_of(arch), find_weights(arch, wanted), CLASSES)
        return str(caught.value)

    def test_another_architecture(self, tmp_path):
        content = {
            "model": other_weights(3, "squeezenet1_1"),
            "settings": {"arch": "squeezenet1_1"},
        }
        said = self.refused(ARCH, saved(tmp_path, content))
        assert re.search(
            r"weights.pt does not fit shufflenet_v2_x0_5, it is of squeezenet1_1: it lacks "
            r"conv1.0.weight, .* and \d+ more; it has besides features.0.weight, .* and \d+ more. "
            "Give weights of this network, or their --arch.",
            said,
        ), said

    def test_another_width(self, tmp_path):
        said = self.refused(ARCH, saved(tmp_path, other_weights(3, "shufflenet_v2_x1_0")))
        assert "of another shape are stage2.0.branch1.2.weight: 58 x 24 x 1 x 1 there, 24 x" in said

    def test_a_file_that_is_not_there(self, tmp_path):
        said = self.refused(ARCH, str(tmp_path / "none.pt"))
        assert "none.pt does not exist; give a file, or a name of published weights" in said

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (torch.zeros(3), "holds no tensors by name, but Tensor"),
            ({"epoch": 3}, "holds no tensors by name, but dict"),
            (Path("/"), r"is no file of weights, or a damaged one .UnpicklingError."),
        ],
    )
    def test_files_without_weights(self, tmp_path, content, says):
        assert re.search(says, self.refused(ARCH, saved(tmp_path, content)))

    def test_an_unknown_name(self):
        said = self.refused("resnet50", "IMAGENET1K_V3")
        assert said == (
            "--weights: expected one of IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT for resnet50, or a "
            "file (*.pt, *.pth, *.safetensors), got 'IMAGENET1K_V3'"
        )
        assert "none published for small-convnet, got 'DEFAULT'; give a file" in self.refused_name()

    def refused_name(self) -> str:
        with pytest.raises(augd.OptionError) as caught:
            find_weights("small-convnet", "DEFAULT")
        return str(caught.value)

    @pytest.mark.parametrize("name", ["DEFAULT", "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"])
    def test_without_network_it_says_where_to_put_the_file(self, tmp_path, monkeypatch, name):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))

        def unreachable(*_: object, **__: object) -> None:
            raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

        monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
        said = self.refused(ARCH, name)
        file = "shufflenetv2_x0.5-f707e7126e.pth"
        assert said == (
            "--weights: ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1 cannot be had (<urlopen error "
            f"[Errno -3] Temporary failure in name resolution>). Put {file} into "
            f"{tmp_path}/hub/checkpoints by hand, from https://download.pytorch.org/models/{file}, "
            f"or give the file itself: --weights {file}"
        )


def test_a_file_put_where_it_was_asked_for_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = other_weights(1000)
    torch.save(state, folder / "shufflenetv2_x0.5-f707e7126e.pth")
    found = find_weights(ARCH, "DEFAULT")
    assert found.source == "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    assert found.classes is not None and "goldfish" in found.classes
    assert not changed_names(state, found.state)
    said = put_weights(subject_of(), found, CLASSES)
    assert said.endswith("the head fc is new: 1000 x 1024 there, 3 x 1024 for 3 classes here")
