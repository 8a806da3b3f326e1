"""timm's strings: what they say, and at which character they are wrong."""

from __future__ import annotations

import pytest

from augd.errors import RecipeError
from augd.plan.ops.timm_spec import TimmSpec, parse_timm_spec
from augd.plan.recipe.recipe import expand, parse_recipe


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rand", TimmSpec()),
        ("rand-m9-mstd0.5-inc1", TimmSpec(m=9, mstd=0.5, inc=True)),
        ("rand-mstd0.5-inc1-m9", TimmSpec(m=9, mstd=0.5, inc=True)),
        ("rand-m6-n4-inc1-mstd1.0", TimmSpec(m=6, n=4, mstd=1.0, inc=True)),
        ("rand-m15-mmax20-p0.8", TimmSpec(m=15, mmax=20, p=0.8)),
        ("rand-m8-inc0", TimmSpec(m=8, inc=False)),
        ("rand-m8-inc1-tweights", TimmSpec(m=8, inc=True, t="weights")),
        ("rand-m8-t3aw-n3", TimmSpec(m=8, n=3, t="3aw")),
        ("rand-m8-t3a", TimmSpec(m=8, t="3a")),
        ("rand-mstd101", TimmSpec(mstd=101.0)),
    ],
)
def test_a_string_says(spec, said):
    assert parse_timm_spec(spec) == said


KEYS = "one of the keys inc, m, mmax, mstd, n, p, t"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", "rand at character 1, got nothing"),
        ("augmix-m3-w3", "rand at character 1, got 'augmix'"),
        ("rand-m9-x3", f"{KEYS} at character 9, got 'x3'"),
        ("rand-", f"{KEYS} at character 6, got nothing"),
        ("rand--m9", f"{KEYS} at character 6, got nothing"),
        ("rand-M9", f"{KEYS} at character 6, got 'M9'"),
        ("rand-mfoo", "a whole number after m at character 7, got 'foo'"),
        ("rand-m9.5", "a whole number after m at character 7, got '9.5'"),
        ("rand-m", "a whole number after m at character 7, got nothing"),
        ("rand-m9-mstd.5", "a number after mstd at character 13, got '.5'"),
        ("rand-m9-mstdinf", "a number after mstd at character 13, got 'inf'"),
        ("rand-m9-mstd0.5-inc2", "0 or 1 after inc at character 20, got '2'"),
        ("rand-m9-inc", "0 or 1 after inc at character 12, got nothing"),
        ("rand-m9-m8", "m once at character 9, got 'm8'"),
        ("rand-m9 -n2", "a whole number after m at character 7, got '9 '"),
        ("rand-m9-tfoo", "one of weights, 3a, 3aw after t at character 10, got 'foo'"),
        ("rand-m9-w0", f"{KEYS} at character 9, got 'w0'. timm took the key w out"),
    ],
)
def test_an_error_names_the_character(spec, expected):
    with pytest.raises(RecipeError) as raised:
        parse_recipe({"ops": [{"op": "rand_augment", "spec": spec}]})
    assert f"recipe.ops[0].spec: expected {expected}" in str(raised.value)
    assert 'Write for example "rand-m9-mstd0.5-inc1".' in str(raised.value)


def test_a_spec_and_its_fields_are_one_recipe():
    spelled = {"style": "timm", "layers": 2, "level": 9, "std": 0.5, "p": 0.5, "increasing": True}
    by_fields = parse_recipe({"ops": [{"op": "rand_augment", **spelled}]})
    by_spec = parse_recipe({"ops": [{"op": "rand_augment", "spec": "rand-m9-mstd0.5-inc1"}]})
    assert by_spec == by_fields
    assert expand(by_spec) == expand(by_fields)
    assert parse_recipe(expand(by_spec)) == by_spec
    assert "spec" not in expand(by_spec)["ops"][0]


def test_standard_deviations_above_100_are_one_recipe():
    first, second = (
        parse_recipe({"ops": [{"op": "rand_augment", "spec": f"rand-mstd{std}"}]})
        for std in (101, 999)
    )
    assert first == second
