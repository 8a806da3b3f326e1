"""Own sources by name: what may stand where a path does, and what producers are told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from augd.dataset.source_spec import OwnSource, parse_own
from augd.errors import OptionError
from augd.server.supervision.arguments import list_own, name_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plugin:photos:Table", OwnSource("photos", "Table")),
        ("plugin:my.photos:Table", OwnSource("my.photos", "Table")),
        ("plugin:photos:Table?", OwnSource("photos", "Table", "")),
        ("plugin:photos:Table?/a?mode=ro&x=1", OwnSource("photos", "Table", "/a?mode=ro&x=1")),
        ("plugin:photos:Table?http://a//b", OwnSource("photos", "Table", "http://a//b")),
        ("plugins/photos", None),
        ("/plugin:photos:Table", None),
    ],
)  # fmt: skip
def test_it_is_read_and_written(text: str, expected: OwnSource | None) -> None:
    assert parse_own(text) == expected
    assert expected is None or str(expected) == text


@pytest.mark.parametrize(
    "text", ["plugin:", "plugin:a", "plugin:a:", "plugin::B", "plugin:a b:C", "plugin:a..b:C"]
)
def test_another_form_of_it_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="expected plugin:MODULE:CLASS or") as error:
        parse_own(text)
    assert repr(text) in str(error.value)


def test_it_has_the_name_that_is_given_or_its_class(tmp_path: Path) -> None:
    sources = name_paths([f"files={tmp_path}", "plugin:a:Photos?x=1", "more=plugin:a:Photos?y=2"])
    assert sources == {
        "files": tmp_path,
        "Photos": OwnSource("a", "Photos", "x=1"),
        "more": OwnSource("a", "Photos", "y=2"),
    }
    assert list_own(sources) == [
        '{"Photos": "plugin:a:Photos?x=1"}',
        '{"more": "plugin:a:Photos?y=2"}',
    ]
