"""Odd surroundings give rows, or one line: streams, names, clocks, limits, users without a home."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import augd
from augd.client.status import status as ask_status
from tests.support.processes import await_true
from tests.support.scenes import make_folder

AUGD = str(Path(sys.executable).with_name("augd"))
RECIPE = {"ops": [{"op": "resize", "size": [8, 8]}]}
FEW_FDS = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=2)


def command(*words: object, before: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `augd` behind a line of a shell, and see that nothing is said of augd's own code."""
    line = ["sh", "-c", f'{before}\nexec "$@"', "-", AUGD, *map(str, words)]
    done = subprocess.run(line, text=True, timeout=90, **{"capture_output": True, **options})
    assert "Traceback" not in f"{done.stdout}{done.stderr}", done.stderr
    return done


def num_rows(address: str, dataset: str | None = None) -> int:
    options = {"recipe": RECIPE, "batch_size": 4, "timeout_s": 30}
    with augd.connect(address, dataset=dataset, **options) as stream:
        return sum(int(batch.valid.sum()) for batch in stream.epoch(0))


@pytest.fixture(scope="module")
def odd(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[augd.ServedDaemon]:
    """One daemon for all odd names and times."""
    home = tmp_path_factory.mktemp("odd")
    places = [home / os.fsdecode(b"na\xefve"), home / "a=b", home / "-dash", home / "late"]
    for place in places:
        shutil.copytree(folder, place)
    late = home / "late" / "class0" / "0001.jpg"
    os.utime(late, ns=(10_413_792_000 * 10**9, 10_413_792_000 * 10**9))
    if late.stat().st_mtime_ns < 2**63:
        places.pop()  # this file system's clock ends earlier
    named = {place.name: place for place in places} | {"good": folder}
    with augd.serve(named, producers=1) as served:
        yield served


def test_a_path_that_is_no_text_hurts_nobody(odd: augd.ServedDaemon) -> None:
    pid = odd.pid
    assert num_rows(odd.address, "good") == 4
    assert num_rows(odd.address, os.fsdecode(b"na\xefve")) == 4
    assert num_rows(odd.address, "na\\xefve") == 4
    assert ask_status(odd.address)["datasets"]["na\\xefve"]["root"].endswith("/na\\xefve")
    with pytest.raises(augd.DatasetError) as caught:
        num_rows(odd.address, os.fsdecode(b"na\xeeve"))
    said = str(caught.value)
    assert said.startswith(r"dataset: 'na\\xeeve' is not served here, expected one of: "), said
    assert r"na\xefve" in said
    assert num_rows(odd.address, "good") == 4
    assert odd.pid == pid, "the same daemon"


@pytest.mark.parametrize("name", ["a=b", "-dash", "late"])
def test_odd_names_and_times_are_served(odd: augd.ServedDaemon, name: str) -> None:
    if name not in ask_status(odd.address)["datasets"]:
        pytest.skip("this file system holds no time beyond 2262")
    assert num_rows(odd.address, name) == 4


def test_a_path_given_to_python_is_no_word_of_a_command_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "--pin=x")
    monkeypatch.chdir(tmp_path)
    with augd.serve("--pin=x", producers=1) as served:
        assert num_rows(served.address) == 4


def test_words_behind_two_dashes_are_paths(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "-dash")
    done = command("serve", "--plugin", "nosuch", "--", "-dash", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("augd: error: plug-in nosuch cannot be imported: No module")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "what"),
    [
        ("long" * 30, "bytes, a UNIX socket's path may have"),
        (os.fsdecode(b"/tmp/\xe9"), "expected a path in UTF-8"),
    ],
    ids=["long", "no-text"],
)
def test_a_runtime_folder_that_cannot_be_is_named(
    folder: Path, tmp_path: Path, variable: str, what: str
) -> None:
    place = str(tmp_path / variable)
    environment = {**os.environ, "AUGD_RUNTIME_DIR": place}
    for words in (["serve", folder, "--producers", "1"], ["status"]):
        done = command(*words, env=environment)
        assert done.returncode == 1
        assert what in done.stderr and "AUGD_RUNTIME_DIR" in done.stderr
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_nobodys(folder: Path, stream: str) -> None:
    assert command("check", folder, before=f"exec {stream}").returncode == 0


SCRIPT = """\
import sys, augd
with augd.serve(sys.argv[1], producers=1) as daemon:
    with augd.connect(daemon.address, recipe=%r, batch_size=4) as stream:
        sys.exit(int(next(stream.epoch(0)).valid.sum()))
"""


