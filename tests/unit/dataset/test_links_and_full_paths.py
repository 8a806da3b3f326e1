"""Links out of the root, and full paths: refused, unless the operator says where they may lead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from augd.dataset.access import Access, give_access, opening_words, read_access
from augd.dataset.index_arrays import IndexArrays
from augd.dataset.readers.open_beneath import Root
from augd.dataset.readers.open_source import open_source
from augd.dataset.scan.build_index import load_or_build
from augd.errors import OptionError
from augd.pixels.headers.read_header import BadImage
from tests.support.datasets import refusal_of


def put(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (len(str(path)), 2, 3)).save(path, "PNG")
    return path.read_bytes()


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AUGD_LINKS_TO", "AUGD_ROOT"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
    yield


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Photos as a hub's cache keeps them (relative links out) and as DVC does (absolute ones)."""
    root = tmp_path / "set"
    put(root / "a" / "own.png")
    put(tmp_path / "blobs" / "1f")
    put(tmp_path / "cache" / "md5" / "2e")
    (root / "b").mkdir()
    (root / "a" / "hub.png").symlink_to("../../blobs/1f")
    (root / "b" / "dvc.png").symlink_to(tmp_path / "cache" / "md5" / "2e")
    (root / "a" / "inside.png").symlink_to(root / "a" / "own.png")
    return root


def read_all(path: Path, cache: Path) -> dict[str, bytes]:
    with closing(load_or_build(path, cache_dir=cache)) as index:
        arrays = IndexArrays(index.fd, index.dims_fd)
        with open_source(arrays.root, arrays) as source:
            return {arrays.path(k): bytes(source.read(k)) for k in range(arrays.num_samples)}


def refusal(path: Path, cache: Path) -> str:
    return refusal_of(load_or_build, path, cache_dir=cache)


def test_links_lead_where_the_operator_lets_them_and_nowhere_else(
    linked: Path, tmp_path: Path
) -> None:
    text = refusal(linked, tmp_path / "c")
    assert "leaves the dataset" in text and "--links-to DIR" in text and "--follow-links" in text
    give_access([str(tmp_path / "blobs")])
    assert "link b/dvc.png" in refusal(linked, tmp_path / "c")
    give_access([str(tmp_path / "blobs"), str(tmp_path / "cache")])
    assert read_all(linked, tmp_path / "c") == {
        "a/hub.png": (tmp_path / "blobs" / "1f").read_bytes(),
        "a/inside.png": (linked / "a" / "own.png").read_bytes(),
        "a/own.png": (linked / "a" / "own.png").read_bytes(),
        "b/dvc.png": (tmp_path / "cache" / "md5" / "2e").read_bytes(),
    }


def test_an_index_of_more_access_is_not_used_with_less(linked: Path, tmp_path: Path) -> None:
    for path in (linked, linked / "a", linked / "b"):
        os.utime(path, ns=(10**9, 10**9))
    give_access(follow_links=True)
    load_or_build(linked, cache_dir=tmp_path / "c").close()
    with closing(load_or_build(linked, cache_dir=tmp_path / "c")) as again:
        assert again.was_cached
    os.environ["AUGD_LINKS_TO"] = ""
    assert "leaves the dataset" in refusal(linked, tmp_path / "c")


def test_a_linked_class_folder(linked: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "deep" / "x.png")
    (linked / "c").symlink_to(tmp_path / "elsewhere")
    give_access(follow_links=True)
    assert "c/deep/x.png" in read_all(linked, tmp_path / "cache2")


def test_other_files_may_be_links_to_anywhere(tmp_path: Path) -> None:
    put(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "README.md").symlink_to("/etc/hostname")
    (tmp_path / "set" / "gone.txt").symlink_to("nowhere")
    with closing(load_or_build(tmp_path / "set", cache_dir=tmp_path / "c")) as index:
        assert {one.kind for one in index.skipped} == {".md", ".txt"}


