"""Another user of the machine answers in a daemon's place: nobody believes it.

Played by real users, which only root can be: processes that root starts, and that become them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import augd
from augd.client.status import status
from augd.transport.address import parse_address
from augd.transport.lifeline import Lifeline
from tests.support.scenes import SMALL, make_folder, read_epoch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")

STRANGER, OTHER = 4321, 4322

# A daemon as far as a HELLO goes, whose listener is the user's as whom it calls listen.
_ANSWERS = """
import os, socket, sys, zmq
from augd.protocol import codec, messages as msg
path, user, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
listener = socket.socket(socket.AF_UNIX, getattr(socket, kind))
os.umask(0o177)
if "first" in sys.argv:
    os.setresuid(user, user, user)
listener.bind(path)
os.setresuid(user, user, user)
listener.listen(8)
print("listening", flush=True)
if kind == "SOCK_STREAM":
    router = zmq.Context.instance().socket(zmq.ROUTER)
    router.setsockopt(zmq.USE_FD, listener.detach())
    router.bind(f"ipc://{path}")
    while True:
        peer, header = router.recv_multipart()
        asked = codec.decode_from_client(header)
        if isinstance(asked, msg.Hello):
            answer = msg.Welcome(asked.nonce, "i", 1, path + ".attach", "token", 0)
        else:
            answer = msg.StatusReply({"forged": True})
        router.send_multipart([peer, codec.encode(answer)])
sys.stdin.read()
"""
_VISITS = """
import os, sys
import augd, augd.client.connect, augd.client.connection, augd.client.status
import augd.transport.handshake_monitor
user = int(sys.argv[2])
os.setgroups([])
os.setresuid(user, user, user)
os.environ.pop("AUGD_RUNTIME_DIR")
try:
    augd.connect(sys.argv[1] or None, timeout_s=5)
except augd.AugdError as error:
    print(type(error).__name__, error)