def test_a_script_without_streams_serves(folder: Path) -> None:
    line = 'exec "$@" <&- >&- 2>&-'
    words = [sys.executable, "-c", SCRIPT % RECIPE, str(folder)]
    done = subprocess.run(["sh", "-c", line, "-", *words], timeout=90)
    assert done.returncode == 4


@pytest.mark.parametrize("words", ["check", "recipes", "--help"])
def test_full_streams_are_one_line(folder: Path, words: str) -> None:
    given = [words, folder] if words == "check" else [words]
    with Path("/dev/full").open("w") as full:
        done = command(*given, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert command(*given, capture_output=False, stdout=full, stderr=full).returncode == 1
    assert done.returncode == 1
    assert done.stderr == (
        "augd: error: standard output cannot be written to: No space left on device. That "
        "output is lost\n"
    )


def test_a_daemon_whose_log_is_full_serves(folder: Path, tmp_path: Path) -> None:
    place = f"ipc://{tmp_path}/s"
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [AUGD, "serve", str(folder), "--producers", "1", "--listen", place],
            stdout=full,
            stderr=full,
        )
    try:
        await_true((tmp_path / "s.attach").exists, 20, "it listens")
        assert num_rows(place) == 4
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_an_ascii_terminal_gets_the_whole_report(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "set")
    (tmp_path / "set" / "class1" / "é.jpg").write_bytes(b"no image")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = command("check", tmp_path / "set", env=environment)
    assert done.returncode == 1
    assert "5 files looked at" in done.stdout and "\\xe9.jpg" in done.stdout


