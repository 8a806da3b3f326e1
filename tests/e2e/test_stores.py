"""Shards on S3 and HTTP, served as from a disk: the same bytes, and errors that have names."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto")

import augd
from augd.cli.pack.command import pack
from augd.cli.pack.options import PackOptions
from augd.client.status import status
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.stores.shard_cache import BLOCK_BYTES
from augd.errors import DatasetError, OptionError, StoreError
from augd.pixels import native
from tests.support.commands import run_augd
from tests.support.processes import children_of, command_of, staff_of
from tests.support.relays import await_remotes, running_relay
from tests.support.scenes import SMALL, digest_epoch, make_folder, read_epoch
from tests.support.stores import BUCKET, Bucket, Deeds, ranges, s3, use

pytestmark = pytest.mark.skipif(native.kernels is None, reason="packing is done by the kernels")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos large enough to have parts, in several shards."""
    source = tmp_path_factory.mktemp("source")
    for split in ("train", "val"):
        make_folder(source / split, num_classes=2, per_class=30, size_px=(841, 562))
    target = tmp_path_factory.mktemp("packed") / "set"
    report = pack(str(source), str(target), PackOptions(shard_mb=1))
    assert report["num_shards"] >= 4
    return target


@pytest.fixture(scope="module")
def plain(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shards as those of others: without an index, with members of other kinds."""
    folder = tmp_path_factory.mktemp("plain")
    for path in packed.glob("*.tar"):
        (folder / path.name).write_bytes(path.read_bytes())
    with tarfile.open(folder / "train-more.tar", "w") as shard:
        photo = next(iter_photos(packed))
        for name, content in (
            ("large.jpg", photo[:2] + b"\xff\xfe\xff\xf0" + bytes(0xFFEE) + photo[2:]),
            ("large.cls", b"1"),
            ("notes.txt", bytes(700_000)),
            ("said.jpg", photo),
            ("said.json", json.dumps({"label": 1.0}).encode()),
            ("broken.jpg", photo[: len(photo) // 2]),
            ("broken.cls", b"1"),
            ("empty.jpg", b""),
            ("empty.cls", b"1"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return folder


def iter_photos(folder: Path) -> Iterator[bytes]:
    with tarfile.open(sorted(folder.glob("*.tar"))[0]) as shard:
        for member in shard:
            if member.name.endswith(".jpg"):
                content = shard.extractfile(member)
                assert content is not None
                yield content.read()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3() as found:
        yield found


@pytest.fixture(autouse=True)
def settings(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, bucket.endpoint)


@pytest.fixture(scope="module")
def local(packed: Path) -> list[str]:
    """What the local set gives in two epochs."""
    with augd.serve({"small": packed}, producers=2) as daemon:
        return digest_epoch(daemon.address, epochs=2)


@pytest.fixture(scope="module")
def address(bucket: Bucket, packed: Path) -> str:
    return bucket.upload(packed, "sets/packed")


def digest_of(path: str | Path) -> str:
    index = load_or_build(path)
    try:
        return index.digest
    finally:
        index.close()


def fetchers_of(pid: int) -> list[int]:
    return [child for child in staff_of(pid) if b"augd.server.fetcher" in command_of(child)]


def test_a_packed_set_gives_the_same_bytes_from_a_bucket(
    address: str, packed: Path, local: list[str]
) -> None:
    assert digest_of(address) == digest_of(packed)
    with augd.serve({"small": address}, producers=2) as daemon:
        assert digest_epoch(daemon.address, epochs=2) == local
        asked = status(daemon.address, 10)
        assert all("seccomp" in one["confinement"] for one in asked["producers"])
        assert len(fetchers_of(daemon.pid)) == 1


def test_producers_have_no_credentials(address: str) -> None:
    with augd.serve({"small": address}, producers=1) as daemon:
        digest_epoch(daemon.address, epochs=1)
        for pid in children_of(daemon.pid):
            named = b"AWS_SECRET_ACCESS_KEY" in Path(f"/proc/{pid}/environ").read_bytes()
            assert named == (
                b"augd.server.fetcher" in command_of(pid) or b"sh" in command_of(pid)[:8]
            )


@pytest.mark.parametrize("is_indexed", [False, True])
def test_plain_shards_do_so_with_and_without_an_index(
    bucket: Bucket, plain: Path, is_indexed: bool
) -> None:
    address = bucket.upload(plain, f"sets/plain{is_indexed}")
    if is_indexed:
        done = run_augd("index", address, "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["num_samples"], report["num_cut"]) == (124, 122)
        # One that is cut off has a header as any other: producers find out.
        assert [Path(one["path"]).name for one in report["bad"]] == ["empty.jpg"]
    options: dict[str, Any] = {"recipe": SMALL, "batch_size": 16, "max_bad_fraction": 1.0}
    runs = []
    for source in (plain, address):
        with (
            augd.serve({"set": source}, producers=2) as daemon,
            augd.connect(daemon.address, **options) as stream,
        ):
            runs.append((read_epoch(stream, 0), stream.content))
    (one, said), (other, also_said) = runs
    assert said == also_said
    for batch, twin in zip(one, other, strict=True):
        for part, array in batch.items():
            assert array.tobytes() == twin[part].tobytes()
    assert sum(int((~batch["valid"]).sum()) for batch in other) == 2


def test_a_run_goes_on_from_a_disk_to_a_bucket_and_back(packed: Path, address: str) -> None:
    whole: list[dict[str, Any]] = []
    state = None
    for source, steps in ((packed, 2), (address, 2), (packed, 100)):
        with (
            augd.serve({"set": source}, producers=1) as daemon,
            augd.connect(
                daemon.address, recipe=SMALL, split="all", batch_size=20, seed=3
            ) as stream,
        ):
            if state is not None:
                stream.load_state_dict(state)
            for _, batch in zip(range(steps), stream.epoch(0), strict=False):
                whole.append({"images": batch.images.copy(), "ids": batch.ids.copy()})
            state = stream.state_dict()
    with (
        augd.serve({"set": address}, producers=2) as daemon,
        augd.connect(daemon.address, recipe=SMALL, split="all", batch_size=20, seed=3) as stream,
    ):
        at_once = read_epoch(stream, 0)
    assert len(whole) == len(at_once) == 6
    for batch, twin in zip(whole, at_once, strict=True):
        assert batch["images"].tobytes() == twin["images"].tobytes()
        assert batch["ids"].tolist() == twin["ids"].tolist()


def test_by_http_with_the_index_beside_or_a_list(
    packed: Path, local: list[str], tmp_path: Path
) -> None:
    with (
        ranges(packed) as server,
        augd.serve({"small": f"{server.url}/"}, producers=2) as daemon,
    ):
        assert digest_epoch(daemon.address, epochs=2) == local
    for path in packed.glob("*.tar"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "classes.json").write_bytes((packed / "classes.json").read_bytes())
    with ranges(tmp_path) as server:
        with pytest.raises(DatasetError, match=r"HTTP lists no folder.*shards\.txt"):
            augd.serve({"small": server.url}, producers=1)
        names = sorted(path.name for path in packed.glob("*.tar"))
        (tmp_path / "shards.txt").write_text("\n".join(names))
        sources = {"list": f"{server.url}/shards.txt", "folder": tmp_path}
        with augd.serve(sources, producers=2) as daemon:
            remote, own = (digest_epoch(daemon.address, epochs=1, dataset=it) for it in sources)
            assert remote == own


def test_names_of_strangers_lead_to_no_other_folder(packed: Path, tmp_path: Path) -> None:
    """In a list, and in an index as it would be by somebody who wants to see more of a server."""
    below = tmp_path / "below"
    below.mkdir()
    shard = min(packed.glob("*.tar"))
    (tmp_path / "secret.tar").write_bytes(shard.read_bytes())
    hidden, name = b"../" + b"s" * (len(shard.name) - 7) + b".tar", os.fsencode(shard.name)
    assert len(hidden) == len(name)
    index = (packed / "augd.index").read_bytes()
    assert name in index
    (below / "augd.index").write_bytes(index.replace(name, hidden))
    (below / "shards.txt").write_text("../secret.tar\n")
    with ranges(tmp_path) as server:
        for address in (f"{server.url}/below/", f"{server.url}/below/shards.txt"):
            with pytest.raises(
                DatasetError, match=r"\.tar files in its own folder .*, got '\.\./s"
            ):
                augd.serve({"small": address}, producers=1)


@pytest.mark.parametrize("lacking", [{"no_etag": True}, {"no_etag": True, "no_time": True}])
def test_servers_that_give_no_etag(
    packed: Path, local: list[str], lacking: dict[str, bool]
) -> None:
    with ranges(packed) as server:
        server.do(**lacking)
        with augd.serve({"small": server.url}, producers=1) as daemon:
            assert digest_epoch(daemon.address, epochs=2) == local


def test_a_changed_time_is_another_object_where_there_is_no_etag(
    packed: Path, tmp_path: Path
) -> None:
    for path in packed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with ranges(tmp_path) as server:
        server.do(no_etag=True)
        with augd.serve({"small": server.url}, producers=1) as daemon:
            for path in tmp_path.glob("*.tar"):
                os.utime(path, (1, 1))
            with pytest.raises(StoreError, match=r"replaced since it was indexed"):
                digest_epoch(daemon.address, epochs=1)


def test_remote_producers_read_the_store_by_themselves(
    address: str, local: list[str], tmp_path: Path
) -> None:
    listen = [f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0"]
    with (
        augd.serve({"small": address}, producers=0, listen=listen) as daemon,
        running_relay(address, daemon.addresses[1], "--producers", "2") as relay,
    ):
        await_remotes(daemon.address, 2)
        assert len(fetchers_of(relay.pid)) == 1
        assert digest_epoch(daemon.address, epochs=2) == local
        assert relay.end() == "augd: draining: it was told to end\n"


def test_views_read_stores_too(address: str) -> None:
    for words in (["check", address], ["explain", address, "--id", "3"]):
        done = run_augd(*words)
        assert done.returncode == 0, done.stderr


def test_the_studio_which_has_no_network_says_so(address: str) -> None:
    from augd.plan.recipe.op_catalogue import BUILT_IN
    from augd.server.dashboard.sample_viewer import ViewRequest
    from augd.server.dashboard.sample_viewer_main import OpenSamples

    index = load_or_build(address)
    bench = OpenSamples(BUILT_IN)
    bench.add("set", index.fd, index.dims_fd)
    assert "lies in an object store" in bench.answer(ViewRequest("set", 3)).why
    index.close()


def test_ranges_of_a_lease_that_lie_close_are_one_request(packed: Path) -> None:
    """120 photos of some 20 kB in order: far fewer requests than photos.

    The first chunks are small, and some of the next epoch are begun.
    """
    with ranges(packed) as server, augd.serve({"small": server.url}, producers=1) as daemon:
        server.asked()
        with augd.connect(daemon.address, recipe=SMALL, shuffle=False) as stream:
            read_epoch(stream, 0)
            shards = [one for one in server.asked() if one["path"].endswith(".tar")]
    assert 4 <= len(shards) <= 60, len(shards)


def test_the_index_is_asked_for_once_and_again_when_the_bucket_changes(
    bucket: Bucket, packed: Path
) -> None:
    address = bucket.upload(packed, "sets/changing")
    first = load_or_build(address)
    again = load_or_build(address)
    name = sorted(packed.glob("*.tar"))[-1].name
    bucket.put(f"sets/changing/{name}", bucket.get(f"sets/changing/{name}"))
    assert (first.was_cached, again.was_cached) == (False, True)
    bucket.put("sets/changing/another.tar", b"")
    with pytest.raises(DatasetError, match=r"another\.tar is not in it.*augd index .* --beside"):
        load_or_build(address)
    first.close()
    again.close()


def test_an_index_is_written_beside_the_shards_or_to_a_file(
    bucket: Bucket, plain: Path, tmp_path: Path
) -> None:
    address = bucket.upload(plain, "sets/beside")
    out = tmp_path / "out.index"
    done = run_augd("index", address, "--beside", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "124 images in" in done.stdout and "122 have restart markers" in done.stdout
    beside = bucket.get("sets/beside/augd.index")
    assert beside == out.read_bytes()
    assert BUCKET.encode() not in beside, "it holds no address: a copied set is the same set"
    assert digest_of(address) == digest_of(plain)


# the shard cache


def test_what_is_in_the_shard_cache_is_not_asked_for_again(
    packed: Path, local: list[str], tmp_path: Path
) -> None:
    cache = f"{tmp_path}/blocks:64MiB"
    with ranges(packed) as server:
        with augd.serve({"small": server.url}, producers=2, shard_cache=cache) as daemon:
            assert digest_epoch(daemon.address, epochs=1) == local[:1]
            asked = [one for one in server.asked() if one["range"]]
            blocks = sum(-(-path.stat().st_size // BLOCK_BYTES) for path in packed.glob("*.tar"))
            assert 0 < len([one for one in asked if ".tar" in one["path"]]) <= blocks
            assert digest_epoch(daemon.address, epochs=2) == local
            assert not server.asked()
        with augd.serve({"small": server.url}, producers=1, shard_cache=cache) as daemon:
            server.asked()
            assert digest_epoch(daemon.address, epochs=2) == local
            assert not server.asked(), "the next daemon finds it"


def test_damaged_blocks_and_what_was_half_written_are_read_anew(
    packed: Path, local: list[str], tmp_path: Path
) -> None:
    cache = f"{tmp_path}/blocks:64MiB"
    with ranges(packed) as server:
        with augd.serve({"small": server.url}, producers=1, shard_cache=cache) as daemon:
            digest_epoch(daemon.address, epochs=1)
        blocks = [path for path in (tmp_path / "blocks").rglob("*-*") if path.is_file()]
        assert blocks
        for number, path in enumerate(blocks):
            content = bytearray(path.read_bytes())
            if number % 2:
                content[len(content) // 2] ^= 1
                path.write_bytes(content)
            else:
                path.write_bytes(content[: len(content) // 3])
        with augd.serve({"small": server.url}, producers=1, shard_cache=cache) as daemon:
            assert digest_epoch(daemon.address, epochs=2) == local


def test_the_shard_cache_never_gives_an_older_version(
    bucket: Bucket, packed: Path, local: list[str], tmp_path: Path
) -> None:
    cache = f"{tmp_path}/blocks:64MiB"
    other = make_folder(tmp_path / "other" / "train", num_classes=2, per_class=20).parent
    pack(str(other), str(tmp_path / "another"), PackOptions(shard_mb=1))
    for folder in (packed, tmp_path / "another", packed):
        for path in packed.iterdir():
            bucket.remove(f"sets/turning/{path.name}")
        for path in (tmp_path / "another").iterdir():
            bucket.remove(f"sets/turning/{path.name}")
        address = bucket.upload(folder, "sets/turning")
        with (
            augd.serve({"small": address}, producers=1, shard_cache=cache) as daemon,
            augd.serve({"small": folder}, producers=1) as own,
        ):
            expected = digest_epoch(own.address, epochs=1)
            assert digest_epoch(daemon.address, epochs=1) == expected


# errors


@pytest.mark.parametrize(
    ("source", "kind", "pattern"),
    [
        ("s3://nowhere/x", StoreError, r"no bucket 'nowhere' at http.*AWS_ENDPOINT_URL"),
        (f"s3://{BUCKET}/empty", DatasetError, r"holds no \.tar files"),
        ("s3://user:pw@photos/x", OptionError, r"^s3://photos/x: an address holds no password"),
        ("https://host/x?sig=secret", OptionError, r"^https://host/x: an address holds no"),
        ("http://127.0.0.1:1/x", StoreError, r"127\.0\.0\.1:1 cannot be reached, after \d+ s"),
    ],
)
def test_what_cannot_be_served_is_said_at_the_start(
    source: str, kind: type[Exception], pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGD_STORE_PATIENCE", "2")
    with pytest.raises(kind, match=pattern) as caught:
        augd.serve({"set": source}, producers=1)
    assert "pw" not in str(caught.value).replace("password", "")
    assert "secret" not in str(caught.value)


def test_credentials_missing_are_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, and no role: nobody answers where an instance would ask for one."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AUGD_STORE_PATIENCE", "2")
    with pytest.raises(StoreError, match=r"no credentials were found: set AWS_ACCESS_KEY_ID"):
        augd.serve({"set": address}, producers=1)


def test_a_shard_cache_for_nothing_is_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--shard-cache: expected a dataset in an object store"):
        augd.serve({"set": packed}, producers=1, shard_cache=f"{tmp_path}/x:64MiB")


def test_obstore_missing_is_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augd.dataset.stores.object_store.find_spec", lambda name: None)
    from augd.server.supervision.arguments import check_sources

    with pytest.raises(OptionError, match=r"pip install -e '\.\[stores\]' in the checkout"):
        check_sources({"set": address})


Proxied = tuple[Deeds, str]


@contextmanager
def proxied(bucket: Bucket, address: str, tried_s: float, **options: Any) -> Iterator[Proxied]:
    """A server before the bucket, and the address of a daemon that asks that one instead."""
    with pytest.MonkeyPatch.context() as patch, ranges(behind=bucket.endpoint) as server:
        use(patch, server.url, patience_s=tried_s)
        with augd.serve({"small": address}, **options) as daemon:
            yield server, daemon.address


@pytest.fixture(scope="module")
def impatient(bucket: Bucket, address: str) -> Iterator[Proxied]:
    with proxied(bucket, address, 6, producers=1) as found:
        yield found


@pytest.fixture(scope="module")
def patient(bucket: Bucket, address: str) -> Iterator[Proxied]:
    """Producers of this daemon are killed when they say nothing for two seconds."""
    with proxied(bucket, address, 30, producers=2, patience_s=2) as found:
        yield found


def read_all(address: str, **options: Any) -> None:
    with augd.connect(address, recipe=SMALL, batch_size=16, timeout_s=60, **options) as stream:
        for _ in stream.epoch(0):
            pass


@pytest.mark.parametrize(
    ("deed", "pattern"),
    [
        (
            {"status": 403, "code": "InvalidAccessKeyId"},
            r"refuses these credentials \(InvalidAccessKeyId 403\).*AWS_ACCESS_KEY_ID",
        ),
        ({"status": 400, "code": "ExpiredToken"}, r"refuses these credentials \(ExpiredToken 400"),
        (
            {"status": 503, "code": "SlowDown"},
            r"limits the rate \(SlowDown 503\), after \d+ s.*fewer producers",
        ),
        ({"status": 500, "code": "InternalError"}, r"store fails \(InternalError 500\), after"),
        ({"delay_s": 20}, r"did not answer in time, after \d+ s of trying"),
        ({"cut": 100}, r"answers broke off|was cut off"),
        ({"status": 404, "code": "NoSuchKey"}, r"is not there \(404\)"),
        ({"no_ranges": True, "status": 416, "code": "InvalidRange"}, r"shorter than it was"),
    ],
)
def test_a_store_that_fails_ends_the_stream_with_a_named_error(
    impatient: Proxied, deed: dict[str, Any], pattern: str
) -> None:
    """It is no bad photo, whatever the policy says; and when it is mended the daemon goes on."""
    server, daemon = impatient
    server.do(path=".tar", **deed)
    with pytest.raises(StoreError, match=pattern) as caught:
        read_all(daemon, bad="mask", max_bad_fraction=1.0)
    text = str(caught.value)
    assert re.search(rf"^s3://{BUCKET}/sets/packed/\S+\.tar", text), text
    assert "AKIA" not in text and "tests-own" not in text
    server.do()
    read_all(daemon)


@pytest.mark.parametrize(
    "deed",
    [
        {"status": 503, "code": "SlowDown", "count": 12},
        {"status": 500, "code": "InternalError", "count": 6},
        {"cut": 1000, "count": 6},
        {"delay_s": 5, "count": 8},
    ],
)
def test_a_store_that_fails_for_a_while_is_tried_again(
    patient: Proxied, local: list[str], deed: dict[str, Any]
) -> None:
    """Meanwhile nobody takes a producer that waits for one that hangs."""
    server, daemon = patient
    server.do(path=".tar", **deed)
    assert digest_epoch(daemon, epochs=2) == local
    assert status(daemon, 10)["restarts"] == 0


def test_an_object_replaced_in_mid_epoch_is_an_error(bucket: Bucket, packed: Path) -> None:
    """Of the same size, so that nothing but its ETag tells; never a row of the new one."""
    address = bucket.upload(packed, "sets/replaced")
    began: list[str] = []

    def replace() -> None:
        for path in packed.glob("*.tar"):
            bucket.put(f"sets/replaced/{path.name}", path.read_bytes()[::-1])
            began.append(path.name)

    with (
        augd.serve({"small": address}, producers=1) as daemon,
        augd.connect(daemon.address, recipe=SMALL, batch_size=4, bad="mask") as stream,
        pytest.raises(StoreError, match=r"replaced since it was indexed: its ETag"),
    ):
        for epoch in range(20):
            for batch in stream.epoch(epoch):
                assert batch.valid.all()
                if not began:
                    replace()
