"""Own ops from the module to the batch: the example of docs/own-ops.md, and what goes wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import augd
from augd.client.status import status as ask_status
from augd.plan.random.op_random import OpRandom
from augd.plan.random.philox import Purpose, mix
from augd.plan.recipe.recipe import expand, parse_recipe, read_toml
from augd.plugins.ops import load
from examples.own_ops import Vignette
from tests.e2e.test_view_commands import holds
from tests.support.processes import await_true, producers_of
from tests.support.scenes import make_folder

ROOT = Path(__file__).parents[2]
PLAIN = [{"op": "resize", "size": [40, 60]}, {"op": "mirror"}]

TROUBLE = '''
import socket
import augd

class Trips(augd.Plugin):
    """Fails at one sample."""

    over: int = 3

    def sample(self, rng, info):
        return info.sample

    def pixels(self, row, params):
        if params == self.over:
            raise ValueError(f"tripped over {params}")

class Crooked(augd.Plugin):
    def matrix(self, params, info):
        return [[1, 0], [0, 1]]

class Picky(augd.Plugin):
    low: int = 0
    high: int = 9

    def __post_init__(self):
        if self.low > self.high:
            raise ValueError(f"low: expected at most high={self.high}, got {self.low}.")

    def pixels(self, row, params):
        row[...] = self.low

class Calls(augd.Plugin):
    def sample(self, rng, info):
        socket.create_connection(("127.0.0.1", 9))

    def pixels(self, row, params):
        pass
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("own") / "set", num_classes=2, per_class=20)


@pytest.fixture(scope="module")
def daemon(folder, tmp_path_factory):
    modules = tmp_path_factory.mktemp("modules")
    (modules / "trouble.py").write_text(TROUBLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{modules}:{ROOT}")
        with augd.serve(folder, producers=2, plugins=["examples.own_ops", "trouble"]) as served:
            yield served


def connect(daemon, *own, **options):
    return augd.connect(daemon.address, recipe={"ops": [*PLAIN, *own]}, **options)


def first_batch(daemon, *own, **options):
    with connect(daemon, *own, **{"batch_size": 40, **options}) as stream:
        batch = next(stream.epoch(0))
        params = batch.params and {name: value.copy() for name, value in batch.params.items()}
        return batch.ids.copy(), batch.images.copy(), params


def test_edits_are_those_of_the_drawn_numbers(daemon):
    ids, plain, _ = first_batch(daemon, seed=5)
    same_ids, edited, _ = first_batch(daemon, {"op": "vignette", "strength": [0.5, 0.9]}, seed=5)
    assert np.array_equal(ids, same_ids)
    assert not np.array_equal(plain, edited)
    op = Vignette(strength=(0.5, 0.9))
    for sample, row in zip(ids.tolist(), plain, strict=True):
        op.pixels(row, OpRandom(mix(5, Purpose.PARAMS), sample, 0, 2, 0).uniform(0.5, 0.9))
    assert np.array_equal(plain, edited)


def test_own_ops_draw_by_the_number_of_the_view_through_all_groups_and_in_phases(daemon):
    vignette = {"op": "vignette", "strength": [0.5, 0.9]}
    views = [
        {"name": "plain", "count": 2, "ops": PLAIN},
        {"name": "edited", "count": 2, "ops": [*PLAIN, vignette]},
        {"name": "last", "ops": PLAIN},
    ]
    phases = [{"from_epoch": 0, "ops": PLAIN}, {"from_epoch": 1, "ops": [*PLAIN, vignette]}]
    op, key = Vignette(strength=(0.5, 0.9)), mix(5, Purpose.PARAMS)
    options = {"batch_size": 40, "seed": 5}
    with (
        augd.connect(daemon.address, recipe={"views": views}, **options) as grouped,
        augd.connect(daemon.address, recipe={"views": 5, "ops": PLAIN}, **options) as whole,
    ):
        batch, rows = next(grouped.epoch(0)), next(whole.epoch(0)).images
        expected = rows[:, 2:4].copy()
        for sample, pair in zip(batch.ids.tolist(), expected, strict=True):
            for view, row in enumerate(pair, 2):
                op.pixels(row, OpRandom(key, sample, 0, 2, view).uniform(0.5, 0.9))
        assert np.array_equal(batch.views["edited"], expected)
        assert np.array_equal(batch.views["plain"], rows[:, :2])
        assert np.array_equal(batch.views["last"], rows[:, 4:])
    with augd.connect(daemon.address, recipe={"phases": phases}, **options) as stream:
        first, second = (next(stream.epoch(epoch)).images.copy() for epoch in (0, 1))
    with augd.connect(daemon.address, recipe={"ops": phases[1]["ops"]}, **options) as alone:
        assert np.array_equal(next(alone.epoch(1)).images, second)
    with augd.connect(daemon.address, recipe={"ops": PLAIN}, **options) as plain:
        assert np.array_equal(next(plain.epoch(0)).images, first)
    with pytest.raises(augd.RecipeError, match=r"recipe.phases\[1\].ops\[2\].strength: expected"):
        bad = {"from_epoch": 1, "ops": [*PLAIN, {**vignette, "strength": "much"}]}
        augd.connect(daemon.address, recipe={"phases": [phases[0], bad]}, **options)


def test_own_ops_of_a_group_act_on_the_rows_that_it_chose(daemon):
    ids, plain, _ = first_batch(daemon, seed=5)
    vignette = {"op": "vignette", "strength": [0.5, 0.9]}
    group = {"op": "one_of", "ops": [{"op": "mirror", "p": 0.0}, vignette]}
    same_ids, edited, _ = first_batch(daemon, group, seed=5)
    assert np.array_equal(ids, same_ids)
    op, num_edited = Vignette(strength=(0.5, 0.9)), 0
    for sample, before, after in zip(ids.tolist(), plain, edited, strict=True):
        if not np.array_equal(before, after):
            rng = OpRandom(mix(5, Purpose.PARAMS), sample, 0, 2, 0, 1)
            op.pixels(before, rng.uniform(0.5, 0.9))
            num_edited += 1
        assert np.array_equal(before, after)
    assert 5 < num_edited < 35


def test_matrices_join_the_one_resample(daemon):
    slant = {"op": "slant", "most": 0.5}
    ids, _, plain = first_batch(daemon, params=True, seed=5)
    _, _, slanted = first_batch(daemon, slant, params=True, seed=5)
    key = mix(5, Purpose.PARAMS)
    for row, sample in enumerate(ids.tolist()):
        drawn = OpRandom(key, sample, 0, 2, 0).uniform(-0.5, 0.5)
        by_hand = plain["matrix"][row] @ [[1, drawn, -40 * drawn], [0, 1, 0], [0, 0, 1]]
        assert np.allclose(slanted["matrix"][row], by_hand)
    assert slanted["bent"].all()


def test_batch_size_and_who_makes_it_change_nothing(daemon):
    recipe = {"ops": [*PLAIN, {"op": "slant"}, {"op": "vignette", "p": 0.5}]}
    digests = {digest_images(daemon, recipe, size) for size in (7, 40)}
    with augd.serve(daemon_folder(daemon), producers=1, plugins=["examples.own_ops"]) as other:
        digests.add(digest_images(other, recipe, 16))
    assert len(digests) == 1


def digest_images(daemon, recipe, batch_size):
    digest = hashlib.blake2b()
    with augd.connect(daemon.address, recipe=recipe, batch_size=batch_size) as stream:
        for epoch in range(2):
            for batch in stream.epoch(epoch):
                digest.update(batch.images)
    return digest.hexdigest()


def daemon_folder(daemon):
    (facts,) = ask_status(daemon.address)["datasets"].values()
    return facts["root"]


def test_views_have_edits_of_their_own(daemon):
    with augd.connect(
        daemon.address, recipe={"ops": [*PLAIN, {"op": "vignette"}], "views": 3}, batch_size=8
    ) as stream:
        images = next(stream.epoch(0)).images.copy()
    assert images.shape == (8, 3, 40, 60, 3)
    assert not np.array_equal(images[:, 0], images[:, 1])


@pytest.mark.parametrize("bad", ["mask", "fail"])
def test_an_error_names_op_sample_and_traceback(daemon, bad):
    with (
        connect(daemon, {"op": "trips", "over": 7}, batch_size=8, bad=bad) as stream,
        pytest.raises(augd.PluginFailed) as failed,
    ):
        for _ in stream.epoch(0):
            pass
    text = str(failed.value)
    first, *trace = text.splitlines()
    assert re.fullmatch(
        r"op trips failed at sample 7 \(class0/0007.jpg\), epoch [01]: "
        "pixels raised ValueError: tripped over 7",
        first,
    ), "in whichever of the epochs begun it is made first"
    assert trace[0] == "Traceback (most recent call last):"
    assert "trouble.py" in trace[1], "the plug-in's own frames alone"
    assert 'raise ValueError(f"tripped over {params}")' in text
    assert trace[-1] == "ValueError: tripped over 7"
    ids, _, _ = first_batch(daemon, {"op": "vignette"})
    assert len(ids) == 40, "others are unharmed, and no producer ended"
    assert ask_status(daemon.address)["restarts"] == 0


def test_a_wrong_return_is_an_error_too(daemon):
    with (
        connect(daemon, {"op": "crooked"}) as stream,
        pytest.raises(augd.PluginFailed, match=r"op crooked failed at sample .* 2x2$"),
    ):
        next(stream.epoch(0))


def test_a_check_of_the_ops_own_refuses_a_recipe(daemon):
    with connect(daemon, {"op": "picky", "low": 10}) as stream:
        says = r"^recipe.ops\[2\].low: expected at most high=9, got 10"
        with pytest.raises(augd.RecipeError, match=says):
            next(stream.epoch(0))
    _, images, _ = first_batch(daemon, {"op": "picky", "low": 4})
    assert (images == 4).all()


def test_it_may_not_reach_the_network(daemon):
    if "seccomp" not in ask_status(daemon.address)["producers"][0]["confinement"]:
        pytest.skip("this kernel grants no seccomp filter")
    with (
        connect(daemon, {"op": "calls"}) as stream,
        pytest.raises(augd.PluginFailed, match="sample raised PermissionError"),
    ):
        next(stream.epoch(0))


def test_names_are_the_daemons_to_judge(daemon, folder):
    says = "expected one of all_of, .*vignette.*, got 'vignete'. Did you mean vignette?"
    with pytest.raises(augd.RecipeError, match=says):
        connect(daemon, {"op": "vignete"})
    with pytest.raises(augd.RecipeError, match=r"ops\[2\].strength\[1\]: expected float <= 1.0"):
        connect(daemon, {"op": "vignette", "strength": [0, 1.5]})
    says = r"expected one of all_of, .*got 'vignette'"
    with augd.serve(folder, producers=1) as plain, pytest.raises(augd.RecipeError, match=says):
        connect(plain, {"op": "vignette"})


def test_a_producer_that_is_replaced_has_the_ops_too(daemon, folder):
    with augd.serve(folder, producers=1, plugins=["examples.own_ops"]) as served:
        with connect(served, {"op": "vignette"}, batch_size=4) as stream:
            passing = stream.epoch(0)
            before = next(passing).ids.copy()
            (pid,) = producers_of(served.pid)
            os.kill(pid, signal.SIGKILL)
            rest = [batch.ids.copy() for batch in passing]
        assert sorted(np.concatenate([before, *rest])) == list(range(40))
        await_true(lambda: producers_of(served.pid) != [pid], 5, "another producer")


def test_a_changed_source_is_another_content(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    source = tmp_path / "changing.py"
    text = "import augd\nclass Fill(augd.Plugin):\n  def pixels(self, row, params): row[...] = 1\n"
    named = pytest.raises(augd.SpecMismatch, match=r"environment\.plugin\.changing")
    source.write_text(text)
    listen = f"ipc://{tmp_path}/daemon"

    def serve():
        return augd.serve(folder, producers=1, listen=listen, plugins=["changing"])

    with serve() as served:
        with connect(served, {"op": "fill"}, batch_size=4) as stream:
            next(stream.epoch(0))
            state = stream.state_dict()
        with connect(served, batch_size=4) as stream:
            plain = stream.state_dict()
        living = connect(served, {"op": "fill"}, batch_size=4, timeout_s=20)
        passing = living.epoch(0)
        next(passing)
    assert "environment.plugin.changing" in state["content"]
    source.write_text(text.replace("= 1", "= 2"))
    with serve() as served, living:
        with named:
            for _ in passing:
                pass
        with connect(served, {"op": "fill"}, batch_size=4) as stream, named:
            stream.load_state_dict(state)
        with connect(served, batch_size=4) as stream:
            stream.load_state_dict(plain)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "(?s)plug-in broken cannot be imported: .*No module named 'broken'"),
        ("import augd\n1 / 0\n", "(?s)broken cannot be imported.*broken.py.*ZeroDivisionError"),
        ("import augd\n", "expected a class derived from augd.Plugin, got none"),
    ],
)
def test_a_plug_in_that_cannot_be_used_ends_the_start(folder, tmp_path, monkeypatch, text, says):
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    if text is not None:
        (tmp_path / "broken.py").write_text(text)
    with pytest.raises(augd.PluginFailed, match=says):
        augd.serve(folder, producers=1, plugins=["broken"])


def test_a_batch_is_replayed_with_the_plug_in(daemon, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with connect(daemon, {"op": "vignette"}, batch_size=8) as stream:
        digest = next(stream.epoch(0)).digest
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        '[[ops]]\nop = "resize"\nsize = [40, 60]\n[[ops]]\nop = "mirror"\n'
        '[[ops]]\nop = "vignette"\n'
    )
    words = ["--recipe", str(recipe), "--batch-size", "8", "--expect", digest]
    for more in (["--connect", daemon.address], [str(folder), "--plugin", "examples.own_ops"]):
        done = subprocess.run(
            [sys.executable, "-m", "augd", "replay", *more, *words],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done
        assert "the same bytes" in done.stdout


OWN = """
views = 2
[[ops]]
op = "resize"
size = [40, 60]
[[ops]]
op = "mirror"
[[ops]]
op = "slant"
most = 0.5
p = 0.5
[[ops]]
op = "vignette"
"""


def show(*words):
    return subprocess.run(
        [sys.executable, "-m", "augd", *map(str, words)],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip


def test_own_ops_are_previewed_as_delivered_and_explained(daemon, folder, tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text(OWN)
    plain = expand(parse_recipe(read_toml(OWN), load(["examples.own_ops"])))
    with augd.connect(daemon.address, recipe=plain, batch_size=3, params=True) as stream:
        batch = next(stream.epoch(0))
        ids, rows = batch.ids.tolist(), batch.images.copy()
        matrices, bent = batch.params["matrix"].copy(), batch.params["bent"].copy()
        digests = {n: v for n, v in stream.state_dict()["content"].items() if "plugin." in n}
        del batch
    known = ["--recipe", recipe, "--plugin", "examples.own_ops"]
    sheet = tmp_path / "sheet.png"
    done = show("preview", folder, *known, "--rows", 3, "--out", sheet)
    assert done.returncode == 0, done
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert all(holds(pixels, row) for views in rows for row in views)
    said_to_be_slanted = []
    for sample, sample_matrices in zip(ids, matrices, strict=True):
        words = ["explain", folder, *known, "--id", sample]
        said = json.loads(show(*words, "--json").stdout)
        assert said["environment"]["plugin.examples.own_ops"] == json.loads(*digests.values())
        for view, matrix in zip(said["views"], sample_matrices, strict=True):
            assert view["matrix"] == matrix.tolist()
            ops = {op["op"]: op for op in view["ops"]}
            dice = OpRandom(mix(0, Purpose.PARAMS), sample, 0, 3, view["view"])
            assert ops["vignette"]["params"] == dice.uniform(0.2, 0.8)
            said_to_be_slanted.append(ops["slant"]["applied"])
            assert ops["slant"]["applied"] == ("params" in ops["slant"])
        text = show(*words).stdout
        assert f"  vignette           params {ops['vignette']['params']:.5g}" in text
    assert said_to_be_slanted == bent.astype(bool).ravel().tolist()
    assert len(set(said_to_be_slanted)) == 2


def test_what_is_shown_fails_as_what_is_served(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "trouble.py").write_text(TROUBLE)
    recipe = tmp_path / "own.toml"

    def refused(command, op, *more):
        recipe.write_text(f"[[ops]]\nop = 'resize'\nsize = 40\n[[ops]]\nop = '{op}'\n")
        done = show(command, folder, "--recipe", recipe, "--out", tmp_path / "s.png", *more)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    for command in (["preview", "--rows", "40"], ["explain", "--id", "3"]):
        command, *more = command
        says = refused(command, "vignette", *more)
        assert "expected one of all_of" in says and "got 'vignette'" in says
        says = refused(command, "trips", *more, "--plugin", "not_there")
        assert says.startswith("augd: error: plug-in not_there cannot be imported")
        says = refused(command, "trips", *more, "--plugin", "trouble")
        first, *trace = says.splitlines()
        assert first == (
            "augd: error: op trips failed at sample 3 (class0/0003.jpg), epoch 0: "
            "pixels raised ValueError: tripped over 3"
        )
        assert trace[0] == "Traceback (most recent call last):"
        assert trace[-1] == "ValueError: tripped over 3"
        says = refused(command, "crooked", *more, "--plugin", "trouble")
        assert "op crooked failed at sample" in says and "got an array of 2x2" in says


def test_the_command_line_says_it_once(folder, tmp_path):
    words = ["serve", str(folder), "--plugin", "not_there", "--listen", f"ipc://{tmp_path}/d"]
    done = subprocess.run(
        [sys.executable, "-m", "augd", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.count("No module named 'not_there'") == 1
    assert done.stderr.startswith("augd: error: plug-in not_there cannot be imported")


def test_the_document_shows_the_example_as_it_is_tested():
    document = (ROOT / "docs" / "own-ops.md").read_text()
    assert f"```python\n{(ROOT / 'examples' / 'own_ops.py').read_text()}```" in document


def test_plugins_is_a_list():
    with pytest.raises(augd.OptionError, match="plugins: expected a list of module names"):
        augd.serve(ROOT, plugins="examples.own_ops")
