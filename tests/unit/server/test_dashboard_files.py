"""The page's files, without a browser: what they must hold to be used on a phone and by anybody."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise

import pytest

STATIC = resources.files("augd.server.dashboard").joinpath("static")
HTML, CSS, SCRIPT = (
    STATIC.joinpath(name).read_text("utf-8") for name in ("index.html", "page.css", "page.js")
)
EMPTY = {"meta", "link"}
TEXT_CONTRAST_MIN = 4.5  # Source: WCAG 2.2, 1.4.3


class Elements(HTMLParser):
    """Every element of a document: its attributes, and those of what it lies in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str], list[dict[str, str]]]] = []
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        assert self._open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.all.append((tag, given, [above for _, above in self._open]))
        if tag not in EMPTY:
            self._open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag


ELEMENTS = Elements(HTML).all


def test_every_table_scrolls_within_a_region_that_a_keyboard_reaches() -> None:
    above = [around[-1] for tag, _, around in ELEMENTS if tag == "table"]
    assert len(above) == 2
    for region in above:
        assert (region["class"], region["role"], region["tabindex"]) == ("scroll", "region", "0")
    assert re.search(r"^\.scroll \{ overflow-x: auto;", CSS, re.MULTILINE)


def test_every_word_of_a_table_and_of_the_verdict_is_explained() -> None:
    """By a title, of which the script makes the list that fingers and keyboards reach."""
    words = [(tag, given) for tag, given, _ in ELEMENTS if tag in ("th", "dt")]
    assert len(words) == 22
    for tag, given in words:
        assert given.get("title", "").endswith("."), (tag, given)
    assert '[title]:is(dt, th)")' in SCRIPT


def test_the_script_uses_what_the_page_has() -> None:
    there = {given["id"] for _, given, _ in ELEMENTS if "id" in given}
    used = set(re.findall(r'byId\("([\w-]+)"\)', SCRIPT))
    assert len(used) > 20 and used <= there, used - there


def test_that_nothing_is_heard_is_announced_and_stays_in_sight() -> None:
    ((_, given, _),) = [one for one in ELEMENTS if one[1].get("id") == "connection"]
    assert given["role"] == "alert" and "hidden" in given
    (rule,) = re.findall(r"^\.connection \{(.*)\}$", CSS, re.MULTILINE)
    assert "position: sticky" in rule and "background: var(--bad)" in rule


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))
    if scheme == "dark":
        more = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark))
        assert more.keys() == found.keys(), "a colour has one scheme alone"
        found = more
    return found


def brightness(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2."""
    parts = [int(colour[at:to], 16) / 255 for at, to in pairwise((1, 3, 5, 7))]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(scheme: str) -> None:
    found = colours(scheme)
    pairs = [
        (text, on)
        for text in ("ink", "soft", "accent", "warm", "bad", "good")
        for on in ("paper", "panel")
    ]
    for text, on in (*pairs, ("on-bad", "bad")):
        low, high = sorted((brightness(found[text]), brightness(found[on])))
        assert (high + 0.05) / (low + 0.05) >= TEXT_CONTRAST_MIN, (text, on)
