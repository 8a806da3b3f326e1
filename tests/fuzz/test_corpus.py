"""What fuzzing found once, and where it starts, through the same targets; no fuzzer needed."""

from __future__ import annotations

import pytest

from tests.fuzz.seeds import CORPUS, seeds
from tests.fuzz.targets import TARGETS
from tests.support.scenes import caught_noise

_CORPUS_MAX_BYTES = 300_000


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_keeps_the_invariants(target: str) -> None:
    inputs = list(seeds(target))
    assert inputs
    with caught_noise():
        for number, data in enumerate(inputs):
            try:
                TARGETS[target](data)
            except Exception as error:
                error.add_note(f"{target}, input {number} of {len(inputs)}: {data[:200]!r}")
                raise


def test_the_corpus_has_a_folder_per_target_and_stays_small() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) < _CORPUS_MAX_BYTES
