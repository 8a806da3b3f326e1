"""Own ops without a daemon: their numbers, their matrices, what is refused, and the catalogue."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import numpy as np
import pytest
from msgspec import Meta

import augd
from augd.errors import PluginFailed, RecipeError
from augd.plan.content import content_of
from augd.plan.ops.plugin import OwnOpError, Plugin, SampleInfo
from augd.plan.planner.planner import Planner
from augd.plan.random.op_random import OpRandom
from augd.plan.random.philox import Purpose, mix, philox_words, stream_counter
from augd.plan.recipe.op_catalogue import Catalogue
from augd.plan.recipe.op_schema import catalogue_of, survey_of
from augd.plan.recipe.phases import plain_recipe
from augd.plan.recipe.recipe import expand, output_size, parse_recipe
from augd.plugins import ops as plugins
from examples.own_ops import Slant, Vignette

KEY = mix(11, Purpose.PARAMS)
SQUARE = {"op": "resize", "size": [40, 60]}


class Move(Plugin):
    x: Annotated[float, Meta(ge=-9, le=9)] = 3.0
    y: int = 1

    def matrix(self, params, info):
        return np.array([[1, 0, -self.x], [0, 1, -self.y], [0, 0, 1]])


class Everything(Plugin):
    flag: bool = True
    count: Annotated[int, Meta(gt=0)] = 3
    share: float = 0.5
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, int] = (0.5, 2)
    many: tuple[Annotated[float, Meta(lt=9)], ...] = (1.0, 2.0)
    short: Annotated[list[int], Meta(max_length=2)] = []  # noqa: RUF012  msgspec copies it
    text: Annotated[str, Meta(max_length=4)] = "none"
    maybe: float | None = None

    def pixels(self, row, params):
        row[...] = 0


class Told(Plugin):
    def sample(self, rng, info):
        return (info, rng.uniform(), rng.integers(1, 6))

    def pixels(self, row, params):
        row[...] = params[2]


class Broken(Plugin):
    at: str = "sample"
    matrix_is: int = 0

    def sample(self, rng, info):
        if self.at == "sample":
            raise KeyError("no such thing")

    def matrix(self, params, info):
        if self.at == "matrix":
            return 1 / self.matrix_is
        nan = float("nan")
        wrong = (
            None,
            [[1, 0], [0, 1]],
            [[nan, 0, 0], [0, 1, 0], [0, 0, 1]],
            [[1, 0, 0], [0, 1, 0], [0.1, 0, 1]],
            [[65, 0, 0], [0, 1, 0], [0, 0, 1]],
            5,
        )
        return wrong[self.matrix_is]


class Keeps(Plugin):
    gives: bool = False

    def pixels(self, row, params):
        if self.gives:
            return row[::-1]
        row[0, 0, 300] = 1


OWN = (Move, Everything, Told, Broken, Keeps, Slant, Vignette)
KNOWN = Catalogue([("tests.own", op) for op in OWN], {"tests.own": "ab", "tests.other": "cd"})


def plan_of(ops, *, ids=(0, 1, 2, 3), epoch=0, sizes=(500, 375), seed=11, **fields):
    recipe = parse_recipe({"ops": ops, **fields}, KNOWN)
    planner = Planner(recipe, seed, output_size(recipe, None))
    widths, heights = (np.full(len(ids), side, np.int32) for side in sizes)
    return planner.plan(np.array(ids, np.int64), np.full(len(ids), epoch), widths, heights)


# the numbers


def test_numbers_are_the_words_of_the_ops_place():
    dice = OpRandom(KEY, 2**40 + 5, 7, 3, 2)
    found = [dice.uniform() for _ in range(5)]
    ids = np.array([2**40 + 5], np.uint64)
    words = [philox_words(KEY, ids, 7, stream_counter(3, 2, draw))[:, 0] for draw in (1, 2)]
    assert found == [(float(word) + 0.5) / 2**32 for word in [*words[0], words[1][0]]]


def test_numbers_have_their_laws():
    dice = OpRandom(KEY, 1, 0, 0, 0)
    throws = [dice.integers(1, 6) for _ in range(3000)]
    assert set(throws) == {1, 2, 3, 4, 5, 6}
    assert abs(np.mean(throws) - 3.5) < 0.16, "5 standard deviations"
    assert abs(np.mean([dice.normal(10, 2) for _ in range(3000)]) - 10) < 0.19
    assert abs(np.mean([dice.chance(0.25) for _ in range(3000)]) - 0.25) < 0.04
    assert all(-1 < dice.uniform(-1, 1) < 1 for _ in range(1000))
    noise = OpRandom(KEY, 1, 0, 0, 0).normals((60, 50, 3))
    assert noise.shape == (60, 50, 3)
    assert abs(noise.mean()) < 0.06 and abs(noise.std() - 1) < 0.04
    assert np.array_equal(noise, OpRandom(KEY, 1, 0, 0, 0).normals((60, 50, 3)))
    two = OpRandom(KEY, 1, 0, 0, 0)
    assert not np.array_equal(two.uniforms(9), two.uniforms(9))


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="integers: expected low <= high"):
        OpRandom(KEY, 1, 0, 0, 0).integers(3, 2)
    dice = OpRandom(KEY, 1, 0, 0, 0)
    for _ in range(4 * 4095):
        dice.uniform()
    with pytest.raises(ValueError, match=r"more than 16380 numbers .* draw arrays"):
        dice.uniform()


@pytest.mark.parametrize(
    "other",
    [{"epoch": 1}, {"seed": 12}, {"ids": (1, 2, 3, 4)}, {"first": {"op": "mirror", "p": 0}}],
    ids=str,
)
def test_numbers_follow_from_seed_sample_epoch_and_place_alone(other):
    first = [other.pop("first")] if "first" in other else []

    def thrown(first=(), **options):
        plan = plan_of([SQUARE, *first, {"op": "told"}], **options)
        return [edit.params[1] for edits in plan.edits for edit in edits]

    assert thrown() == thrown()
    assert thrown(ids=(3, 1)) == [thrown()[3], thrown()[1]], "nothing of the rows beside"
    assert not set(thrown()) & set(thrown(first, **other)) or "ids" in other
    if "ids" in other:
        assert thrown(**other)[:3] == thrown()[1:]


def test_it_is_told_of_its_row():
    ops = [{"op": "center_crop", "size": [40, 60]}, {"op": "told"}]
    ((edit,), *_) = plan_of(ops, ids=(9,), epoch=4).edits
    assert edit.params[0] == SampleInfo(9, 4, 0, 500, 375, 60, 40, 60, 40)


def test_views_draw_their_own_and_the_windows_of_a_view_op_share():
    views = [edits[0].params for edits in plan_of([SQUARE, {"op": "told"}], views=3).edits]
    assert [told.view for told, *_ in views] == [0, 1, 2] * 4
    assert len({number for _, number, _ in views}) == 12
    ten = plan_of([{"op": "told"}, {"op": "ten_crop", "size": 32}], ids=(5,)).edits
    assert [edits[0].params[0].view for edits in ten] == list(range(10))
    assert len({edits[0].params[1] for edits in ten}) == 1


def test_rows_of_no_sample_or_unknown_size_are_never_shown():
    assert plan_of([SQUARE, {"op": "told"}], ids=(-1, 2)).edits[0] == []
    assert plan_of([SQUARE, {"op": "told"}], sizes=(0, 0)).edits == [[]] * 4
    assert not plan_of([SQUARE, {"op": "move"}], sizes=(0, 0)).bent.any()
    plan = plan_of([{"op": "random_crop", "size": 40, "pad": 0}, {"op": "told"}], ids=(1,))
    assert len(plan.edits[0]) == 1


def test_p_is_the_probability_that_it_is_applied():
    plan = plan_of([SQUARE, {"op": "told", "p": 0.25}], ids=range(2000))
    share = np.mean([len(edits) for edits in plan.edits])
    assert abs(share - 0.25) < 0.05
    bent = plan_of([SQUARE, {"op": "move", "p": 0.25}], ids=range(2000)).bent
    assert abs(bent.mean() - 0.25) < 0.05


# matrices


def test_a_matrix_composes_with_the_other_ops():
    """The output is 60x40 of a 500x375 photo: a move of 3 right and 1 down, by hand."""
    plan = plan_of([SQUARE, {"op": "mirror", "p": 1}, {"op": "move"}])
    assert plan.bent.all()
    step_x, step_y = 500 / 60, 375 / 40
    for matrix in plan.matrix:
        # The pixel at (10, 10) shows what lay at (7, 9), which is (53, 9) before the flip.
        assert np.allclose(matrix @ [10, 10, 1], [(60 - 7) * step_x, 9 * step_y])


def test_a_matrix_equals_the_built_in_op_of_the_same_map():
    """Beside a built-in one that draws nothing but 0, the own op's map is all there is."""
    rotated = [SQUARE, {"op": "rotate", "degrees": 30}]
    with_own = plan_of([*rotated, {"op": "move", "x": 0, "y": 0}])
    assert np.allclose(with_own.matrix, plan_of(rotated).matrix)
    moved = plan_of([*rotated, {"op": "move", "x": 5, "y": 0}])
    shift = plan_of(rotated).matrix @ np.array([[1, 0, -5], [0, 1, 0], [0, 0, 1]])
    assert np.allclose(moved.matrix, shift), "the later op acts on the frame that it found"


