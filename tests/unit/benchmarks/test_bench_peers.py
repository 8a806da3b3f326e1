"""The comparison with peers: quantiles, ratios, aims, table, what is refused, and options."""

from __future__ import annotations

import json
import mmap
import os
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import _docs, _tree
from benchmarks._law import draw_crop
from benchmarks._rounds import Spread
from benchmarks.peers import __main__ as command
from benchmarks.peers import catalogue, install
from benchmarks.peers.compare import Unfit, judge
from benchmarks.peers.figures import (
    Measured,
    aims,
    best_peer,
    cost_ratios,
    quantile,
    speed_ratios,
)
from benchmarks.peers.table import no_folders, rows, section
from benchmarks.sides.peers import _loop
from benchmarks.sides.peers._loop import describe, photo_paths


def side(*speeds: float, files: str = catalogue.AS_THEY_ARE, **fields) -> Measured:
    return Measured(
        **{
            "resize": catalogue.TWO_TAPS,
            "files": files,
            "versions": {"lib": "1.2"},
            "images_per_s": speeds,
            "cpu_s_per_1000": [2000 / speed for speed in speeds],
            "waits_s": [0.1, 0.3, 0.2],
            "memory_bytes": 250_000_000,
            "first_batch_s": 1.25,
            **fields,
        }
    )


def test_quantiles_are_values_that_were_measured():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.5) == 1.0
    assert quantile(list(range(1, 101)), 0.99) == 99
    assert quantile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="a quantile of no values"):
        quantile([], 0.5)


def test_ratios_are_paired_round_by_round():
    ours, theirs = side(100.0, 300.0), side(50.0, 100.0)
    assert speed_ratios(ours, theirs) == Spread(2.5, 2.0, 3.0)
    assert cost_ratios(ours, theirs).high == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="shorter"):
        speed_ratios(ours, side(1.0))


def test_the_best_peer_reads_the_same_jpegs():
    measured = {
        "augd linear": side(900.0),
        "slow": side(100.0),
        "packed": side(300.0, files="packed"),
        "raw": side(5000.0, files="decoded"),
        "coefficients": side(9000.0, has_images=False),
    }
    assert best_peer(measured) == "packed"
    assert best_peer({"augd linear": side(900.0)}) is None


def test_aims_need_both_sides():
    measured = {catalogue.AUGD_LINEAR: side(160.0), catalogue.DALI_LINEAR: side(100.0)}
    found = {figure.name: figure.is_met for figure in aims(measured)}
    assert found == {"augd linear / DALI": True}
    # It is the best peer as well: held against the higher of the two bounds only once by name.
    assert [figure.target.value for figure in aims(measured)] == [1.1, 1.6]
    measured[catalogue.OPENCV] = side(40.0)
    assert aims(measured)[-1].name == "CPU per image, augd linear / DataLoader, OpenCV"
    assert aims(measured)[-1].is_met is True
    assert aims({}) == []


def test_rows_of_the_table():
    measured = {catalogue.AUGD_LINEAR: side(200.0, 220.0), "peer": side(1000.0, 1200.0)}
    first, second = rows(measured)
    assert first == [
        *("peer", "2-tap", "as they are", "1,100 (1,000..1,200)", "1.83 (1.67..2.00)", "250"),
        *("200 / 300", "1.2", "0.19 (0.18..0.20)", ""),
    ]
    assert second[0] == catalogue.AUGD_LINEAR and second[-2:] == ["", ""]


def test_the_section_names_everything():
    document = {
        "command": "python -m benchmarks.peers",
        "photos": "1000 made",
        "workers": 2,
        "batch_size": 256,
        "rounds": 2,
        "seconds": 10.0,
        "left_out": {"SPDL": "no ffmpeg"},
        "machine": {"cores": 2, "cpu": "Z80", "linux": "6.1", "python": "3.11", "cores_free": 1},
    }
    measured = {catalogue.AUGD_LINEAR: side(2.0, 2.0), catalogue.DALI_LINEAR: side(1.0, 1.0)}
    text = section(document, measured, ["peers-speed"])
    assert "`python -m benchmarks.peers`: 1000 made, 2 workers each on 2 cores, batches" in text
    assert "2 rounds of 10 s in turns. 2 cores of Z80, Linux 6.1, python 3.11." in text
    assert "| augd linear / DALI | 2.00 (2.00..2.00) | >= 1.6 | met |" in text
    assert "](peers-speed.png)" in text
    assert "- SPDL: no ffmpeg" in text and "DALI (lib 1.2)" in text


