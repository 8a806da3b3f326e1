"""The parts of `trainer fit` that need neither a daemon nor a network of torchvision's."""

from __future__ import annotations

import math
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import augd
from augd.plan.recipe.recipe import parse_recipe
from tests.support.learning import OPTIONS
from trainer.cli.fit import run_fit
from trainer.data.recipes import choose_recipes, sizes_of_phases, with_mix
from trainer.models.build_network import build_model, check_arch, check_input
from trainer.training.checkpoint import check_same_run, load_checkpoint, save_checkpoint
from trainer.training.interrupt import Interrupt
from trainer.training.optimizers import make_optimiser, set_rate, warm_cosine
from trainer.training.options import FitOptions
from trainer.training.running_metrics import RunningMetrics
from trainer.training.settle import settle


class TestRate:
    def test_rises_in_equal_steps_then_falls_to_nothing(self):
        rates = [warm_cosine(step, 4, 24) for step in range(25)]
        assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert rates[14] == pytest.approx(0.5), "half of the cosine is half of the rate"
        assert rates[4:] == sorted(rates[4:], reverse=True)
        assert rates[24] == pytest.approx(0)

    def test_without_warm_up_starts_at_the_full_rate(self):
        assert warm_cosine(0, 0, 10) == 1

    def test_reaches_every_group(self):
        groups = [{"params": [nn.Parameter(torch.ones(1))], "share": share} for share in (1, 0.5)]
        optimiser = torch.optim.SGD(groups, lr=1)
        set_rate(optimiser, 0.25)
        assert [group["lr"] for group in optimiser.param_groups] == [0.25, 0.125]

    def test_optimisers_get_what_was_asked_for(self):
        groups = [{"params": list(nn.Linear(2, 2).parameters())}]
        sgd = make_optimiser(groups, "sgd", 0.3, 0.01).param_groups[0]
        assert (sgd["lr"], sgd["weight_decay"], sgd["momentum"]) == (0.3, 0.01, 0.9)
        adamw = make_optimiser(groups, "adamw", 0.3, 0.01)
        assert isinstance(adamw, torch.optim.AdamW)
        assert adamw.param_groups[0]["weight_decay"] == 0.01


class TestTally:
    def test_weighs_batches_by_their_rows(self):
        metrics = RunningMetrics()
        logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
        metrics.add(0, torch.tensor(3.0), logits, torch.tensor([0, 0, 0]))
        metrics.add(1, torch.tensor(1.0), logits[:1], torch.tensor([1]))
        assert (metrics.rows, metrics.num_unread) == (0, 2)
        assert metrics.read() is None
        assert (metrics.loss, metrics.accuracy, metrics.rows) == (2.5, 0.5, 4)
        again = RunningMetrics(**metrics.sums())
        assert (again.loss, again.accuracy, again.rows) == (2.5, 0.5, 4)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_names_the_first_batch_whose_loss_is_no_number(self, value):
        metrics = RunningMetrics()
        logits, labels = torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)
        for number, loss in enumerate((1.0, 2.0, value, 1.0, value)):
            metrics.add(7 + number, torch.tensor(loss), logits, labels)
        assert metrics.read() == 9
        assert metrics.loss == 1.5

    def test_is_zero_before_the_first_row(self):
        assert (RunningMetrics().loss, RunningMetrics().accuracy) == (0, 0)


class TestInterrupt:
    def test_is_held_back_to_the_end_of_a_step(self):
        before = signal.getsignal(signal.SIGINT)
        done = []
        with Interrupt() as interrupt:
            with pytest.raises(KeyboardInterrupt), interrupt.deferred():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("the step")
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the checkpoint, in spite of a second one")
        assert len(done) == 2
        assert signal.getsignal(signal.SIGINT) is before

    def test_comes_at_once_between_steps(self):
        with Interrupt() as interrupt:
            with interrupt.deferred():
                pass
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)


