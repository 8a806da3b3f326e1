"""Own sources from the class to the batch: docs/own-sources.md's example, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import augd
from augd.client.status import status
from augd.dataset.index_arrays import IndexArrays
from augd.dataset.source_spec import parse_own
from augd.plugins import sources
from augd.plugins.sources import index_own
from augd.protocol import messages as msg
from tests.support.lone_producer import LoneProducer
from tests.support.processes import await_true
from tests.support.relays import RelayProcess, await_remotes
from tests.support.scenes import SMALL, digest_epoch, make_folder, read_epoch

ROOT = Path(__file__).parents[2]

TROUBLE = '''
import pathlib
import socket
import time


class Photos:
    """The files of a folder, as `list.txt` in it names them."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        if (self.folder / "gone").exists():
            raise RuntimeError("the folder is gone")
        self.files = sorted(self.folder.glob("*/*.jpg"))

    def __len__(self):
        shorter = self.folder / "shorter"
        return len(self.files) - (int(shorter.read_text()) if shorter.exists() else 0)

    def read(self, i):
        if i >= len(self):
            raise IndexError(f"no photo {i}")
        return self.files[i].read_bytes(), self.files[i].parent.name


class Listed(Photos):
    def labels(self):
        return [file.parent.name for file in self.files]


class Yields(Photos):
    def labels(self):
        yield from (file.parent.name for file in self.files)


class Breaks(Photos):
    def labels(self):
        yield "class0"
        raise RuntimeError("no more labels")


class Hangs(Photos):
    def labels(self):
        time.sleep(3600)


class Trips(Listed):
    def read(self, i):
        content, label = super().read(i)
        if i == 1:
            raise ValueError(f"tripped over {i}")
        if i == 2:
            return content
        if i == 3:
            return "text", label
        if i == 4:
            return content, "class1"
        if i == 5:
            return b"", label
        if i == 6:
            socket.create_connection(("127.0.0.1", 9))
        if i == 7:
            (self.folder / "made").write_text("by a producer")
        return content, label


class Odd(Photos):
    def labels(self):
        return [0, "a"] * (len(self) // 2)


class Few(Photos):
    def labels(self):
        return [0]


class Twice(Photos):
    def names(self):
        return ["a"] * len(self)


class Beyond(Photos):
    classes = staticmethod(lambda: ["class0"])


class Blind:
    def __len__(self):
        return 3


class Empty(Blind):
    def __len__(self):
        return 0

    def read(self, i):
        return b"", 0
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "set", num_classes=2, per_class=20)


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `trouble` is found, with the checkout for the example."""
    where = tmp_path / "modules"
    where.mkdir()
    (where / "trouble.py").write_text(TROUBLE)
    monkeypatch.setenv("PYTHONPATH", f"{where}:{ROOT}")
    return where


def make_base(folder: Path, path: Path) -> Path:
    """Put a folder's files into a table, in the order of its index."""
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE photos (id INTEGER PRIMARY KEY, name, class, jpeg BLOB)")
        for file in sorted(folder.glob("*/*.jpg")):
            row = str(file.relative_to(folder)), file.parent.name, file.read_bytes()
            base.execute("INSERT INTO photos (name, class, jpeg) VALUES (?, ?, ?)", row)
    base.close()
    return path


def read(address: str, epoch: int = 0, **options: object) -> list[dict[str, np.ndarray]]:
    with augd.connect(address, recipe=SMALL, **{"batch_size": 8, **options}) as stream:
        return read_epoch(stream, epoch)


def of_all(batches: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches])


def test_the_example_gives_what_the_same_files_give(folder, tmp_path):
    base = make_base(folder, tmp_path / "photos.db")
    own = f"plugin:examples.own_sources:SqlitePhotos?{base}"
    with (
        augd.serve(folder, producers=2) as files,
        augd.serve(own, producers=2) as table,
    ):
        with augd.connect(table.address, recipe=SMALL) as stream:
            assert stream.classes == ["class0", "class1"]
        ways = [{}, {"split": "val", "val_fraction": 0.3}, {"classes": ["class1"]}]
        ways += [{"balance": "class"}, {"limit": 11}, {"shuffle": "blocks:4x2"}]
        for asked in ways:
            expected = read(files.address, epoch=1, **asked)
            found = read(table.address, epoch=1, **asked)
            for name in ("ids", "labels", "images", "valid"):
                assert np.array_equal(of_all(found, name), of_all(expected, name)), (asked, name)


def test_the_page_has_the_example():
    page = (ROOT / "docs" / "own-sources.md").read_text()
    assert (ROOT / "examples" / "own_sources.py").read_text() in page


