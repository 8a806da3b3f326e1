"""Arenas: sealed, shared, and refused in time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from augd.errors import OverLimit
from augd.process import resource_limits
from augd.transport import arena as arena_module
from augd.transport.arena import SPARE_BYTES, available_bytes, make_arena, map_arena

V2 = ("memory.max", "memory.current")


def num_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def fd() -> Iterator[int]:
    fd = make_arena("test", 8192)
    yield fd
    os.close(fd)


def test_two_mappings_see_the_same_pages(fd: int) -> None:
    with map_arena(fd, 8192) as one, map_arena(fd, 8192) as other:
        assert one[:] == bytes(8192)
        one[100] = 7
        assert other[100] == 7


def test_a_mapping_outlives_the_fd() -> None:
    fd = make_arena("test", 4096)
    with map_arena(fd, 4096) as mapped:
        os.close(fd)
        mapped[0] = 1


def test_nobody_can_shrink_or_grow_it_or_take_the_seals_off(fd: int) -> None:
    for size_bytes in (4096, 16384):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size_bytes)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_all_pages_are_there_from_the_start(fd: int) -> None:
    assert os.fstat(fd).st_blocks * 512 == 8192


def test_it_is_not_inherited(fd: int) -> None:
    assert not os.get_inheritable(fd)


def test_more_than_there_is_is_refused_before_it_is_taken() -> None:
    size_bytes = available_bytes() + 10**9
    before = num_fds()
    with pytest.raises(
        OverLimit, match=rf"^{size_bytes / 1e6:.0f} MB are asked for, \d+ MB can be"
    ):
        make_arena("test", size_bytes)
    assert num_fds() == before


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_control_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    folder = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "unified") / "job"
    folder.mkdir(parents=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit, usage, inactive = names if version == 1 else (*V2, "inactive_file")
    (folder / limit).write_text(f"{SPARE_BYTES + 10_000}\n")
    (folder / usage).write_text("3000\n")
    (folder / "memory.stat").write_text(f"anon 1\n{inactive} 1000\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    kind = "memory" if version == 1 else ""
    (tmp_path / "proc/self/cgroup").write_text(f"{version % 2}:{kind}:/job\n")
    monkeypatch.setattr(arena_module, "memory_left", lambda: resource_limits.memory_left(tmp_path))
    assert available_bytes() == SPARE_BYTES + 8000
    os.close(make_arena("test", 8000))
    with pytest.raises(OverLimit, match="0 MB are asked for, 0 MB can be given"):
        make_arena("test", 8001)


def test_another_size_than_announced_is_refused(fd: int) -> None:
    with pytest.raises(OverLimit, match="arena of 8192 bytes, expected 12288"):
        map_arena(fd, 12288)