class TestCheckpoint:
    def test_reads_back_what_was_written(self, tmp_path):
        path = tmp_path / "run" / "last.pt"
        save_checkpoint(path, {"model": {"w": torch.arange(3)}, "classes": ["a", "b"]})
        state = load_checkpoint(path)
        assert torch.equal(state["model"]["w"], torch.arange(3))
        assert state["classes"] == ["a", "b"]
        assert [one.name for one in path.parent.iterdir()] == ["last.pt"]

    def test_a_failed_write_leaves_the_old_one(self, tmp_path, monkeypatch):
        path = tmp_path / "last.pt"
        save_checkpoint(path, {"number": 1})

        def full(state: object, file) -> None:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(augd.AugdError, match=r"last.pt cannot be written .*No space left"):
            save_checkpoint(path, {"number": 2})
        monkeypatch.undo()
        assert load_checkpoint(path)["number"] == 1
        assert [one.name for one in tmp_path.iterdir()] == ["last.pt"]

    def test_missing(self, tmp_path):
        with pytest.raises(augd.OptionError, match=r"--resume: .*last.pt does not exist. Name the"):
            load_checkpoint(tmp_path / "last.pt")

    @pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut short"])
    def test_damaged(self, tmp_path, content):
        (tmp_path / "last.pt").write_bytes(content)
        with pytest.raises(augd.OptionError, match="is no checkpoint of trainer fit, or a damaged"):
            load_checkpoint(tmp_path / "last.pt")

    def test_another_file_of_torch(self, tmp_path):
        torch.save({"weights": torch.ones(1)}, tmp_path / "last.pt")
        with pytest.raises(augd.OptionError, match="is no checkpoint of trainer fit"):
            load_checkpoint(tmp_path / "last.pt")

    def test_runs_no_code_of_the_file(self, tmp_path):
        torch.save({"format": 2, "state": Path("/")}, tmp_path / "last.pt")
        with pytest.raises(augd.OptionError, match="UnpicklingError"):
            load_checkpoint(tmp_path / "last.pt")

    def test_another_format(self, tmp_path):
        torch.save({"format": 99}, tmp_path / "last.pt")
        with pytest.raises(augd.OptionError, match="has format 99, this trainer reads 2"):
            load_checkpoint(tmp_path / "last.pt")

    def test_of_another_run_names_every_difference(self):
        saved = {"arch": "resnet18", "lr": 0.1, "classes": ["cat", "dog"], "old": 1}
        here = {"arch": "resnet50", "lr": 0.1, "classes": ["cat", "cow"]}
        with pytest.raises(augd.SpecMismatch) as caught:
            check_same_run(Path("run/last.pt"), saved, here)
        assert str(caught.value) == (
            "run/last.pt is of another run: arch: resnet18 when saved, resnet50 here; classes: "
            "cat, dog when saved, cat, cow here; old: 1 when saved, None here. Resume with the "
            "options it began with, or start a new run with another --out."
        )
        check_same_run(Path("run/last.pt"), here, here)


class TestModels:
    def test_unknown(self):
        with pytest.raises(augd.OptionError, match=r"'resnet19'; did you mean 'resnet\d+'"):
            check_arch("resnet19")
        with pytest.raises(augd.OptionError, match="'zzzz'; it has alexnet, "):
            check_arch("zzzz")

    @pytest.mark.parametrize("arch", ["squeezenet1_1", "shufflenet_v2_x0_5"])
    def test_has_a_head_for_the_classes(self, arch):
        assert build_model(arch, 5).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5)

    def test_a_transformer_gets_the_size(self):
        with torch.device("meta"):
            network = build_model("vit_b_16", 3, (64, 64))
            assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
        with pytest.raises(augd.OptionError, match="vit_b_16 takes square images, got 64 x 96 px"):
            build_model("vit_b_16", 3, (64, 96))

    def test_a_size_that_does_not_fit(self):
        network = build_model("squeezenet1_1", 3).train()
        before = torch.get_rng_state()
        check_input(network, "squeezenet1_1", torch.zeros(2, 3, 32, 32))
        assert network.training
        assert torch.equal(torch.get_rng_state(), before)
        with pytest.raises(augd.OptionError, match="squeezenet1_1 cannot take images of 8 x 8 px"):
            check_input(network, "squeezenet1_1", torch.zeros(2, 3, 8, 8))


