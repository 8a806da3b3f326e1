"""`augd doctor`: what this machine offers to augd, and what prevents a daemon from running.

Run it where something is slow or does not start. Each line says what was found and, where it could
be better, what to do.

Invariants: the command changes nothing that outlives it. It tries each thing as a daemon would, and
does not go by the name of the system.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from signal import Signals
from typing import Final, Literal

from augd.diagnostics.procfs import cpu_model
from augd.errors import AugdError, install_extra
from augd.pixels.headers.formats import MODULES, NAMES, PACKAGES
from augd.process import interpreter
from augd.process.resource_limits import describe_cores, num_cores
from augd.transport.address import make_runtime_dir, runtime_dir
from augd.transport.arena import available_bytes, make_arena
from augd.version import __version__

Verdict = Literal["good", "better", "bad"]

_MARKS: Final = {"good": "ok", "better": "could be better", "bad": "in the way"}
_MB: Final = 1 << 20
# A stream of 256 images of 224 px, five slots: what `connect` asks for by default.
_ARENA_BYTES: Final = 256 * 224 * 224 * 3 * 5
# An index, hints and an arena for each of many sessions, two sockets for each client.
_FDS_WANTED: Final = 4096
_TRY_S: Final = 30.0
_TORCH_S: Final = 120.0  # to import it from a cold disk, and to start CUDA
_LIBRARIES: Final = ("numpy", "opencv-python-headless", "pillow", "pyzmq", "msgspec", "xxhash")

_WITHOUT_KERNELS: Final = "AUGD_KERNELS=off does without them and says no more of it"
_TO_BUILD: Final = (
    "without them a producer makes about half as many images. AUGD_KERNELS=off leaves them out; "
    "else they were not built, and pip -v says why: mostly for want of a C compiler and "
    "libjpeg-turbo's headers (Debian, Ubuntu: apt-get install gcc libc6-dev libjpeg-dev "
    "python3-dev). Then install augd again"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    subject: str
    found: str
    verdict: Verdict = "good"
    advice: str = ""


def run_doctor(as_json: bool) -> int:
    """Print all findings; returns 1 if something prevents a daemon from running, else 0."""
    findings = examine()
    if as_json:
        print(json.dumps([asdict(one) for one in findings]))
    else:
        print("\n".join(lines(findings)))
    return int(any(one.verdict == "bad" for one in findings))


def examine() -> list[Finding]:
    """Run all checks. Takes about a second."""
    looks: tuple[Callable[[], Finding], ...] = (
        _versions,
        _processor,
        _kernels,
        _formats,
        _memory,
        _arena,
        _open_files,
        _runtime_folder,
        _confinement,
        _trainer,
        _page,
    )
    return [look() for look in looks]


def lines(findings: list[Finding]) -> list[str]:
    """Lay the findings out for a terminal."""
    width = max(len(one.subject) for one in findings)
    text = []
    for one in findings:
        text.append(f"{one.subject:{width}}  {_MARKS[one.verdict]}: {one.found}")
        if one.advice:
            text.append(f"{'':{width}}  {one.advice}")
    return text


def _versions() -> Finding:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    where = f"augd {__version__}, Python {platform.python_version()}"
    return Finding("versions", f"{where}, Linux {platform.release()}, {versions}")


def _processor() -> Finding:
    found = f"{describe_cores()}; {cpu_model()}"
    if num_cores() > 1:
        return Finding("processor", found)
    advice = "producers and the training share one core: give the process more"
    return Finding("processor", found, "better", advice)


def _kernels() -> Finding:
    """Load the kernels in a separate process: a damaged file can crash it."""
    said, problem = _ask("augd.cli.probe_kernels", _TRY_S)
    if not said:
        advice = f"loading them ends every producer: install augd again, or {_WITHOUT_KERNELS}"
        return Finding("kernels", problem, "bad", advice)
    trouble, name, *facts = json.loads(said)
    if trouble:
        advice = f"OpenCV and Pillow make the pixels, about half as fast; {_WITHOUT_KERNELS}"
        return Finding("kernels", trouble, "better", advice)
    if name == "none":
        return Finding("kernels", "none: OpenCV and Pillow make the pixels", "better", _TO_BUILD)
    has_own, has_vectors = facts
    vectors = "vector instructions" if has_vectors else "no vector instructions"
    entropy = "own" if has_own else "libjpeg's"
    found = f"native kernels {name}, {entropy} entropy decoder, {vectors}"
    if has_own:
        return Finding("kernels", found)
    advice = (
        "jpegint.h of libjpeg-turbo was not there at the build: decoding takes a quarter longer. "
        "Distributions leave it out from version 3 on: install a wheel, or build with "
        "AUGD_LIBJPEG=DIR, which tools/libjpeg-turbo.sh DIR makes"
    )
    return Finding("kernels", found, "better", advice)


def _formats() -> Finding:
    """Check which optional decoder packages are installed."""
    missing = [kind for kind in PACKAGES if find_spec(MODULES[kind]) is None]
    if not missing:
        return Finding("formats", "all that are read")
    names = " and ".join(NAMES[kind] for kind in missing)
    advice = f"for datasets that hold {names}: {install_extra('formats')}"
    return Finding("formats", f"all but {names}", "good", advice)


def _memory() -> Finding:
    free = available_bytes()
    found = f"{free // _MB:,} MB are free for arenas"
    if free > 4 * _ARENA_BYTES:
        return Finding("memory", found)
    advice = (
        f"a stream of 256 images of 224 px takes {_ARENA_BYTES // _MB} MB: ask for a smaller "
        f"batch_size or prefetch, or raise the container's limit"
    )
    return Finding("memory", found, "better", advice)


def _arena() -> Finding:
    try:
        os.close(make_arena("doctor", 1 << 16))
    except (OSError, AugdError) as error:
        advice = 'trainers on this machine get their batches over TCP: transport="frames"'
        return Finding("shared memory", f"no sealed memfd: {error}", "bad", advice)
    return Finding("shared memory", "sealed memfds work; /dev/shm is not used")


def _open_files() -> Finding:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if most == resource.RLIM_INFINITY else f"at most {most:,} for a process"
    if most == resource.RLIM_INFINITY or most >= _FDS_WANTED:
        return Finding("open files", found)
    advice = (
        f"raise the hard limit to {_FDS_WANTED:,}: ulimit -Hn, or LimitNOFILE= of a systemd unit"
    )
    return Finding("open files", found, "better", advice)


def _runtime_folder() -> Finding:
    folder = runtime_dir()
    try:
        make_runtime_dir(folder)
    except (OSError, AugdError) as error:
        advice = "set AUGD_RUNTIME_DIR to a folder that only you can enter"
        return Finding("runtime folder", str(error), "bad", advice)
    return Finding("runtime folder", f"{folder}, for you alone")


def _confinement() -> Finding:
    """Confine a separate process as a producer confines itself; it cannot be undone."""
    holds, problem = _ask("augd.cli.probe_sandbox", _TRY_S)
    if problem.startswith("no answer"):
        advice = (
            "a fresh interpreter should take a second: is the machine, or its disk, overloaded?"
        )
        return Finding("confinement", problem, "bad", advice)
    if "seccomp" in holds:
        return Finding("confinement", f"producers are confined by {holds}")
    advice = (
        "this kernel or container forbids seccomp filters: a hostile image that takes a producer "
        "over has a network. Serve only images that you trust, or allow it"
    )
    return Finding("confinement", holds or "none", "better", advice)


def _trainer() -> Finding:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        advice = f"where you train: {install_extra('trainer')}; producers need no torch"
        return Finding("trainer", "torch is not installed here", "good", advice)
    if shutil.which("nvidia-smi") is None:
        return Finding("trainer", f"torch {version}; no NVIDIA driver: trains on the processor")
    # By a process of its own: this one must not load torch.
    said, problem = _ask("augd.torch.data.probe_pinning", _TORCH_S)
    if said == "pinned":
        return Finding(
            "trainer", f"torch {version}; CUDA registers shared memory: copies are pinned"
        )
    advice = {
        "no device": "there is an NVIDIA driver, but torch sees no CUDA device: install a torch "
        "that is built for it, and look at CUDA_VISIBLE_DEVICES",
        "not pinned": "CUDA registers no shared memory: copies to the GPU hold the CPU up. Raise "
        "the limit of locked memory: ulimit -l unlimited, or LimitMEMLOCK= of a systemd unit",
    }.get(said, "torch could not be tried; run it by hand and see")
    return Finding("trainer", f"torch {version}: {said or problem}", "better", advice)


def _page() -> Finding:
    wanted = ("starlette", "uvicorn", "prometheus_client")
    missing = [name for name in wanted if find_spec(name) is None]
    if not missing:
        return Finding("page", "augd serve --http HOST:PORT works here")
    advice = f"for `augd serve --http`: {install_extra('http')}"
    return Finding("page", f"{', '.join(missing)} not installed", "good", advice)


def _ask(module: str, timeout_s: float) -> tuple[str, str]:
    """Run a module in a fresh interpreter; returns what it printed, and what went wrong."""
    try:
        done = interpreter.run(module, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return "", f"no answer within {timeout_s:.0f} s"
    if done.returncode < 0:
        return "", f"ended by {Signals(-done.returncode).name}"
    return done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]
