"""Environments for the peers: `python -m benchmarks.peers.install [NAME ...]`.

Each below `.peers/` in the checkout, made once; made again when its requirements change. Never
installs anything outside of it: what is missing from the system is said, and the peer is left out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.peers.catalogue import ENVIRONMENTS, Environment

FOLDER = Path(__file__).resolve().parents[2] / ".peers"
_INSTALL_S = 1800.0  # FFCV's torch is gigabytes
_PROBE_S = 120.0


class CannotInstall(Exception):
    """A peer cannot be had on this machine; the message says why."""


def python_of(name: str) -> str:
    """Return the interpreter of an environment; the checkout's own for no name."""
    return str(FOLDER / name / "bin" / "python") if name else sys.executable


def log_of(name: str) -> Path:
    """Name the file that takes down what installing said."""
    return FOLDER / f"{name}.log"


def is_ready(name: str) -> bool:
    """Say whether an environment is there as it should be."""
    stamp = FOLDER / name / ".ready"
    wanted = json.dumps(ENVIRONMENTS[name].requirements)
    return stamp.is_file() and stamp.read_text() == wanted


def install(names: Iterable[str]) -> dict[str, str]:
    """Make the environments that are not there yet; returns why not, for those that cannot be."""
    reasons = {}
    for name in dict.fromkeys(names):
        try:
            _install(name, ENVIRONMENTS[name])
        except CannotInstall as error:
            reasons[name] = str(error)
    return reasons


def _install(name: str, environment: Environment) -> None:
    missing = missing_packages(environment.debian)
    if missing:
        raise CannotInstall(
            f"Debian packages are missing: {' '.join(missing)}; as root: "
            f"apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if is_ready(name):
        return
    print(f"benchmarks.peers: installing {name} into .peers/{name}", file=sys.stderr, flush=True)
    FOLDER.mkdir(exist_ok=True)
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    python = python_of(name)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    with log_of(name).open("wb") as log:
        _run([sys.executable, "-m", "venv", str(FOLDER / name)], log_of(name), log.fileno())
        _run([*pip, *environment.requirements], log_of(name), log.fileno())
        for module in environment.modules:
            _run([python, "-c", f"import {module}"], log_of(name), log.fileno(), _PROBE_S)
    (FOLDER / name / ".ready").write_text(json.dumps(environment.requirements))


def _run(command: list[str], log: Path, log_fd: int, timeout_s: float = _INSTALL_S) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"{brief(command)} took longer than {timeout_s:g} s") from None
    if done.returncode:
        said = telling_line(log.read_text(errors="replace"))
        raise CannotInstall(f"{brief(command)} failed: {said} (all of it: .peers/{log.name})")


def brief(command: list[str]) -> str:
    """Name a command without the paths of this machine."""
    parts = command[1:]
    if parts[:3] == ["-m", "pip", "install"]:
        return "pip install " + " ".join(part for part in parts[3:] if not part.startswith("--"))
    return "python " + " ".join(part for part in parts if not part.startswith("/"))


def telling_line(text: str) -> str:
    """Pick the line that says what went wrong: the last one with an error in it, or the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1][:300]


def missing_packages(alternatives: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the first of each alternative none of which is installed; none without dpkg."""
    if shutil.which("dpkg-query") is None:
        return []
    return [names[0] for names in alternatives if not any(map(_is_installed, names))]


def _is_installed(package: str) -> bool:
    asked = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.returncode == 0 and asked.stdout == "installed"


def main() -> None:
    """Install the environments that are named, or all."""
    names = sys.argv[1:] or list(ENVIRONMENTS)
    unknown = sorted(set(names) - set(ENVIRONMENTS))
    if unknown:
        sys.exit(f"benchmarks.peers.install: unknown {unknown}; there are {list(ENVIRONMENTS)}")
    reasons = install(names)
    for name in names:
        print(f"{name}: {reasons.get(name, 'ready')}")


if __name__ == "__main__":
    main()
