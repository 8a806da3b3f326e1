"""Content: what it holds, that every change shows, and that the change is named."""

from __future__ import annotations

import copy

import pytest

from augd.plan import content as content_module
from augd.plan.content import content_of, differences
from augd.plan.order.shuffle_option import Blocks
from augd.plan.recipe.recipe import expand, parse_recipe

BASE = {
    "dataset_digest": "00ff",
    "recipe": expand(parse_recipe("imagenet")),
    "seed": 7,
    "shuffle": True,
    "policy": {"bad": "mask", "max_bad_fraction": 0.01},
    "environment": {"opencv": "4.12.0", "kernels": "1"},
}


def changed(**fields):
    return content_of(**{**BASE, **fields})


def recipe_with(number, **parameters):
    recipe = copy.deepcopy(BASE["recipe"])
    recipe["ops"][number].update(parameters)
    return recipe


def test_the_digest_is_frozen():
    assert content_of(**BASE).digest == "81e981dfd0fc30492e71b78a28b779eb"


def test_the_fields_are_flat_sorted_and_hold_the_schemes():
    fields = content_of(**BASE).fields
    assert list(fields) == sorted(fields)
    assert fields["recipe.ops[0].scale"] == "[0.08,1.0]"
    assert fields["seed"] == "7"
    assert fields["rng"] == '"philox4x32-10/1"'
    assert fields["order"] == '"feistel8/1"'
    assert fields["plan"] == '"plan/1"'
    with pytest.raises(TypeError):
        fields["seed"] = "8"  # type: ignore[index]


def test_equal_content_has_an_equal_digest_whatever_the_order_of_keys():
    turned = {key: dict(reversed(BASE[key].items())) for key in ("policy", "environment")}
    a, b = content_of(**BASE), changed(**turned)
    assert a == b
    assert a.digest == b.digest
    assert hash(a) == hash(b)
    assert differences(a, b) == []
    assert len(a.digest) == 32


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dataset_digest": "00fe"}, ['dataset: "00ff" against "00fe"']),
        ({"seed": 8}, ["seed: 7 against 8"]),
        ({"shuffle": False}, ["shuffle: true against false"]),
        (
            {"shuffle": Blocks(64, 256)},
            [
                'order: "feistel8/1" against "windows of blocks, feistel8 of both/1"',
                'shuffle: true against "blocks:64x256"',
            ],
        ),
        ({"policy": {"bad": "mask"}}, ["policy.max_bad_fraction: 0.01 against absent"]),
        (
            {"environment": {**BASE["environment"], "opencv": "4.13.0"}},
            ['environment.opencv: "4.12.0" against "4.13.0"'],
        ),
        ({"recipe": recipe_with(1, p=0.4)}, ["recipe.ops[1].p (mirror): 0.5 against 0.4"]),
        (
            {"recipe": {"filter": "linear", "ops": BASE["recipe"]["ops"]}},
            ['recipe.filter: "antialias" against "linear"'],
        ),
    ],
)
def test_a_change_shows_in_the_digest_and_is_named(fields, expected):
    a, b = content_of(**BASE), changed(**fields)
    assert a != b
    assert a.digest != b.digest
    assert differences(a, b) == expected


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        (["mirror", "resize"], ['recipe.ops[0].op: "resize" against "mirror"']),
        (["resize", "tint", "mirror"], ['recipe.ops[1].op: "mirror" against "tint"']),
        (["resize"], ['recipe.ops[1].op: "mirror" against absent']),
        (["resize", "mirror", *["tint"] * 9], ['recipe.ops[2].op: absent against "tint"']),
        (["resize", "mirror"], []),
    ],
)
def test_of_another_recipe_the_op_that_differs_first_is_named(ops, expected):
    def recipe(names):
        return {"ops": [{"op": name, "p": len(name) / 10} for name in names]}

    before = changed(recipe=recipe(["resize", "mirror"]))
    assert differences(before, changed(recipe=recipe(ops))) == expected


def test_of_an_op_with_other_parameters_they_are_named_before_what_follows():
    before = {"ops": [{"op": "resize", "size": 8}, {"op": "mirror", "p": 0.5}]}
    after = {"ops": [{"op": "resize", "size": 9}, {"op": "tint"}]}
    assert differences(changed(recipe=before), changed(recipe=after)) == [
        "recipe.ops[0].size (resize): 8 against 9",
        'recipe.ops[1].op: "mirror" against "tint"',
    ]


def test_a_field_that_only_the_other_has_is_named():
    other = changed(environment={**BASE["environment"], "plugin.blur": "ab"})
    assert differences(content_of(**BASE), other) == [
        'environment.plugin.blur: absent against "ab"'
    ]


@pytest.mark.parametrize("name", ["RNG_SCHEME", "ORDER_SCHEME", "PLAN_SCHEME"])
def test_a_new_scheme_is_new_content(monkeypatch, name):
    before = content_of(**BASE)
    monkeypatch.setattr(content_module, name, "other/2")
    assert len(differences(before, content_of(**BASE))) == 1


def test_a_new_scheme_of_blocks_is_new_content_of_those_alone(monkeypatch):
    blocks, whole = changed(shuffle=Blocks(64, 256)), content_of(**BASE)
    monkeypatch.setattr(content_module, "BLOCKS_SCHEME", "other/2")
    assert len(differences(blocks, changed(shuffle=Blocks(64, 256)))) == 1
    assert whole == content_of(**BASE)


def test_no_ops_and_an_empty_policy_are_told_from_absent_ones():
    empty = changed(recipe=expand(parse_recipe("none")), policy={})
    assert empty.fields["recipe.ops"] == "[]"
    assert empty.fields["policy"] == "{}"


def test_values_that_json_cannot_hold_exactly_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        changed(policy={"max_bad_fraction": float("nan")})
