"""Strategies: what learns, what stays as it is bit for bit, and at which rate."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
import torch
from torch import nn
from torch.nn import functional

import augd
from tests.support.learning import (
    ARCH,
    OPTIONS,
    changed_names,
    copy_of,
    learner_of,
    rows,
    settings_of,
    subject_of,
    train,
)
from trainer.models.build_network import build_model, build_staged_network
from trainer.models.head import Head
from trainer.models.small_convnet import SmallConvNet
from trainer.models.stages import find_stages
from trainer.training.distributed import Ranks
from trainer.training.finetune import (
    TrainingPlan,
    choose_strategy,
    parameter_groups,
    plan_phases,
    stage_shares,
)
from trainer.training.learner import RunPosition
from trainer.training.options import FitOptions
from trainer.training.settle import settle, settle_classes, settle_strategy

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class TestAnatomy:
    @pytest.mark.parametrize(
        ("arch", "stages", "head"),
        [
            ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4"], "fc"),
            (
                "vgg11",
                [*(f"features.{number}" for number in (0, 3, 6, 11, 16)), "classifier"],
                "classifier.6",
            ),
            ("squeezenet1_1", [f"features.{n}" for n in (0, 3, 6, 9)], "classifier.1"),
            ("shufflenet_v2_x0_5", ["conv1.0", "stage2", "stage3", "stage4.0"], "fc"),
            ("efficientnet_b0", None, "classifier.1"),
            ("mobilenet_v3_small", None, "classifier.3"),
            ("convnext_tiny", None, "classifier.2"),
            ("swin_t", None, "head"),
            ("vit_b_16", None, "heads.head"),
            ("googlenet", None, "fc"),
        ],
    )
    def test_every_parameter_is_in_one_stage_or_the_head(self, arch, stages, head):
        with torch.device("meta"):
            network = build_model(arch, 7)
        anatomy = find_stages(network)
        assert anatomy.head == head
        if stages is not None:
            assert [stage.name for stage in anatomy.stages] == stages
        assert 4 <= len(anatomy.stages) <= 13
        inside = [name for stage in anatomy.stages for name in stage.parameters]
        inside += [f"{head}.{name}" for name, _ in network.get_submodule(head).named_parameters()]
        assert sorted(inside) == sorted(name for name, _ in network.named_parameters())
        assert anatomy.is_head_last == (arch != "squeezenet1_1")

    def test_leaves_the_network_as_it_was(self):
        network = build_model(ARCH, 2).train()
        network.stage3.eval()
        before = {name: one.clone() for name, one in network.state_dict().items()}
        modes = [module.training for module in network.modules()]
        random = torch.get_rng_state()
        find_stages(network)
        assert not changed_names(before, network.state_dict())
        assert [module.training for module in network.modules()] == modes
        assert torch.equal(torch.get_rng_state(), random)
        assert not any(module._forward_hooks for module in network.modules())

    def test_a_transformers_blocks_are_its_stages_and_its_tokens_are_of_the_first(self):
        with torch.device("meta"):
            anatomy = find_stages(build_model("vit_b_16", 2))
        assert len(anatomy.stages) == 13
        assert "class_token" in anatomy.stages[0].parameters
        assert "encoder.ln.weight" in anatomy.stages[-1].parameters

    def test_no_classifier(self):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        with pytest.raises(
            augd.OptionError, match=r"last layer with weights of Sequential is 1 \(Batch"
        ):
            find_stages(network)


class TestHead:
    def test_is_a_linear_layer_when_nothing_is_dropped(self):
        head, features = Head(6, 3).train(), torch.randn(4, 6)
        assert torch.equal(head(features), functional.linear(features, head.weight, head.bias))

    def test_dropout_takes_inputs_and_drop_connect_weights(self):
        torch.manual_seed(0)
        features = torch.ones(1000, 40)
        with torch.no_grad():
            dropping, connecting = Head(40, 2, dropout=0.5), Head(40, 2, drop_connect=0.5)
            for head in (dropping, connecting):
                head.weight.fill_(1)
                head.bias.zero_()
            one, other = dropping.train()(features), connecting.train()(features)
            assert torch.equal(dropping.eval()(features), torch.full((1000, 2), 40.0))
            assert torch.equal(connecting.eval()(features), torch.full((1000, 2), 40.0))
        # Inputs are drawn per row and shared by the classes; weights per batch, one by one.
        assert torch.equal(one[:, 0], one[:, 1]) and one[:, 0].unique().numel() > 5
        assert one.mean().item() == pytest.approx(40, rel=0.02), "the mean is kept"
        assert (other == other[0]).all() and other[0, 0] != other[0, 1], other[0]

    def test_takes_the_networks_own_dropout_with_it(self):
        staged = subject_of("mobilenet_v3_small")
        head = staged.network.get_submodule(staged.stages.head)
        assert isinstance(head, Head) and head.dropout == 0.2
        assert staged.network.classifier[2].p == 0
        plain = build_model("mobilenet_v3_small", 3)
        assert plain.state_dict().keys() == staged.network.state_dict().keys()
        other = subject_of("mobilenet_v3_small", dropout=0.7, drop_connect=0.1)
        head = other.network.get_submodule(other.stages.head)
        assert (head.dropout, head.drop_connect) == (0.7, 0.1)

    def test_draws_the_same_weights_as_without(self):
        torch.manual_seed(5)
        plain = build_model(ARCH, 3).state_dict()
        assert not changed_names(plain, subject_of(dropout=0.5).network.state_dict())

    def test_a_head_that_cannot(self):
        with pytest.raises(augd.OptionError, match="--dropout: needs a linear classifier, and"):
            subject_of("squeezenet1_1", dropout=0.5)


class TestSmallConvNet:
    def test_is_that_of_the_book(self):
        network = SmallConvNet(2)
        convolutions = [one for one in network.modules() if isinstance(one, nn.Conv2d)]
        assert [one.out_channels for one in convolutions] == [32, 64, 128, 256, 256]
        assert network.classifier.in_features == 7 * 7 * 256 and network.classifier.dropout == 0.5
        # The book prints 991,041 with one sigmoid; a second class has 12,545 weights more.
        assert sum(one.numel() for one in network.parameters()) == 991_041 + 12_545
        assert network(torch.zeros(2, 3, 180, 180)).shape == (2, 2)

    def test_other_sizes(self):
        staged = build_staged_network("small-convnet", 4, (78, 96))
        assert staged.network(torch.zeros(1, 3, 78, 96)).shape == (1, 4)
        assert len(staged.stages.stages) == 5
        with pytest.raises(augd.OptionError, match=r"from 78 px on, got 64 x 64 px; raise --size"):
            build_staged_network("small-convnet", 4, (64, 64))


def norms_of(learner) -> set[str]:
    return {
        f"{name}.{inside}"
        for name, module in learner.network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for inside in module.state_dict()
    }


class TestFrozen:
    def learning(self, learner) -> set[str]:
        """Names that may change: parameters that learn, and buffers beside them."""
        prefixes = {
            module
            for stage in learner.stages.stages
            if stage.name in learner.phase.shares
            for module in stage.modules
        } | {learner.stages.head}
        names = learner.network.state_dict()
        found = {name for name in names if any(name.startswith(f"{one}.") for one in prefixes)}
        return found - norms_of(learner) if learner.phase.freezes_norms else found

    @pytest.mark.parametrize(
        ("strategy", "unfreeze", "norms"),
        [
            ("head", 1, "auto"), ("partial", 1, "auto"), ("partial", 2, "learn"),
            ("full", 1, "learn"), ("full", 1, "frozen"), ("scratch", 1, "auto"),
        ],
    )  # fmt: skip
    def test_stays_as_it_is_bit_for_bit(self, strategy, unfreeze, norms):
        learner = learner_of(strategy=strategy, unfreeze=unfreeze, epochs=2, norms=norms)
        before = copy_of(learner)
        expected = self.learning(learner)
        train(learner)  # which puts the network into training mode before every step
        changed = changed_names(before, copy_of(learner))
        assert changed == expected
        parameters = dict(learner.network.named_parameters())
        with_gradient = {name for name, one in parameters.items() if one.grad is not None}
        assert with_gradient == expected & parameters.keys(), "none is computed for the rest"
        if strategy in ("full", "scratch") and norms != "frozen":
            assert changed == before.keys()
        else:
            assert any("running_mean" in name for name in before.keys() - changed)

    def test_a_pass_after_train_uses_the_frozen_statistics(self):
        learner = learner_of(strategy="head")
        images, _ = rows()
        with torch.no_grad():
            expected = learner.network.eval()(images)
            assert torch.equal(learner.network.train()(images), expected)

    def test_two_phases(self):
        learner = learner_of(strategy="two-phase", epochs=4, head_epochs=2, unfreeze=1)
        before = copy_of(learner)
        train(learner, range(2))
        assert changed_names(before, copy_of(learner)) == {"fc.weight", "fc.bias"}
        between = copy_of(learner)
        train(learner, range(2, 4))
        changed = changed_names(between, copy_of(learner))
        assert changed == self.learning(learner)
        assert {name for name in changed if name.startswith("conv5")} == {"conv5.0.weight"}

    def test_a_later_phase_thaws_what_an_earlier_one_froze(self):
        learner = learner_of(strategy="two-phase", epochs=2, head_epochs=1)
        learner.network.train()
        learner.network(rows()[0])
        assert not learner.network.stage4[0].training
        learner.enter(1)
        learner.network.train()
        learner.network(rows()[0])
        assert learner.network.stage4[0].training and not learner.network.stage3[0].training
        assert not learner.network.conv5[1].training, "its norm is still frozen"


class TestRates:
    def test_halves(self):
        assert stage_shares(list("abcde"), None) == {
            "a": 0.01, "b": 0.01, "c": 0.01, "d": 0.1, "e": 0.1
        }  # fmt: skip

    def test_a_factor_from_stage_to_stage(self):
        assert stage_shares(list("abc"), 0.5) == {"c": 0.5, "b": 0.25, "a": 0.125}
        assert set(stage_shares(list("abc"), 1.0).values()) == {1.0}

    def test_ratios_are_exact_at_every_step(self, monkeypatch):
        learner = learner_of(strategy="full", epochs=3, per_epoch=4)
        seen = []
        monkeypatch.setattr(
            torch.optim.SGD,
            "step",
            lambda self, closure=None: seen.append(
                {group["name"]: group["lr"] for group in self.param_groups}
            ),
        )
        train(learner)
        assert len(seen) == 12 and len({rates["fc"] for rates in seen}) > 10, "the rate changes"
        for rates in seen:
            assert rates["stage4.0"] == rates["stage3"] == rates["fc"] * (1 / 10)
            assert rates["stage2"] == rates["conv1.0"] == rates["fc"] * (1 / 100)

    def test_norms_and_biases_have_no_weight_decay(self):
        learner = learner_of(strategy="full", norms="learn", weight_decay=0.5)
        names = {id(one): name for name, one in learner.network.named_parameters()}
        decay = {
            names[id(one)]: group["weight_decay"]
            for group in learner.optimiser.param_groups
            for one in group["params"]
        }
        assert decay.keys() == set(names.values())
        for name, one in learner.network.named_parameters():
            assert decay[name] == (0.5 if one.dim() > 1 else 0.0), name

    def test_decay_from_layer_to_layer(self):
        learner = learner_of(strategy="full", layer_decay=0.5, arch="resnet18")
        shares = {g["name"]: g["share"] for g in learner.optimiser.param_groups}
        layers = ["conv1", *(f"layer{n}.{b}" for n in range(1, 5) for b in range(2)), "fc"]
        assert list(shares) == layers
        assert list(shares.values()) == [0.5**number for number in range(9, -1, -1)]
        assert learner.phase.shares["layer4"] == 0.5 and learner.phase.shares["layer3"] == 0.125
        partial = learner_of(strategy="partial", layer_decay=0.5, arch="resnet18")
        shares = {g["name"]: g["share"] for g in partial.optimiser.param_groups}
        assert shares == {"layer4.0": 0.25, "layer4.1": 0.5, "fc": 1.0}

    def test_decay_from_layer_to_layer_is_that_of_timm(self):
        timm = pytest.importorskip("timm", reason="the extra timm is not installed")
        from timm.optim import param_groups_layer_decay

        torch.manual_seed(2)
        staged = build_staged_network("timm:test_vit", 3, (160, 160))
        plan = TrainingPlan("full", 1, layer_decay=0.75)
        (phase,) = plan_phases(plan, staged.stages)
        names = {id(one): name for name, one in staged.network.named_parameters()}
        ours = {
            names[id(one)]: (group["share"], group.get("weight_decay", 0.05))
            for group in parameter_groups(staged.network, staged.stages, phase)
            for one in group["params"]
        }
        theirs = {
            names[id(one)]: (group["lr_scale"], group["weight_decay"])
            for group in param_groups_layer_decay(
                staged.network, 0.05, staged.network.no_weight_decay(), layer_decay=0.75
            )
            for one in group["params"]
        }
        assert timm.__version__ and ours.keys() == theirs.keys()
        for name, (share, decay) in theirs.items():
            if name != "norm.weight" and name != "norm.bias":  # timm: of the head; here: before it
                assert ours[name] == (pytest.approx(share), decay), name

    def test_each_phase_has_a_schedule_of_its_own(self):
        learner = learner_of(strategy="two-phase", epochs=8, head_epochs=4, per_epoch=5)
        first = [
            learner.rate(RunPosition(epoch, batch)) for epoch in range(4) for batch in range(5)
        ]
        learner.enter(4)
        second = [
            learner.rate(RunPosition(epoch, batch)) for epoch in range(4, 8) for batch in range(5)
        ]
        assert first == second and first[0] > first[-1]
        shares = {group["name"]: group["share"] for group in learner.optimiser.param_groups}
        assert shares == {"stage4.0": 0.01, "fc": 0.01}

    def test_more_stages_than_there_are(self):
        with pytest.raises(augd.OptionError) as caught:
            plan_phases(TrainingPlan("partial", 3, unfreeze=5), subject_of().stages)
        assert str(caught.value) == (
            "--unfreeze: expected 1..4, the stages of this network (conv1.0, stage2, stage3, "
            "stage4.0), got 5"
        )


class TestAuto:
    @pytest.mark.parametrize(
        ("num_images", "is_similar", "strategy", "stage_share"),
        [
            (4_999, True, "head", None),
            (4_999, False, "two-phase", None),
            (5_000, True, "full", None),
            (5_000, False, "full", 1.0),
        ],
    )
    def test_the_four_quadrants(self, num_images, is_similar, strategy, stage_share):
        choice = choose_strategy(num_images, is_similar=is_similar)
        assert choice[:2] == (strategy, stage_share)
        assert f"{num_images:,}" in choice.why
        assert ("similar" if is_similar else "different") in choice.why

    def test_what_was_given_counts(self):
        auto = settings_of(weights="DEFAULT", stage_share=0.5)
        assert auto.strategy == "auto", "the default, with weights"
        settings, lines = settle_strategy(auto, 9_000, is_similar=False)
        assert (settings.strategy, settings.stage_share) == ("full", 0.5)
        assert lines[0].startswith(
            "Strategy full: 9,000 images are many (5,000 are many), and diff"
        )
        one_epoch = settings_of(weights="DEFAULT", epochs=1)
        assert settle_strategy(one_epoch, 10, is_similar=False)[0].strategy == "head"

    @pytest.mark.parametrize(
        ("strategy", "num_images", "norms", "settled"),
        [
            ("full", 4_999, "auto", "frozen"), ("full", 5_000, "auto", "learn"),
            ("partial", 10, "auto", "frozen"), ("two-phase", 9_000, "auto", "frozen"),
            ("full", 10, "learn", "learn"), ("two-phase", 10, "learn", "learn"),
            ("partial", 9_000, "frozen", "frozen"), ("head", 10, "auto", "learn"),
        ],
    )  # fmt: skip
    def test_norms_by_the_number_of_images(self, strategy, num_images, norms, settled):
        settings = settings_of(weights="DEFAULT", strategy=strategy, norms=norms)
        found, lines = settle_strategy(settings, num_images, is_similar=True)
        assert found.norms == settled
        assert bool(lines) == (norms == "auto" and strategy != "head")

    def test_weights_of_classes(self):
        settings = settle_classes(settings_of(), ["b=3", "c=2"], ["a", "b", "c"])
        assert settings.class_weights == (0.5, 1.5, 1.0)
        assert settle_classes(settings_of(), [], ["a"]).class_weights is None

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("d=3", "expected NAME=W, with a class such as a, b; got 'd=3'"),
            ("a=0", "expected a positive number, got 'a=0'"),
            ("a=x", "expected a positive number, got 'a=x'"),
            ("a", "expected NAME=W, with a class such as"),
        ],
    )
    def test_wrong_weights_of_classes(self, given, says):
        with pytest.raises(augd.OptionError, match=re.escape(says)):
            settle_classes(settings_of(), [given], ["a", "b"])

    def test_without_weights(self):
        auto = settings_of(strategy="auto")
        settings, lines = settle_strategy(auto, 10, is_similar=True)
        assert settings.strategy == "scratch"
        assert lines == ["Strategy scratch: there are no weights to begin with (--weights)."]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"strategy": "haed"}, "--strategy: expected scratch, head, partial, full, two-phase or a"),
        ({"strategy": "head"}, "--strategy: head builds on what a network has learnt; give --wei"),
        ({"strategy": "scratch", "weights": "DEFAULT"}, "--strategy: scratch starts from random w"),
        (
            {"strategy": "two-phase", "weights": "DEFAULT", "epochs": 1},
            "--epochs: two-phase needs one for each phase, got 1",
        ),
        (
            {"strategy": "two-phase", "weights": "DEFAULT", "head_epochs": 10},
            "--head-epochs: expected 1 or more, and less than --epochs 10, got 10",
        ),
        ({"head_epochs": 2}, "--head-epochs: is for --strategy two-phase, got scratch; leave"),
        ({"schedule": "step"}, "--schedule: expected cosine or constant, got 'step'"),
        ({"label_smoothing": 1.0}, "--label-smoothing: expected 0 or more, and less than 1, got 1"),
        ({"dropout": -0.1}, "--dropout: expected 0 or more, and less than 1, got -0.1"),
        ({"drop_connect": float("nan")}, "--drop-connect: expected 0 or more, and less than 1, go"),
        ({"ema": 1.5}, "--ema: expected 0 or more, and less than 1, got 1.5"),
        ({"stage_share": 2.0}, "--stage-share: expected 0 or more, and 1 at most, got 2"),
        ({"norms": "thaw"}, "--norms: expected auto, frozen or learn, got 'thaw'"),
        ({"norms": "frozen"}, "--norms: frozen is for partial, full, two-phase, got --strategy sc"),
        ({"layer_decay": 0.5}, "--layer-decay: is for full and partial, got --strategy scratch"),
        (
            {"layer_decay": 0.5, "stage_share": 0.5, "weights": "DEFAULT"},
            "--layer-decay: --stage-share says it by stages already; give one of the two",
        ),
        ({"layer_decay": 1.5, "weights": "DEFAULT"}, "--layer-decay: expected 0 or more, and 1 at"),
        ({"balance": "classes"}, "--balance: expected class, got 'classes'"),
        ({"mixup": -1.0}, "--mixup: expected 0 or more, got -1"),
        ({"cutmix": -1.0}, "--cutmix: expected 0 or more, got -1"),
    ],
)
def test_refused_options(changed, says):
    with pytest.raises(augd.OptionError, match=re.escape(says)):
        settle(FitOptions(**OPTIONS | changed))


class SecondRank(Ranks):
    """The second of two ranks, without the first: what it is told is nines."""

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            tensor.fill_(9)


def test_ranks_judge_by_the_statistics_and_the_average_of_the_first() -> None:
    """Each rank's BatchNorm has seen other rows; saved and judged are those of rank 0."""
    learner = learner_of(strategy="full", ema=0.5)
    learner.network.train()
    learner.step(*rows(), RunPosition(0, 0))
    learner.ranks = SecondRank(1, 2, 1)
    own = copy_of(learner)
    buffers = {name for name, _ in learner.network.named_buffers()}
    with learner.evaluating():
        assert all(bool((one == 9).all()) for one in learner.network.state_dict().values())
        assert not learner.network.training
    for name, one in learner.network.state_dict().items():
        assert torch.equal(one, torch.full_like(one, 9) if name in buffers else own[name]), name
