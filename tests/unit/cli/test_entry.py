"""The quick reading of `augd serve` and typer's agree, or the quick one gives way."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace

import pytest

import augd
import augd.server.daemon.startup
from augd.cli.app import app
from augd.cli.entry import read_serve
from augd.client.serve_options import ServeOptions
from augd.errors import OptionError
from augd.process.options import fields_of, to_words
from augd.server.daemon.startup import ProducerCount, read_producers, serve_forever

LINES = [
    "serve photos",
    "serve a b=c/d",
    "serve photos --producers 3",
    "serve --producers=3 photos --quiet",
    "serve photos --listen ipc:///tmp/a --listen=tcp://127.0.0.1:1 --insecure",
    "serve photos --patience 5",
    "serve photos --pin --producers 2",
    "serve photos --patience=60 --quiet",
    "serve photos --listen tcp://0.0.0.0:7000 --keys /k/keys",
    "serve --keys=k photos",
    "serve photos --plugin my_ops --plugin=pack.other_ops",
    "serve photos --cache ram:8GB --quiet",
    "serve --cache=disk:/c:8GB photos",
    "serve photos --http 127.0.0.1:8600 --http-token=t --log-format json",
    "serve photos --producers many",
    "serve photos --producers auto",
    "serve photos --producers ray:3 --ray-address a --ray-keys=k --force",
    "serve photos --patience 2.5",
    "serve photos --links-to /a --links-to=/tmp --follow-links --root / --max-pixels 9",
    "serve photos --lifeline-fd 5 --ready-fd=6 --quiet",
]
LEFT_TO_TYPER = [
    "",
    "bench photos",
    "serve",
    "serve --help",
    "serve photos --help",
    "serve photos --producers",
    "serve photos --producers -1",
    "serve photos --lifeline-fd 1_0",
    "serve photos --quiet=1",
    "serve photos --patience long",
    "serve photos --listen",
    "serve photos --listen --quiet",
    "serve photos --keys",
    "serve photos --cache",
    "serve photos --plugin",
    "serve photos --plugin --quiet",
    "serve photos --keys --quiet",
    "serve photos --http",
    "serve photos --log-format --quiet",
    "serve photos --quite",
    "serve -- --odd",
]


@pytest.mark.parametrize("line", LINES)
def test_both_readings_agree(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        augd.server.daemon.startup, "serve_forever", lambda options: seen.append(options) or 0
    )
    monkeypatch.setattr(ServeOptions, "apply", lambda options: None)  # it sets the environment
    app(args=line.split(), standalone_mode=False)
    understood = read_serve(line.split())
    assert understood is not None
    assert [understood] == seen


@pytest.mark.parametrize("line", LINES)
def test_written_options_read_back(line: str) -> None:
    options = read_serve(line.split())
    assert options is not None
    named = replace(options, paths=(), named=json.dumps(options.paths))
    assert read_serve(["serve", *to_words(named)]) == named


def test_written_options_leave_out_defaults() -> None:
    assert to_words(ServeOptions(paths=("a", "b"), patience_s=2.5)) == [
        *("--patience=2.5", "--", "a", "b")
    ]


def test_python_and_the_command_line_share_options() -> None:
    """What `augd.serve` takes beside the paths and its own deadline are options of the struct."""
    parameters = inspect.signature(augd.serve).parameters.values()
    given = {one.name: one.default for one in parameters if one.name not in ("paths", "timeout_s")}
    for field in fields_of(ServeOptions):
        if field.name in given:
            default = given.pop(field.name)
            assert (default or None) == (field.default or None), field.name
    assert not given, "no option of `augd serve`"


@pytest.mark.parametrize("line", LEFT_TO_TYPER)
def test_what_needs_explaining_is_left_to_typer(line: str) -> None:
    assert read_serve(line.split()) is None


@pytest.mark.parametrize("patience_s", [1.9, 3601.0, float("nan")])
def test_patience_has_bounds(tmp_path, patience_s: float) -> None:
    with pytest.raises(OptionError, match=r"--patience: expected 2\.\.3600 seconds, got"):
        serve_forever(ServeOptions(paths=(str(tmp_path),), patience_s=patience_s))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (None, ProducerCount()),
        ("auto", ProducerCount(is_auto=True)),
        ("0", ProducerCount(0)),
        ("12", ProducerCount(12)),
        ("ray:64", ProducerCount(0, num_ray=64)),
    ],
)
def test_what_producers_may_be(text: str | None, count: ProducerCount) -> None:
    assert read_producers(text) == count


@pytest.mark.parametrize(
    "text", ["many", "-1", "ray:", "ray:x", "slurm:3", "1.5", "ray:0", "ray:5000"]
)
def test_what_they_may_not_be(text: str) -> None:
    with pytest.raises(OptionError, match=r"--producers( ray:N)?: expected .*, got "):
        read_producers(text)