def test_without_labels_every_sample_is_read_for_its_label(folder):
    with augd.serve(f"plugin:trouble:Photos?{folder}", producers=1) as daemon:
        batches = read(daemon.address, shuffle=False)
        assert of_all(batches, "labels").tolist() == [0] * 20 + [1] * 20
        assert of_all(batches, "valid").all()


def test_a_sample_that_fails_is_a_bad_one_and_named(folder):
    source = f"plugin:trouble:Trips?{folder}"
    options = {"recipe": SMALL, "shuffle": False, "batch_size": 8}
    with augd.serve({"odd": source}, producers=1) as daemon:
        with augd.connect(daemon.address, max_bad_fraction=0.5, **options) as stream:
            batches = read_epoch(stream, 0)
            (seen,) = status(daemon.address)["streams"]
            reasons = {sample: reason for sample, _, reason in seen["last_bad"]}
        assert np.flatnonzero(~of_all(batches, "valid")).tolist() == [*range(1, 8)]
        for sample, says in {
            1: "raised Traceback",
            2: "expected (bytes, label), got bytes",
            3: "expected bytes and a label, got str",
            4: "expected label 0 as when it was indexed, got 'class1'",
            5: "expected bytes, got none",
            6: "PermissionError",
            7: "PermissionError",
        }.items():
            assert reasons[sample].startswith(f"source odd ({source}): read({sample})")
            assert says in reasons[sample], (sample, reasons[sample])
        assert reasons[1].endswith("ValueError: tripped over 1")
        assert not (folder / "made").exists()
        with (
            augd.connect(daemon.address, bad="fail", **options) as stream,
            pytest.raises(augd.SampleFailed, match=r"(?s)sample 1 \(00000001\): .*tripped over 1"),
        ):
            read_epoch(stream, 0)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("plugin:trouble:Nobody", "expected a class Nobody in .*trouble.py, got NoneType"),
        ("plugin:trouble:Blind", "expected a method read of Blind, got none"),
        ("plugin:trouble:Empty", "expected samples, got 0"),
        ("plugin:trouble:Photos", r"cannot be made: Traceback (?s:.*)missing 1 required"),
        (
            "plugin:nowhere:Photos",
            r"No module named 'nowhere'\. Give a module's name as in `import NAME`; it is looked ",
        ),
        ("plugin:trouble:Odd?{}", "expected labels that are all numbers, all names, or None, got "),
        ("plugin:trouble:Few?{}", r"labels\(\): expected 40 as __len__ says, got 1"),
        ("plugin:trouble:Twice?{}", r"names\(\): expected each name once"),
        ("plugin:trouble:Beyond?{}", "expected a label of 1 class, got 'class1'"),
    ],
)
def test_a_source_that_cannot_be_used_is_an_error_of_the_start(folder, source, says):
    with pytest.raises(augd.PluginFailed, match=says) as error:
        augd.serve({"photos": source.format(folder)}, producers=1)
    assert str(error.value).startswith("source photos (plugin:")


def test_a_source_that_comes_to_a_standstill_names_the_method(folder, monkeypatch):
    monkeypatch.setattr(sources, "_PATIENCE_S", 2.0)
    says = r"at most 2 s; (labels\(\)|its start) took longer\. labels\(\) and names\(\) may be gen"
    with pytest.raises(augd.PluginFailed, match=says):
        index_own("small", parse_own(f"plugin:trouble:Hangs?{folder}"))


def test_labels_that_are_yielded_are_those_that_are_listed(folder):
    for name in ("Yields", "Listed"):
        index = index_own("small", parse_own(f"plugin:trouble:{name}?{folder}"))
        assert IndexArrays(index.fd, index.dims_fd).labels.tolist() == [0] * 20 + [1] * 20
        index.close()
    with pytest.raises(augd.PluginFailed, match=r"(?s)labels\(\) failed: .*no more labels"):
        index_own("small", parse_own(f"plugin:trouble:Breaks?{folder}"))


def kill_producer(address: str) -> None:
    (before,) = (one["pid"] for one in status(address)["producers"])
    os.kill(before, signal.SIGKILL)

    def is_another() -> bool:
        (now,) = status(address)["producers"]
        return now["state"] == "ready" and now["pid"] != before

    await_true(is_another, 30.0, "another producer is ready")


