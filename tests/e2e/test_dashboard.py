"""The page by HTTP: what it says equals what a client counted; it ends with its daemon."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import augd
from tests.support.processes import await_true, command_of, daemon_of, is_alive, staff_of
from tests.support.programs import finish, free_port
from tests.support.scenes import SMALL, make_folder

pytest.importorskip("starlette", reason="the extra http is not installed")
pytest.importorskip("uvicorn", reason="the extra http is not installed")
parser = pytest.importorskip("prometheus_client.parser", reason="the extra http is not installed")

OPTIONS: dict[str, Any] = {"recipe": SMALL, "batch_size": 8}
WHOLE: dict[str, Any] = {"recipe": SMALL, "batch_size": 30, "max_bad_fraction": 1}


def fetch(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def fetch_json(url: str) -> Any:
    return json.loads(fetch(url)[1])


def page_of(daemon_pid: int) -> list[int]:
    return [pid for pid in staff_of(daemon_pid) if b"augd.server.dashboard" in command_of(pid)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=30)
    broken = made / "class0" / "0003.jpg"
    broken.write_bytes(broken.read_bytes()[:-100])
    (made / "class1" / "0004.jpg").write_bytes(b"GIF89a" + bytes(500))
    return made


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[augd.ServedDaemon]:
    with augd.serve({"small": folder}, producers=2, http="127.0.0.1:0") as served:
        await_true(lambda: answers(served.http), 20, "the page answers")
        yield served


def answers(url: str) -> bool:
    try:
        return fetch(f"{url}/readyz")[0] == 200
    except OSError:
        return False


def counted(url: str) -> dict[tuple[str, ...], float]:
    """Every sample of the metrics, by its name and labels."""
    text = fetch(f"{url}/metrics")[1].decode()
    return {
        (one.name, *one.labels.values()): one.value
        for family in parser.text_string_to_metric_families(text)
        for one in family.samples
    }


def test_metrics_count_what_a_client_counts(daemon):
    before = counted(daemon.http)
    images = bad = batches = 0
    with augd.connect(daemon.address, max_bad_fraction=1, **OPTIONS) as stream:
        for batch in stream.epoch(0):
            batches += 1
            images += len(batch)
            bad += int((~batch.valid).sum())
        waited_s = stream.stats()["wait_s"]
        during = counted(daemon.http)
        # The next epoch is being made already, and is sent as far as there is credit.
        ahead = during["augd_sent_batches_total", "small"] - batches
        assert 0 <= ahead - before["augd_sent_batches_total", "small"] <= 5
        assert during["augd_streams",] == 1
    after = counted(daemon.http)

    def grown(name: str) -> float:
        return after[name, "small"] - before[name, "small"]

    assert (images, bad) == (60, 2)
    assert grown("augd_sent_batches_total") >= batches
    assert 0 <= grown("augd_sent_images_total") - images <= 5 * 8
    assert 2 <= grown("augd_bad_images_total") <= 4
    # All but the last batch's, which was told when it was given back, or never.
    assert 0 < grown("augd_trainer_wait_seconds_total") <= waited_s + 0.01
    assert after["augd_dataset_samples", "small"] == 60
    assert after["augd_producers", "ready"] == 2
    assert all(after[key] >= before[key] for key in before if key[0].endswith("_total"))


def test_metrics_equal_a_client_that_is_sent_no_more(daemon):
    """With credit for all of an epoch and nothing beyond it, both count the same."""
    before = counted(daemon.http)
    with augd.connect(daemon.address, limit=30, prefetch=1, **WHOLE) as one:
        first = next(one.epoch(0))
        await_true(lambda: counted(daemon.http)["augd_slots", "sent"] == 2, 20, "both were sent")
        after = counted(daemon.http)
        assert (
            after["augd_sent_images_total", "small"] - before["augd_sent_images_total", "small"]
            == len(first) + 30
        )
        assert after["augd_arena_bytes",] > 2 * first.images.nbytes
        del first


def test_what_the_way_to_a_device_took_is_told(daemon):
    trainer = pytest.importorskip("trainer", exc_type=ImportError)
    before = counted(daemon.http)["augd_trainer_transfer_seconds_total", "small"]
    with trainer.connect(daemon.address, max_bad_fraction=1, device="cpu", **OPTIONS) as stream:
        for _ in stream.epoch(0):
            pass
        spent_s = stream.stats()["transfer_s"]
        (one,) = fetch_json(f"{daemon.http}/status.json")["streams"]
        assert 0 < one["transfer_s"] <= spent_s + 0.001
    told = counted(daemon.http)["augd_trainer_transfer_seconds_total", "small"] - before
    assert 0 < told <= spent_s + 0.001


def test_the_batch_in_hand_is_shown_byte_for_byte(daemon):
    with augd.connect(daemon.address, params=True, max_bad_fraction=1, **OPTIONS) as stream:
        batch = next(stream.epoch(0))
        number = fetch_json(f"{daemon.http}/status.json")["streams"][0]["stream"]
        shown = fetch_json(f"{daemon.http}/streams/{number}/batch.json?count=5")
        assert (shown["epoch"], shown["number"], shown["rows"]) == (0, 0, 8)
        assert [one["id"] for one in shown["pictures"]] == batch.ids[:5].tolist()
        assert [one["is_valid"] for one in shown["pictures"]] == batch.valid[:5].tolist()
        names = [stream.classes[label] if label >= 0 else "" for label in batch.labels[:5]]
        assert [one["label"] for one in shown["pictures"]] == names
        code, jpeg = fetch(f"{daemon.http}/batches/{shown['key']}/2.jpg")
        with Image.open(io.BytesIO(jpeg)) as image:
            found = np.asarray(image)
        assert code == 200 and found.shape == batch.images[2].shape
        assert np.abs(found.astype(int) - batch.images[2]).mean() < 12, "a JPEG of these pixels"
        words = fetch_json(f"{daemon.http}/batches/{shown['key']}/2.json")
        mirrored = bool(batch.params["mirror"][2])
        assert words["problem"] == "" and ("mirrored" in words["words"][0]) == mirrored
        assert fetch(f"{daemon.http}/batches/{shown['key']}/7.jpg")[0] == 404, "not copied"
        del batch
    gone = fetch_json(f"{daemon.http}/streams/{number}/batch.json")
    assert gone["problem"].startswith("no batch is with a trainer at this moment")


@pytest.mark.parametrize("more", [{"colour_on": "device"}, {"views": 3}], ids=["colour", "views"])
def test_colours_of_the_device_and_views_are_shown(daemon, more):
    recipe = {**SMALL, **more}
    with augd.connect(daemon.address, recipe=recipe, batch_size=4, max_bad_fraction=1) as stream:
        batch = next(stream.epoch(0))
        at = int(np.flatnonzero(batch.valid)[0])
        rows = batch.images if batch.images.ndim == 5 else batch.images[:, None]
        if batch.colour is not None:
            matrix, offset = batch.colour[..., :3], batch.colour[:, None, None, None, :, 3]
            rows = np.clip(np.einsum("bvhwc,bdc->bvhwd", rows, matrix) + offset, 0, 255)
        number = fetch_json(f"{daemon.http}/status.json")["streams"][0]["stream"]
        shown = fetch_json(f"{daemon.http}/streams/{number}/batch.json?count=4")
        with Image.open(
            io.BytesIO(fetch(f"{daemon.http}/batches/{shown['key']}/{at}.jpg")[1])
        ) as one:
            found = np.asarray(one)
        wanted = np.concatenate(list(rows[at]), axis=1)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted.astype(float)).mean() < 12
        words = fetch_json(f"{daemon.http}/batches/{shown['key']}/{at}.json")["words"]
        assert len(words) == len(rows[at])
        del batch, rows


def test_a_broken_photo_is_shown_as_far_as_it_goes_and_no_other_file(daemon, folder):
    with augd.connect(daemon.address, max_bad_fraction=1, **OPTIONS) as stream:
        for _ in stream.epoch(0):
            pass
        bad = fetch_json(f"{daemon.http}/status.json")["streams"][0]["last_bad"]
        samples = {path: sample for sample, path, _ in bad}
        sample = samples["class0/0003.jpg"]
        code, jpeg = fetch(f"{daemon.http}/samples/small/{sample}.jpg")
        with Image.open(io.BytesIO(jpeg)) as image:
            assert code == 200 and min(image.size) >= 40
        nothing = fetch(f"{daemon.http}/samples/small/{samples['class1/0004.jpg']}.jpg")
        assert nothing == (200, b"nothing in the file can be read as an image")
        other = fetch(f"{daemon.http}/samples/small/{sample + 1}.jpg")
        assert other == (404, b"expected a sample that is bad or quarantined")


def test_a_page_that_is_killed_comes_back_at_the_same_place(daemon):
    (pid,) = page_of(daemon.pid)
    os.kill(pid, signal.SIGKILL)
    with augd.connect(daemon.address, max_bad_fraction=1, **OPTIONS) as stream:
        assert sum(len(batch) for batch in stream.epoch(0)) == 60, "streams don't notice"
    await_true(lambda: answers(daemon.http), 20, "the page is back")
    assert page_of(daemon.pid) != [pid]


def test_it_ends_with_a_daemon_that_is_killed(folder, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "augd", "serve", str(folder), "--producers", "1"]
    process = subprocess.Popen(
        [*command, "--listen", f"ipc://{tmp_path}/d", "--http", f"127.0.0.1:{port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "serving" in process.stdout.readline()
    assert process.stdout.readline() == f"augd: look at it at http://127.0.0.1:{port}\n"
    await_true(lambda: answers(f"http://127.0.0.1:{port}"), 20, "the page answers")
    (pid,) = page_of(process.pid)
    process.kill()
    await_true(lambda: not is_alive(pid), 2, "the page ended")
    finish(process)


def test_who_watches_is_told_the_end(folder):
    with augd.serve({"small": folder}, producers=1, http="127.0.0.1:0") as served:
        await_true(lambda: answers(served.http), 20, "the page answers")
        heard: list[str] = []

        def listen() -> None:
            with urllib.request.urlopen(f"{served.http}/events", timeout=20) as lines:
                heard.extend(line.decode().partition(":")[0] for line in lines if line.strip())

        listener = threading.Thread(target=listen)
        listener.start()
        await_true(lambda: len(heard) >= 3, 10, "how soon to come again, and two reports")
    listener.join(10)
    assert (heard[0], heard[-2:]) == ("retry", ["event", "data"])


def test_a_token_opens_it(folder, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    options: Any = {"http": "127.0.0.1:0", "http_token": token}
    with augd.serve({"small": folder}, producers=1, **options) as served:
        await_true(lambda: answers(served.http), 20, "the page answers")
        assert fetch(f"{served.http}/metrics")[0] == 401
        bearer = {"Authorization": "Bearer 0123456789abcdef"}
        assert fetch(f"{served.http}/metrics", **bearer)[0] == 200
        assert b"Token of this page" in fetch(served.http, Accept="text/html")[1]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open(f"{served.http}/login", b"token=wrong", timeout=20)
        with refused.value as error:
            assert error.code == 403 and b"That is not the token." in error.read()
        assert fetch(f"{served.http}/login", b"x" * 5000) == (
            413,
            b"expected a token",
        )
        with opener.open(f"{served.http}/login", b"token=0123456789abcde%66", timeout=20) as page:
            assert b"Bottleneck" in page.read()
        assert b"0123456789abcdef" not in Path(f"/proc/{served.pid}/cmdline").read_bytes()


def test_structured_logs(folder, tmp_path):
    command = [sys.executable, "-m", "augd", "serve", str(folder), "--producers", "1"]
    process = subprocess.Popen(
        [*command, "--listen", f"ipc://{tmp_path}/d", "--log-format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "serving" in process.stdout.readline()
    daemon_pid = daemon_of(process.pid)
    process.send_signal(signal.SIGTERM)
    _, errors = finish(process)
    lines = [json.loads(line) for line in errors.splitlines()]
    assert {"level": "info", "message": "draining: SIGTERM", "pid": daemon_pid}.items() <= lines[
        -1
    ].items()
    assert lines[-1]["time"].endswith("+00:00")
