"""For all tests: directories of their own, and nothing left behind by any of them."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.budget import SOAK
from tests.support.scheduling import ByFile, leave_to_soak, longer_forms, put_in_order

pytest.register_assert_rewrite(
    "tests.support.laws", "tests.support.ranges", "tests.support.reference", "tests.support.scenes"
)

LONGER: set[str] = set()
_SETTLE_S = 3.0  # a process that was killed is reaped, a socket closed by its I/O thread
_CLOSING_S = 0.05


# A shell's background job ignores Ctrl-C, and so do its children until they ask for it: the tests
# send it to commands that have just started.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what shows that no verdict hangs on the order of tests, or on that of equal values."""
    group = parser.getgroup("augd")
    group.addoption(
        "--order",
        metavar="SEED",
        help="run files, and the tests of each, in another order: 'reversed', or by a seed",
    )
    group.addoption(
        "--ties",
        choices=("first", "last"),
        help="have np.argsort put equal values in the order in which they came, or the reverse",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Keep sockets and index files of the tests away from the user's own; paths stay short."""
    folder = tempfile.mkdtemp(prefix="augd-t-", dir="/tmp")
    os.environ["AUGD_RUNTIME_DIR"] = f"{folder}/run"
    os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
    os.environ["XDG_CONFIG_HOME"] = f"{folder}/config"
    os.environ.pop("AUGD_KEYS", None)
    os.environ["XDG_STATE_HOME"] = f"{folder}/state"
    # Processes run side by side: torch's own threads would spin while they wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if (cache := getattr(config, "cache", None)) is not None:
        # Else each process of each run would look through all fonts of the machine.
        os.environ["MPLCONFIGDIR"] = str(cache.mkdir("matplotlib"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    # Collecting seven thousand tests makes little garbage, and every look goes through all of them.
    gc.disable()
    # pyzmq makes its I/O threads with the first socket and keeps them: no test's leak.
    import zmq

    zmq.Context.instance().socket(zmq.DEALER).close()
    if (ties := config.getoption("--ties")) is not None:
        np.argsort = functools.partial(_argsort, ties, np.argsort)  # type: ignore[assignment]


def _argsort(
    ties: str, argsort: Callable[..., Any], values: Any, axis: int = -1, kind: str | None = None
) -> Any:
    """Sort as `kind` promises: where it promises no order of equal values, in that of `ties`."""
    if kind in ("stable", "mergesort") or ties == "first":
        return argsort(values, axis=axis, kind="stable")
    values = np.flip(values, axis)
    return np.shape(values)[axis] - 1 - argsort(values, axis=axis, kind="stable")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests, and leave the long forms out unless they are asked for."""
    put_in_order(items, config.getoption("--order"))
    if not SOAK:
        leave_to_soak(items)
        LONGER.update(longer_forms(items))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Have no later look for garbage go through all modules and tests again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """Deal out whole files, unless the command line says otherwise."""
    return ByFile(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Gather from the processes which tests they ran have a longer form."""
    LONGER.update(getattr(node, "workeroutput", {}).get("longer", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what is gathered to the process that tells it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["longer"] = sorted(LONGER)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what did not run, and how to run it."""
    reasons = [report.longrepr[2] for report in terminalreporter.getreports("skipped")]
    num_left = sum("`make soak`" in reason for reason in reasons)
    if num_left or LONGER:
        forms = [*([f"{num_left} tests that are named above"] if num_left else ()), *sorted(LONGER)]
        terminalreporter.write_line(f"left to `make soak`: {'; '.join(forms)}.", yellow=True)
        terminalreporter.write_line(
            "Run it before a change of what they cover is called done.", yellow=True
        )
    if len(reasons) > num_left:
        terminalreporter.write_line(
            f"{len(reasons) - num_left} tests were skipped for want of what is named above: a "
            "device, an extra of pyproject.toml, a tool. Install it and run them again.",
            yellow=True,
        )


@pytest.fixture(scope="module", params=["native", "portable", "none"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a module's tests with the native kernels, without their vectors, and without them."""
    from augd.pixels import native

    wanted, built = request.param, native.kernels
    if wanted == "none":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "kernels", None)
            yield wanted
        return
    if built is None:
        pytest.skip("the native kernels are not built here: no C compiler or no libjpeg-turbo")
    if wanted == "portable" and not built.use_simd(True):
        pytest.skip("this processor has no vector instructions that the kernels use")
    built.use_simd(wanted == "native")
    yield wanted
    built.use_simd(True)


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Leave the cores to the producers, and have sums in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Fail a test after which there are more fds, threads, children or files than before."""
    before = _belongings()
    yield
    started = time.monotonic()
    is_collected = False
    while left := _belongings() - before:
        waited_s = time.monotonic() - started
        if waited_s > _SETTLE_S:
            pytest.fail(f"left behind: {dict(left)}")
        if waited_s > _CLOSING_S and not is_collected:
            gc.collect()  # only now: most of what is left is being closed by another thread
            is_collected = True
        time.sleep(0.002)


def _belongings() -> Counter[str]:
    things: Counter[str] = Counter(_open_files())
    things.update(f"thread {one.name}" for one in threading.enumerate())
    things.update(f"child {pid}" for pid in _children())
    folders = [Path(os.environ["AUGD_RUNTIME_DIR"])]
    if "PYTEST_XDIST_WORKER" not in os.environ:  # else it is the other workers' place, too
        folders.append(Path("/dev/shm"))
    for folder in folders:
        if folder.is_dir():
            things.update(str(path) for path in folder.iterdir())
    return things


def _open_files() -> Iterator[str]:
    # Twice in each of thousands of tests: paths as objects would take ten times as long.
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
        except OSError:
            continue  # the listing's own
        kind = target.partition(":")[0]
        if kind in ("socket", "pipe") or "memfd" in target or "pidfd" in target:
            yield f"fd of {kind}"
        elif "/mpl-data/fonts/" in target:
            continue  # matplotlib opens its fonts with the first image and keeps them
        elif target.startswith("/") and not target.startswith(("/dev", "/proc", "/sys")):
            yield f"fd of {target}"


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