def test_no_home_is_no_folder_called_tilde(folder: Path, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--map-user=54321", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    names = ("XDG_", "AUGD_", "HOME", "USER", "LOGNAME")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(names)}
    line = ["unshare", "--map-user=54321", "--map-group=54321", AUGD]
    for words, status in ((["check", str(folder)], 0), (["keys", "list"], 1)):
        done = subprocess.run(
            [*line, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
        assert status == 0 or "this user has no home" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_file_sizes_is_named(folder: Path) -> None:
    """It holds for shared memory, so that a smaller batch would be no remedy."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, most))

    code = SCRIPT % {"ops": [{"op": "resize", "size": [200, 200]}]}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 1
    assert "augd.errors.OverLimit" in done.stderr and "ulimit -f unlimited" in done.stderr
    assert done.stderr.count("Traceback") == 1, "the script's own"


def test_too_few_open_files_for_so_many_producers_are_named(folder: Path) -> None:
    words = ("serve", folder, "--producers", "40", "--force")
    done = command(*words, before=f"ulimit -n {FEW_FDS}")
    assert done.returncode == 1
    assert done.stderr == (
        "augd: error: 40 producers need 224 open files, and 128 are allowed: raise the limit, "
        "ulimit -n 224 (LimitNOFILE= of a systemd unit), or ask for 16 --producers\n"
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"producers": "2"}, "producers: expected a whole number of 0 or more, got '2'"),
        ({"producers": True}, "producers: expected a whole number of 0 or more, got True"),
        ({"producers": -1}, "producers: expected a whole number of 0 or more, got -1"),
        ({"patience_s": "3"}, "patience_s: expected a positive number of seconds, got '3'"),
        ({"timeout_s": None}, "timeout_s: expected a positive number of seconds, got None"),
        ({"plugins": None}, "plugins: expected a list of module names, got None"),
        ({"plugins": [3]}, "plugins: expected a text, got 3"),
        ({"listen": 5}, "listen: expected a list of addresses, got 5"),
        ({"http": 80}, "http: expected a text, got 80"),
        ({"keys": 3}, "keys: expected a path, got 3"),
        ({"links_to": 3}, "links_to: expected a folder, or several, got 3"),
        ({"max_pixels": "x"}, "max_pixels: expected a whole number of 1 or more, got 'x'"),
        ({"paths": None}, "paths: expected a folder or manifest, or several by name"),
        ({"paths": {}}, "paths: expected at least one dataset, got none"),
    ],
    ids=str,
)
def test_serve_refuses_arguments_of_another_kind_by_name(
    folder: Path, given: dict[str, Any], text: str
) -> None:
    with pytest.raises(augd.OptionError) as caught:
        augd.serve(**{"paths": folder, **given})
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"world": None}, "world: expected a whole number in 1..1048576, got None"),
        ({"timeout_s": "x"}, "timeout_s: expected a positive number of seconds, got 'x'"),
        ({"max_bad_fraction": "x"}, "max_bad_fraction: expected 0..1, got 'x'"),
        ({"drop_last": 3}, "drop_last: expected True or False, got 3"),
        ({"dataset": 3}, "dataset: expected a text, got 3"),
        ({"address": 3}, "address: expected ipc://PATH or tcp://HOST:PORT, got 3"),
    ],
    ids=str,
)
def test_connect_refuses_arguments_of_another_kind_by_name(
    given: dict[str, Any], text: str
) -> None:
    with pytest.raises(augd.OptionError) as caught:
        augd.connect(**{"recipe": RECIPE, "batch_size": 4, **given})
    assert str(caught.value) == text


READY = """
import json, os, signal, subprocess, sys
ready, far = os.pipe()
daemon = subprocess.Popen(
    [*sys.argv[1:], "--ready-fd", str(far)], pass_fds=[far], stderr=subprocess.PIPE, text=True
)
os.close(far)
os.read(ready, 65536)
daemon.terminate()
# Its status is lost where SIGCHLD is ignored: what it says is not.
print(daemon.communicate(timeout=20)[1], end="")
"""


@pytest.mark.parametrize(
    "before",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    ],
    ids=["ignored", "blocked"],
)
def test_signals_that_whoever_starts_it_ignores_or_blocks(
    folder: Path, tmp_path: Path, before: str
) -> None:
    serve = [AUGD, "serve", folder, "--quiet", "--listen", f"ipc://{tmp_path}/s"]
    done = subprocess.run(
        [sys.executable, "-c", f"import signal; {before}\n{READY}", *map(str, serve)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_working_directory_that_was_removed_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = command("serve", ".", before=f"rmdir '{gone}'", cwd=gone)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("augd: error: the working directory was removed: go to another")


def test_a_relative_path_in_a_directory_that_was_removed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(augd.OptionError, match=r"'set' is a relative path, and the working dir"):
        augd.serve("set")


def test_no_fewer_producers_than_one_are_advised(folder: Path) -> None:
    done = command("serve", folder, "--producers", "1", before="ulimit -n 40")
    assert done.returncode == 1
    assert done.stderr.endswith("ulimit -n 68 (LimitNOFILE= of a systemd unit)\n"), done.stderr


def test_names_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    """A name is a stranger's: one that clears the screen would hide what is said of it."""
    escape = "\x1b[2J"
    make_folder(tmp_path / "set", num_classes=2, per_class=1)
    for number in range(2):
        shutil.copytree(tmp_path / "set" / "class0", tmp_path / "set" / f"{escape}{number}")
    (tmp_path / "set" / f"{escape}1" / f"{escape}.jpg").write_bytes(b"\xff\xd8")
    for words in (("check",), ("explain", "--epoch", "0", "--id", "0")):
        done = command(words[0], tmp_path / "set", *words[1:])
        assert escape not in done.stdout + done.stderr
        assert r"\x1b[2J" in done.stdout


SECOND_SIGNAL = """
import os, signal
from augd.server.supervision.signals import close_signal_fd, signal_fd
near = signal_fd()
os.kill(os.getpid(), signal.SIGTERM)
assert near.recv(1) == bytes([signal.SIGTERM])
close_signal_fd(near)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_second_signal_at_the_end_says_nothing() -> None:
    """`timeout` sends SIGTERM to the process, and again to its group."""
    done = subprocess.run(
        [sys.executable, "-c", SECOND_SIGNAL], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_home_that_does_not_exist_is_not_made(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "nonexistent"
    before = "unset XDG_CACHE_HOME XDG_STATE_HOME XDG_CONFIG_HOME"
    env = {**os.environ, "HOME": str(home)}
    assert command("check", folder, before=before, env=env).returncode == 0
    assert not home.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"links_to": "/nonexistent/place"}, "links-to"),
        ({"root": "/nonexistent/place"}, "root"),
        ({"max_pixels": 2**31}, "max-pixels"),
    ],
)
def test_what_a_daemon_refuses_at_its_start_is_raised(
    folder: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(augd.OptionError, match=says):
        augd.serve(folder, **options)


def test_a_path_that_is_too_long_is_raised() -> None:
    with pytest.raises(augd.AugdError, match="File name too long"):
        augd.serve("x" * 5000)


def test_arguments_of_a_stream_of_another_kind_are_refused(odd: augd.ServedDaemon) -> None:
    with augd.connect(odd.address, dataset="good", recipe=RECIPE, batch_size=4) as stream:
        for epoch in ("1", None, 1.5, True):
            with pytest.raises(augd.OptionError, match="epoch: expected a whole number in 0"):
                stream.epoch(epoch)  # type: ignore[arg-type]
        for ids in (["x"], None, 5, [1.5]):
            with pytest.raises(augd.OptionError, match="ids: expected whole numbers, got"):
                stream.paths(ids)  # type: ignore[arg-type]
    with pytest.raises(augd.OptionError, match="address: expected ipc://PATH"):
        augd.connect("ipc://\0", recipe=RECIPE, batch_size=4)
