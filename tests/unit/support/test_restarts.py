"""The longest wait is found that ended between two aborts, of any client."""

from __future__ import annotations

from tests.fault.restarts import longest, waits


def test_waits_are_read_of_all_clients_and_half_a_line_is_left(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text('{"at": 1.0, "waited_s": 0.5}\n{"at": 2.5, "waited_s": 0.25}\n')
    second.write_text('{"at": 2.0, "waited_s": 0.75}\n{"at": 3.0, "wai')
    found = waits([first, second])
    assert sorted(found) == [(1.0, 0.5), (2.0, 0.75), (2.5, 0.25)]
    spans = ((0.0, 2.0), (2.0, 4.0), (4.0, 5.0))
    assert [longest(found, *span) for span in spans] == [0.5, 0.75, 0.0]
