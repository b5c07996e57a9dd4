"""Rendering ahead: every page once, whoever reads it, and a document's end after its last page."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pdfs import pdf_bytes, text, write

from visrag.ahead import AHEAD, PIECE, Ended, Message, Opened, Rendered, Rendering, Woken
from visrag.errors import DocumentError, Reason
from visrag.records import Page
from visrag.render import OpenedDocument, Renderer, RenderOptions
from visrag.settings import IngestSettings
from visrag.sources import Source

PAGES = AHEAD + 2 * PIECE + 3


def source(folder: Path, name: str, pages: int) -> Source:
    path = write(folder / name, pdf_bytes([text(72, 700, f"page {number}") for number in range(1, pages + 1)]))
    return Source(path, name, path.stat().st_size)


def messages(sources: list[Source], jobs: int) -> Iterator[Message]:
    """All that comes of them, until the last has ended."""
    left = len(sources)
    with Rendering(sources, IngestSettings(ocr="off", jobs=jobs), RenderOptions(ocr="off")) as rendering:
        while left:
            message = rendering.next(wait=True)
            assert message is not None
            if isinstance(message, BaseException):
                raise message
            left -= isinstance(message, Ended)
            yield message


def numbers(found: list[Message], name: str) -> list[int]:
    """The pages of a document, each the one that it says it is."""
    pages = [message.page for message in found if isinstance(message, Rendered) and message.source.name == name]
    assert all(isinstance(page, Page) and page.text.strip() == f"page {page.number}" for page in pages)
    return [page.number for page in pages if isinstance(page, Page)]


def test_a_long_document_is_read_by_several_and_every_page_comes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers, all_there = set(), threading.Event()
    pages = Renderer.pages

    def counted(self: Renderer, *args: object) -> OpenedDocument:
        readers.add(self)
        if len(readers) == 3:
            all_there.set()
        return pages(self, *args)

    monkeypatch.setattr(Renderer, "pages", counted)
    coming = messages([source(tmp_path, "long.pdf", PAGES)], jobs=3)
    found = [next(coming)]
    assert all_there.wait(60)  # meanwhile the queue is full, before the last pages are begun
    found += coming
    assert isinstance(found[0], Opened)
    assert found[0].pages == PAGES
    assert sorted(numbers(found, "long.pdf")) == list(range(1, PAGES + 1))
    assert [type(message) for message in found].count(Ended) == 1
    assert isinstance(found[-1], Ended)


def test_documents_are_read_before_others_are_helped_with(tmp_path: Path) -> None:
    sources = [source(tmp_path, f"{number}.pdf", pages) for number, pages in enumerate((1, PAGES, 2, PIECE, 40))]
    found = list(messages(sources, jobs=2))
    for each, pages in zip(sources, (1, PAGES, 2, PIECE, 40), strict=True):
        assert sorted(numbers(found, each.name)) == list(range(1, pages + 1))
    at = {message.source.name: index for index, message in enumerate(found) if isinstance(message, Ended)}
    last = {message.source.name: index for index, message in enumerate(found) if isinstance(message, Rendered)}
    assert all(last[name] < at[name] for name in at)


def test_one_process_keeps_the_order(tmp_path: Path) -> None:
    assert numbers(list(messages([source(tmp_path, "long.pdf", PAGES)], jobs=1)), "long.pdf") == [*range(1, PAGES + 1)]


def test_a_process_that_cannot_open_it_leaves_it_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[Renderer] = []
    pages = Renderer.pages

    def once(self: Renderer, *args: object) -> OpenedDocument:
        if not first:
            first.append(self)
        if self is not first[0]:
            raise DocumentError("long.pdf", None, Reason.TIMEOUT, "took too long")
        return pages(self, *args)

    monkeypatch.setattr(Renderer, "pages", once)
    found = list(messages([source(tmp_path, "long.pdf", PAGES)], jobs=4))
    assert numbers(found, "long.pdf") == [*range(1, PAGES + 1)]


def test_whoever_waits_can_be_woken(tmp_path: Path) -> None:
    with Rendering([], IngestSettings(), RenderOptions()) as rendering:
        assert rendering.next(wait=False) is None
        rendering.wake()
        assert rendering.next(wait=True) == Woken()


def test_it_ends_at_once_though_pages_hang(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    settings, options = IngestSettings(ocr="off", jobs=2), RenderOptions(ocr="off", page_timeout=600)
    with Rendering([source(tmp_path, "long.pdf", 8 * PIECE)], settings, options) as rendering:
        while not isinstance(rendering.next(wait=True), Rendered):
            pass
        readers = set(psutil.Process().children()) - before
        for reader in readers:
            os.kill(reader.pid, signal.SIGSTOP)
        begun = time.monotonic()
    assert time.monotonic() - begun < 60
    assert readers
    assert not any(reader.is_running() for reader in readers)