def test_folders_of_the_machine_stay_out_of_the_document():
    said = (
        "ImportError: '/opt/env/lib/x.so' needs libav (.peers/spdl.log): and/or see /a/b/c.jpg: 1/2"
    )
    assert no_folders(said) == (
        "ImportError: 'x.so' needs libav (.peers/spdl.log): and/or see c.jpg: 1/2"
    )


def test_sections_are_replaced_between_their_markers():
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    once = _docs.replace_section(text, "x", "new\n")
    assert once == "a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb\n"
    assert _docs.replace_section(once, "x", "new") == once
    with pytest.raises(
        ValueError, match="section y: expected <!-- begin y --> and <!-- end y --> in its page"
    ):
        _docs.replace_section(text, "y", "new")


@pytest.mark.parametrize("name", ["peers", "scaling", "gpu"])
def test_the_document_has_a_place_for_each_section(name):
    text = _docs.DOCUMENTS[name].read_text()
    assert (
        _docs.replace_section(text, name, "figures").count("figures") > text.count("figures") - 99
    )


def test_kept_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(_docs, "ROOT", tmp_path)
    monkeypatch.setattr(_docs, "RESULTS", tmp_path / "results")
    with pytest.raises(FileNotFoundError, match=r"benchmarks.peers is kept in results/: leave --r"):
        _docs.kept("peers")
    _docs.keep("peers", {"rounds": 2})
    assert _docs.kept("peers") == {"rounds": 2}


def looks(**changed):
    return {
        "shape": [256, 224, 224, 3],
        "dtype": "uint8",
        "channel_means": [124.0, 115.0, 104.0],
        "row_means_std": 32.0,
    } | changed


def test_a_batch_as_all_make_it_is_let_in():
    judge(looks(), 256, [123.0, 117.0, 104.0])
    judge(looks(shape=[256, 3, 224, 224]), 256, [123.0, 117.0, 104.0])
    judge(looks(shape=[1, 224, 224, 3], channel_means=[9.0, 9.0, 9.0]), 1, [123.0, 117.0, 104.0])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"shape": [255, 224, 224, 3]}, r"expected uint8 \[256, 224, 224, 3\], got uint8 \[255"),
        ({"dtype": "float32"}, r"expected uint8 \[256, 224, 224, 3\], got float32"),
        (
            {"channel_means": [104.0, 115.0, 124.0]},
            "mean R, G, B: expected 123, 117, 104 within 12",
        ),
        ({"channel_means": [0.5, 0.4, 0.4]}, "got 0, 0, 0"),
        (
            {"row_means_std": 0.0},
            "means differ by 0.0, expected 5 or more: it seems to deliver one",
        ),
    ],
)
def test_what_else_a_side_might_make_is_refused(changed, says):
    with pytest.raises(Unfit, match=says):
        judge(looks(**changed), 256, [123.0, 117.0, 104.0])


def test_looking_at_a_batch_in_either_order_of_axes():
    images = np.zeros((2, 5, 4, 3), np.uint8)
    images[1] = (30, 60, 90)
    found = describe(images)
    assert found["channel_means"] == [15.0, 30.0, 45.0]
    assert found["row_means_std"] == 30.0
    planes = describe(np.moveaxis(images, -1, 1))
    assert planes["channel_means"] == found["channel_means"] and planes["shape"] == [2, 3, 5, 4]
    assert describe(np.zeros((7, 0, 0, 3), np.uint8)) == {"shape": [7, 0, 0, 3]}


