"""A worker in this process: the real steps over a real store, without messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from visrag.dispatch import Dispatch
from visrag.encoders import Encoders
from visrag.records import Document, Order, Piece
from visrag.render import Renderer
from visrag.settings import IngestSettings
from visrag.steps import Outcome, encode_pages, open_document, options_of, render_pages
from visrag.store import Store
from visrag.store.remote import Downloads

LEASE = 60.0


class Hand:
    """Does pieces of work one by one, in the order in which they are handed out."""

    def __init__(self, store: Store, encoders: Encoders, renderer: Renderer, downloads: Downloads) -> None:
        self.store, self.encoders, self.renderer, self.downloads = store, encoders, renderer, downloads
        self.own = IngestSettings()
        self.sent: list[Piece] = []
        self.done: list[str] = []
        self.dispatch = Dispatch(store, self.sent.append)

    def enqueue(self, path: Path, settings: IngestSettings, tags: dict[str, str] | None = None) -> int:
        return self.store.enqueue([Order(path.name, str(path), options_of(settings), tags)])[0]

    def claim(self) -> Piece | None:
        """The next piece that can be claimed."""
        while True:
            if not self.sent:
                self.dispatch()
            if not self.sent:
                return None
            piece = self.store.claim(self.sent.pop(0).id, "hand", LEASE)
            if piece is not None:
                return piece

    def do(self, piece: Piece, stopping: Callable[[], bool] = lambda: False) -> Outcome:
        self.done.append(piece.queue)
        if piece.queue == "ingest":
            return open_document(self.store, piece, self.renderer, self.own, self.downloads)
        if piece.queue == "render":
            return render_pages(self.store, piece, self.renderer, self.own, stopping)
        return encode_pages(self.store, piece, self.encoders.encode)

    def work(self) -> list[Document]:
        """All that there is to do: the documents that were ended."""
        ended = []
        while (piece := self.claim()) is not None:
            outcome = self.do(piece)
            if outcome.document is not None:
                ended.append(outcome.document)
        return ended
