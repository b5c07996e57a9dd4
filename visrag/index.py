"""Index: what a user holds. Ingest, search, highlight, and the documents in it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from .account import shares
from .errors import Damaged, NotFound, Reason, UsageError
from .heatmap import Scale, TokenMaps, overlay, question_map
from .hits import IMAGE_SIDE, Account, Answer, Highlight, Hit, page_regions, snippet_of
from .models import Models, legs
from .records import Document, Failure, Feedback, Filter, Page, PageRef, QueryVectors, Region, Verdict
from .settings import IngestSettings, ModelSettings, Rank
from .store import Store
from .store.database import CURE
from .store.opening import QDRANT, open_store

if TYPE_CHECKING:
    from PIL.Image import Image

    from .check import Check
    from .encoders import Encoders
    from .info import Info
    from .ingest import Progress, Summary
    from .render import Renderer

RENDERERS = max(2, os.cpu_count() or 1)  # processes that make pictures of pages, kept for the next


class Index:
    """An index in a folder, or at a qdrant:// URL. A context manager.

    Several threads may search it and look at its pages at once; what writes documents is for one at a time.

    ``text``, ``vision``: the models of a new index (a hub id or a folder); of one that exists, what it was made
    with is taken, and another is refused with IndexMismatch. A vision model may be added later. ``device``: "cpu",
    "cuda", or None for the best.

    ``pool``, ``dim``: for a smaller new index, as the models are. Of the vectors of a page's tokens or patches one in
    ``pool`` is kept, each the mean of some; tokens have ``dim`` dimensions. None: all of them. Raises UsageError.
    ``float16``: a new index in a folder keeps the vectors as float16, too, and scores the pages that it finds by them.
    ``visual_tokens``: image tokens of a page, at most, where the vision model has as many as a picture is large
    (ColQwen2 and its kin); a vision model's own number where it is added to the index without.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        text: str | None = None,
        vision: str | None = None,
        device: str | None = None,
        pool: int | None = None,
        dim: int | None = None,
        float16: bool = False,
        visual_tokens: int | None = None,
    ) -> None:
        self.path = str(path) if str(path).startswith(QDRANT) else Path(path)
        self.device = device
        self._models = Models(ModelSettings(text, vision, device, pool, dim, float16, visual_tokens))
        self._opened: Store | None = None
        self._opening = threading.Lock()
        self._renderers: list[Renderer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files and end the rendering processes."""
        while self._renderers:
            self._renderers.pop().close()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def open(self, create: bool = False) -> Store:
        """The store that the index lies in, opened once; ``create`` makes one that is not there. Raises StoreError."""
        with self._opening:
            if self._opened is None:
                self._opened = open_store(self.path, create)
            return self._opened

    def load(self) -> None:
        """Load the models that the index was made with, so that the first question need not wait for them.

        Raises IndexMismatch, EncoderError.
        """
        self._models.encode("visrag", self.open())

    # Writing

    def ingest(
        self,
        *paths: str | Path,
        tags: Mapping[str, str] | None = None,
        sync: bool = False,
        progress: Progress | None = None,
        settings: IngestSettings | None = None,
    ) -> Summary:
        """Bring files and folders into the index, which is made if it is not there.

        ``sync``: documents that came from these folders and whose files have gone are removed. A file or page that
        fails is in the summary and in ``failures()``; the rest goes on. Raises UsageError, StoreError, EncoderError.
        """
        from .ingest import ingest
        from .sources import find_sources

        sources = find_sources(paths)
        folders = [Path(path) for path in paths]
        store = self.open(create=True)
        summary = ingest(store, self._for_ingest(), sources, settings or IngestSettings(), tags, progress)
        if sync:
            summary.removed = self._remove_gone(folders, {source.name for source in sources})
        return summary

    def ingest_texts(self, texts: Mapping[str, str], progress: Progress | None = None) -> None:
        """Bring passages into the index, by name: each a document of one page, without a picture or places."""
        from .ingest import Silent, ingest_texts

        ingest_texts(self.open(create=True), self._for_ingest(), texts, progress or Silent())

    def _remove_gone(self, folders: Sequence[Path], present: set[str]) -> int:
        roots = [folder.resolve() for folder in folders if folder.is_dir()]
        gone = [
            document.name
            for document in self.documents()
            if document.name not in present
            and any(Path(document.path).is_relative_to(root) for root in roots)
            and _gone(Path(document.path))
        ]
        for name in gone:
            self.remove(name)
        return len(gone)

    def watch(
        self, inbox: str | Path, tags: Mapping[str, str] | None = None, settings: IngestSettings | None = None
    ) -> Iterator[Summary]:
        """Ingest what is dropped into a folder, for ever: a summary for each lot that has arrived."""
        from .ingest import ingest
        from .watch import arrivals

        store = self.open(create=True)
        encoders = self._for_ingest()
        for sources in arrivals(Path(inbox)):
            summary = ingest(store, encoders, sources, settings or IngestSettings(), tags)
            if summary.documents:
                yield summary

    def retry(self, progress: Progress | None = None, settings: IngestSettings | None = None) -> Summary:
        """Ingest once more the documents that failed, in whole or in part, from where they came or the index's copy.

        One of which there is neither stays as it is, and is among the failures of the summary.
        """
        from .check import copied
        from .ingest import ingest
        from .sources import Source, size_of
        from .store.remote import Downloads

        store = self.open()
        sources, gone = [], []
        with Downloads() as copies:
            for name in sorted({failure.document for failure in store.failures()}):
                document = store.document(name)
                path = Path(document.path) if document is not None else Path()
                try:
                    path = copied(store.original(name), name, copies.folder) if _gone(path) else path
                except NotFound:
                    message = f"its file {path} has gone: put it back, or remove the document"
                    gone.append(Failure(name, None, Reason.MISSING, message))
                else:
                    sources.append(Source(path, name, size_of(path), document.path if document is not None else ""))
            chosen = settings or IngestSettings()
            summary = ingest(store, self._for_ingest(), sources, chosen, progress=progress, again=True)
        summary.failures += gone
        return summary

    def check(
        self, repair: bool = False, progress: Progress | None = None, settings: IngestSettings | None = None
    ) -> Check:
        """Compare the index with its checksums. ``repair``: make good what is damaged, from copies and the
        documents' files; nobody else should use the index meanwhile.

        ``settings``: passwords, processes and limits for documents that are read again; all else is as it was. Raises
        UsageError for an index on Qdrant, StoreError.
        """
        from .check import check

        if not isinstance(self.path, Path):
            raise UsageError(f"{self.path}: is Qdrant's to check; visrag copy makes it anew from another index")
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        return check(self.path, self._models.for_ingest, repair, settings, progress)

    def remove(self, document: str) -> None:
        """Remove a document. Raises NotFound."""
        self.open().remove(document)

    def compact(self) -> int:
        """Give the bytes of what was removed or replaced back to the disk: how many. Others may use the index
        meanwhile. After an ingest that replaced much it is done by itself. Raises Damaged."""
        return self.open().compact()

    def info(self) -> Info:
        """What the index holds, what it takes, and what it is searched with."""
        from .info import read_info

        return read_info(self.open(), str(self.path))

    # Searching

    def search(
        self,
        question: str,
        k: int = 5,
        documents: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        rank: Rank = "fusion",
        offset: int = 0,
    ) -> list[Hit]:
        """The k pages that answer a question best, best first, after the first ``offset`` of them.

        ``documents``, ``tags``: only in these.

        Raises UsageError for an empty question, NotFound for a document that is not in the index.
        """
        return self.answer(question, k, documents, tags, rank, offset).hits

    def answer(
        self,
        question: str,
        k: int = 5,
        documents: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        rank: Rank = "fusion",
        offset: int = 0,
    ) -> Answer:
        """As ``search``, with the time that each step took."""
        from .search import search

        question = _checked(question)
        clock = _Clock()
        store = self.open()
        filter = self._filter(documents, tags)
        clock.lap("open")
        queries = {} if rank == "fulltext" else self._encode(question)
        clock.lap("encode")

        def find() -> list[Hit]:
            found = search(store, question, queries, legs(store), rank, filter, k, offset)
            clock.lap("search")
            hits = []
            for number, hit in enumerate(found, offset + 1):
                marks = page_regions(question, hit.page, self._maps(queries, hit.ref))
                text = hit.page.text
                snippet = snippet_of(marks, text)
                hits.append(Hit(number, *hit.ref, hit.score, text, snippet, marks, hit.legs, question, self))
            clock.lap("regions")
            return hits

        return Answer(question, store.steady(find), clock.laps)

    def account(
        self,
        question: str,
        document: str,
        page: int,
        documents: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        rank: Rank = "fusion",
    ) -> Account:
        """The score of any page, as ``search`` with the same filter gives it, and the account of it. Raises NotFound,
        UsageError."""
        from .search import explain

        question = _checked(question)
        store = self.open()
        queries = {} if rank == "fulltext" else self._encode(question)
        filter = self._filter(documents, tags)
        ref = PageRef(document, page)
        found = store.steady(lambda: explain(store, question, queries, legs(store), rank, filter, ref))
        return Account(found.score, found.legs, shares(question, found.legs))

    def token_maps(self, question: str, document: str, page: int) -> TokenMaps | None:
        """The similarity of each of the question's tokens to each place of a page, from the stored vectors; None for a
        page without vectors. Raises NotFound, UsageError."""
        maps = self._maps(self._encode(_checked(question)), PageRef(document, page))
        if maps is None:
            self.page(document, page)  # or NotFound
        return maps

    def regions(self, question: str, document: str, page: int, token: str | None = None) -> tuple[Region, ...]:
        """The boxes of a page that hold the evidence for a question, or for one token of it, best first.

        Raises NotFound, UsageError.
        """
        question = _checked(question)
        found = self.page(document, page)
        return page_regions(question, found, self._maps(self._encode(question), PageRef(document, page)), token)

    def highlight(
        self, question: str, document: str, page: int, token: str | None = None, side: int = IMAGE_SIDE
    ) -> Highlight:
        """A page with the evidence for a question on it, from the stored vectors.

        ``token``: the map of one token of the question. Raises NotFound for the page, UsageError for the token.
        """
        ref = PageRef(document, page)
        queries = self._encode(_checked(question))
        maps = self._maps(queries, ref)
        image = self.page_image(document, page, side)
        if maps is None:
            return Highlight(image, ())
        chosen = maps.content if token is None else maps.only(token)
        values = question_map(maps.values, chosen)
        marks = page_regions(question, self.page(document, page), maps, token)
        drawn = overlay(image, values, maps.places, Scale.of(maps.values, maps.content), marks)
        return Highlight(drawn, marks)

    def page_image(self, document: str, page: int, side: int = IMAGE_SIDE) -> Image:
        """A page's picture (RGB), its longer side ``side`` pixels, made again from the document's file.

        Raises NotFound where the page is not in the index or the file has gone, DocumentError.
        """
        store = self.open()
        known = self.document(document)
        self.page(document, page)
        if (stored := store.image_path(PageRef(document, page))) is not None:
            return _read_image(stored, side)
        from .render import RenderOptions

        options = RenderOptions(renderer="poppler" if known.renderer == "poppler" else "pdfium")
        with self._a_renderer() as renderer:
            return renderer.page_image(store.original(document), page, side, options, known.media_type)

    def export(self, question: str, pages: Sequence[tuple[str, int]]) -> bytes:
        """A PDF of pages, given as (document, page), with the evidence for a question as highlight annotations.

        Pages that have gone are left out.

        Raises NotFound, UsageError, DocumentError, MissingExtra.
        """
        from .annotate import MarkedPage, annotated_pdf, marks_of

        marked = []
        for document, number in pages:
            try:
                page = self.page(document, number)
            except NotFound:
                if len(pages) == 1:
                    raise
                continue
            marks = marks_of(page, self.regions(question, document, number))
            image = partial(self.page_image, document, number)
            path = self._pdf_of(document, number)
            marked.append(MarkedPage(document, number, path, image, page.width, page.height, marks))
        return annotated_pdf(question, marked)

    # Judging

    def judge(
        self,
        question: str,
        document: str,
        page: int,
        verdict: Verdict | None,
        note: str = "",
        review: str = "",
        reviewer: str = "",
    ) -> Feedback:
        """Keep whether a page answers a question ("relevant", "not_relevant"), and a note.

        The last by the same reviewer for the same question and page in a review counts; None without a note takes it
        back. Raises NotFound, UsageError.
        """
        if verdict is not None or note:  # what was said of a page that has gone can be taken back
            self.page(document, page)
        found = Feedback(_checked(question), document, page, verdict, note, review, reviewer, time.time())
        self.open().judge(found)
        return found

    def feedback(self, review: str | None = None, question: str | None = None) -> list[Feedback]:
        """The verdicts, the oldest first: all, of one review, on one question."""
        return self.open().feedback(review, question)

    # What is there

    def documents(self) -> list[Document]:
        """All documents, by name."""
        return self.open().documents()

    def document(self, name: str) -> Document:
        """Raises NotFound."""
        found = self.open().document(name)
        if found is None:
            raise NotFound(f"the index holds no document {name}: visrag documents lists them")
        return found

    def page(self, document: str, page: int) -> Page:
        """A page's text, words and size, without its picture. Raises NotFound."""
        return self.open().page(PageRef(document, page))

    def failures(self) -> list[Failure]:
        """The documents and pages that are not in the index, and why."""
        return self.open().failures()

    # Inside

    def _filter(self, documents: Sequence[str] | None, tags: Mapping[str, str] | None) -> Filter:
        """Raises NotFound for a document that is not in the index."""
        for name in documents or ():
            self.document(name)
        return Filter(None if documents is None else frozenset(documents), tags or {})

    @contextmanager
    def _a_renderer(self) -> Iterator[Renderer]:
        """A rendering process for one thread; RENDERERS of them stay for the next."""
        from .render import Renderer

        try:
            renderer = self._renderers.pop()
        except IndexError:
            renderer = Renderer()
        try:
            yield renderer
        finally:
            if len(self._renderers) < RENDERERS:
                self._renderers.append(renderer)
            else:
                renderer.close()

    def _pdf_of(self, document: str, page: int) -> Path | None:
        """A document's file where its pages can be taken out of it: a PDF that needs no password."""
        store = self.open()
        if self.document(document).media_type != "application/pdf":
            return None
        if store.image_path(PageRef(document, page)) is not None:
            return None
        return store.original(document)

    def _for_ingest(self) -> Encoders:
        return self._models.for_ingest(self.open(create=True))

    def _encode(self, question: str) -> dict[str, QueryVectors]:
        """The question's vectors in every leg that has any."""
        return self._models.encode(question, self.open())

    def _maps(self, queries: Mapping[str, QueryVectors], ref: PageRef) -> TokenMaps | None:
        """The page's token maps in the leg that it has: patches, else tokens."""
        for name in ("patches", "tokens"):
            found = self.open().vectors(name, ref) if name in queries else None
            if found is not None and len(found.places.vectors):
                return TokenMaps.of(queries[name], found)
        return None


def _read_image(path: Path, side: int) -> Image:
    from PIL import Image as images

    try:
        with images.open(path) as stored:
            scale = side / max(stored.size)
            return stored.convert("RGB").resize([max(1, round(edge * scale)) for edge in stored.size])
    except (OSError, SyntaxError, ValueError) as error:
        raise Damaged(f"{path} is damaged: {CURE} ({error})") from error


def _checked(question: str) -> str:
    """A question as it can be encoded. Raises UsageError where it is empty."""
    if not question.strip():
        raise UsageError("the question is empty")
    return question.encode("utf-8", "replace").decode()  # bytes of a terminal that are no UTF-8


def _gone(path: Path) -> bool:
    """Whether a file is known not to be there: not one in a folder that may not be read."""
    try:
        return not path.is_file()
    except OSError:
        return False


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now
