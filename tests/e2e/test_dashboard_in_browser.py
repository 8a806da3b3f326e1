"""The page in a browser without a screen: it moves, it can be used, and it has no serious fault.

With AUGD_SCREENSHOTS=docs/operations the last test writes the images of docs/watching.md.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import augd
from demo.photos import make_photos
from tests.support.processes import await_true, daemon_of, producers_of
from tests.support.programs import HOOK, mark_victim, put_in_place
from tests.support.relays import await_remotes, running_relay
from tests.support.scenes import make_folder, opencv_decodes

for module in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(module, reason="the extra http is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="the extra browser is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core here")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium"
    ),
    pytest.mark.slow,
]
VICTIM = 11
BROKEN = "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING"
DARK: dict[str, Any] = {"color_scheme": "dark"}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        # A container's user may be root, and its /dev/shm small.
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield folder


@pytest.fixture(scope="module")
def photos(home: Path) -> Path:
    make_photos(home / "photos", 96, classes=["bricks", "leaves", "waves"])
    return home / "photos"


@pytest.fixture(scope="module")
def daemon(home: Path, photos: Path) -> Iterator[augd.ServedDaemon]:
    """One of whose photos kills every producer that decodes it."""
    tiny = make_folder(home / "tiny", num_classes=2, per_class=20)
    mark_victim(sorted(tiny.rglob("*.jpg"))[VICTIM])
    with opencv_decodes(), pytest.MonkeyPatch.context() as patch:
        deed = "import ctypes; ctypes.string_at(0)"
        text = HOOK.format(marks=str(home / "marks"), size_bytes=7_777, times=10**6, deed=deed)
        put_in_place(text, home, patch)
        served = augd.serve({"photos": photos, "tiny": tiny}, producers=2, http="127.0.0.1:0")
    with served:
        yield served


class Trainer:
    """Reads in a thread of its own, one step after another, until the test is over."""

    def __init__(self, address: str, dataset: str, batch_size: int) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._train, args=(address, dataset, batch_size))

    def _train(self, address: str, dataset: str, batch_size: int) -> None:
        options: Any = {"dataset": dataset, "batch_size": batch_size, "max_bad_fraction": 1}
        with augd.connect(address, **options) as stream:
            epoch = 0
            while not self._is_over.is_set():
                for _ in stream.epoch(epoch):
                    if self._is_over.wait(0.1):
                        break
                epoch += 1

    def __enter__(self) -> Trainer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(30)


class Open:
    """The page in a tab, and what its console had to say."""

    def __init__(self, browser: Any, url: str, options: dict[str, Any]) -> None:
        self._context = browser.new_context(**options)
        self.tab = self._context.new_page()
        self.tab.set_default_timeout(20_000)
        self.faults: list[str] = []
        self.may_break = False  # its connection, in the midst of an answer
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("console", self._hear)
        await_true(lambda: self._go(url), 20, "the page answers")

    def _go(self, url: str) -> bool:
        try:
            return bool(self.tab.goto(url).ok)
        except playwright.Error:
            return False

    def _hear(self, message: Any) -> None:
        is_broken = any(word in message.text for word in BROKEN[: 2 if self.may_break else 1])
        if message.type in ("error", "warning") and not is_broken:
            self.faults.append(message.text)

    def text(self, selector: str) -> str:
        return str(self.tab.locator(selector).first.text_content())

    def __enter__(self) -> Open:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()
        assert self.faults == []


def test_figures_move_and_a_killed_producer_shows_within_two_seconds(browser, daemon):
    with Trainer(daemon.address, "photos", 16), Open(browser, daemon.http, {}) as page:
        page.tab.wait_for_selector("#streams tbody tr")
        seen = set()
        await_true(
            lambda: seen.add(page.text("#streams tbody tr td:nth-child(5)")) or len(seen) > 3,
            20,
            "it moves",
        )
        await_true(lambda: int(page.text("#rate").replace(",", "")) > 0, 10, "images flow")
        assert page.text("#verdict").endswith(".")
        line = page.tab.locator("#line")
        await_true(lambda: line.get_attribute("points").count(" ") > 3, 20, "a line is drawn")
        assert page.text("#restarts") == "No producer has died."
        os.kill(producers_of(daemon.pid)[0], signal.SIGKILL)
        killed = time.monotonic()
        await_true(lambda: page.text("#restarts").startswith("1 producer died"), 5, "shown")
        assert time.monotonic() - killed < 2
        assert "SIGKILL" in page.text("#restarts")


def test_lent_producers_have_rows_of_their_own_while_they_are_there(browser, photos):
    """Behind the daemon's own places, with their host; a relay that ends takes its row along."""
    options: Any = {"producers": 1, "listen": "tcp://127.0.0.1:0", "http": "127.0.0.1:0"}
    with augd.serve({"small": photos}, **options) as served, Open(browser, served.http, {}) as page:
        rows = page.tab.locator("#producers tbody tr")
        playwright.expect(rows).to_have_count(1, timeout=20_000)
        own = page.tab.locator("#producers tbody tr:first-child td:nth-child(3)")
        playwright.expect(own).to_have_text(re.compile(r"^\d+$"))
        with running_relay(photos, served.address, "--producers", "1") as relay:
            await_remotes(served.address, 1)
            with Trainer(served.address, "small", 16):
                playwright.expect(rows).to_have_count(2)
                process = rows.last.locator("td:nth-child(3)")
                expected = f"{relay.producers()[0]} on {os.uname().nodename}"
                playwright.expect(process).to_have_text(expected)
                await_true(
                    lambda: int(rows.last.locator("td:nth-child(6)").text_content() or 0) > 0,
                    20,
                    "it makes images",
                )
            relay.end()
        playwright.expect(rows).to_have_count(1)
        assert page.text("#restarts") == "No producer has died."


