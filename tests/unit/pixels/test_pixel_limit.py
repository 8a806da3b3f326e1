"""The largest image that is read: by name, in every process, with the memory that it takes."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from augd.cli.app import app
from augd.errors import OptionError
from augd.pixels.headers import size_limits
from augd.pixels.headers.read_header import BadImage, read_header
from augd.pixels.library_versions import describe_environment


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(size_limits.VARIABLE, "")
    monkeypatch.setattr(size_limits, "_chosen", None)
    yield


def large_png(width: int = 8001, height: int = 8000) -> bytes:
    """64,008,000 pixels of one bit, in 10 kB."""

    def chunk(kind: bytes, content: bytes = b"") -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    lines = zlib.compress(bytes(height * (1 + -(-width // 8))))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", lines), chunk(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_the_error_names_the_option_and_with_it_the_image_is_read() -> None:
    data = large_png()
    with pytest.raises(BadImage, match=r"at most 64,000,000 .*; allow more: --max-pixels 64008000"):
        read_header(data)
    size_limits.allow_pixels(64_008_000)
    assert read_header(data).width == 8001
    with pytest.raises(BadImage, match="expected at most 1,000 pixels"):
        read_header(data, max_pixels=1000)


def test_what_can_never_be_allowed_is_not_advised() -> None:
    data = bytearray(large_png())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(BadImage) as caught:
        read_header(data)
    assert "--max-pixels" not in str(caught.value)


@pytest.mark.parametrize("pixels", [0, -1, (1 << 30) + 1])
def test_limits_out_of_range_are_refused(pixels: int) -> None:
    with pytest.raises(OptionError, match=r"--max-pixels: expected a number of pixels, 1\.\."):
        size_limits.allow_pixels(pixels)


def test_a_variable_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(size_limits.VARIABLE, "many")
    with pytest.raises(OptionError, match="AUGD_MAX_PIXELS: expected a number of pixels"):
        size_limits.max_pixels()


def test_memory_and_files_follow() -> None:
    assert size_limits.max_data_bytes() == 2 << 30 and size_limits.max_file_bytes() == 512 << 20
    size_limits.allow_pixels(256_000_000)
    assert (
        size_limits.max_data_bytes() == 8 << 30 and size_limits.max_file_bytes() == 8 * 256_000_000
    )
    size_limits.allow_pixels(1_000_000)
    assert size_limits.max_data_bytes() == 2 << 30, "a smaller limit starves no codec"


def test_a_raised_limit_is_part_of_the_content_and_the_usual_one_is_not() -> None:
    """Producers with another limit would mask other rows."""
    assert "max_pixels" not in describe_environment()
    size_limits.allow_pixels(100_000_000)
    assert describe_environment()["max_pixels"] == "100000000"


def test_a_process_that_is_started_goes_by_the_same() -> None:
    size_limits.allow_pixels(128_000_000)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import resource\nfrom augd.pixels.headers.size_limits import max_data_bytes\n"
            "from augd.process.sandbox import limit\nlimit(max_data_bytes())\n"
            "print(resource.getrlimit(resource.RLIMIT_DATA)[0])",
        ],
        capture_output=True,
        check=True,
    )
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    expected = 4 << 30 if hard == resource.RLIM_INFINITY else min(hard, 4 << 30)
    assert int(done.stdout) == expected


COMMANDS = ("serve", "produce", "bench", "check", "preview", "explain", "pca", "replay", "pack")


def test_every_command_that_opens_a_data_set_has_the_options() -> None:
    import typer

    group = typer.main.get_command(app)
    for name in COMMANDS:
        command = group.get_command(None, name)  # type: ignore[attr-defined, arg-type]
        options = {word for parameter in command.params for word in parameter.opts}
        expected = {"--links-to", "--follow-links", "--root", "--max-pixels"}
        assert expected <= options, name


def test_augd_check_of_a_large_image(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "large.png").write_bytes(large_png())
    command = [sys.executable, "-m", "augd", "check", str(folder)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and "--max-pixels 64008000" in refused.stdout
    read = subprocess.run(
        [*command, "--max-pixels", "64008000"], capture_output=True, text=True, timeout=60
    )
    assert read.returncode == 0, read.stdout + read.stderr