def test_rows_that_it_is_not_applied_to_keep_their_bits():
    plain = plan_of([SQUARE, {"op": "rotate", "degrees": 30}], ids=range(50))
    some = plan_of(
        [SQUARE, {"op": "rotate", "degrees": 30}, {"op": "move", "p": 0.5}], ids=range(50)
    )
    same = (plain.matrix == some.matrix).all(axis=(1, 2))
    assert 10 < same.sum() < 40
    exact = plan_of([SQUARE, {"op": "move", "p": 0}])
    assert not exact.bent.any()


# failures


@pytest.mark.parametrize(
    ("op", "says"),
    [
        ({}, "sample raised KeyError: 'no such thing'"),
        ({"at": "matrix"}, "matrix raised ZeroDivisionError"),
        ({"at": "", "matrix_is": 0}, "last row 0, 0, 1, got a single number"),
        ({"at": "", "matrix_is": 1}, "expected 3x3 finite numbers .*, got an array of 2x2"),
        ({"at": "", "matrix_is": 2}, r"got \[\[nan"),
        ({"at": "", "matrix_is": 3}, "perspective does not compose"),
        ({"at": "", "matrix_is": 4}, "shrinks more than 64 times"),
        ({"at": "", "matrix_is": 5}, "got a single number"),
    ],
)
def test_what_fails_names_op_and_sample(op, says):
    with pytest.raises(OwnOpError, match=says) as failed:
        plan_of([SQUARE, {"op": "broken", **op}], ids=(17,), epoch=2)
    error = failed.value
    assert (error.op, error.sample, error.epoch) == ("broken", 17, 2)