def test_a_constructor_that_fails_later_ends_the_use_of_that_set_alone(folder):
    sets = {"own": f"plugin:trouble:Photos?{folder}", "files": folder}
    with augd.serve(sets, producers=1) as daemon:
        assert len(read(daemon.address, dataset="own")) == 5
        (folder / "gone").touch()
        kill_producer(daemon.address)
        with pytest.raises(augd.PluginFailed, match=r"(?s)source own .*the folder is gone"):
            read(daemon.address, dataset="own")
        (folder / "gone").unlink()
        assert len(read(daemon.address, dataset="files")) == 5
        kill_producer(daemon.address)
        assert len(read(daemon.address, dataset="own")) == 5


def test_a_stream_that_is_refused_may_be_masked(folder, monkeypatch, modules):
    """It has no production that could be; the producer must not die of it."""
    monkeypatch.syspath_prepend(modules)
    source = f"plugin:trouble:Listed?{folder}"
    index = index_own("small", parse_own(source))
    (folder / "gone").touch()
    lone = LoneProducer(index, json.dumps({"small": source}))
    try:
        lone.tell(msg.Mask(1, ((0, 0, 0),)))
        lone.lease(7)
        failed = lone.heard(msg.Fail)
        assert (failed.lease, failed.code) == (7, "PLUGIN_FAILED")
        assert "the folder is gone" in failed.text
        lone.tell(msg.Drop(1))
        lone.tell(msg.Drain())
        assert lone.spawned.process.wait(20) == 0
    finally:
        lone.close()
        index.close()


def test_another_length_ends_it_at_the_start_of_a_producer_and_while_it_works(folder):
    with augd.serve({"own": f"plugin:trouble:Listed?{folder}"}, producers=1) as daemon:
        assert len(read(daemon.address)) == 5
        (folder / "shorter").write_text("5")
        says = r"source own .* changed: expected 40 samples, got 35\. Restart the daemon"
        with pytest.raises(augd.PluginFailed, match=says):
            read(daemon.address, epoch=1, shuffle=False)
        kill_producer(daemon.address)
        with pytest.raises(augd.PluginFailed, match=says):
            read(daemon.address)


def test_its_code_and_its_word_are_part_of_the_content(folder, modules):
    def contents_of(*sources: str) -> list[str]:
        found = []
        with augd.serve({f"own{n}": one for n, one in enumerate(sources)}, producers=1) as daemon:
            for number in range(len(sources)):
                options = {"dataset": f"own{number}", "recipe": SMALL}
                with augd.connect(daemon.address, **options) as stream:
                    found.append(stream.content)
        return found

    source = f"plugin:trouble:Listed?{folder}"
    (first,) = contents_of(source)
    again, elsewhere = contents_of(source, f"plugin:trouble:Listed?{folder}/")
    assert again == first
    assert elsewhere == first, "where it lies is not in it"
    (modules / "trouble.py").write_text(TROUBLE + "\n# another\n")
    assert contents_of(source) != [first]
    (modules / "trouble.py").write_text(TROUBLE.replace("class Odd", "class Not"))
    assert contents_of(source) != [first]


def test_lent_producers_read_their_own_copy_and_another_one_is_refused(folder, tmp_path):
    base = make_base(folder, tmp_path / "photos.db")
    own = f"plugin:examples.own_sources:SqlitePhotos?{base}"
    with augd.serve({"small": own}, producers=1) as daemon:
        local = digest_epoch(daemon.address, epochs=1)
    listen = [f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0"]
    elsewhere = make_base(folder, tmp_path / "copy.db")
    (folder / "class0" / "0003.jpg").unlink()
    other = make_base(folder, tmp_path / "other.db")
    with augd.serve({"small": own}, producers=0, listen=listen) as daemon:
        path, port = daemon.addresses
        refused = produce(other, port)
        assert refused.returncode == 1
        assert "dataset 'small': expected the index digest" in refused.stderr, refused.stderr
        relay = RelayProcess(Path(own.replace(str(base), str(elsewhere))), port, "--producers", "1")
        try:
            await_remotes(port, 1)
            assert digest_epoch(path, epochs=1) == local
            relay.end()
        finally:
            relay.close()


def produce(base: Path, connect: str) -> subprocess.CompletedProcess[str]:
    own = f"small=plugin:examples.own_sources:SqlitePhotos?{base}"
    command = [sys.executable, "-m", "augd", "produce", own, "--connect", connect]
    return subprocess.run(
        [*command, "--producers", "1"], capture_output=True, text=True, timeout=60, check=False
    )


def test_other_commands_say_that_they_look_at_files_only(folder):
    command = [sys.executable, "-m", "augd", "check", f"plugin:trouble:Photos?{folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "is an own source, which only daemons and their producers open" in done.stderr
