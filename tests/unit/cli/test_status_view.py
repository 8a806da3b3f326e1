"""What `augd status` says of the producers' confinement, and of samples that killed some."""

from __future__ import annotations

import pytest
from rich.console import Console

from augd.cli import status
from augd.cli.options import StatusOptions
from augd.cli.status import _confinements, _troubles, draw
from augd.diagnostics.rates import compare
from tests.support.table import Table


def report(*kinds: str, state: str = "ready") -> dict[str, object]:
    producers = [
        {"number": number, "state": state, "confinement": kind} for number, kind in enumerate(kinds)
    ]
    return {"producers": producers}


def test_one_sentence_when_all_are_alike() -> None:
    said = list(_confinements(report("seccomp+landlock", "seccomp+landlock")))
    assert said == ["The producers are confined by seccomp and landlock."]
    assert list(_confinements(report("", ""))) == ["The producers are not confined."]


def test_a_sentence_for_each_kind_when_they_differ() -> None:
    assert list(_confinements(report("seccomp", "", "seccomp"))) == [
        "Producers 0, 2 are confined by seccomp.",
        "Producers 1 are not confined.",
    ]


def test_nothing_is_said_of_what_only_starts() -> None:
    assert list(_confinements(report("", state="starting"))) == []


def test_quarantined_samples_are_named() -> None:
    calm = {"is_draining": False, "unhealthy": "", "restarts": 0, "streams": [], "is_cut": False}
    datasets = {
        "calm": {"num_quarantined": 0, "quarantined": []},
        "pets": {"num_quarantined": 3, "quarantined": [4, 17]},
    }
    said = list(_troubles({**calm, "datasets": datasets}))
    assert said == ["pets: samples that killed their decoder are masked: 4, 17, ..."]


def test_what_was_chosen_for_a_stream_is_shown() -> None:
    table = Table()
    session = table.open(0, batch_size=32, prefetch=1)
    before = table.broker.snapshot()
    table.make_all(row_ns=10_000_000)
    report = {"address": "ipc:///a", **compare(before, table.broker.snapshot(), 0.5)}
    console = Console(width=160)
    with console.capture() as shown:
        console.print(draw(report))
    said = f"stream {session}: a row takes 10 ms of CPU time: chunks of about 5 rows"
    assert said in [line.rstrip() for line in shown.get().splitlines()]


class Listener:
    """Asks nobody: yields what a daemon would have said."""

    def __init__(self, *_: object) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("is_terminal", [False, True])
def test_who_watches_into_a_file_gets_each_report_at_once(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table()
    before = table.broker.snapshot()
    found = {"address": "ipc:///a", **compare(before, before, 0.5)}
    seen = []

    def two(*_: object):
        for _ in range(2):
            yield found
            seen.append(capsys.readouterr().out)  # what was flushed by the time of the next
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "StatusClient", Listener)
    monkeypatch.setattr(status, "reports", two)
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal, raising=False)
    status.run_status(StatusOptions(watch=True))
    assert len(seen) == 2
    if not is_terminal:
        assert all("ipc:///a" in said and "\x1b" not in said for said in seen)
