"""Key files: who may read them, what is refused, and that no key gets into a text."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from augd.cli.app import main
from augd.errors import OptionError
from augd.protocol.permissions import Rights
from augd.transport.address import parse_address
from augd.transport.auth import key_files, keys
from augd.transport.auth.curve import ClientCurve, ServerCurve, client_curve

clause = pytest.mark.clause


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys.make_server_pair(tmp_path / "keys")
    return tmp_path / "keys"


def add_client(folder: Path, name: str, **rights: object) -> keys.Pair:
    pair = keys.make_pair()
    keys.register(folder, keys.KnownClient(pair.public, Rights(name, **rights)))
    return pair


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@clause("P-108")
def test_what_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        server = keys.make_server_pair(tmp_path / "keys")
        pair = add_client(tmp_path / "keys", "alice")
        keys.write_client_keys(
            tmp_path / "alice.key", keys.ClientKeys("alice", pair, server.public)
        )
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "keys") == mode_of(tmp_path / "keys" / "clients") == 0o700
    for path in ("keys/server.key", "keys/clients/alice.toml", "alice.key"):
        assert mode_of(tmp_path / path) == 0o600, path


def test_what_was_written_is_read_again(folder: Path, tmp_path: Path) -> None:
    server = keys.make_server_pair(folder)
    assert keys.make_server_pair(folder) == server, "a second start keeps the daemon's key"
    pair = add_client(
        folder, "alice", datasets=("a b", 'q"é\\'), max_streams=2, max_bytes=3 * 10**9
    )
    written = keys.ClientKeys("alice", pair, server.public)
    keys.write_client_keys(tmp_path / "alice.key", written)
    assert keys.read_client_keys(tmp_path / "alice.key") == written
    rights = Rights("alice", ("a b", 'q"é\\'), 2, 3 * 10**9)
    assert keys.read_clients(folder) == {"alice": keys.KnownClient(pair.public, rights)}
    keys.forget(folder, "alice")
    assert keys.read_clients(folder) == {}


def test_a_file_by_hand_may_leave_everything_out_but_the_key(folder: Path) -> None:
    keys.clients_folder(folder).mkdir(mode=0o700)
    public = keys.make_pair().public
    path = keys.client_path(folder, "bob")
    path.write_text(f'public = "{public.decode()}"\nmax_gigabytes = 0.5\n')
    assert keys.read_client(path) == keys.KnownClient(public, Rights("bob", max_bytes=500_000_000))


def test_public_keys_are_words_on_a_command_line() -> None:
    for _ in range(200):
        assert not keys.make_pair().public.startswith(b"-")


@clause("P-108")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622, 0o777])
def test_a_secret_that_others_can_read_is_refused(folder: Path, mode: int) -> None:
    (folder / "server.key").chmod(mode)
    with pytest.raises(OptionError, match=rf"server\.key has mode {mode:04o}.*expected 0600"):
        keys.read_server_pair(folder)


@clause("P-108")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_client_that_others_can_write_is_refused(folder: Path, mode: int) -> None:
    add_client(folder, "alice")
    path = keys.client_path(folder, "alice")
    path.chmod(0o644)
    assert isinstance(keys.read_client(path), keys.KnownClient), "its key is public"
    path.chmod(mode)
    assert "can be written by others" in str(keys.read_client(path))


@clause("P-108")
def test_links_folders_and_pipes_are_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "server.key"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OptionError, match="it is a link, expected the file itself"):
        keys.read_server_pair(folder)
    with pytest.raises(OptionError, match="it is a link"):
        keys.make_server_pair(folder)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(OptionError, match="is not a plain file"):
        keys.read_server_pair(folder)
    path.unlink()
    path.mkdir(mode=0o700)
    with pytest.raises(OptionError, match="is not a plain file"):
        keys.read_server_pair(folder)


@clause("P-108")
def test_a_file_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_client(folder, "alice")
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(OptionError, match=rf"belongs to user {me}, expected {me + 1}"):
        keys.read_server_pair(folder)


@clause("P-108")
def test_nothing_is_ever_overwritten_nor_written_through_a_link(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "there.key").write_text("mine")
    (tmp_path / "link.key").symlink_to(tmp_path / "victim")
    some = keys.ClientKeys("a", keys.make_pair(), keys.make_pair().public)
    for name in ("there.key", "link.key"):
        with pytest.raises(OptionError, match="exists and is not overwritten"):
            keys.write_client_keys(tmp_path / name, some)
    assert (tmp_path / "there.key").read_text() == "mine"
    assert not (tmp_path / "victim").exists()
    add_client(folder, "alice")
    with pytest.raises(OptionError, match="exists and is not overwritten"):
        add_client(folder, "alice")
    with pytest.raises(OptionError, match="cannot be written: No such file or directory"):
        keys.write_client_keys(tmp_path / "no" / "a.key", some)


def test_a_folder_that_others_may_write_to_is_refused(folder: Path) -> None:
    folder.chmod(0o770)
    with pytest.raises(OptionError, match="is open to other users, expected mode 0700"):
        keys.make_server_pair(folder)
    with pytest.raises(OptionError, match="is open to other users"):
        key_files.check_folder(folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("public = 3", "public: expected a key of 40 characters of Z85"),
        ('public = "short"', "public: expected a key of 40 characters of Z85"),
        ("KEY\ndatasets = 'photos'", "datasets: expected a list of names"),
        ("KEY\ndatasets = [1]", "datasets: expected a list of names"),
        ("KEY\nmax_streams = -1", "max_streams: expected a number in 0..10000, got -1"),
        ("KEY\nmax_streams = 1.5", "max_streams: expected a whole number, got 1.5"),
        ("KEY\nmax_streams = true", "max_streams: expected a number in 0..10000, got True"),
        ("KEY\nmax_gigabytes = nan", "max_gigabytes: expected a number in 0..1e+06, got nan"),
        ("KEY\nmax_gigabytes = inf", "max_gigabytes: expected a number in 0..1e+06, got inf"),
        ("KEY\nproduce = 1", "produce: expected true or false, got 1"),
        ("KEY\nmax_stream = 1", "'max_stream' is no field of a client; expected public, datasets"),
        ("public = ", "is not valid TOML"),
        ("\udc80", "is not valid TOML"),
        ("a" * 70_000, "is larger than 65536 bytes"),
    ],
)
def test_what_is_wrong_with_a_clients_file_is_named(folder: Path, line: str, said: str) -> None:
    keys.clients_folder(folder).mkdir(mode=0o700)
    path = keys.client_path(folder, "bob")
    text = line.replace("KEY", f'public = "{keys.make_pair().public.decode()}"')
    path.write_bytes(text.encode(errors="surrogateescape"))
    found = keys.read_client(path)
    assert isinstance(found, OptionError)
    assert said in str(found)
    assert str(path) in str(found)


@pytest.mark.parametrize("damage", ["truncated", "other secret", "not a key", "binary"])
def test_no_secret_gets_into_a_text(folder: Path, damage: str) -> None:
    path = folder / "server.key"
    pair = keys.read_server_pair(folder)
    secret = pair.secret.decode()
    other = keys.make_pair().secret.decode()
    texts = {
        "truncated": path.read_text()[:-3],
        "other secret": path.read_text().replace(secret, other),
        "not a key": path.read_text().replace(secret, secret[:-1] + "~"),
        "binary": path.read_text() + "\x00",
    }
    path.write_text(texts[damage])
    with pytest.raises(OptionError) as caught:
        keys.read_server_pair(folder)
    shown = [str(caught.value), repr(pair), repr(ServerCurve(pair.secret))]
    shown.append(repr(ClientCurve(keys.ClientKeys("a", pair, pair.public))))
    for text in shown:
        assert secret[:12] not in text
        assert other[:12] not in text


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "-a", "a b", "a" * 65, "é", "a\n"])
def test_names_are_file_names_everywhere(folder: Path, name: str) -> None:
    with pytest.raises(OptionError, match="NAME: expected 1 to 64 letters"):
        keys.client_path(folder, name)


def test_a_client_finds_its_keys_by_argument_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, path = parse_address("tcp://127.0.0.1:1"), parse_address("ipc:///tmp/x")
    written = keys.ClientKeys("alice", keys.make_pair(), keys.make_pair().public)
    keys.write_client_keys(tmp_path / "alice.key", written)
    assert client_curve(port, None) is None
    monkeypatch.setenv("AUGD_KEYS", str(tmp_path / "alice.key"))
    assert client_curve(port, None) == ClientCurve(written)
    assert client_curve(path, None) is None, "a path needs none"
    with pytest.raises(OptionError, match=r"bob\.key cannot be read: No such file"):
        client_curve(port, tmp_path / "bob.key")


# the command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        main(["keys", *arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out + said.err


def test_the_command_makes_lists_and_removes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    options = ["--dataset", "a", "--dataset", "b", "--max-streams", "2", "--max-gigabytes", "1.5"]
    code, said = run(capsys, "new", "alice", *options)
    assert code == 0
    made = keys.read_client_keys(tmp_path / "alice.key")
    assert made.pair.secret.decode() not in said
    folder = tmp_path / "config" / "augd" / "keys"
    rights = Rights("alice", ("a", "b"), 2, 1_500_000_000)
    assert keys.read_clients(folder)["alice"] == keys.KnownClient(made.pair.public, rights)
    code, said = run(capsys, "new", "alice")
    assert code == 1
    assert "alice.toml exists: `augd keys remove alice` first" in said
    code, said = run(capsys, "list")
    server = keys.read_server_pair(folder)
    assert code == 0
    assert server.public.decode() in said
    assert server.secret.decode() not in said
    row = next(line.split() for line in said.splitlines() if line.startswith("alice"))
    assert row == ["alice", keys.fingerprint(made.pair.public), "a,", "b", "2", "1.5"]
    assert run(capsys, "remove", "alice")[0] == 0
    code, said = run(capsys, "remove", "alice")
    assert code == 1
    assert "does not exist; `augd keys list` prints the known clients" in said
    assert keys.read_clients(folder) == {}


def test_a_key_made_on_the_clients_own_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "keys"
    server = keys.make_server_pair(folder).public.decode()
    run(capsys, "new", "bob", "--server", server, "--out", str(tmp_path))
    made = keys.read_client_keys(tmp_path / "bob.key")
    assert made.server.decode() == server
    public = made.pair.public.decode()
    code, _ = run(capsys, "add", "bob", public, "--dir", str(folder), "--max-streams", "1")
    assert code == 0
    assert keys.read_clients(folder) == {
        "bob": keys.KnownClient(made.pair.public, Rights("bob", None, 1))
    }
    code, said = run(capsys, "add", "rob", public, "--dir", str(folder))
    assert code == 1
    assert "this key is already known, as 'bob'" in said
    too_short = made.pair.secret.decode().lstrip("-")[:-1]  # else it might be read as an option
    code, said = run(capsys, "add", "rob", too_short, "--dir", str(folder))
    assert code == 1
    assert "PUBLIC_KEY: expected 40 characters of Z85" in said
    assert too_short[:12] not in said
    code, said = run(capsys, "new", "rob", "--max-streams", "-1", "--dir", str(folder))
    assert code == 1
    assert "--max-streams: expected 0..10000, got -1" in said


def test_a_key_that_cannot_be_registered_is_not_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OptionError("no space")

    monkeypatch.setattr(keys, "register", full)
    code, _ = run(capsys, "new", "bob", "--dir", str(tmp_path / "keys"), "--out", str(tmp_path))
    assert code == 1
    assert not (tmp_path / "bob.key").exists()


def test_list_names_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_client(folder, "alice")
    (folder / "clients" / "bob.toml").write_text("public = 1")
    code, said = run(capsys, "list", "--dir", str(folder))
    assert code == 0
    assert "not let in:" in said
    code, said = run(capsys, "list", "--dir", str(folder / "none"))
    assert code == 1
    assert "server.key is missing: make it, and a first client, with `augd keys new NAME`" in said
