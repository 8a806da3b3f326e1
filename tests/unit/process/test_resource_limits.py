"""What control groups leave to a process, of both versions, nested, in containers and outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import augd
from augd.cli.app import app
from augd.errors import AugdError, DatasetError, OptionError
from augd.process import resource_limits
from augd.process.resource_limits import (
    cpu_quota,
    describe_cores,
    memory_left,
    num_cores,
    why_too_many,
)
from augd.server.supervision.arguments import count_producers

MB = 1 << 20
# ID PARENT MAJOR:MINOR ROOT POINT OPTIONS - TYPE SOURCE SUPER-OPTIONS
MOUNT = "31 23 0:28 {group} {point} rw,relatime shared:9 - {kind} {kind} rw,{controllers}\n"


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def groups(*lines: str) -> dict[str, str]:
    return {"proc/self/cgroup": "".join(f"{line}\n" for line in lines)}


def mounts(*lines: tuple[str, str, str, str]) -> dict[str, str]:
    names = ("group", "point", "kind", "controllers")
    text = "".join(MOUNT.format(**dict(zip(names, line, strict=True))) for line in lines)
    return {"proc/self/mountinfo": "28 1 8:1 / / rw - ext4 /dev/sda rw\nodd\n" + text}


def quota_of_first(level: str, quota_us: int, period_us: int = 100_000) -> dict[str, str]:
    return {
        f"{level}/cpu.cfs_quota_us": f"{quota_us}\n",
        f"{level}/cpu.cfs_period_us": f"{period_us}\n",
    }


def limit_of_first(level: str, limit: int, usage: int, inactive: int) -> dict[str, str]:
    return {
        f"{level}/memory.limit_in_bytes": f"{limit}\n",
        f"{level}/memory.usage_in_bytes": f"{usage}\n",
        f"{level}/memory.stat": f"cache 5\ninactive_file 7\ntotal_inactive_file {inactive}\n",
    }


def limit_of_second(level: str, limit: str, current: int, inactive: int) -> dict[str, str]:
    return {
        f"{level}/memory.max": f"{limit}\n",
        f"{level}/memory.current": f"{current}\n",
        f"{level}/memory.stat": f"anon 1\ninactive_file {inactive}\n",
    }


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu,cpuacct"
V1_MEMORY = "sys/fs/cgroup/memory"


def test_without_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert memory_left(tmp_path) is None


def test_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    files = {f"{V2}/cpu.max": "150000 100000\n", **limit_of_second(V2, str(300 * MB), 100 * MB, 5)}
    put(tmp_path, {**groups("0::/"), **files})
    assert cpu_quota(tmp_path) == 1.5
    assert memory_left(tmp_path) == 200 * MB + 5


def test_no_limit_of_version_2_is_none(tmp_path: Path) -> None:
    files = {f"{V2}/cpu.max": "max 100000\n", **limit_of_second(V2, "max", 100 * MB, 5)}
    put(tmp_path, {**groups("0::/"), **files})
    assert cpu_quota(tmp_path) is None
    assert memory_left(tmp_path) is None


def test_no_limit_of_version_1_is_none(tmp_path: Path) -> None:
    files = quota_of_first(V1, -1) | limit_of_first(V1_MEMORY, 9223372036854771712, 100 * MB, 5)
    put(tmp_path, {**groups("3:cpu,cpuacct:/", "2:memory:/"), **files})
    assert cpu_quota(tmp_path) is None
    assert memory_left(tmp_path) is None


@pytest.mark.parametrize("tightest", ["", "/a", "/a/b"])
def test_the_least_of_nested_groups_binds_in_version_2(tmp_path: Path, tightest: str) -> None:
    files: dict[str, str] = {}
    for level in ("", "/a", "/a/b"):
        is_it = level == tightest
        files[f"{V2}{level}/cpu.max"] = f"{200_000 if is_it else 900_000} 100000\n"
        limit = 100 * MB if is_it else 900 * MB
        files |= limit_of_second(f"{V2}{level}", str(limit), 30 * MB, 0)
    put(tmp_path, {**groups("0::/a/b"), **files, f"{V2}/other/cpu.max": "1000 100000\n"})
    assert cpu_quota(tmp_path) == 2.0
    assert memory_left(tmp_path) == 70 * MB


@pytest.mark.parametrize("tightest", ["", "/docker", "/docker/9f"])
def test_the_least_of_nested_groups_binds_in_version_1(tmp_path: Path, tightest: str) -> None:
    files: dict[str, str] = {}
    for level in ("", "/docker", "/docker/9f"):
        is_it = level == tightest
        files |= quota_of_first(f"{V1}{level}", 50_000 if is_it else 400_000)
        limit = 100 * MB if is_it else 900 * MB
        files |= limit_of_first(f"{V1_MEMORY}{level}", limit, 30 * MB, 2 * MB)
    own = groups("4:cpu,cpuacct:/docker/9f", "3:memory:/docker/9f", "0::/docker/9f")
    put(tmp_path, {**own, **files})
    assert cpu_quota(tmp_path) == 0.5
    assert memory_left(tmp_path) == 72 * MB


def test_a_container_that_reads_the_hosts_path(tmp_path: Path) -> None:
    """Version 1 without a namespace: the path is the host's, the mount shows the group."""
    group = "/kubepods/pod1/9f"
    own = groups(f"4:cpu,cpuacct:{group}/inner", f"3:memory:{group}")
    mounted = mounts(
        (group, "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
        (group, "/sys/fs/cgroup/memory", "cgroup", "memory"),
    )
    files = quota_of_first(V1, 400_000) | quota_of_first(f"{V1}/inner", 300_000)
    put(tmp_path, {**own, **mounted, **files, **limit_of_first(V1_MEMORY, 50 * MB, MB, 0)})
    assert cpu_quota(tmp_path) == 3.0
    assert memory_left(tmp_path) == 49 * MB


def test_groups_are_found_where_they_are_mounted(tmp_path: Path) -> None:
    mounted = mounts(
        ("/", "/cgroup\\040one/cpu", "cgroup", "cpu"), ("/", "/run/two", "cgroup2", "nsdelegate")
    )
    own = groups("2:cpu:/job", "0::/job")
    files = quota_of_first("cgroup one/cpu/job", 700_000)
    put(tmp_path, {**own, **mounted, **files, "run/two/job/cpu.max": "600000 100000\n"})
    assert cpu_quota(tmp_path) == 6.0


def test_both_versions_beside_each_other(tmp_path: Path) -> None:
    files = quota_of_first("sys/fs/cgroup/cpu", 300_000)
    put(tmp_path, {**groups("1:cpu:/", "0::/"), **files})
    assert cpu_quota(tmp_path) == 3.0
    put(tmp_path, {f"{V2}/unified/cpu.max": "250000 50000\n"})
    assert cpu_quota(tmp_path) == 3.0
    put(tmp_path, {f"{V2}/unified/cpu.max": "25000 50000\n"})
    assert cpu_quota(tmp_path) == 0.5


def test_a_group_outside_of_what_is_seen_leaves_the_root(tmp_path: Path) -> None:
    put(tmp_path, {**groups("0::/../../host"), f"{V2}/cpu.max": "100000 100000\n"})
    assert cpu_quota(tmp_path) == 1.0


@pytest.mark.parametrize("text", ["", "\n", "zero one\n", "100000 0\n", "max\n"])
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, text: str) -> None:
    put(tmp_path, {**groups("0::/"), f"{V2}/cpu.max": text, f"{V2}/memory.max": text})
    assert cpu_quota(tmp_path) is None
    assert memory_left(tmp_path) is None


