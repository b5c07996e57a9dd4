"""Makes README's pictures of the page from samples/: docs/search.png and docs/review.png.

By hand, in the checkout: ``python tests/browser/make_screenshots.py``
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "server")]

from acting import address, asked, chip, looked_at  # noqa: E402
from serving import serving  # noqa: E402

from visrag import Index  # noqa: E402

QUESTION = "How many passengers can stand in a Kestrel tram?"
COLOURS = 256  # of a palette: the pictures stay small
SIZE = {"width": 1440, "height": 900}
SEARCH_HEIGHT = 640  # pixels: what comes below looks the same
LOADED = "() => [...document.querySelectorAll('.thumbnail img')].slice(0, 3).every((image) => image.complete)"


def search(page: Page) -> bytes:
    """Hits, and what each word gave to their scores."""
    page.goto(address("samples", q=QUESTION))
    asked(page)
    page.wait_for_function(LOADED)
    page.wait_for_timeout(500)
    return page.screenshot(clip={"x": 0, "y": 0, "width": SIZE["width"], "height": SEARCH_HEIGHT})


def review(page: Page) -> bytes:
    """A page in review: where a word of the question stands, and a verdict."""
    page.goto(address("samples", q=QUESTION, review="spring"))
    asked(page).first.get_by_test_id("hit-link").click()
    looked_at(page)
    page.get_by_test_id("reviewer").fill("Ann")
    page.get_by_test_id("note").fill("The table in the middle: 118.")
    page.get_by_test_id("verdict-relevant").click()
    page.get_by_test_id("verdict-relevant").and_(page.locator("[aria-pressed=true]")).wait_for()
    page.get_by_role("button", name="Close the message").click()
    for _ in range(2):
        page.keyboard.press("+")
    region = page.get_by_test_id("region").first
    region.evaluate("element => element.scrollIntoView({block: 'center', inline: 'center'})")
    chip(page, "Whole question").click()
    looked_at(page)
    page.evaluate("document.activeElement.blur()")
    return page.screenshot()


def write(png: bytes, path: Path) -> None:
    """Save a picture with a palette. Raises ValueError where it is larger than a README's picture should be."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)
    if path.stat().st_size > 250_000:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes")


def main() -> None:
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("no chromium: make debian installs it")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with TemporaryDirectory() as name, sync_playwright() as playwright:
        with Index(Path(name) / "index") as index:
            index.ingest(ROOT / "samples", tags={"kind": "sample"})
        with serving(Path(name) / "server", {"samples": Path(name) / "index"}) as server:
            chromium = playwright.chromium.launch(executable_path=browser, args=arguments)
            context = chromium.new_context(viewport=SIZE, base_url=server.url, color_scheme="light")
            page = context.new_page()
            write(search(page), ROOT / "docs" / "search.png")
            write(review(page), ROOT / "docs" / "review.png")
            chromium.close()


if __name__ == "__main__":
    main()
