"""Chromium on the real server. Whatever a page does that it should not do fails its test: an error in the console or in
a script, something that the content policy stops, a dialog, a request to any host but the server, a status of 500.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from acting import WIDE
from checkpoints import make_checkpoint
from pdfs import write
from planted import torn, write_planted
from playwright.sync_api import Browser, Page, expect, sync_playwright
from watching import Watch

sys.path.append(str(Path(__file__).parents[1] / "server"))

from serving import Server, serving

from visrag import Index, IngestSettings
from visrag.server.keys import KeyFile

HERE = Path(__file__).parent
PLAIN = IngestSettings(ocr="off", jobs=1)
WAIT = 15_000.0  # ms for what the page does; the machine may be busy
expect.set_options(timeout=WAIT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests last: Playwright's event loop runs until they are done, and asyncio would not start another one."""
    items.sort(key=lambda item: item.path.is_relative_to(HERE))


@pytest.fixture(scope="session")
def shelves(tmp_path_factory: pytest.TempPathFactory, samples_path: Path) -> dict[str, Path]:
    """Indexes: of the samples, of documents with a planted word, of none (for uploads)."""
    folder = tmp_path_factory.mktemp("shelves")
    found = {name: Path(shutil.copytree(samples_path, folder / name)) for name in ("samples", "planted", "drop")}
    for name in ("planted", "drop"):
        with Index(found[name]) as index:
            for document in index.documents():
                index.remove(document.name)
            if name == "planted":
                files = write_planted(folder / "files")
                assert index.ingest(*files, settings=PLAIN).failures == []
    return found


@pytest.fixture(scope="session")
def server(shelves: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without keys; it takes files of up to 2 MiB."""
    options = ("--rate", "1000", "--max-upload", "2")
    with serving(tmp_path_factory.mktemp("server"), shelves, *options) as running:
        yield running


@pytest.fixture(scope="session")
def locked_server(
    tmp_path_factory: pytest.TempPathFactory, samples_path: Path
) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server that wants keys, and a key of each role; one of its documents has a page that failed."""
    folder = tmp_path_factory.mktemp("locked")
    index = Path(shutil.copytree(samples_path, folder / "samples"))
    with Index(index) as opened:
        opened.ingest(write(folder / "torn.pdf", torn(["a heron", "an otter"], 2)), settings=PLAIN)
    keys = {role: KeyFile(folder / "keys.json").create(role, None, f"{role} Ann") for role in ("reader", "writer")}
    with serving(folder, {"samples": index}, "--rate", "1000") as running:
        yield running, keys


@pytest.fixture(scope="session")
def grid_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over an index of a vision model with random weights: the planted pages as patches of a grid."""
    folder = tmp_path_factory.mktemp("grid")
    text, vision = (make_checkpoint(family, folder / family) for family in ("ColBERT", "ColQwen2ForRetrieval"))
    files = write_planted(folder / "files")
    with Index(folder / "index", text=str(text), vision=str(vision), device="cpu") as index:
        settings = IngestSettings(ocr="off", jobs=1, route="vision")
        assert index.ingest(*files, settings=settings).failures == []
    with serving(folder, {"grid": folder / "index"}, "--device", "cpu") as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's browser, which finds no host but this one."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: make debian installs it")
        pytest.skip("no chromium")
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def site(server: Server) -> Server:
    """The server that a test's pages come from; a module may say another one."""
    return server


@pytest.fixture
def watch(site: Server) -> Iterator[Watch]:
    """Over the pages of a test; at its end nothing must have been seen but what the test expects."""
    found = Watch(site.url)
    yield found
    assert found.unexpected() == []


@pytest.fixture
def new_page(chromium: Browser, watch: Watch) -> Iterator[Callable[..., Page]]:
    """Makes a page in a browser without a past, 1440 × 900 pixels of a light scheme unless told otherwise."""
    contexts = []

    def make(url: str = "", **options: Any) -> Page:
        context = chromium.new_context(
            **{"viewport": WIDE, "reduced_motion": "reduce", "base_url": watch.url, **options}
        )
        contexts.append(context)
        watch.over(context)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.goto(url or "/")
        return page

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A page with nothing asked."""
    return new_page()
