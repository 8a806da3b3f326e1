"""What `augd bench` refuses before it starts anything, and the sentences that it says."""

from __future__ import annotations

import dataclasses
import os

import pytest

from augd.cli.bench import check_options
from augd.cli.options import BenchOptions
from augd.cli.recipes import load_recipe
from augd.client.status import status
from augd.diagnostics.bottleneck import diagnose
from augd.diagnostics.measure import CounterSnapshot, Measurement, compare, verdict_on
from augd.diagnostics.procfs import anonymous_bytes, cpu_model, cpu_s, parent_pid
from augd.errors import AugdError, ConnectError, OptionError, RecipeError

GIVEN = BenchOptions(path="photos")
NO_PID = 2**22 + 1  # above the kernel's own limit


def test_fitting_options():
    check_options(GIVEN)
    check_options(dataclasses.replace(GIVEN, path=None, connect="ipc:///tmp/a"))
    check_options(dataclasses.replace(GIVEN, producers=3, seconds=0.1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"path": None}, "PATH: expected a folder or --connect ADDR, got neither; `augd bench ph"),
        ({"connect": "ipc:///a"}, "PATH: expected a folder or --connect ADDR, got both"),
        (
            {"path": None, "connect": "ipc:///a", "producers": 2},
            "--producers: the daemon at ipc:///a has its own; leave the option out",
        ),
        ({"seconds": 0.0}, "--seconds: expected 0.1..86400, got 0; 10 is plenty"),
        ({"seconds": float("nan")}, "--seconds: expected 0.1..86400, got nan"),
    ],
)
def test_options_that_do_not_fit(changes, says):
    with pytest.raises(OptionError) as caught:
        check_options(dataclasses.replace(GIVEN, **changes))
    assert str(caught.value).startswith(says)


def test_recipes(tmp_path):
    assert load_recipe("eval") == load_recipe("eval")
    path = tmp_path / "mine.toml"
    path.write_text('filter = "linear"\n[[ops]]\nop = "random_resized_crop"\nsize = 32\n')
    assert load_recipe(str(path)).phases[0].shared.filter == "linear"
    with pytest.raises(RecipeError, match=r"recipe: expected one of .*imagenet.*, got 'imgnet'"):
        load_recipe("imgnet")
    with pytest.raises(
        RecipeError, match=r"recipe: no/such\.toml cannot be read .*; expected a preset's name"
    ):
        load_recipe("no/such.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(
        RecipeError, match=r"mine\.toml cannot be read .*; expected a preset's name"
    ):
        load_recipe(str(path))


def reading(**changes) -> CounterSnapshot:
    zero = CounterSnapshot(
        client_cpu_s=0.0,
        client_wait_s=0.0,
        client_fetch_s=0.0,
        daemon_cpu_s=0.0,
        producers_cpu_s={1: 10.0, 2: 20.0},
        idle_s={0: 1.0, 1: 2.0},
        own_idle_s={1: 1.0, 2: 2.0},
        plan_s={1: 1.0, 2: 1.0},
        rows={1: 100, 2: 100},
        restarts=0,
        num_streams=1,
    )
    return dataclasses.replace(zero, **changes)


def measured(**changes) -> Measurement:
    after = reading(
        client_cpu_s=0.1,
        client_wait_s=3.6,
        client_fetch_s=1.0,
        daemon_cpu_s=0.1,
        producers_cpu_s={1: 13.9, 2: 23.9},
        idle_s={0: 1.0, 1: 2.0},
        own_idle_s={1: 1.0, 2: 2.0},
        plan_s={1: 1.01, 2: 1.01},
        rows={1: 1100, 2: 1100},
    )
    both = compare(reading(), after, images=2000, batches=8, bad=1, seconds=4.0)
    return dataclasses.replace(both, **changes)


def test_what_is_counted():
    found = measured()
    assert found.images_per_s == 500.0
    assert found.producers_cpu_s == pytest.approx(3.9)
    assert found.daemon_cpu_s == found.client_cpu_s == pytest.approx(0.05)
    assert found.daemon_cpu_share == pytest.approx(0.1 / 8.0)
    assert found.client_wait_share == pytest.approx(0.9)
    assert found.client_fetch_share == pytest.approx(0.25)
    assert found.producers_idle_share == 0.0
    assert found.on_core == pytest.approx(7.8 / 8.0)
    assert found.plan_us == pytest.approx(10.0)
    assert (found.bad, found.restarts, found.other_streams) == (1, 0, 0)


def test_a_replaced_producer_counts_from_its_start():
    after = reading(
        producers_cpu_s={1: 11.0, 3: 0.5},
        idle_s={0: 1.0, 1: 0.0},
        own_idle_s={1: 1.0, 3: 0.0},
        plan_s={1: 1.0, 3: 0.0},
        rows={1: 150, 3: 50},
        restarts=1,
        num_streams=3,
    )
    found = compare(reading(), after, images=100, batches=1, bad=0, seconds=1.0)
    assert found.producers_cpu_s == pytest.approx(15.0)
    assert (found.restarts, found.other_streams) == (1, 2)


def test_lent_producers_count_by_their_idle_time_alone():
    lent = {"producers_cpu_s": {}, "own_idle_s": {}, "plan_s": {}, "rows": {}}
    before, after = (
        reading(**lent, idle_s={1024: 1.0}),
        reading(**lent, idle_s={1024: 3.0}, daemon_cpu_s=0.1),
    )
    found = compare(before, after, images=100, batches=1, bad=0, seconds=4.0)
    assert (found.producers_idle_share, found.on_core, found.producers_cpu_s) == (0.5, 1.0, 0.0)


def test_the_verdict_is_on_what_was_measured():
    shares = {"client_wait_share": 0.25, "client_fetch_share": 0.1, "producers_idle_share": 0.0}
    found = measured(**shares, on_core=0.4)
    assert verdict_on(found, 3) == diagnose(0.25, 0.0, 3, on_core=0.4, fetch=0.1)


def test_what_the_kernel_knows():
    assert parent_pid(os.getpid()) == os.getppid()
    assert anonymous_bytes(os.getpid()) > 2**20
    before = cpu_s(os.getpid())
    assert before > 0
    while cpu_s(os.getpid()) < before + 0.005:
        pass  # its own clock advances by its own work
    assert cpu_model()
    for look in (cpu_s, anonymous_bytes, parent_pid):
        with pytest.raises(AugdError, match=f"process {NO_PID} cannot be measured: .*own machine"):
            look(NO_PID)


def test_memory_counts_what_is_made_and_not_what_is_shared():
    import mmap

    before = anonymous_bytes(os.getpid())
    with mmap.mmap(-1, 32 << 20) as shared:  # shared, as an arena is
        shared.write(b"x" * (32 << 20))
        assert anonymous_bytes(os.getpid()) - before < 48 << 20
    size = 64 << 20
    # Mapped, as the allocator may have as much in hand that others gave back.
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as private:
        private.write(b"y" * size)
        assert anonymous_bytes(os.getpid()) - before > size * 3 // 4


def test_asking_where_nobody_is(tmp_path):
    with pytest.raises(ConnectError, match=r"no daemon at ipc://.*: start one with `augd s"):
        status(f"ipc://{tmp_path}/nobody")
