"""The odd files of the evaluation data: each behaves as its manifest says, and harms no other.

Of the longest document, 619 pages, only each twentieth is read, and none encoded: all of it takes minutes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from visrag import Index, IngestSettings
from visrag.ingest import Silent
from visrag.records import Document, Failure, Page
from visrag.render import Renderer, RenderOptions
from visrag.sources import Source

pytestmark = [pytest.mark.data, pytest.mark.slow]

LONGEST = "unstructured__DA-619p.pdf"
SPARE = 60.0  # seconds that a file may take beyond the limits of its pages
QUESTION = "How many passengers can stand in a Kestrel tram?"  # answered on page 6 of this one
GOOD = "harrowmere-annual-report.pdf"


class Clock(Silent):
    """When each document's first and last page were done."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    def page(self, source: Source, pages: int) -> None:
        self.begun.setdefault(source.name, time.monotonic())

    def finish(self, source: Source) -> None:
        self.ended[source.name] = time.monotonic()


@pytest.fixture(scope="module")
def manifest(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / "odd" / "manifest.jsonl").read_text().splitlines()]


def of(document: str, failures: Iterable[Failure]) -> list[Failure]:
    return [failure for failure in failures if failure.document == document]


def assert_as_expected(row: dict[str, Any], document: Document, failures: Iterable[Failure], expected: str) -> None:
    """``expected``: "opens", "error" or "password". What pdfium cannot open, poppler may."""
    found = of(document.name, failures)
    whole = [failure.reason for failure in found if failure.page is None]
    if expected == "opens":
        unreadable = [int(error.split(":")[0]) + 1 for error in row["page_load_errors"]]
        assert [(failure.page, failure.reason) for failure in found] == [(page, "corrupt") for page in unreadable]
        assert (document.pages, document.indexed) == (row["pages"], row["pages"] - len(unreadable)), document
        assert document.renderer == "pdfium", document
    elif expected == "error" and document.renderer == "poppler":
        assert document.indexed + len(found) == document.pages > 0, document
    else:
        assert whole == ["corrupt" if expected == "error" else "password"], document
        assert (document.state, document.indexed) == ("failed", 0)


@pytest.mark.timeout(900)
def test_each_odd_file_behaves_as_its_manifest_says(
    data: Path, samples: Path, manifest: list[dict[str, Any]], tmp_path: Path
) -> None:
    files = [data / "odd" / "pdfs" / row["file"] for row in manifest if row["file"] != LONGEST]
    clock, settings = Clock(), IngestSettings()
    passwords = tuple(sorted({row["password"] for row in manifest if row.get("password")}))
    with Index(tmp_path / "index", device="cpu") as index:
        summary = index.ingest(*files, samples / GOOD, progress=clock, settings=settings)
        assert summary.documents == len(files) + 1
        assert summary.peak_memory_mb < 4000
        documents = {document.name: document for document in index.documents()}
        for row in manifest:
            if row["file"] != LONGEST:
                assert_as_expected(row, documents[row["file"]], summary.failures, row["expected"])
        for name, begun in clock.begun.items():
            limits = 2 * settings.page_timeout * (documents[name].pages + 1)
            assert clock.ended[name] - begun < limits + SPARE
        assert [(hit.document, hit.page) for hit in index.search(QUESTION, k=1)] == [(GOOD, 6)]

        again = index.ingest(*files, settings=IngestSettings(passwords=passwords))
        documents = {document.name: document for document in index.documents()}
        locked = [row for row in manifest if row["expected"] == "password"]
        assert len(locked) == 12
        for row in locked:
            expected = row.get("expected_with_password")
            if expected is not None:
                assert_as_expected(row, documents[row["file"]], again.failures, expected)
            else:  # another's password may open it
                assert {failure.reason for failure in of(row["file"], again.failures)} <= {"password"}
        assert [(hit.document, hit.page) for hit in index.search(QUESTION, k=1)] == [(GOOD, 6)]


def test_the_longest_odd_file_is_read(data: Path, manifest: list[dict[str, Any]]) -> None:
    (row,) = [row for row in manifest if row["file"] == LONGEST]
    with Renderer() as renderer:
        opened = renderer.pages(data / "odd" / "pdfs" / LONGEST, LONGEST, RenderOptions(ocr="off"))
        assert opened.pages == row["pages"]
        numbers = range(1, opened.pages + 1, 20)
        pages = list(opened.read(numbers))
    assert [page.number for page in pages if isinstance(page, Page)] == list(numbers)
