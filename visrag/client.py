"""Client: a server's collection, with the methods of ``visrag.Index``."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from .answers import (
    account_of,
    document_of,
    failure_of,
    feedback_of,
    hit_of,
    maps_of,
    page_of,
    region_of,
)
from .connection import Connection
from .errors import DocumentError, Reason, UsageError
from .hits import IMAGE_SIDE, Account, Answer, Highlight, Hit
from .ids import document_id
from .records import Document, Failure, Feedback, Page, Region, Verdict
from .settings import IngestSettings, Rank
from .store.remote import is_url

if TYPE_CHECKING:
    from PIL.Image import Image

    from .heatmap import TokenMaps
    from .ingest import Progress, Summary

TIMEOUT = 60.0  # seconds


class Client:
    """A collection of a server (``visrag serve``). A context manager; for any number of threads.

    ``url``: the server's, such as http://127.0.0.1:8080. ``collection``: its name; not needed where there is only one
    that the key sees. ``timeout``: seconds in which something must come of every request.

    Every method may raise AccessError, LimitError and ServerError. Where a server is asked too often or too much for
    the moment, the client waits and tries again before it raises LimitError.
    """

    def __init__(
        self, url: str, key: str | None = None, collection: str | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._connection = Connection(url, key, timeout)
        self._collection = collection
        self._upload_bytes = 0
        self._asking = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._connection.url!r}, collection={self._collection!r})"

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    # Writing

    def ingest(
        self,
        *paths: str | Path,
        tags: Mapping[str, str] | None = None,
        sync: bool = False,
        progress: Progress | None = None,
        settings: IngestSettings | None = None,
    ) -> Summary:
        """Send files and folders to the server, and wait until they have left its queue. URLs (s3://…) are fetched by
        the server, if it may.

        A file or page that fails is in the summary, and the rest goes on; what the server has accepted it goes on with
        also when this is broken off. The summary's memory is not known, and a file that the server refuses at once is
        not in its ``failures()``. ``settings.jobs`` is the server's own affair.

        Raises UsageError for ``sync``, as a server does not know which folder a document came from, for
        ``settings.passwords``, which the server has from its environment (VISRAG_PASSWORDS), for ``settings.link``,
        and for a name that the server refuses.
        """
        from .sending import Sending, fields_of, options_of
        from .sources import find_sources

        if sync:
            why = "a server does not know which folder its documents came from"
            raise UsageError(f"sync: {why}: remove those that have gone, or ingest on the server's machine")
        options = options_of(settings)
        urls = [path for path in paths if isinstance(path, str) and is_url(path)]
        sources = find_sources([path for path in paths if path not in urls])
        base = self._base()
        sending = Sending(self._connection, base, progress)
        for url in urls:
            sending.url(url, {"tags": None if tags is None else dict(tags), "options": options or {}})
        sending.files(sources, fields_of(tags, options), self._upload_bytes)
        return sending.wait()

    def ingest_texts(self, texts: Mapping[str, str], progress: Progress | None = None) -> None:
        """Bring passages into the collection, by name. Each is read as a file of its name is, as plain text where the
        name has no suffix. Raises DocumentError for the first that failed."""
        from .sending import Sending

        sending = Sending(self._connection, self._base(), progress)
        sending.texts(texts)
        for failure in sending.wait().failures:
            raise DocumentError(failure.document, failure.page, Reason(failure.reason), failure.message)

    def watch(
        self, inbox: str | Path, tags: Mapping[str, str] | None = None, settings: IngestSettings | None = None
    ) -> Iterator[Summary]:
        """Send what is dropped into a folder, for ever: a summary for each lot that has arrived."""
        from .sending import Sending, fields_of, options_of
        from .watch import arrivals

        fields = fields_of(tags, options_of(settings))
        base = self._base()
        for sources in arrivals(Path(inbox)):
            sending = Sending(self._connection, base, None)
            sending.files(sources, fields, self._upload_bytes)
            summary = sending.wait()
            if summary.documents:
                yield summary

    def retry(self, progress: Progress | None = None, settings: IngestSettings | None = None) -> Summary:
        """Have the documents read once more that failed, in whole or in part.

        One whose file has gone stays as it is, and is among the failures of the summary. Raises UsageError for
        ``settings``, as a server keeps those that the document had.
        """
        from .sending import Sending

        if settings is not None:
            raise UsageError("a server tries again with the settings that it has: send the files again with these")
        sending = Sending(self._connection, self._base(), progress)
        sending.again(sorted({failure.document for failure in self.failures()}))
        return sending.wait()

    def remove(self, document: str) -> None:
        """Remove a document, out of the queue too. Raises NotFound."""
        self._connection.send("DELETE", f"{self._base()}/documents/{document_id(document)}")

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

        Raises UsageError for an empty question, NotFound for a document that is not in the collection.
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
        """As ``search``, with where the server's time went."""
        asked = {
            "question": _checked(question),
            "k": k,
            "offset": offset,
            "documents": None if documents is None else list(documents),
            "tags": dict(tags or {}),
            "rank": rank,
            "include": ["text"],
        }
        found = self._connection.post(f"{self._base()}/search", asked)
        with self._connection.understood():
            return Answer(question, [hit_of(hit, question, self) for hit in found["hits"]], found["timings"])

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
        UsageError; the latter also for no documents at all and for a tag's name with "=" in it."""
        if documents is not None and not documents:
            raise UsageError("documents: name some, or leave it out")
        if any("=" in name for name in tags or {}):
            raise UsageError('tags: the account of a score knows no tag with "=" in its name')
        pairs = [f"{name}={value}" for name, value in (tags or {}).items()]
        asked = {"q": _checked(question), "document": documents, "tag": pairs, "rank": rank}
        found = self._connection.get(f"{self._page(document, page)}/account", **asked)
        with self._connection.understood():
            return account_of(found)

    def token_maps(self, question: str, document: str, page: int) -> TokenMaps | None:
        """The similarity of each of the question's tokens to each place of a page, to 5 decimals; None for a page
        without vectors. Which vector lies at a place is not told: each place has its own. Raises NotFound,
        UsageError."""
        found = self._connection.get(f"{self._page(document, page)}/heatmap", q=_checked(question))
        with self._connection.understood():
            return maps_of(found)

    def regions(self, question: str, document: str, page: int, token: str | None = None) -> tuple[Region, ...]:
        """The boxes of a page that hold the evidence for a question, or for one of its tokens, best first. Raises
        NotFound, UsageError."""
        found = self._connection.get(f"{self._page(document, page)}/regions", q=_checked(question), token=token)
        with self._connection.understood():
            return tuple(region_of(region) for region in found["regions"])

    def highlight(
        self, question: str, document: str, page: int, token: str | None = None, side: int = IMAGE_SIDE
    ) -> Highlight:
        """A page with the evidence for a question on it, from the stored vectors.

        ``token``: the map of one token of the question. Raises NotFound for the page, UsageError for the token.
        """
        path = f"{self._page(document, page)}/heatmap.png"
        image = self._image(path, q=_checked(question), token=token, side=side)
        return Highlight(image, self.regions(question, document, page, token))

    def page_image(self, document: str, page: int, side: int = IMAGE_SIDE) -> Image:
        """A page's picture (RGB), its longer side ``side`` pixels, as a JPEG of the server's.

        Raises NotFound where the page is not in the collection or the file has gone, DocumentError, UsageError for a
        side that the server does not make.
        """
        return self._image(f"{self._page(document, page)}/image", side=side)

    def export(self, question: str, pages: Sequence[tuple[str, int]]) -> bytes:
        """A PDF of pages, given as (document, page), with the evidence for a question as highlight annotations.

        Raises NotFound, UsageError.
        """
        wanted = [{"document": document, "page": page} for document, page in pages]
        asked = {"question": _checked(question), "pages": wanted}
        return self._connection.send("POST", f"{self._base()}/export", body=asked).content

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
        back. ``reviewer``: the key's name unless given; only an admin's key may give another. Raises NotFound,
        UsageError.
        """
        given = {
            "question": _checked(question),
            "document": document,
            "page": page,
            "verdict": verdict,
            "note": note,
            "review": review,
            "reviewer": reviewer,
        }
        found = self._connection.post(f"{self._base()}/feedback", given)
        with self._connection.understood():
            return feedback_of(found)

    def feedback(self, review: str | None = None, question: str | None = None) -> list[Feedback]:
        """The verdicts, the oldest first: all, of one review, on one question."""
        found = self._connection.get(f"{self._base()}/feedback", review=review, question=question)
        with self._connection.understood():
            return [feedback_of(verdict) for verdict in found["feedback"]]

    # What is there

    def documents(self) -> list[Document]:
        """All documents, by name, without their paths; those in the queue too, as "ingesting"."""
        from .sending import listed

        base = self._base()
        with self._connection.understood():
            return [document_of(found) for found in listed(self._connection, base)]

    def document(self, name: str) -> Document:
        """Raises NotFound."""
        found = self._connection.get(f"{self._base()}/documents/{document_id(name)}")
        with self._connection.understood():
            return document_of(found)

    def page(self, document: str, page: int) -> Page:
        """A page's text and size, without its picture and its words' boxes. Raises NotFound."""
        found = self._connection.get(self._page(document, page))
        with self._connection.understood():
            return page_of(found)

    def failures(self) -> list[Failure]:
        """The documents and pages that are not in the collection, and why."""
        found = self._connection.get(f"{self._base()}/failures")
        with self._connection.understood():
            return [failure_of(failure) for failure in found["failures"]]

    # Inside

    def _base(self) -> str:
        """The path of the collection. Asks the server at the first time. Raises UsageError where it must be named."""
        with self._asking:
            if not self._upload_bytes:
                found = self._connection.get("/v1/session")
                with self._connection.understood():
                    names = [collection["name"] for collection in found["collections"]]
                    upload_bytes = int(found["limits"]["upload_bytes"])
                if self._collection is None:
                    self._collection = _only(names, self._connection.url)
                self._upload_bytes = upload_bytes
            return f"/v1/collections/{quote(str(self._collection), safe='')}"

    def _page(self, document: str, page: int) -> str:
        return f"{self._base()}/documents/{document_id(document)}/pages/{page}"

    def _image(self, path: str, **parameters: Any) -> Image:
        from PIL import Image as images

        response = self._connection.send("GET", path, parameters)
        with self._connection.understood(), images.open(BytesIO(response.content)) as image:
            return image.convert("RGB")


def _only(names: Sequence[str], url: str) -> str:
    """Raises UsageError where there is not exactly one."""
    if len(names) == 1:
        return names[0]
    there = f"there are {', '.join(names)}" if names else "this key sees none"
    raise UsageError(f"{url}: which collection is meant must be said: {there}")


def _checked(question: str) -> str:
    """A question as it can be sent. Raises UsageError where it is empty."""
    if not question.strip():
        raise UsageError("the question is empty")
    return question.encode("utf-8", "replace").decode()