@pytest.mark.parametrize(
    ("gives", "says"),
    [(True, "pixels: expected None, .* got ndarray"), (False, "pixels raised IndexError")],
)
def test_an_edit_that_fails_names_op_and_sample(gives, says):
    ((edit,), *_) = plan_of([SQUARE, {"op": "keeps", "gives": gives}], ids=(17,)).edits
    with pytest.raises(OwnOpError, match=says) as failed:
        edit.apply(np.zeros((4, 4, 3), np.uint8))
    assert (failed.value.op, failed.value.sample) == ("keeps", 17)
    assert (failed.value.__cause__ is None) == gives


# recipes


REFUSED = [
    ({"op": "tolld"}, r"ops\[1\].op: expected one of .*Did you mean told\?"),
    ({"op": "everything", "shares": 1}, "ops.1..shares: expected one of the keys op, .*share"),
    ({"op": "everything", "count": 0}, "ops.1..count: expected int >= 1, got 0"),
    ({"op": "everything", "flag": 1}, "ops.1..flag: expected bool, got 1"),
    ({"op": "everything", "kind": "c"}, "ops.1..kind: expected one of 'a', 'b', got 'c'"),
    ({"op": "everything", "pair": [0.5]}, "ops.1..pair: expected list of length 2"),
    ({"op": "everything", "many": [10.0]}, r"ops.1..many\[0\]: expected float < 9"),
    ({"op": "everything", "short": [1, 2, 3]}, "ops.1..short: expected list of length <= 2"),
    ({"op": "everything", "text": "too long"}, "ops.1..text: expected str of length <= 4"),
    ({"op": "everything", "share": float("nan")}, "ops.1..share: expected finite numbers, got nan"),
    ({"op": "everything", "many": [float("inf")]}, "ops.1..many"),
    ({"op": "everything", "p": 1.5}, "ops.1..p: expected 0 <= p <= 1, got 1.5"),
]


