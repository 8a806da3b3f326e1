"""A port with keys, from outside: who gets in, what he gets, and how soon he is told why not."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import augd
from augd.cli.app import main
from augd.client.status import status
from augd.transport.auth import keys
from augd.transport.auth.curve import ClientCurve
from tests.support.keyring import Keyring
from tests.support.processes import await_true, command_of, daemon_of, is_alive
from tests.support.scenes import SMALL, digest_epoch, make_folder, read_epoch

clause = pytest.mark.clause

SOON_S = 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=60)


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    made = Keyring(tmp_path)
    made.let_in("alice")
    made.let_in("bob", datasets=("small",), max_streams=1, max_bytes=10**6)
    return made


@pytest.fixture
def daemon(folder: Path, tmp_path: Path, ring: Keyring) -> Iterator[augd.ServedDaemon]:
    listen = [f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0"]
    served = {"small": folder, "secrets": folder}
    with augd.serve(served, producers=1, listen=listen, keys=ring.folder) as served_daemon:
        yield served_daemon


def await_forbidden(action: Callable[[], object]) -> None:
    """Do something until it is forbidden: the daemon looks at its keys twice a second.

    It may look between the handshake and the message: either says which key it is about.
    """
    deadline = time.monotonic() + SOON_S
    while True:
        try:
            action()
        except augd.Forbidden as error:
            assert "this key" in str(error)
            return
        assert time.monotonic() < deadline, "still let in"


@clause("P-100")
def test_the_same_bytes_with_a_key_as_by_the_path(daemon: augd.ServedDaemon, ring: Keyring) -> None:
    path, port = daemon.addresses
    alice = ring.let_in("alice")
    mapped = digest_epoch(path, epochs=2, dataset="small")
    assert digest_epoch(port, epochs=2, dataset="small", keys=alice) == mapped
    assert digest_epoch(path, epochs=2, dataset="small", keys=alice) == mapped
    assert digest_epoch(path, epochs=2, dataset="small", transport="frames") == mapped


def test_slots_of_many_pieces(daemon: augd.ServedDaemon, ring: Keyring) -> None:
    recipe = {"ops": [{"op": "resize", "size": 300}], "filter": "linear"}
    options = {"recipe": recipe, "batch_size": 50, "dataset": "small"}
    batches = []
    for address, file in zip(daemon.addresses, (None, ring.let_in("alice")), strict=True):
        with augd.connect(address, keys=file, **options) as stream:
            batches.append(read_epoch(stream, 0))
    assert batches[0][0]["images"].nbytes > 3 * 4 * 2**20
    for mapped, framed in zip(*batches, strict=True):
        for name in mapped:
            assert np.array_equal(mapped[name], framed[name])


@clause("P-101")
def test_whoever_has_no_right_key_is_told_at_once(
    daemon: augd.ServedDaemon, ring: Keyring, tmp_path: Path
) -> None:
    port = daemon.addresses[1]
    alice = keys.read_client_keys(ring.let_in("alice"))
    wrong = tmp_path / "wrong.key"
    impostor = keys.make_pair().public
    keys.write_client_keys(wrong, keys.ClientKeys("alice", alice.pair, impostor))
    cases = [
        (None, augd.Forbidden, f"the daemon at {port} accepts only clients with a key: ask its "),
        (ring.stranger(), augd.Forbidden, f"the daemon at {port} does not know this key, or rev"),
        (
            wrong,
            augd.ConnectError,
            f"what listens at {port} closed the connection: it lacks the daemon's",
        ),
    ]
    for file, kind, text in cases:
        for ask in (augd.connect, status):
            started = time.monotonic()
            with pytest.raises(kind) as caught:
                ask(port, keys=file)
            assert time.monotonic() - started < SOON_S
            assert type(caught.value) is kind
            assert text in str(caught.value)
    digest_epoch(port, epochs=1, dataset="small", keys=ring.let_in("alice"))


@clause("P-101")
def test_a_key_at_a_daemon_without_keys(folder: Path, ring: Keyring) -> None:
    with augd.serve({"small": folder}, producers=1, listen="tcp://127.0.0.1:0") as served:
        started = time.monotonic()
        with pytest.raises(augd.ConnectError, match=r"has no keys|closed the connection") as caught:
            augd.connect(served.address, keys=ring.let_in("alice"))
        assert type(caught.value) is augd.ConnectError
        assert time.monotonic() - started < SOON_S
        digest_epoch(served.address, epochs=1)


def test_the_environment_names_a_clients_key(
    daemon: augd.ServedDaemon, ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGD_KEYS", str(ring.let_in("alice")))
    for address in daemon.addresses:
        digest_epoch(address, epochs=1, dataset="small")
    monkeypatch.setenv("AUGD_KEYS", "/nowhere/alice.key")
    digest_epoch(daemon.addresses[0], epochs=1, dataset="small")
    with pytest.raises(augd.OptionError, match=r"/nowhere/alice\.key cannot be read"):
        augd.connect(daemon.addresses[1])


@clause("P-107")
def test_a_stream_whose_key_is_taken_away_ends(daemon: augd.ServedDaemon, ring: Keyring) -> None:
    path, port = daemon.addresses
    alice = ring.let_in("alice")
    options = {"recipe": SMALL, "batch_size": 8, "dataset": "small"}
    with (
        augd.connect(port, keys=alice, **options) as stream,
        augd.connect(port, keys=ring.let_in("bob"), **options) as reserved_for_suspects,
        augd.connect(path, **options) as local,
    ):
        passes = [iter(one.epoch(0)) for one in (stream, reserved_for_suspects, local)]
        for one in passes:
            next(one).release()
        ring.file_of("alice").unlink()
        removed = time.monotonic()
        with pytest.raises(augd.Forbidden, match="changed or removed this key"):
            for epoch in range(1000):
                for batch in passes[0] if epoch == 0 else stream.epoch(epoch):
                    batch.release()
        assert time.monotonic() - removed < SOON_S
        for one in passes[1:]:
            assert sum(len(batch) for batch in one) == 112
    await_forbidden(lambda: status(port, keys=alice))


@clause("P-107")
def test_a_waiting_trainer_hears_of_it_too(daemon: augd.ServedDaemon, ring: Keyring) -> None:
    """Its queue is full of batches, it computes: the next ones that it takes are its last."""
    alice = ring.let_in("alice")
    with augd.connect(
        daemon.addresses[1], recipe=SMALL, batch_size=8, dataset="small", keys=alice
    ) as stream:
        passing = stream.epoch(0)
        held = next(passing)
        ring.file_of("alice").unlink()
        await_forbidden(lambda: status(daemon.addresses[1], keys=alice))
        with pytest.raises(augd.Forbidden):
            for batch in passing:
                batch.release()
        assert held.images.any(), "what it holds stays readable"


@clause("P-107")
def test_changed_rights_hold_after_connecting_again(
    daemon: augd.ServedDaemon, ring: Keyring
) -> None:
    port, alice, file = daemon.addresses[1], ring.let_in("alice"), ring.file_of("alice")
    with augd.connect(port, recipe=SMALL, dataset="secrets", keys=alice) as stream:
        file.write_text(file.read_text() + 'datasets = ["small"]\n')
        with pytest.raises(augd.Forbidden, match="changed or removed this key: connect again"):
            for epoch in range(10_000):
                for batch in stream.epoch(epoch):
                    batch.release()
    with pytest.raises(
        augd.Forbidden, match="'secrets' is not served here, expected one of: small"
    ):
        augd.connect(port, recipe=SMALL, dataset="secrets", keys=alice)
    digest_epoch(port, epochs=1, keys=alice)
    file.write_text(file.read_text() + "damaged")
    await_forbidden(lambda: status(port, keys=alice))
    status(port, keys=ring.let_in("bob"))


@clause("P-105", "P-106")
def test_rights_are_kept_to(daemon: augd.ServedDaemon, ring: Keyring) -> None:
    port, bob = daemon.addresses[1], ring.let_in("bob")
    for name in ("secrets", "nowhere"):
        expected = f"dataset: '{name}' is not served here, expected one of: small"
        with pytest.raises(augd.Forbidden, match=expected):
            augd.connect(port, dataset=name, keys=bob)
    with pytest.raises(augd.OverLimit, match=r"0\.\d+ GB and 'bob' has 0\.000 GB already.*=0\.001"):
        augd.connect(port, recipe="imagenet", keys=bob)
    with (
        augd.connect(port, recipe=SMALL, batch_size=8, keys=bob) as stream,
        augd.connect(daemon.addresses[0], recipe=SMALL, dataset="secrets"),
    ):
        assert stream.dataset == "small"
        with pytest.raises(augd.OverLimit, match=r"'bob' has 1 stream open.*max_streams=1"):
            augd.connect(port, recipe=SMALL, batch_size=8, keys=bob)
        seen, whole = status(port, keys=bob), status(daemon.addresses[0])
        assert (len(seen["streams"]), len(whole["streams"])) == (1, 2)
        assert (list(seen["datasets"]), len(whole["datasets"])) == (["small"], 2)
        assert seen["datasets"]["small"]["root"] == ""


def test_strangers_at_the_door_disturb_nobody(daemon: augd.ServedDaemon, ring: Keyring) -> None:
    from augd.transport.address import parse_address
    from augd.transport.zmq_sockets import Dealer

    path, port = daemon.addresses
    expected = digest_epoch(path, epochs=3, dataset="small")
    strangers = [ClientCurve(keys.read_client_keys(ring.stranger())) for _ in range(20)]
    dealers = [Dealer(parse_address(port), curve) for curve in [*strangers, None]]
    try:
        found = digest_epoch(port, epochs=3, dataset="small", keys=ring.let_in("alice"))
    finally:
        for dealer in dealers:
            dealer.close()
    assert found == expected


@clause("P-99")
def test_with_keys_a_daemon_may_listen_for_other_hosts(folder: Path, ring: Keyring) -> None:
    with augd.serve(folder, producers=1, listen="tcp://0.0.0.0:0", keys=ring.folder) as served:
        port = served.address.replace("0.0.0.0", "127.0.0.1")
        assert len(digest_epoch(port, epochs=1, keys=ring.let_in("alice"))) == 1
        with pytest.raises(augd.Forbidden, match="accepts only clients with a key"):
            augd.connect(port)


def test_what_keeps_a_daemon_from_starting(folder: Path, ring: Keyring, tmp_path: Path) -> None:
    port = "tcp://127.0.0.1:0"
    with pytest.raises(augd.OptionError, match=r"empty/server\.key is missing: make it, and"):
        (tmp_path / "empty").mkdir(mode=0o700)
        augd.serve(folder, listen=port, keys=tmp_path / "empty")
    with pytest.raises(augd.OptionError, match=r"none cannot be read: No such file"):
        augd.serve(folder, listen=port, keys=tmp_path / "none")
    with pytest.raises(augd.OptionError, match="--keys: expected a port for them"):
        augd.serve(folder, keys=ring.folder)
    with pytest.raises(augd.OptionError, match="--keys and --insecure: expected one of them"):
        augd.serve(folder, listen=port, keys=ring.folder, insecure=True)
    (ring.folder / "server.key").chmod(0o644)
    with pytest.raises(augd.OptionError, match=r"server\.key has mode 0644, so that others can"):
        augd.serve(folder, listen=port, keys=ring.folder)


@clause("P-102")
def test_a_build_of_zeromq_that_does_not_refuse_is_no_start(
    folder: Path, ring: Keyring, tmp_path: Path
) -> None:
    """As if ZAP_ENFORCE_DOMAIN did nothing: no port is bound, nothing is left."""
    code = (
        "import zmq, sys\n"
        "from augd.transport.auth import curve\n"
        "apply = curve.ServerCurve.apply\n"
        "def weak(self, socket):\n"
        "    apply(self, socket)\n"
        "    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 0)\n"
        "curve.ServerCurve.apply = weak\n"
        "from augd.client.serve_options import ServeOptions\n"
        "from augd.server.daemon.startup import serve_forever\n"
        "from augd.errors import AugdError\n"
        "try:\n"
        f"    serve_forever(ServeOptions(paths=({str(folder)!r},), listen=('ipc://{tmp_path}/d',"
        f" 'tcp://127.0.0.1:0'), producers='1', keys={str(ring.folder)!r}))\n"
        "except AugdError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "the daemon does not start, because its test of keys failed: a client with an unkn" in (
        done.stderr
    )
    assert done.stdout == ""
    assert not (tmp_path / "d").exists()


def test_no_key_gets_into_output_or_onto_a_command_line(
    folder: Path, ring: Keyring, tmp_path: Path
) -> None:
    words = ["--listen", "tcp://127.0.0.1:0", "--keys", str(ring.folder), "--producers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "augd", "serve", str(folder), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "the port is for 2 clients with keys in" in process.stdout.readline()
        port = line.split(" at ")[1].split(" with ")[0]
        digest_epoch(port, epochs=1, keys=ring.let_in("alice"))
        with pytest.raises(augd.Forbidden):
            augd.connect(port, keys=ring.stranger())
        ring.file_of("bob").write_text("public = ")
        await_forbidden(lambda: status(port, keys=ring.let_in("bob")))
        command = (command_of(process.pid) + command_of(daemon_of(process.pid))).decode()
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "refused an unknown key from 127.0.0.1 (refusals: 1)" in errors
    assert "client bob is refused: " in errors
    assert "the rights of bob changed: its sessions end" in errors
    pairs = [keys.read_server_pair(ring.folder)]
    pairs += [keys.read_client_keys(ring.let_in(name)).pair for name in ("alice", "bob")]
    for pair in pairs:
        for key in (pair.public, pair.secret):
            assert key.decode()[:10] not in line + errors + command


@pytest.mark.parametrize("is_revoked", [False, True])
def test_a_stream_goes_on_at_a_new_daemon_if_that_knows_its_key(
    daemon: augd.ServedDaemon, ring: Keyring, folder: Path, is_revoked: bool
) -> None:
    path, port = daemon.addresses
    alice = ring.let_in("alice")
    expected = digest_epoch(path, epochs=1, dataset="small")
    with ExitStack() as later:

        def restart(batch: augd.Batch) -> None:
            if batch.number != 2:
                return
            os.kill(daemon.supervisor_pid, signal.SIGKILL)
            await_true(lambda: not is_alive(daemon.pid), SOON_S, "the daemon's end")
            if is_revoked:
                ring.file_of("alice").unlink()
            served = {"small": folder}
            later.enter_context(augd.serve(served, producers=1, listen=port, keys=ring.folder))

        def read() -> list[str]:
            return digest_epoch(port, epochs=1, dataset="small", keys=alice, on_batch=restart)

        if is_revoked:
            with pytest.raises(augd.Forbidden, match="does not know this key, or revoked it"):
                read()
        else:
            assert read() == expected


def test_a_daemon_with_keys_that_does_not_come_back_is_a_named_error(
    daemon: augd.ServedDaemon, ring: Keyring
) -> None:
    options = {"recipe": SMALL, "dataset": "small", "batch_size": 8, "timeout_s": 2.0}
    with augd.connect(daemon.addresses[1], keys=ring.let_in("alice"), **options) as stream:
        passing = stream.epoch(0)
        next(passing).release()
        os.kill(daemon.supervisor_pid, signal.SIGKILL)
        # What was on its way may be all of an epoch: its end is met in a later one.
        further = (stream.epoch(epoch) for epoch in itertools.count(1))
        with pytest.raises(augd.ConnectError, match=r"the daemon at tcp://.* ended"):
            for batch in itertools.chain(passing, itertools.chain.from_iterable(further)):
                batch.release()
    await_true(lambda: not is_alive(daemon.pid), SOON_S, "the daemon's end")


# commands


def test_commands_take_a_key(
    daemon: augd.ServedDaemon, ring: Keyring, capsys: pytest.CaptureFixture[str]
) -> None:
    alice, bob = str(ring.let_in("alice")), str(ring.let_in("bob"))
    port = daemon.addresses[1]
    with pytest.raises(SystemExit) as ended:
        main(["status", port, "--keys", alice, "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["datasets"].keys() == {"small", "secrets"}
    with pytest.raises(SystemExit) as ended:
        main(["status", port])
    assert ended.value.code == 1
    assert "augd: error: the daemon at tcp://" in capsys.readouterr().err
    arguments = ["--connect", port, "--keys", bob, "--seconds", "0.2", "--batch-size", "1"]
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments, "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["dataset"] == "small"


def test_a_trainer_takes_a_key(daemon: augd.ServedDaemon, ring: Keyring, tmp_path: Path) -> None:
    import trainer
    import trainer.cli.app

    port, alice = daemon.addresses[1], ring.let_in("alice")
    with trainer.connect(port, recipe=SMALL, dataset="small", keys=alice, device="cpu") as stream:
        assert sum(len(images) for images, _ in stream) == 120
    with pytest.raises(augd.Forbidden):
        trainer.connect(port, device="cpu")
    words = ["fit", "--connect", port, "--keys", str(alice), "--dataset", "small", "--size", "32"]
    words += ["--epochs", "1", "--limit-train-batches", "1", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        trainer.cli.app.main([*words, "--out", str(tmp_path / "run")])
    assert ended.value.code == 0
    assert (tmp_path / "run" / "last.pt").exists()