def test_what_lay_ready_is_not_counted(monkeypatch, capsys):
    now_s = [0.0]

    def batches():
        for number in range(100):
            now_s[0] += 0.0 if number < 6 else 0.25  # five lay ready beside the first
            yield np.full((4, 224, 224, 3), number, np.uint8)

    released: list[int] = []
    monkeypatch.setattr(_loop, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    monkeypatch.setattr(_loop, "settle", lambda pids, timeout_s: None)
    monkeypatch.setattr("sys.stdin", ["1\n"])
    _loop.serve_batches(
        batches(),
        lambda batch: batch,
        ahead=2,
        versions=lambda: {"lib": "1"},
        release=lambda batch: released.append(int(batch[0, 0, 0, 0])),
    )
    ready, answer = map(json.loads, capsys.readouterr().out.splitlines())
    assert ready["versions"] == {"lib": "1"} and ready["looks"]["shape"] == [4, 224, 224, 3]
    assert answer["waits_s"] == [0.25] * 4 and answer["seconds"] == 1.0
    assert answer["images"] == 16
    assert released == list(range(11))  # the first, five that lay ready, one waited for, four


def test_crops_follow_the_law():
    drawn = [draw_crop(500, 375) for _ in range(2000)]
    assert all(0 <= x <= 500 - w and 0 <= y <= 375 - h for x, y, w, h in drawn)
    shares = [w * h / (500 * 375) for _, _, w, h in drawn]
    assert 0.07 < min(shares) < 0.12 and 0.9 < max(shares) <= 1.0
    assert all(0.74 < w / h < 1.35 for _, _, w, h in drawn)
    assert draw_crop(1000, 10) == (493, 0, 13, 10)  # no crop of the law fits: the middle
    assert draw_crop(8, 8, lambda low, high: high)[:2] == (0, 0)  # the upper end is inside


def test_every_environment_and_module_of_a_side_is_there():
    for one in catalogue.SIDES:
        assert not one.environment or one.environment in catalogue.ENVIRONMENTS
        assert (_docs.ROOT / "benchmarks/sides/peers" / f"{one.module}.py").is_file()
    assert len(catalogue.SIDES_BY_NAME) == len(catalogue.SIDES)


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(install, "_is_installed", lambda name: name == "b")
    monkeypatch.setattr(install.shutil, "which", lambda name: "/usr/bin/dpkg-query")
    assert install.missing_packages([("a", "b"), ("c", "d")]) == ["c"]
    environment = catalogue.Environment(("x",), ("x",), (("c", "d"),))
    monkeypatch.setitem(install.ENVIRONMENTS, "x", environment)
    assert install.install(["x"]) == {
        "x": "Debian packages are missing: c; as root: apt-get install --no-install-recommends c"
    }
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    assert install.missing_packages([("c", "d")]) == []


def test_what_pip_said_is_told():
    assert install.telling_line("fine\nERROR: no wheel\n  at all\n") == "ERROR: no wheel"
    assert install.telling_line("one\ntwo\n\n") == "two"
    assert install.telling_line("") == "it said nothing"
    command = ["/x/python", "-m", "pip", "install", "--quiet", "a>=1", "b"]
    assert install.brief(command) == "pip install a>=1 b"


def test_an_environment_that_is_ready_is_not_made_again(monkeypatch, tmp_path):
    monkeypatch.setattr(install, "FOLDER", tmp_path)
    monkeypatch.setitem(install.ENVIRONMENTS, "x", catalogue.Environment(("x>=1",), ("x",)))
    monkeypatch.setattr(install, "_run", lambda *_: pytest.fail("it was made again"))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".ready").write_text(json.dumps(["x>=1"]))
    assert install.install(["x"]) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sides", "DALY"], "--sides: unknown 'DALY'; there are 'augd linear', "),
        (["--batch-size", "0"], "--batch-size: expected 1 or more, got 0"),
        (["--rounds", "0"], "--rounds, --seconds and --workers: expected more than 0"),
        (["--data", "/nowhere"], "--photos: /nowhere is not a folder"),
    ],
)
def test_options_that_cannot_be_meant(arguments, says, capsys):
    with pytest.raises(SystemExit):
        command.parse_options(arguments)
    assert says in capsys.readouterr().err


def test_the_command_is_written_without_paths(tmp_path):
    options = command.parse_options(["--data", str(tmp_path), "--sides", "SPDL", "tf.data"])
    assert command._command(options) == (
        "python -m benchmarks.peers --data FOLDER --rounds 5 --seconds 10 --workers 2 "
        "--batch-size 256 --sides SPDL tf.data"
    )


def test_a_tree_of_processes_is_counted_whole():
    assert os.getpid() in _tree.tree(os.getpid())
    assert os.getpid() in _tree.tree(os.getppid())
    assert _tree.cpu_by_pid(os.getpid())[os.getpid()] > 0
    assert _tree.cpu_between({1: 2.0, 2: 5.0}, {1: 3.0, 3: 0.5}) == 1.5
    before = _tree.own_bytes(os.getpid())
    # Asked of the kernel: an allocator may hand out memory that it has had all along.
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"y" * len(block))
        assert _tree.own_bytes(os.getpid()) - before > len(block) * 3 // 4
    assert _tree.cores(os.getpid()) >= os.sched_getaffinity(0)


def test_only_jpegs_are_photos(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/2.JPEG", "1.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.rpartition("/")[2] for path in photo_paths(str(tmp_path))] == ["1.jpg", "2.JPEG"]
