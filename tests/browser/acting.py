"""What the browser's tests do again and again, as a person does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page, expect

WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}
SETTLED = 350  # ms after which a view that was moved has written where it is, and shows it
READ = 120_000.0  # ms that a small document may take until it is ready: a process starts, and loads the model

READY = """() => {
    const picture = document.querySelector("[data-testid=picture]");
    return picture && picture.dataset.ready === "true" && picture.complete && picture.naturalWidth > 0;
}"""


def address(collection: str, **state: Any) -> str:
    """The page's address for a state, as the page itself writes it."""
    return "/?" + urlencode({"collection": collection, **state}, doseq=True)


def drawn(page: Page) -> None:
    """Until the page in the viewer is drawn as sharp as it gets."""
    page.wait_for_function(READY)


def looked_at(page: Page) -> None:
    """Until the page in the viewer and its heat are drawn as sharp as they get."""
    page.get_by_test_id("overlay").wait_for()
    page.wait_for_timeout(SETTLED)
    drawn(page)


def asked(page: Page) -> Locator:
    """The hits, once they are there."""
    hits = page.get_by_test_id("hit")
    hits.first.wait_for()
    expect(page.get_by_role("list", name="Hits")).to_have_attribute("aria-busy", "false")
    return hits


def chip(page: Page, word: str) -> Locator:
    """A word's chip."""
    return page.get_by_test_id("chip").filter(has_text=word)


def row(page: Page, name: str) -> Locator:
    """A document's row in the list."""
    return page.locator(f"[data-testid=document][data-name={name!r}]")


def tab_to(page: Page, wanted: Locator, steps: int = 80, key: str = "Tab") -> None:
    """Go to an element by the Tab key. Raises AssertionError where it cannot be reached."""
    for _ in range(steps):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{wanted} is not reached by {steps} times {key}")


def saved(page: Page, act: Any, folder: Path) -> Path:
    """The file that is downloaded when ``act`` is called."""
    with page.expect_download() as waiting:
        act()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path