class TestRecipes:
    def test_imagenet_at_another_size(self):
        training, validation, size_px = choose_recipes("imagenet", 96)
        assert size_px == (96, 96)
        assert training["ops"][0] == {"op": "random_resized_crop", "size": 96}
        assert validation["ops"] == [
            {"op": "resize", "short": 110},
            {"op": "center_crop", "size": [96, 96]},
        ]

    def test_the_usual_size_is_the_presets(self):
        from augd.plan.recipe.recipe import expand, parse_recipe

        training, validation, _ = choose_recipes("imagenet", None)
        assert expand(parse_recipe(training)) == expand(parse_recipe("imagenet"))
        assert expand(parse_recipe(validation)) == expand(parse_recipe("eval"))

    def test_a_file_decides_the_size_and_the_filter(self, tmp_path):
        path = tmp_path / "my.toml"
        path.write_text(
            'filter = "linear"\n[[ops]]\nop = "random_resized_crop"\nsize = [48, 64]\n'
            '[[ops]]\nop = "mirror"\n'
        )
        training, validation, size_px = choose_recipes(str(path), None)
        assert training["ops"][1] == {"op": "mirror"}
        assert size_px == (48, 64)
        assert validation["filter"] == "linear"
        assert validation["ops"][0] == {"op": "resize", "short": 73}, "covers the long side, too"
        with pytest.raises(augd.OptionError, match="--size: a TOML file says the size itself"):
            choose_recipes(str(path), 32)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ('[[ops]]\nop = "ten_crop"\nsize = 224', "--recipe: ten_crop makes several views"),
            ('[[ops]]\nop = "multi_scale"', "--recipe: multi_scale makes several views"),
            ('views = 4\n[[ops]]\nop = "mirror"', "--recipe: views = 4 makes several views"),
            ('[[views]]\nname = "a"\nops = []', r"--recipe: \[\[views\]\] makes several views"),
            (
                "[[phases]]\nfrom_epoch = 0\nviews = 2\nops = []",
                "--recipe: views = 2 makes several views",
            ),
        ],
    )
    def test_views_are_for_evaluation(self, tmp_path, text, says):
        (tmp_path / "my.toml").write_text(text)
        with pytest.raises(augd.OptionError, match=rf"^{says} .*trainer evaluate --views$"):
            choose_recipes(str(tmp_path / "my.toml"), None)

    def test_phases_are_validated_at_the_size_of_the_last(self, tmp_path):
        path = tmp_path / "grow.toml"
        path.write_text(
            "".join(
                f'[[phases]]\nfrom_epoch = {epoch}\nops = [{{op = "random_resized_crop", '
                f"size = {size}}}]\n"
                for epoch, size in ((0, 32), (2, 48))
            )
        )
        recipes = choose_recipes(str(path), None)
        assert [one["ops"][0]["size"] for one in recipes.training["phases"]] == [32, 48]
        assert recipes.size_px == (48, 48)
        assert sizes_of_phases(recipes.training) == [(32, 32), (48, 48)]
        assert sizes_of_phases("none") == sizes_of_phases({"ops": []}) == []
        assert recipes.validation["ops"][1]["size"] == [48, 48]
        mixed = with_mix(recipes, 0.2, 0.0, 0.1).training["phases"]
        assert [one["mix"] for one in mixed] == [{"mixup": 0.2, "smoothing": 0.1}] * 2

    def test_images_as_they_are(self, tmp_path):
        assert choose_recipes("none", None) == ("none", "none", None)
        (tmp_path / "mirror.toml").write_text('[[ops]]\nop = "mirror"\n')
        assert choose_recipes(str(tmp_path / "mirror.toml"), None)[1:] == ("none", None)

    def test_published_presets_with_their_evaluations(self):
        training, validation, size_px = choose_recipes("deit", None)
        assert parse_recipe(training) == parse_recipe("deit") and size_px == (224, 224)
        assert parse_recipe(validation) == parse_recipe("eval-bicubic")
        training, validation, size_px = choose_recipes("torchvision-v2", 88)
        assert size_px == (88, 88) and training["ops"][0]["size"] == 88
        assert [op.get("short", op.get("size")) for op in validation["ops"]] == [116, 112]
        assert choose_recipes("cifar-aa", None)[1:] == ("none", (32, 32))
        _, validation, _ = choose_recipes("torchvision-v1", None)
        assert parse_recipe(validation) == parse_recipe("eval")
        assert choose_recipes("eval-bicubic-95", None)[0] == choose_recipes("timm-a1", None)[1]
        for name in ("dino", "simclr"):
            with pytest.raises(augd.OptionError, match=r"--recipe: .* makes several views"):
                choose_recipes(name, None)

    @pytest.mark.parametrize(
        ("recipe", "says"),
        [
            (
                "imagnet",
                "expected imagenet, eval, keras-small, none, a published preset .*'imagnet'",
            ),
            ("/nowhere/my.toml", "my.toml cannot be read .*No such file"),
        ],
    )
    def test_unknown(self, recipe, says):
        with pytest.raises(augd.RecipeError, match=says):
            choose_recipes(recipe, None)


class TestOptions:
    def test_what_is_left_open(self):
        sgd = settle(FitOptions(**OPTIONS))
        assert (sgd.lr, sgd.weight_decay, sgd.warmup_epochs) == (0.025, 1e-4, 0.5)
        adamw = settle(FitOptions(**OPTIONS | {"optimizer": "adamw", "warmup_epochs": 2}))
        assert (adamw.lr, adamw.weight_decay, adamw.warmup_epochs) == (1e-3, 0.05, 2)

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"path": None}, "expected either PATH or --connect ADDR, got neither"),
            ({"connect": "ipc://x"}, "expected either PATH or --connect ADDR, got both"),
            (
                {"path": None, "connect": "ipc://x", "producers": 2},
                "--producers: a running daemon has its own; leave --producers out",
            ),
            ({"optimizer": "lion"}, "--optimizer: expected sgd, adamw or rmsprop, got 'lion'"),
            ({"batch_size": 1}, "--batch-size: expected 2 or more, got 1: a single row has no"),
            ({"lr": 0.0}, "--lr: expected a positive number, got 0.0"),
            ({"lr": math.nan}, "--lr: expected a positive number, got nan"),
            ({"weight_decay": -1.0}, "--weight-decay: expected 0 or more, got -1.0"),
            ({"mean": "cifar"}, "mean: expected imagenet, inception, clip, none or three numbers"),
            ({"std": "1,2"}, "mean: expected three numbers or a name beside std=(1.0, 2.0)"),
            ({"warmup_epochs": 10.0}, "--warmup-epochs: expected 0 or more, and less than --epoch"),
        ],
    )
    def test_refused(self, changed, says):
        with pytest.raises(augd.OptionError, match=re.escape(says)):
            run_fit(FitOptions(**OPTIONS | changed))