def test_a_quarantined_sample_appears_with_its_image(browser, daemon):
    with Trainer(daemon.address, "tiny", 8), Open(browser, daemon.http, {}) as page:
        item = page.tab.locator("#bad li").filter(has_text=f"tiny, sample {VICTIM}")
        playwright.expect(item).to_contain_text("it ended its producer twice", timeout=30_000)
        page.tab.get_by_role("button", name="Show their images").click()
        image = item.get_by_role("img", name=f"Sample {VICTIM} of tiny")
        playwright.expect(image).to_be_visible(timeout=30_000)
        assert image.evaluate("node => node.decode().then(() => node.naturalWidth)") >= 40


def test_by_keyboard_alone(browser, daemon):
    with Trainer(daemon.address, "photos", 16), Open(browser, daemon.http, {}) as page:
        page.tab.wait_for_selector("#streams tbody tr")
        page.tab.keyboard.press("Tab")
        assert page.tab.evaluate("document.activeElement.className") == "skip"
        page.tab.keyboard.press("Enter")
        for _ in range(3):
            page.tab.keyboard.press("Tab")
            if page.tab.evaluate("document.activeElement.tagName") == "BUTTON":
                break
        page.tab.keyboard.press("Enter")
        buttons = page.tab.locator("#pictures button")
        playwright.expect(buttons).to_have_count(16)
        assert page.tab.evaluate("document.activeElement.id") == "h-batch"
        for _ in range(4):  # Look again, More rows (which is hidden: there are no more), Close
            page.tab.keyboard.press("Tab")
            if "Row 0" in page.tab.evaluate("document.activeElement.ariaLabel || ''"):
                break
        page.tab.keyboard.press("Enter")
        playwright.expect(page.tab.locator("#drawn")).to_contain_text("crop ")
        page.tab.keyboard.press("Shift+Tab")
        page.tab.keyboard.press("Enter")
        playwright.expect(page.tab.locator("#batch")).to_be_hidden()


@pytest.mark.parametrize("options", [{}, DARK, PHONE], ids=["light", "dark", "phone"])
def test_no_serious_fault_and_nothing_beyond_the_edge(browser, daemon, options):
    with Trainer(daemon.address, "photos", 32), Open(browser, daemon.http, options) as page:
        page.tab.wait_for_selector("#streams tbody tr")
        await_true(
            lambda: page.tab.locator("#line").get_attribute("points").count(" ") > 11, 30, "time"
        )
        page.tab.get_by_role("button", name="Look at the batch").first.click()
        playwright.expect(page.tab.locator("#pictures img").first).to_be_visible()
        page.tab.locator("#pictures button").first.click()
        playwright.expect(page.tab.locator("#drawn")).to_contain_text("crop ")
        found = axe.Axe().run(page.tab).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        width = page.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0, "the page itself scrolls sideways"
        keep(page.tab, "dark" if "color_scheme" in options else "phone" if options else "light")