@pytest.mark.parametrize("has_openat2", [True, False], ids=["openat2", "realpath"])
def test_a_link_that_is_changed_later_leads_nowhere_else(
    linked: Path, tmp_path: Path, has_openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Root, "_probe", lambda self: has_openat2)
    (tmp_path / "secret").write_bytes(b"secret")
    root = Root(linked, [os.fsencode(tmp_path / "blobs")])
    try:
        os.close(root.open(b"a/hub.png"))
        for target in ("../../secret", "../../blobs/../secret", "/etc/passwd", "../../blobsy"):
            (linked / "a" / "hub.png").unlink()
            (linked / "a" / "hub.png").symlink_to(target)
            with pytest.raises(BadImage):
                os.close(root.open(b"a/hub.png"))
    finally:
        root.close()


def test_full_paths_below_the_manifest_are_relative_ones(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(linked)
    rows = f"path,label\n{linked}/a/own.png,x\n{tmp_path}/way/a/own2.png,y\n"
    put(linked / "a" / "own2.png")
    (linked / "m.csv").write_text(rows)
    assert list(read_all(linked / "m.csv", tmp_path / "c")) == ["a/own.png", "a/own2.png"]


def test_a_manifest_elsewhere_has_the_root_that_is_named(linked: Path, tmp_path: Path) -> None:
    table = tmp_path / "lists" / "m.csv"
    table.parent.mkdir()
    table.write_text(f"path,label\na/own.png,x\n{linked}/a/own2.png,y\n")
    put(linked / "a" / "own2.png")
    assert "--root DIR" in refusal(table, tmp_path / "c")
    give_access(root=str(linked))
    assert list(read_all(table, tmp_path / "c")) == ["a/own.png", "a/own2.png"]
    assert list(read_all(table, tmp_path / "c")) == ["a/own.png", "a/own2.png"], "from the cache"
    os.utime(table, ns=(10**9, 10**9))
    load_or_build(table, cache_dir=tmp_path / "c").close()
    with closing(load_or_build(table, cache_dir=tmp_path / "c")) as index:
        assert index.was_cached and index.root == str(linked)
    os.environ["AUGD_ROOT"] = ""
    assert "--root DIR" in refusal(table, tmp_path / "c")


def test_a_manifest_follows_links_where_they_may_lead(linked: Path, tmp_path: Path) -> None:
    (linked / "m.csv").write_text("path,label\na/hub.png,x\na/own.png,y\n")
    assert "--links-to DIR" in refusal(linked / "m.csv", tmp_path / "c")
    give_access([str(tmp_path / "blobs")])
    assert list(read_all(linked / "m.csv", tmp_path / "c")) == ["a/hub.png", "a/own.png"]


def test_what_is_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"--links-to: expected a folder, got '.*/none'"):
        give_access([str(tmp_path / "none")])
    with pytest.raises(OptionError, match="--root: expected a folder"):
        give_access(root=str(tmp_path / "none"))
    (tmp_path / "a:b").mkdir()
    with pytest.raises(OptionError, match="expected a path without ':'"):
        give_access([str(tmp_path / "a:b")])
    monkeypatch.setenv("AUGD_ROOT", str(tmp_path / "none"))
    with pytest.raises(OptionError, match="AUGD_ROOT: expected a folder"):
        read_access()


def test_what_was_said_is_said_to_other_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGD_MAX_PIXELS", "")
    assert opening_words() == []
    (tmp_path / "a").mkdir()
    give_access([str(tmp_path), str(tmp_path / "a")], root=str(tmp_path))
    monkeypatch.setenv("AUGD_MAX_PIXELS", "100000000")
    assert opening_words() == [
        *(f"--links-to={tmp_path}", f"--links-to={tmp_path}/a"),
        *(f"--root={tmp_path}", "--max-pixels=100000000"),
    ]


def test_nothing_said_is_nothing_given() -> None:
    give_access()
    assert read_access() == Access()
