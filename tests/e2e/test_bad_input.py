"""The ways that a first hour goes wrong: one line that says what to do, and nothing left."""

from __future__ import annotations

import subprocess
import sys

import pytest

import augd
from tests.support.commands import run_augd
from tests.support.scenes import SMALL, make_folder


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    folder = make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=4)
    with augd.serve({"cats": folder, "dogs": folder}, producers=1) as served:
        yield served


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "augd", *arguments], capture_output=True, text=True, timeout=60
    )


def refused(*arguments: str) -> str:
    """Run a command that must fail; returns its one line."""
    done = run(*arguments)
    assert done.returncode == 1, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("augd: error: ")
    return line


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "is not a folder"),
        (lambda path: path.write_text("x"), "is not a folder"),
        (lambda path: path.mkdir(), "is empty|no images"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("x")), r"no images.*\.?jpg"),
    ],
    ids=["missing", "a file", "empty", "no images"],
)
def test_folders(tmp_path, make, says):
    folder = tmp_path / "photos"
    make(folder)
    line = refused("serve", str(folder), "--listen", f"ipc://{tmp_path}/d")
    assert str(folder) in line
    import re

    assert re.search(says, line), line
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("d")] == []
    with pytest.raises(augd.DatasetError, match=says):
        augd.serve(folder)


def test_addresses(tmp_path):
    line = refused("serve", str(tmp_path), "--listen", "udp://1.2.3.4")
    assert "address: expected ipc://PATH or tcp://HOST:PORT, got 'udp://1.2.3.4'" in line
    with pytest.raises(augd.ConnectError, match=r"no daemon at ipc://.*augd serve PATH"):
        augd.connect(f"ipc://{tmp_path}/nobody")
    long = tmp_path / ("x" * 120)
    with pytest.raises(augd.OptionError, match="a UNIX socket's path may have"):
        augd.connect(f"ipc://{long}")


def test_the_default_address_when_nobody_serves(tmp_path, monkeypatch):
    monkeypatch.setenv("AUGD_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(augd.ConnectError, match="start one with `augd serve PATH`, or pass"):
        augd.connect()


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (
            "imagenett",
            "recipe: expected one of alexnet, .*cifar, .*, ten-crop, .*vgg, got .imagenett",
        ),
        (
            {"ops": [{"op": "random_resized_crop", "size": 32, "scale": [0.5, 0.1]}]},
            r"ops\[0\].scale",
        ),
        ({"ops": [{"op": "mirror", "p": 1.5}]}, r"ops\[0\].p"),
        ({"ops": [{"op": "mirorr"}]}, r"ops\[0\]"),
        (3, "recipe"),
    ],
)
def test_recipes(daemon, recipe, says):
    with pytest.raises(augd.RecipeError, match=says):
        augd.connect(daemon.address, dataset="cats", recipe=recipe)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number in 1.., got 0"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number"),
        ({"rank": 2, "world": 2}, r"rank: expected a whole number in 0\.\.1, got 2"),
        ({"seed": -1}, "seed: expected a whole number in 0"),
        ({"prefetch": 0}, r"prefetch: expected a whole number in 1\.\.1024, got 0"),
        ({"bad": "skip"}, 'bad: expected "mask" or "fail", got .skip.'),
        ({"max_bad_fraction": 2.0}, r"max_bad_fraction: expected 0\.\.1, got 2"),
        ({"timeout_s": 0}, "timeout_s: expected a positive number"),
        ({"batch_size": 100, "drop_last": True}, "drop_last leaves no batch: 8 samples"),
    ],
)
def test_options(daemon, options, says):
    with pytest.raises(augd.OptionError, match=says.replace("1.., got", r"1\.\.\d+, got")):
        augd.connect(daemon.address, dataset="cats", recipe=SMALL, **options)


def test_data_set_names(daemon):
    with pytest.raises(augd.DatasetError, match="name one of: cats, dogs"):
        augd.connect(daemon.address, recipe=SMALL)
    with pytest.raises(augd.DatasetError, match=r"'birds' is not served here.*cats, dogs"):
        augd.connect(daemon.address, dataset="birds", recipe=SMALL)


def test_a_batch_larger_than_the_memory(daemon):
    with pytest.raises(augd.OverLimit, match=r"5 slots of .* MB .* Use a smaller batch_size"):
        augd.connect(daemon.address, dataset="cats", recipe="imagenet", batch_size=2**20)
    augd.connect(daemon.address, dataset="cats", recipe=SMALL, batch_size=4).close()


def test_two_data_sets_of_one_name(tmp_path):
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=1)
    line = refused("serve", str(folder), str(folder))
    assert "two datasets are named 'set'" in line


def test_a_folder_of_others_is_no_place_for_sockets(tmp_path):
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=1)
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o777)
    line = refused("serve", str(folder), "--listen", f"ipc://{public}/d")
    assert "can be written by other users" in line
    assert list(public.iterdir()) == []


def test_help_has_an_example():
    for command in ("serve", "bench"):
        done = run_augd(command, "--help")
        assert done.returncode == 0
        assert f"Example: augd {command} " in done.stdout