def test_used_up_memory_is_none_left_and_never_less(tmp_path: Path) -> None:
    put(tmp_path, {**groups("0::/"), **limit_of_second(V2, str(MB), 2 * MB, 0)})
    assert memory_left(tmp_path) == 0


@pytest.mark.parametrize(
    ("allowed", "quota", "wanted"),
    [(8, None, 8), (8, 1.0, 1), (8, 1.2, 2), (8, 0.1, 1), (2, 16.0, 2), (3, 3.0, 3)],
)
def test_cores_are_those_of_the_scheduler_or_the_quota_if_less(
    monkeypatch: pytest.MonkeyPatch, allowed: int, quota: float | None, wanted: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.setattr(resource_limits, "cpu_quota", lambda: quota)
    assert num_cores() == wanted == count_producers(None)
    is_told = "a control group's quota" in describe_cores()
    assert is_told == (quota is not None and quota < allowed)


def test_far_more_producers_than_cores_have_to_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(resource_limits, "cpu_quota", lambda: 1.5)
    assert count_producers(8) == 8
    assert not why_too_many(8)
    with pytest.raises(
        OptionError,
        match=r"^--producers: expected at most 8, four for each of the 2 cores .* got 9: "
        r".* unless files are slow; add --force if you mean it$",
    ):
        count_producers(9)
    assert count_producers(9, is_forced=True) == 9


def test_a_script_is_warned_of_far_too_many_before_they_are_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with (
        pytest.warns(RuntimeWarning, match=r"^augd.serve: producers: expected at most 4, .* got 5"),
        pytest.raises(DatasetError, match="is not a folder"),
    ):
        augd.serve("/nonexistent/photos", producers=5)


@pytest.mark.parametrize("command", ["serve", "produce", "bench"])
@pytest.mark.filterwarnings("ignore:augd.serve. producers")
def test_commands_ask_for_force(command: str, tmp_path: Path) -> None:
    """Before anything is started: nothing is served from this folder, forced or not."""
    many = f"{4 * num_cores() + 1}"
    path = str(tmp_path / "photos")
    with pytest.raises(OptionError, match=r"add --force if you mean it$"):
        app((command, path, "--producers", many), standalone_mode=False)
    with pytest.raises(AugdError) as forced:
        app((command, path, "--producers", many, "--force"), standalone_mode=False)
    assert "--force" not in str(forced.value)


SMALL_GROUP = """
set -e
mount -t tmpfs none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/{where}
{files}
exec "$@"
"""


@pytest.mark.parametrize(
    ("where", "files"),
    [
        ("unified/x", {"unified/cpu.max": "70000 100000"}),
        ("cpu", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}),
    ],
)
def test_a_real_process_in_a_container_of_less_than_a_core(
    where: str, files: dict[str, str], tmp_path: Path
) -> None:
    lines = (f"echo '{text}' > /sys/fs/cgroup/{name}" for name, text in files.items())
    script = put(tmp_path, {"group.sh": SMALL_GROUP.format(where=where, files="\n".join(lines))})
    asks = "from augd.server.daemon.startup import count_producers; print(count_producers(None))"
    done = subprocess.run(
        ["unshare", "-m", "sh", str(script / "group.sh"), sys.executable, "-c", asks],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "not permitted" in done.stderr or "denied" in done.stderr:
        pytest.skip(f"no mount namespace of one's own: {done.stderr.strip()}")
    assert done.stdout == "1\n", done.stderr