@pytest.mark.parametrize(("op", "says"), REFUSED)
def test_daemon_and_producer_refuse_the_same(op, says):
    told = catalogue_of(survey_of(KNOWN))
    texts = []
    for known in (KNOWN, told):
        with pytest.raises(RecipeError, match=says) as refused:
            parse_recipe({"ops": [SQUARE, op]}, known)
        texts.append(str(refused.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "op",
    [
        {"op": "everything"},
        {"op": "everything", "maybe": 2, "many": [], "short": [4], "pair": [1, 1], "p": 0.5},
        {"op": "slant", "most": 1},
        {"op": "vignette"},
    ],
)
def test_daemon_and_producer_expand_alike(op):
    told = catalogue_of(survey_of(KNOWN))
    recipe = parse_recipe({"ops": [SQUARE, op]}, told)
    assert expand(recipe) == expand(parse_recipe({"ops": [SQUARE, op]}, KNOWN))
    assert parse_recipe(expand(recipe), told) == recipe
    assert expand(recipe)["ops"][1]["op"] == op["op"]


def test_edits_come_after_the_colour_pass_and_so_not_with_it_on_the_device():
    for known in (KNOWN, catalogue_of(survey_of(KNOWN))):
        recipe = {"ops": [SQUARE, {"op": "vignette"}], "colour_on": "device"}
        with pytest.raises(RecipeError, match=r"ops\[1\].op: expected no vignette with colour_on"):
            parse_recipe(recipe, known)
        parse_recipe({**recipe, "ops": [SQUARE, {"op": "slant"}]}, known)


def test_clients_send_what_only_the_daemon_can_judge():
    recipe = {"ops": [{"op": "center_crop", "size": 8}, {"op": "vignette", "strength": (0.1, 1)}]}
    assert plain_recipe(recipe) == recipe
    assert plain_recipe("imagenet") == expand(parse_recipe("imagenet"))
    for wrong in ({"ops": 3}, {"ops": [{"op": 3}]}, {"ops": [{"op": "mirror", "p": 2}]}, 3):
        with pytest.raises(RecipeError):
            plain_recipe(wrong)
    with pytest.raises(RecipeError, match="expected plain data"):
        plain_recipe({"ops": [{"op": "vignette", "strength": object()}]})


def test_content_names_the_plug_ins_that_a_recipe_uses_and_no_others():
    environment = {"opencv": "5", **KNOWN.environment}

    def names_of(ops):
        recipe = parse_recipe({"ops": ops}, KNOWN)
        content = content_of(
            dataset_digest="", recipe=expand(recipe), seed=0, shuffle=True, policy={},
            environment=KNOWN.environment_of(recipe, environment),
        )  # fmt: skip
        return [name for name in content.fields if name.startswith("environment")]

    assert names_of([SQUARE]) == ["environment.opencv"]
    used = ["environment.opencv", "environment.plugin.tests.own"]
    assert names_of([SQUARE, {"op": "told"}]) == used


# modules


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(text, name="some_ops"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("import augd\n" + text)
        return name

    return write


GOOD = "class Black(augd.Plugin):\n    def pixels(self, row, params): row[...] = 0\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "raise ImportError('of this')",
            "some_ops cannot be imported: .*ImportError: of this",
        ),
        ("def broken(:", "cannot be imported: .*SyntaxError"),
        ("x = 1", "expected a class derived from augd.Plugin, got none"),
        ("class A(augd.Plugin):\n    pass", "A: expected a method matrix or .* got neither"),
        (
            "class A(augd.Plugin):\n  def matrix(self, p, i): pass\n  def pixels(self, r, p): pass",
            "A: expected a method matrix or a method pixels, got both",
        ),
        (GOOD.replace("Black", "Mirror"), "got 'mirror', which is a built-in op"),
        (
            GOOD + GOOD.replace("Black", "BlacK").replace("):", ", tag='black'):"),
            "in some_ops, too",
        ),
        (
            GOOD.replace("):\n", "):\n    x: dict = {}\n", 1),
            "Black.x: expected bool, int, .*, got DictType",
        ),
        (
            GOOD.replace("):\n", ", kw_only=True):\n    x: int\n", 1),
            "Black.x: expected a default, got none",
        ),
    ],
    ids=range(9),
)
def test_a_module_that_cannot_be_used_says_why(module, text, says):
    with pytest.raises(PluginFailed, match=f"(?s){says}"):
        plugins.load([module(text)])


