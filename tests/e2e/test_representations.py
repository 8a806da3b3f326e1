"""What a notebook shows of streams and daemons, how long a pass is, and recipes named by a path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import augd
import trainer
from augd.cli.recipes import load_recipe
from augd.plan.recipe.phases import parse_stream_recipe
from tests.support.scenes import SMALL, make_folder

TOML = 'filter = "linear"\n[[ops]]\nop = "random_resized_crop"\nsize = 24\n'


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[augd.ServedDaemon]:
    folder = make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=21)
    with augd.serve({"small": folder}, producers=1) as served:
        yield served


@pytest.mark.parametrize("side", [augd, trainer], ids=["augd", "trainer"])
def test_a_pass_has_a_length_also_of_what_is_left(daemon: augd.ServedDaemon, side: object) -> None:
    options = {"recipe": SMALL, "batch_size": 8}
    if side is trainer:
        options["device"] = "cpu"
    with side.connect(daemon.address, **options) as stream:  # type: ignore[attr-defined]
        first = stream.epoch(0)
        assert len(first) == len(stream) == 6
        for _ in range(2):
            next(first)
        assert len(first) == 6, "as many as it yields in all"
        state = stream.state_dict()
        assert sum(1 for _ in first) == 4
        stream.load_state_dict(state)
        rest = stream.epoch(0)
        assert len(rest) == 4 == sum(1 for _ in rest)
        assert len(stream.epoch(1)) == 6


def test_a_pass_is_named_and_can_be_closed(daemon: augd.ServedDaemon) -> None:
    with augd.connect(daemon.address, recipe=SMALL, batch_size=8) as stream:
        one = stream.epoch(3)
        assert repr(one) == "<pass over epoch 3, 6 batches>"
        next(one)
        one.close()
        assert list(one) == []


def test_streams_and_daemons_say_what_they_are(daemon: augd.ServedDaemon) -> None:
    assert repr(daemon) == f"<ServedDaemon at {daemon.address}, pid {daemon.pid}>"
    what = "42 samples, 2 classes, 6 batches of 8; epoch 0, position"
    with augd.connect(daemon.address, recipe=SMALL, batch_size=8) as stream:
        assert repr(stream) == f"<Stream of 'small' at {daemon.address}: {what} 0>"
        batch = next(stream.epoch(0))
        assert repr(batch).startswith("<Batch 0 of epoch 0, images (8, ")
        assert repr(stream).endswith("position 8>")
        del batch
    assert repr(stream) == f"<Stream of 'small' closed: {what} 8>"
    with trainer.connect(daemon.address, recipe=SMALL, batch_size=8, device="cpu") as tensors:
        assert repr(tensors).startswith("<Stream to cpu from <Stream of 'small' at ")


def test_a_daemon_that_was_closed_says_so(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=2)
    served = augd.serve(folder, producers=0)
    served.close()
    assert repr(served) == "<ServedDaemon, closed>"


@pytest.mark.parametrize("kind", [str, Path], ids=["text", "Path"])
def test_a_recipe_is_read_from_a_file(
    daemon: augd.ServedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    (tmp_path / "my.toml").write_text(TOML)
    plain = {"filter": "linear", "ops": [{"op": "random_resized_crop", "size": 24}]}
    monkeypatch.chdir(tmp_path)
    with augd.connect(daemon.address, recipe=plain, batch_size=8) as stream:
        content = stream.content
    for name in ("my.toml", "./my.toml", tmp_path / "my.toml"):
        with augd.connect(daemon.address, recipe=kind(name), batch_size=8) as stream:
            assert stream.content == content
        with trainer.connect(
            daemon.address, recipe=kind(name), batch_size=8, device="cpu"
        ) as tensors:
            assert tensors.content == content
    assert load_recipe("my.toml") == parse_stream_recipe(plain)


def test_a_presets_name_stays_one(
    daemon: augd.ServedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eval").write_text(TOML)
    with augd.connect(daemon.address, recipe="eval", batch_size=8) as stream:
        assert next(stream.epoch(0)).images.shape[1:] == (224, 224, 3)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "no.toml",
            None,
            r"recipe: .*no\.toml cannot be read \(No such file or directory\)",
        ),
        ("bad.toml", "ops = [", r"recipe: expected TOML, got text that does not parse"),
        ("", None, r"recipe: .* cannot be read \(Is a directory\)"),
        ("odd.toml", 'filter = "x"', r"recipe.ops: expected a list of ops, got None"),
    ],
)
def test_a_file_that_is_none_is_named(
    daemon: augd.ServedDaemon, tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(augd.RecipeError, match=says):
        augd.connect(daemon.address, recipe=f"{tmp_path}/{name}")


def test_the_daemon_hints_at_names_of_other_libraries_too(daemon: augd.ServedDaemon) -> None:
    """A name that is not built in is the daemon's to judge."""
    recipe = {"ops": [{"op": "RandomHorizontalFlip", "p": 0.5}]}
    with pytest.raises(augd.RecipeError, match=r"RandomHorizontalFlip: did you mean mirror\?$"):
        augd.connect(daemon.address, recipe=recipe)


def test_channels_last_is_no_layout_to_view_as_one_row(daemon: augd.ServedDaemon) -> None:
    """As `connect` documents: the ways that work, and the one that doesn't."""
    options = {"recipe": SMALL, "batch_size": 8, "device": "cpu"}
    with trainer.connect(daemon.address, **options) as stream:
        images = next(stream.epoch(0)).images
    with pytest.raises(RuntimeError, match="view"):
        images.view(len(images), -1)
    flat = images.flatten(1)
    assert flat.shape == images.reshape(len(images), -1).shape
    with trainer.connect(daemon.address, channels_last=False, **options) as stream:
        planes = next(stream.epoch(0)).images
        assert planes.view(len(planes), -1).equal(flat)
