"""Scaling and GPU benchmarks: what is measured where, how it is laid out, and options."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from benchmarks import gpu, scaling
from benchmarks._rounds import Spread
from benchmarks.scaling import Point
from benchmarks.sides.epoch_reader import evict, resident_share

MACHINE = {"cores": 2, "cpu": "Z80", "linux": "6.1", "python": "3.11"}
RUN = {"photos": "p", "filter": "linear", "workers": 2, "rounds": 5, "seconds": 5.0}


@pytest.mark.parametrize(
    ("most", "counts"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (16, [1, 2, 4, 8, 16]), (24, [1, 2, 4, 8, 16, 24])],
)
def test_numbers_of_producers(most, counts):
    assert scaling.steps(most) == counts


def test_a_part_becomes_a_table_with_its_plot():
    points = [
        Point("linear", 1.0, Spread(500.0, 450.0, 510.0)),
        Point("linear", 1e9, Spread(2.5, 2.0, 3.0)),
    ]
    text = scaling.section({**RUN, "machine": MACHINE}, {"producers": points})
    assert "| producers | images/s |" in text
    assert "| 1 | 500 (450..510) |" in text and "| 1,000,000,000 | 2.5 (2..3) |" in text
    assert "](scaling-producers.png)" in text
    assert "`python -m benchmarks.scaling`: p, `linear`, 2 producers on as many cores" in text


def test_parts_with_several_lines_name_their_units():
    points = [
        Point("CPU per sample, µs", 1000.0, Spread(2.0, 1.0, 3.0)),
        Point("memory, MB", 1000.0, Spread(19.0, 19.0, 19.0)),
    ]
    text = scaling.section({**RUN, "machine": MACHINE}, {"samples": points})
    assert "| samples of a dataset | CPU per sample, µs | memory, MB |" in text
    assert "| 1,000 | 2 (1..3) | 19 (19..19) |" in text


def test_a_part_without_an_axis_has_no_plot():
    points = [Point("warm, images/s", 1.0, Spread(500.0, 450.0, 510.0))]
    text = scaling.section({**RUN, "machine": MACHINE}, {"disk": points})
    assert "| warm, images/s | 500 (450..510) |" in text and ".png" not in text


@pytest.mark.parametrize(
    ("parse", "arguments", "says"),
    [
        (scaling.parse_options, ["--parts", "discs"], "invalid choice: 'discs'"),
        (scaling.parse_options, ["--workers", "0"], "--workers: expected more than 0"),
        (gpu.parse_options, ["--render", "/none.json"], "--render: /none.json is not a file"),
        (gpu.parse_options, ["--filter", "area"], "invalid choice: 'area'"),
    ],
)
def test_options_that_cannot_be_meant(parse, arguments, says, capsys):
    with pytest.raises(SystemExit):
        parse(arguments)
    assert says in capsys.readouterr().err


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu.sys, "argv", ["gpu"])
    gpu.main()
    assert "benchmarks.gpu: skipped: torch " in capsys.readouterr().out


def test_gpu_figures_survive_json_and_become_a_table():
    found = gpu.Found("GPU waits", 16, "%", Spread(1.5, 1.0, 2.0))
    assert gpu.read_part([asdict(found)]) == [found]
    document = {**RUN, "machine": MACHINE, "gpu": "H200", "torch": "2.11"}
    text = gpu.section(document, {"training": [found]})
    assert "H200, torch 2.11, p, `linear`, batches of 256, 5 rounds of 5 s in turns." in text
    assert "| GPU waits | 16 | 1.5 % (1..2) |" in text
    assert "](gpu-training.png)" in text


def test_pages_of_files_are_counted(tmp_path):
    paths = [str(tmp_path / name) for name in ("a", "b", "empty")]
    for path, size in zip(paths, (300_000, 5_000, 0), strict=True):
        (tmp_path / path).write_bytes(b"x" * size)
    assert resident_share(paths) == 1.0
    evict(paths)  # where they lie on tmpfs, nothing can be dropped
    assert 0.0 <= resident_share(paths) <= 1.0
    assert (tmp_path / "a").read_bytes() == b"x" * 300_000