def test_a_missing_module_says_where_it_is_looked_for():
    with pytest.raises(PluginFailed, match=r"(?s)No module named 'not_there'.*PYTHONPATH"):
        plugins.load(["not_there"])


def test_bases_and_what_was_imported_are_no_ops(module):
    text = "from examples.own_ops import Slant\nclass _Base(augd.Plugin):\n  x: int = 1\n"
    found = plugins.load([module(text + GOOD.replace("augd.Plugin", "_Base"))])
    assert [op.name for op in survey_of(found).ops] == ["black"]
    assert survey_of(found).ops[0].parameters[0].name == "x"


def test_the_digest_is_that_of_the_source(module, tmp_path):
    def digest(text):
        return plugins.load([module(text)]).environment["plugin.some_ops"]

    assert digest(GOOD) == digest(GOOD)
    assert digest(GOOD) != digest(GOOD + "# changed\n")
    assert len(digest(GOOD)) == 32


def test_all_of_a_packages_source_counts(module, tmp_path):
    def digest():
        for loaded in [name for name in sys.modules if name.startswith("some_pack")]:
            del sys.modules[loaded]
        return plugins.load(["some_pack"]).environment["plugin.some_pack"]

    module("from some_pack.inner import Black\n", "some_pack.__init__")
    module(GOOD, "some_pack.inner")
    before = digest()
    module(GOOD + "# changed\n", "some_pack.inner")
    assert digest() != before


def test_a_survey_imports_nothing_here(module, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:.")
    told = plugins.survey([module(GOOD + "print('loud')\n")])
    assert "some_ops" not in sys.modules
    assert told.by_name["black"](p=0.5).is_after_colour
    with pytest.raises(PluginFailed, match=r"(?s)cannot be imported.*ZeroDivisionError"):
        plugins.survey([module("1 / 0")])
    with pytest.raises(PluginFailed, match="ended the process with status 3"):
        plugins.survey([module("import os; os._exit(3)")])


def test_a_module_that_never_ends_its_import_is_named_and_killed(module, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(plugins, "_PATIENCE_S", 2.0)
    says = r"plug-ins some_ops: .* at most 2 s; (import some_ops|its start) took longer\. A plug-in"
    with pytest.raises(PluginFailed, match=says):
        plugins.survey([module("import time; time.sleep(3600)")])


def test_the_public_names_are_these():
    assert (augd.Plugin, augd.Dice, augd.SampleInfo) == (Plugin, OpRandom, SampleInfo)