"""


@contextmanager
def answering(path: Path, user: int, kind: str = "SOCK_STREAM", *options: str) -> Iterator[None]:
    command = [sys.executable, "-c", _ANSWERS, str(path), str(user), kind, *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "listening\n"
        yield
    finally:
        process.kill()
        process.communicate()


def visit(address: str, user: int) -> str:
    """Connect as a user, and say what came of it."""
    command = [sys.executable, "-c", _VISITS, address, str(user)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can reach."""
    with tempfile.TemporaryDirectory(prefix="augd-p-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_folder_of_another_user_is_not_believed(place: Path) -> None:
    folder = place / "augd"
    folder.mkdir(mode=0o755)
    os.chown(folder, STRANGER, -1)
    with answering(folder / "d", STRANGER, "SOCK_STREAM", "first"):
        address = f"ipc://{folder}/d"
        expected = f"{address} is not trusted: {folder} belongs to user {STRANGER}, expected "
        for ask in (augd.connect, status):
            with pytest.raises(augd.UntrustedAddress) as caught:
                ask(address)
            assert str(caught.value).startswith(f"{expected}0: set AUGD_RUNTIME_DIR")
        assert visit(address, OTHER).startswith(f"UntrustedAddress {expected}{OTHER}: set")
        done = subprocess.run(
            [sys.executable, "-m", "augd", "status", address],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"augd: error: {expected}0")


def test_the_default_folder_made_first_by_another_user_is_not_believed() -> None:
    folder = Path(f"/tmp/augd-{OTHER}")
    folder.mkdir(mode=0o755)
    try:
        os.chown(folder, STRANGER, -1)
        with answering(folder / "default", STRANGER, "SOCK_STREAM", "first"):
            said = visit("", OTHER)
        (folder / "default").unlink()
    finally:
        folder.rmdir()
    assert said == (
        f"UntrustedAddress ipc://{folder}/default is not trusted: {folder} belongs to user "
        f"{STRANGER}, expected {OTHER}: set AUGD_RUNTIME_DIR to a directory of your own\n"
    )


def test_a_socket_of_another_user_in_a_shared_folder_is_not_believed(place: Path) -> None:
    place.chmod(0o1777)
    with (
        answering(place / "d", STRANGER, "SOCK_STREAM", "first"),
        pytest.raises(augd.UntrustedAddress, match=rf"it belongs to user {STRANGER}, expected"),
    ):
        augd.connect(f"ipc://{place}/d")


@pytest.mark.parametrize("what", ["folder", "socket"])
def test_links_are_not_followed(place: Path, what: str) -> None:
    folder = place / "real"
    folder.mkdir(mode=0o700)
    with answering(folder / "d", 0):
        if what == "folder":
            (place / "link").symlink_to(folder)
            address = f"ipc://{place}/link/d"
        else:
            (folder / "link").symlink_to(folder / "d")
            address = f"ipc://{folder}/link"
        with pytest.raises(augd.UntrustedAddress, match=r"is not trusted: .*is a link to .*real"):
            augd.connect(address)


@pytest.mark.parametrize(
    ("mode", "says"), [(0o777, "can be written by other users"), (0o1777, None), (0o755, None)]
)
def test_who_else_may_write_into_the_folder_counts(
    place: Path, mode: int, says: str | None
) -> None:
    place.chmod(mode)
    with answering(place / "d", 0):
        if says is None:
            assert status(f"ipc://{place}/d") == {"forged": True}
            return
        with pytest.raises(augd.UntrustedAddress, match=says):
            status(f"ipc://{place}/d")


def test_a_socket_that_others_can_use_is_not_believed(place: Path) -> None:
    with answering(place / "d", 0):
        (place / "d").chmod(0o666)
        with pytest.raises(augd.UntrustedAddress, match=r"others can use it \(mode 0666\), expect"):
            status(f"ipc://{place}/d")


def test_a_process_of_another_user_behind_an_own_socket_is_not_believed(place: Path) -> None:
    """As somebody would be who changed the folder between a look at it and the connection."""
    says = f"is a process of user {STRANGER}, expected one of user 0"
    with answering(place / "d", STRANGER):
        assert (place / "d").stat().st_uid == 0
        for ask in (augd.connect, status):
            with pytest.raises(augd.UntrustedAddress, match=says):
                ask(f"ipc://{place}/d")
    with (
        answering(place / "a", STRANGER, "SOCK_SEQPACKET"),
        pytest.raises(augd.UntrustedAddress, match=says),
    ):
        Lifeline(str(place / "a"), 1, "token", 5.0)


def test_a_daemon_serves_nobody_elses_processes(place: Path) -> None:
    """Not even where somebody opened its socket to them."""
    folder = make_folder(place / "set", num_classes=2, per_class=4)
    with augd.serve(folder, producers=1, listen=f"ipc://{place}/d") as daemon:
        path = parse_address(daemon.address).path
        for one in place.glob("d*"):
            one.chmod(0o666)
        code = (
            "import os, sys, zmq\n"
            "from augd.protocol import codec, messages as msg\n"
            f"os.setresuid({OTHER}, {OTHER}, {OTHER})\n"
            "dealer = zmq.Context.instance().socket(zmq.DEALER)\n"
            "dealer.setsockopt(zmq.LINGER, 0)\n"
            "heard = dealer.get_monitor_socket()\n"
            f"dealer.connect('ipc://{path}')\n"
            "dealer.send(codec.encode(msg.Status()))\n"
            "ends = zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED\n"
            "while (event := recv_monitor_message(heard)['event']) not in ends: pass\n"
            "print(event == zmq.EVENT_DISCONNECTED)\n"
        )
        code = "from zmq.utils.monitor import recv_monitor_message\n" + code
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
        )
        assert (done.stdout, done.stderr) == ("True\n", "")
        for one in place.glob("d*"):
            one.chmod(0o600)
        with augd.connect(daemon.address, recipe=SMALL, batch_size=8) as stream:
            assert len(read_epoch(stream, 0)) == 1