def test_the_end_of_the_daemon_is_said(browser, photos):
    with augd.serve(photos, producers=1, http="127.0.0.1:0") as served:
        page = Open(browser, served.http, {})
        playwright.expect(page.tab.locator("#verdict")).to_have_text(
            "Nobody waits: no stream is open.", timeout=20_000
        )
    with page:
        shows_that_nothing_is_heard(page, "The daemon ended|No connection")


def test_a_killed_daemon_is_plain_to_see_until_another_serves(browser, photos):
    with augd.serve(photos, producers=1, http="127.0.0.1:0") as served:
        page = Open(browser, served.http, PHONE)
        with page, Trainer(served.address, "photos", 16):
            page.tab.wait_for_selector("#streams tbody tr")
            page.may_break = True
            os.kill(daemon_of(served.pid), signal.SIGKILL)
            shows_that_nothing_is_heard(page, "No connection to the daemon")
            playwright.expect(page.tab.locator("#connection")).to_be_hidden(timeout=20_000)
            playwright.expect(page.tab.locator("#restarts")).to_contain_text("SIGKILL")
            assert page.tab.title() == "augd"
            await_true(lambda: page.text("#rate") not in "–0", 20, "images flow again")


def test_a_daemon_that_stands_still_is_plain_to_see(browser, photos):
    """Nothing breaks then: the page, a process of its own, keeps the connection open."""
    serving = augd.serve(photos, producers=1, http="127.0.0.1:0")
    with serving as served, Open(browser, served.http, {}) as page:
        page.tab.clock.install()
        page.tab.reload()
        verdict = page.tab.locator("#verdict")
        playwright.expect(verdict).to_have_text("Nobody waits: no stream is open.")
        pid = daemon_of(served.pid)
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(2):  # a page that asks again is told nothing old
                page.tab.clock.fast_forward(6_000)
                shows_that_nothing_is_heard(page, "The daemon has sent nothing for \\d+ s")
        finally:
            os.kill(pid, signal.SIGCONT)
        playwright.expect(page.tab.locator("#connection")).to_be_hidden()
        playwright.expect(verdict).to_have_text("Nobody waits: no stream is open.")


def test_tables_scroll_within_and_words_are_explained_to_fingers(browser, daemon):
    narrow: dict[str, Any] = {**PHONE, "viewport": {"width": 320, "height": 700}}
    with Trainer(daemon.address, "photos", 16), Open(browser, daemon.http, narrow) as page:
        page.tab.wait_for_selector("#streams tbody tr")
        region = page.tab.locator("#streams").locator("..")
        assert region.evaluate("node => node.scrollWidth > node.clientWidth")
        region.evaluate("node => { node.scrollLeft = 60; }")
        assert region.evaluate("node => node.scrollLeft") == 60
        assert page.tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        section = page.tab.locator("section").filter(has=page.tab.locator("#streams"))
        words = section.locator("details dd")
        playwright.expect(words.first).to_be_hidden()
        section.locator("summary").tap()
        playwright.expect(words.first).to_be_visible()
        assert words.count() == 10
        assert page.tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def shows_that_nothing_is_heard(page: Open, text: str) -> None:
    """No figure stands there as if it were of now."""
    said = page.tab.locator("#connection")
    playwright.expect(said).to_have_text(re.compile(text), timeout=20_000)
    playwright.expect(said).to_be_in_viewport()
    assert "The values below are from " in page.text("#connection")
    assert page.text("#verdict") == "Unknown: the daemon does not answer."
    assert page.text("#rate") == page.text("#busy-text") == "–"
    assert "no connection" in page.tab.title()


def keep(tab: Any, name: str) -> None:
    """Write an image for the docs, where they are wanted."""
    folder = os.environ.get("AUGD_SCREENSHOTS")
    if folder:
        tab.evaluate("document.activeElement.blur()")
        tab.evaluate("scrollTo(0, 0)")
        with Image.open(io.BytesIO(tab.screenshot(full_page=name == "light"))) as image:
            image.save(Path(folder) / f"page-{name}.webp", quality=85)
