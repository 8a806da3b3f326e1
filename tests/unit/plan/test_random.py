"""Philox against Random123's vectors, and the laws of what is made from its words."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from augd.errors import OptionError
from augd.plan.random import numerics
from augd.plan.random import philox as rng
from augd.plan.random.philox import Philox, Purpose, mix, normals, philox_words, uniforms

ONES = 0xFFFFFFFF

# Frozen: if one of these changes on some machine or by some edit, plans change with it.
EXP_BITS = ["0x1.3da368521902dp-5", "0x1.1aec7b35a00d4p+0", "0x1.060c52565ba66p+18"]
LOG_BITS = ["-0x1.20596b172ee4ep+1", "0x1.9f323ecbf984cp-2", "0x1.2d79559791e31p+3"]
QUANTILE_BITS = [
    "-0x1.7fdc11f44b5a7p+2",
    "-0x1.29c5c4630ff0ep+1",
    "-0x1.0c7e39582c5fap-1",
    "0x1.dc08bb712897ap+1",
]
NORMAL_BITS = [
    "-0x1.c8c6dd0000000p-33",
    "-0x1.b30aeac000000p-31",
    "-0x1.95a1198b84e24p+2",
    "0x1.95a1198b84e24p+2",
    "0x1.5956b810a312fp-1",
    "0x1.c8c6dd0000000p-33",
]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_vectors_of_random123(counter, key, expected):
    sample = np.array([counter[0] | counter[1] << 32], np.uint64)
    words = philox_words(key[0] | key[1] << 32, sample, counter[2], counter[3])
    assert tuple(words[:, 0].tolist()) == expected


def _scalar_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """The paper's definition, one counter at a time."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p2 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p2 >> 32 ^ c1 ^ k0, p2 & ONES, p0 >> 32 ^ c3 ^ k1, p0 & ONES
        k0, k1 = k0 + 0x9E3779B9 & ONES, k1 + 0xBB67AE85 & ONES
    return c0, c1, c2, c3


def test_every_lane_equals_the_scalar_definition():
    key = mix(5, Purpose.PARAMS)
    ids = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
    words = philox_words(key, np.array(ids, np.uint64), 7, 0x01002003)
    for lane, sample in enumerate(ids):
        counter = (sample & ONES, sample >> 32, 7, 0x01002003)
        expected = _scalar_philox(counter, (key & ONES, key >> 32))
        assert tuple(words[:, lane].tolist()) == expected


def test_run_again_with_the_same_counters_gives_the_same_words():
    philox = Philox(3, 5)
    found = []
    for _ in range(2):
        philox.even[...], philox.odd[...] = 1, 2
        philox.run()
        found.append((philox.even.copy(), philox.odd.copy()))
    np.testing.assert_array_equal(found[0], found[1])


def test_keys_differ_by_seed_and_purpose():
    keys = {mix(seed, purpose) for seed in (-1, 0, 1, 2**63) for purpose in Purpose}
    assert len(keys) == 4 * len(Purpose)
    assert mix(-1, Purpose.ORDER) == mix(2**64 - 1, Purpose.ORDER)
    assert mix(0, Purpose.ORDER) == 0x48218226FF3CD4BF


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_beyond_64_bits_is_refused(seed):
    with pytest.raises(OptionError, match=rf"seed: expected -2\*\*63 <= .*, got {seed}\. Give an"):
        mix(seed, Purpose.ORDER)


def test_stream_counter_packs_op_view_and_draw():
    assert rng.stream_counter(0xAB, 0xCDE, 0xF12) == 0xABCDEF12


def test_uniforms_stay_inside_and_are_symmetric():
    ends = uniforms(np.array([0, ONES], np.uint64))
    assert 0 < ends[0] < 1e-9
    assert ends[0] == 1 - ends[1]


def _ulps(found, expected):
    expected = np.array(expected)
    return np.max(np.abs(found - expected) / np.spacing(np.abs(expected)))


def test_exp_and_log_are_within_two_units_in_the_last_place():
    x = np.concatenate([np.linspace(-700, 700, 4001), np.linspace(-1, 1, 4001)])
    assert _ulps(numerics.exp(x), [math.exp(value) for value in x]) <= 2
    y = np.concatenate([10.0 ** np.linspace(-300, 300, 4001), np.linspace(0.5, 2, 4000)])
    assert _ulps(numerics.log(y), [math.log(value) for value in y]) <= 2
    assert numerics.exp(np.zeros(1)).tolist() == [1.0]
    assert numerics.log(np.ones(1)).tolist() == [0.0]


def test_the_normal_quantile_equals_the_standard_librarys():
    p = np.concatenate([np.linspace(0.001, 0.999, 2000), 10.0 ** np.linspace(-300, -1, 500)])
    exact = [statistics.NormalDist().inv_cdf(value) for value in p]
    np.testing.assert_allclose(numerics.normal_quantile(p), exact, rtol=2e-15, atol=1e-16)


def test_bits_of_exp_log_and_quantile_are_frozen():
    x = np.array([-3.25, 0.1, 12.5])
    assert [value.hex() for value in numerics.exp(x).tolist()] == EXP_BITS
    assert [
        value.hex() for value in numerics.log(np.array([0.105112, 1.5, 12345.678])).tolist()
    ] == LOG_BITS
    p = np.array([1e-9, 0.01, 0.3, 0.9999])
    assert [value.hex() for value in numerics.normal_quantile(p).tolist()] == QUANTILE_BITS
    words = np.array([0, 1, 2**31 - 1, 2**31, 3 * 2**30, ONES], np.uint64)
    assert [value.hex() for value in normals(words).tolist()] == NORMAL_BITS


def test_normals_have_the_tail_that_their_word_names():
    middle = 2**31 + np.arange(-500, 500)
    spread = np.linspace(0, ONES, 5000).astype(np.int64)
    words = np.concatenate([middle, spread])
    q = words - 2.0**31 + 0.5
    exact = np.copysign(numerics.normal_quantile(np.abs(q) * 2.0**-32), q)
    np.testing.assert_allclose(normals(words), exact, atol=1e-7)
    np.testing.assert_array_equal(normals(words), -normals(ONES - words))
    np.testing.assert_array_equal(normals(words), normals(words.astype(np.uint64)))
