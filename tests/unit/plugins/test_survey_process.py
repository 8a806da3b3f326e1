"""What a surveying process writes, and how long the daemon waits for it."""

from __future__ import annotations

import os
import threading
import time

from augd.plugins import survey_process as survey


def test_each_step_gives_the_process_its_whole_time_again() -> None:
    for _ in range(3):  # a loaded machine may hold the writer for two seconds
        near, far = os.pipe()
        report = survey.Report(far)

        def write(report: survey.Report = report) -> None:
            for number in range(30):
                report.step(f"step {number}")
                time.sleep(0.1)
            report.answer(b"all\n\nof it\n")

        writer = threading.Thread(target=write)
        writer.start()
        written, is_silent = survey._read_all(near, 2.0)
        writer.join()
        os.close(near)
        if not is_silent:
            break
    assert not is_silent
    steps, _, answer = written.partition(b"\n\n")
    assert steps.endswith(b"step 28\nstep 29")
    assert answer == b"all\n\nof it\n"


def test_a_standstill_ends_the_wait_with_what_was_written() -> None:
    near, far = os.pipe()
    os.write(far, b"\nimport one\nimport two")
    assert survey._read_all(near, 0.05) == (b"\nimport one\nimport two", True)
    os.close(near)
    os.close(far)


def test_items_are_written_once_a_second() -> None:
    near, far = os.pipe()
    report = survey.Report(far)
    began = time.monotonic()
    for number in range(1000):
        report.item(f"read({number})")
    took_s = time.monotonic() - began
    report.answer(b"")
    written, _ = survey._read_all(near, 5.0)
    os.close(near)
    assert written.startswith(b"\nread(0)\n")
    assert written.count(b"read(") <= 1 + took_s
