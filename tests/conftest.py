"""For all tests: directories of their own, and nothing left behind by any of them."""

from __future__ import annotations

import functools
import gc
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.register_assert_rewrite("tests.laws", "tests.ranges", "tests.reference", "tests.scenes")

_SETTLE_S = 3.0  # a process that was killed is reaped, a socket closed by its I/O thread


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
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
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
    """Order the tests as --order says, and mark those that count seconds while they flood."""
    if (order := config.getoption("--order")) is not None:
        _put_in_order(items, order)
    here = Path(__file__).parent
    for item in items:
        is_alone = item.path.relative_to(here).parts[0] in ("fault", "attacks")
        if is_alone and item.get_closest_marker("patient") is None:
            item.add_marker(pytest.mark.alone)


def _put_in_order(items: list[pytest.Item], order: str) -> None:
    """Reverse or shuffle the files, and the tests within each: what shares a daemon stays near."""
    if order == "reversed":
        items.reverse()
        return
    shuffled = random.Random(order)
    files = dict.fromkeys(item.path for item in items)
    places = dict(zip(files, shuffled.sample(range(len(files)), len(files)), strict=True))
    ranks = {id(item): (places[item.path], shuffled.random()) for item in items}
    items.sort(key=lambda item: ranks[id(item)])


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
    if not _belongings() - before:
        return
    gc.collect()  # only now: with torch loaded it takes a third of a second
    deadline = time.monotonic() + _SETTLE_S
    while left := _belongings() - before:
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {dict(left)}")
        time.sleep(0.01)


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
    for fd in list(Path("/proc/self/fd").iterdir()):
        try:
            target = str(fd.readlink())
        except OSError:
            continue  # the listing's own
        kind = target.partition(":")[0]
        if kind in ("socket", "pipe") or "memfd" in target or "pidfd" in target:
            yield f"fd of {kind}"
        elif "/mpl-data/fonts/" in target:
            continue  # matplotlib opens its fonts with the first picture and keeps them
        elif target.startswith("/") and not target.startswith(("/dev", "/proc", "/sys")):
            yield f"fd of {target}"


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
