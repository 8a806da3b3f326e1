"""Receipts: what both sides count and digest, and any batch made again from them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import augd
import trainer
from augd.protocol.digest_sums import DIGEST_MODULUS, IDS_MODULUS
from augd.protocol.row_digest import ids_digest, rows_digest
from tests.support.commands import run_augd
from tests.support.scenes import SMALL, make_folder

NUM_SAMPLES = 70


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=NUM_SAMPLES // 2)


@pytest.fixture(scope="module")
def daemon(folder: Path):
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


def connect(daemon: augd.ServedDaemon, **options: object) -> augd.Stream:
    return augd.connect(daemon.address, **{"recipe": SMALL, "batch_size": 16, **options})


def read(stream: augd.Stream, epoch: int) -> dict[str, object]:
    for batch in stream.epoch(epoch):
        batch.release()
    return stream.receipt(epoch)


def test_a_receipt_is_the_sum_of_what_arrived(daemon):
    ids, digest, names = 0, 0, []
    with connect(daemon) as stream:
        for batch in stream.epoch(1):
            ids += ids_digest(batch.position, batch.ids)
            rows = rows_digest(batch.ids, batch.labels, batch.images)
            assert batch.digest == f"{rows:032x}"
            digest += rows
            names.append(batch.digest)
        receipt = stream.receipt(1)
    assert receipt == {
        "epoch": 1,
        "batches": 5,
        "samples": NUM_SAMPLES,
        "num_bad": 0,
        "ids": f"{ids % IDS_MODULUS:016x}",
        "bytes": f"{digest % DIGEST_MODULUS:032x}",
        "files_changed": False,
        "is_complete": True,
    }
    assert len(set(names)) == 5


@pytest.mark.parametrize("transport", ["memfd", "frames"])
def test_the_layout_does_not_change_a_receipt_and_the_content_does(daemon, transport):
    with connect(daemon) as stream:
        first, second = read(stream, 0), read(stream, 1)
    assert (first["ids"], first["bytes"]) != (second["ids"], second["bytes"])
    with connect(daemon, batch_size=9, prefetch=2, verify=True, transport=transport) as stream:
        assert read(stream, 0) == {**first, "batches": 8}
    with connect(daemon, recipe={**SMALL, "filter": "antialias"}) as stream:
        other = read(stream, 0)
    assert other["ids"] == first["ids"]
    assert other["bytes"] != first["bytes"]


def test_the_receipts_of_all_ranks_add_up_to_that_of_one(daemon):
    with connect(daemon) as stream:
        whole = read(stream, 0)
    parts = []
    for rank in range(3):
        with connect(daemon, batch_size=8, rank=rank, world=3) as stream:
            parts.append(read(stream, 0))
    assert sum(part["samples"] for part in parts) == NUM_SAMPLES
    assert sum(int(part["ids"], 16) for part in parts) % IDS_MODULUS == int(whole["ids"], 16)
    total = sum(int(part["bytes"], 16) for part in parts) % DIGEST_MODULUS
    assert total == int(whole["bytes"], 16)


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_a_receipt_survives_resumes(daemon, cut):
    with connect(daemon) as stream:
        whole = read(stream, 2)
        passing = stream.epoch(2)
        for _ in range(cut):
            next(passing).release()
        assert not stream.receipt(2)["is_complete"]
        state = json.loads(json.dumps(stream.state_dict()))
    with connect(daemon, batch_size=7) as stream:
        stream.load_state_dict(state)
        receipt = read(stream, 2)
    assert {**receipt, "batches": 5} == whole
    with connect(daemon) as stream:
        stream.load_state_dict({**state, "receipt": None})
        assert not read(stream, 2)["is_complete"], "what came before is not known"


def test_a_trainer_has_receipts_too(daemon):
    with connect(daemon) as stream:
        whole = read(stream, 0)
    options = {"recipe": SMALL, "batch_size": 16, "device": "cpu"}
    with trainer.connect(daemon.address, **options) as tensors:
        batches = tensors.epoch(0)
        next(batches)
        state = tensors.state_dict()
        assert state["receipt"]["batches"] == 1
        for _ in batches:
            pass
        assert tensors.receipt(0) == whole


def test_no_receipt_of_what_never_came(daemon):
    with connect(daemon) as stream, pytest.raises(augd.OptionError, match="no receipt of 7"):
        stream.receipt(7)


def test_bytes_that_were_overwritten_are_noticed(daemon):
    """With verify=True; the ids are compared always."""
    with connect(daemon, verify=True) as stream:
        passing = stream.epoch(0)
        next(passing).release()
        while not stream.is_ready():
            pass
        arena = np.frombuffer(stream.arena, np.uint8)
        arena ^= 1
        with pytest.raises(augd.ReceiptMismatch, match=r"batch \d of epoch 0: the digest of its"):
            for batch in passing:
                batch.release()
        del arena
    with connect(daemon) as stream:
        with pytest.raises(augd.ReceiptMismatch, match="samples that came have the digest"):
            for number, _ in enumerate(stream.epoch(0)):
                if number == 0:
                    while not stream.is_ready():
                        pass
                    np.frombuffer(stream.arena, np.uint8)[:] ^= 1
        del _


# replay


def replay(*words: object) -> subprocess.CompletedProcess[str]:
    return run_augd("replay", *words)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from augd.plan.recipe.recipe import parse_recipe, recipe_to_toml

    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(recipe_to_toml(parse_recipe(SMALL)))
    return path


def test_replay_makes_any_batch_again(daemon, folder, recipe_file, tmp_path):
    with connect(daemon, seed=5) as stream:
        *_, third, _ = (
            {"images": b.images.copy(), "ids": b.ids.copy(), "digest": b.digest}
            for b in stream.epoch(4)
        )
        state = tmp_path / "state.json"
        state.write_text(json.dumps(stream.state_dict()))
    common = ("--recipe", recipe_file, "--seed", 5, "--epoch", 4, "--batch", 3, "--batch-size", 16)
    out = tmp_path / "batch.npz"
    again = replay(folder, *common, "--state", state, "--out", out, "--expect", third["digest"])
    assert again.returncode == 0, again
    assert "the same bytes" in again.stdout
    with np.load(out) as file:
        assert np.array_equal(file["images"], third["images"])
        assert np.array_equal(file["ids"], third["ids"])
        assert (int(file["epoch"]), int(file["number"])) == (4, 3)
    same = replay("--connect", daemon.address, *common, "--against", out)
    assert same.returncode == 0, same
    other = replay("--connect", daemon.address, *common[:-4], "--batch", 2, *common[-2:])
    assert other.returncode == 0, other


def test_replay_knows_of_blocks(daemon, folder, recipe_file):
    with connect(daemon, shuffle="blocks:8x2") as stream:
        first = next(stream.epoch(0)).digest
    common = ("--recipe", recipe_file, "--batch-size", 16, "--expect", first)
    again = replay(folder, *common, "--blocks", "8x2")
    assert again.returncode == 0, again
    assert replay(folder, *common).returncode == 1
    wrong = replay(folder, *common, "--blocks", "8")
    assert "got 'blocks:8'" in wrong.stderr


def test_replay_says_what_differs(daemon, recipe_file, tmp_path):
    common = ("--connect", daemon.address, "--recipe", recipe_file, "--batch-size", 16)
    out = tmp_path / "batch.npz"
    assert replay(*common, "--out", out).returncode == 0
    with np.load(out) as file:
        arrays = dict(file)
    arrays["images"][3, 5, 5, 1] ^= 1
    np.savez(out, **arrays)
    differing = replay(*common, "--against", out, "--expect", "0" * 32)
    assert differing.returncode == 1
    assert f"images: 1 of 16 rows, samples [{arrays['ids'][3]}]" in differing.stdout
    assert "digest: expected 0000" in differing.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "replay: give the folder that was trained from, or --connect ADDR"),
        (("--batch", 5), "--batch: expected 0..4 in an epoch of this layout, got 5"),
        (("--seed", 1, "--state", "STATE"), "seed: 0 when saved, 1 here"),
        (("--state", "NOTHING"), "is not a saved state_dict()"),
        (("--against", "STATE"), "is no batch of `augd replay`"),
    ],
)
def test_replay_refuses_what_cannot_be(daemon, recipe_file, tmp_path, words, says):
    state = tmp_path / "state.json"
    with connect(daemon) as stream:
        state.write_text(json.dumps(stream.state_dict()))
    named = [state if word == "STATE" else word for word in words]
    connected = ("--connect", daemon.address, "--recipe", recipe_file, "--batch-size", 16)
    refused = replay(*(connected if words else ()), *named)
    assert refused.returncode == 1
    assert says in refused.stderr
