"""Stores keep pages and find candidates; ``visrag.search`` alone ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from ..records import (
    Document,
    EncodedPage,
    Failure,
    Filter,
    Floats,
    Page,
    PageRef,
    PatchVectors,
    QueryVectors,
)

Generation: TypeAlias = int
Query: TypeAlias = QueryVectors | Sequence[str]  # a leg's vectors, or the terms of full text


class Store(Protocol):
    """What an index keeps and answers. The same contract tests run over every implementation."""

    # Settings: one JSON object, written when the index is made.
    def settings(self) -> dict[str, Any]: ...
    def write_settings(self, settings: Mapping[str, Any]) -> None: ...

    # Writing. Pages of a generation are invisible until ``commit``, which replaces the document's old pages
    # and failures at one stroke. A generation that is never committed leaves nothing.
    def begin(self, document: Document) -> Generation:
        """Open a new generation of a document, known by its name. A document not yet in the index shows
        as "ingesting" until the commit."""
        ...

    def add_pages(self, generation: Generation, pages: Sequence[EncodedPage]) -> None:
        """Add pages; ``document.pages`` counts them. A second result for the same page number replaces the first.
        Raises StoreError for NaN or infinity in vectors, naming the page."""
        ...

    def fail(self, generation: Generation, page: int | None, reason: str, message: str) -> None:
        """Record that a page, or the whole document (None), failed. The last result for a page counts: a failure takes
        its vectors back, and pages added later take the failure back."""
        ...

    def commit(self, generation: Generation, pages: int) -> Document:
        """Make the generation the visible one. ``pages``: how many the document has, failed ones included.
        The state becomes "indexed", "partial" (some pages failed) or "failed" (nothing is indexed and
        something failed)."""
        ...

    def abandon(self, generation: Generation) -> None:
        """Drop a generation that is not committed."""
        ...

    def remove(self, document: str) -> None:
        """Remove a document, its pages and failures, and what is being written of it (whose ``commit`` then raises
        StoreError). Raises NotFound."""
        ...

    # Reading what is there.
    def documents(self) -> list[Document]:
        """All documents, by name."""
        ...

    def document(self, name: str) -> Document | None: ...
    def failures(self, document: str | None = None) -> list[Failure]:
        """By document and page; a document's own failure first."""
        ...

    def page_count(self, filter: Filter) -> int:
        """How many pages the filter lets through."""
        ...

    # Search. A page that lacks a leg is no candidate of it.
    def candidates(self, leg: str, query: Query, filter: Filter, n: int) -> list[tuple[PageRef, float]]:
        """The n best pages of a leg by its plain score (MaxSim, or BM25), best first; ties by PageRef."""
        ...

    def score(self, leg: str, query: Query, pages: Sequence[PageRef]) -> Floats:
        """The exact plain score of each page, (len(pages),) float32; NaN where a page lacks the leg.
        Full text: 0 where no term occurs, NaN only where there is no such page."""
        ...

    def term_scores(self, terms: Sequence[str], pages: Sequence[PageRef]) -> Floats:
        """BM25 of each term in each page, (len(pages), len(terms)) float32; rows add up to the full-text score."""
        ...

    def chance(self, leg: str, pages: Sequence[PageRef]) -> Floats:
        """The pages' chance levels in a leg, (len(pages),) float32; NaN where a page lacks the leg."""
        ...

    def vectors(self, leg: str, page: PageRef) -> PatchVectors | None:
        """What was stored of a page in a leg, as float32; None where the page lacks it."""
        ...

    def page(self, page: PageRef) -> Page:
        """Text, words and size of a page, without its picture. Raises NotFound."""
        ...

    def close(self) -> None: ...
