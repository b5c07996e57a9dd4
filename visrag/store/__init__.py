"""Stores keep pages and find candidates; ``visrag.search`` alone ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ..records import (
    Document,
    EncodedPage,
    Failure,
    Feedback,
    Filter,
    Floats,
    Job,
    Load,
    Order,
    Page,
    PageRef,
    PatchVectors,
    Piece,
    QueryVectors,
    QueueName,
)

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
Generation: TypeAlias = int
Query: TypeAlias = QueryVectors | Sequence[str]  # a leg's vectors, or the terms of full text


class Store(Protocol):
    """What an index keeps and answers. The same contract tests run over every implementation."""

    # Settings: one JSON object, written when the index is made. What ``settings`` gives is not to be changed.
    def settings(self) -> dict[str, Any]: ...
    def write_settings(self, settings: Mapping[str, Any]) -> None: ...

    # Writing. Pages of a generation are invisible until ``commit``, which replaces the document's old pages
    # and failures at one stroke. A generation that is never committed leaves nothing. Writing one that was committed,
    # abandoned or removed raises NotWritten.
    def begin(self, document: Document) -> Generation:
        """Open a new generation of a document, known by its name. A document not yet in the index shows
        as "ingesting" until the commit."""
        ...

    def add_pages(self, generation: Generation, pages: Sequence[EncodedPage]) -> None:
        """Add pages; ``document.pages`` counts them. A second result for the same page number replaces the first.
        Raises PageRefused for NaN or infinity in vectors."""
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
        NotWritten). Raises NotFound."""
        ...

    def put_original(self, path: Path, content: str, link: bool) -> None:
        """Keep a document's file, known by the sha256 of its content: a copy, or (``link``) only where it is.

        To be called between ``begin`` and ``commit`` of a document with this content. Raises FileChanged where it
        sees that the file has another.
        """
        ...

    def put_image(self, generation: Generation, page: int, image: Image) -> None:
        """Keep the picture of a page, where it cannot be made again from the original."""
        ...

    # The queue. A document in it is a generation that belongs to no process: it stays until it is committed, abandoned
    # or its document removed. Its work is cut into pieces, which are handed out (``take``), claimed for a time by the
    # worker that got the message, and finished. Whatever is done twice changes nothing the second time.
    def enqueue(self, orders: Sequence[Order]) -> list[Generation]:
        """Begin documents, each with a piece of "ingest" to do. One of the same name that is still in the queue
        is abandoned."""
        ...

    def job(self, generation: Generation) -> Job | None:
        """A document in the queue; None where it was committed, abandoned or removed."""
        ...

    def jobs(self) -> list[Job]:
        """The documents in the queue, the oldest first. ``document`` counts the pages that are in."""
        ...

    def describe(self, generation: Generation, document: Document) -> None:
        """Write down what was found out of a document in the queue: content, settings, media type, tags, pages,
        path, renderer. Raises StoreError where it is not in the queue."""
        ...

    def load(self) -> dict[QueueName, Load]:
        """What there is to do, by step; a step without pieces is not there."""
        ...

    def take(self, queue: QueueName, sent: int) -> list[Piece]:
        """Hand out pieces by turn until ``sent`` are handed out and not claimed."""
        ...

    def claim(self, piece: str, holder: str, seconds: float) -> Piece | None:
        """Hold a piece for some seconds, which counts as an attempt; None where it is done, gone or held by another.
        A piece that was not handed out can be claimed, too."""
        ...

    def renew(self, pieces: Sequence[str], holder: str, seconds: float) -> None:
        """Hold pieces for some seconds from now; those that this holder no longer holds are passed over."""
        ...

    def give_back(self, piece: str, holder: str) -> None:
        """Let go of a piece as if it had not been claimed or handed out."""
        ...

    def finish(
        self,
        piece: Piece,
        pages: Sequence[EncodedPage] = (),
        failures: Sequence[Failure] = (),
        follow: Sequence[Piece] = (),
    ) -> int | None:
        """Write what came of a piece, put the pieces that follow from it in its place, and drop its parcel. How many
        pieces the document still has; with 0 it can be committed. None, and nothing written, where the piece was
        done, claimed by another since (its attempts have changed), or its document is gone. Raises PageRefused."""
        ...

    def expire(self) -> list[Piece]:
        """Let go of the pieces whose time has run out: which, their attempts counted. They wait to be handed out."""
        ...

    def recall(self, queue: QueueName, before: float) -> int:
        """Let pieces wait again that were handed out before this time (seconds since 1970) and never claimed: how many.
        Their messages are lost."""
        ...

    def unfinished(self) -> list[Generation]:
        """The documents in the queue that have no piece left, and were not committed."""
        ...

    def put_parcel(self, piece: Piece, data: bytes) -> None:
        """Keep what one step hands to the next, until the piece is finished or its document leaves the queue."""
        ...

    def parcel(self, piece: Piece) -> bytes:
        """Raises NotFound."""
        ...

    def tidy(self) -> int:
        """Drop what late workers left of documents that are no longer in the queue: how many things."""
        ...

    def compact(self, worth: bool = False) -> int:
        """Give the bytes of what was removed or replaced back to the disk: how many. ``worth``: only if they are
        many."""
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

    # What reviewers say. It is known by names and belongs to no generation: it stays when its document is replaced or
    # removed.
    def judge(self, feedback: Feedback) -> None:
        """Keep a verdict or a note, in the place of the one with the same key; one with neither takes that away. It
        is on the disk when this returns."""
        ...

    def feedback(self, review: str | None = None, question: str | None = None) -> list[Feedback]:
        """What was said in a review, of a question, or in all: the oldest first, of the same time by key."""
        ...

    # Search. A page that lacks a leg is no candidate of it.
    def steady(self, find: Callable[[], T]) -> T:
        """What ``find`` gives, which sees one state of the index in all that it asks in this thread. It is called again
        where what it saw has gone meanwhile."""
        ...

    def candidates(self, leg: str, query: Query, filter: Filter, n: int) -> list[tuple[PageRef, float]]:
        """The n best pages of a leg by its plain score (MaxSim, or BM25), best first; ties by PageRef. Of a large index
        those are left out which a coarser score puts far behind."""
        ...

    def score(self, leg: str, query: Query, pages: Sequence[PageRef], exact: bool = False) -> Floats:
        """The plain score of each page, (len(pages),) float32; NaN where a page lacks the leg. MaxSim of all its
        vectors, for which the components of each of the question's tokens may be rounded to 255 steps; ``exact``: of
        the float16 vectors, of pages of which the index keeps them.
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

    def original(self, document: str, generation: Generation | None = None) -> Path:
        """Where on this machine the file of a document is: of the visible one, or of one that is being written.
        Raises NotFound."""
        ...

    def image_path(self, page: PageRef) -> Path | None:
        """Where on this machine the stored picture of a page is, if one was stored."""
        ...

    def close(self) -> None: ...
