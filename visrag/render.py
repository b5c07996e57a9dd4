"""A file's bytes → its Pages, one by one, read in a process of its own that may die.

``Renderer`` owns that process. It asks for a few pages ahead and no more, so memory is bounded whatever the
document's size; when the process dies or hangs it is replaced, the page is tried once with the other renderer (once
more with the same where memory ran out), and the document goes on.

What ``Page.drawn`` measures is said at ``visrag.drawn.measure``: the share of a 64 × 64 grid that lies under
images, shadings and paths, but for rules, frames, light shading and backgrounds. For pages read with poppler it is
the share of cells that are mostly inked outside words; 1 for images and for pages without text under a picture.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .drawn import DRAWN_THRESHOLD
from .errors import DocumentError, Reason, UsageError
from .kinds import SUFFIXES, media_type
from .reader import Child, Died
from .records import Page, Word
from .settings import Ocr, RendererName

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DRAWN_THRESHOLD", "SUFFIXES", "OpenedDocument", "RenderOptions", "Renderer", "media_type"]

AHEAD = 3  # pages asked for and not yet taken


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How pages are read.

    ``ocr``: "auto" reads pages without a text layer, and large images; "always" replaces the text layer.
    ``passwords``: tried in turn on an encrypted PDF.
    ``image``: which pages come with a picture: none, those drawn above ``DRAWN_THRESHOLD``, or all (of a document
    that took a password always all); ``image_side``: its longer side in pixels.
    ``page_timeout``: seconds for a page, OCR included, and for opening; as many again where poppler tries it too.
    ``max_pixels``: of a page of an image file. ``max_words``: of any page, and ten times as many characters.
    ``max_pages``: of a document.
    ``memory``: resident bytes of the process at which it is ended, 0 for any.
    ``threads``: of OCR, 0 for as many as cores; processes side by side with one each are the faster.
    """

    renderer: RendererName = "pdfium"
    ocr: Ocr = "auto"
    passwords: tuple[str, ...] = field(default=(), repr=False)
    image: Literal["none", "drawn", "all"] = "none"
    image_side: int = 1600
    page_timeout: float = 60.0
    max_pixels: int = 180_000_000
    max_words: int = 100_000
    max_pages: int = 50_000
    memory: int = 2 << 30
    threads: int = 1


class Renderer:
    """Reads documents in a child process, started on first use. One document at a time; not for several threads.

    A context manager: leaving it ends the process.
    """

    def __init__(self) -> None:
        self._child: Child | None = None
        self._starting = threading.Lock()
        self._stopped = False
        self._ids = itertools.count(1)
        self.turn: object = None  # whose answers come next; what others asked for is lost

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id of the child, None while there is none."""
        return None if self._child is None else self._child.process.pid

    def stop(self) -> None:
        """End the process, and start no other: from any thread, what is asked for then fails at once."""
        with self._starting:
            self._stopped = True
            if self._child is not None:
                self._child.kill()

    def close(self) -> None:
        """End the process."""
        self.turn = None
        with self._starting:
            if self._child is not None:
                self._child.close()
                self._child = None

    def pages(
        self, path: Path, document: str, options: RenderOptions | None = None, kind: str | None = None
    ) -> OpenedDocument:
        """Open a file; ``kind``: its media type, where it is known.

        A PDF that pdfium cannot open is tried with poppler. Raises DocumentError where the file cannot be opened,
        UsageError where the renderer is not installed.
        """
        options = options or RenderOptions()
        kind = kind or media_type(path, document)
        job = _Job(str(path), document, kind, options.renderer, options)
        try:
            answer = self._opened(job)
        except DocumentError as error:
            other = job.again(error.reason)
            if other is None or error.reason not in _TRY_TO_OPEN:
                raise
            try:
                answer, job = self._opened(other), other
            except (DocumentError, UsageError) as second:
                if isinstance(second, DocumentError) and second.reason is Reason.PASSWORD:
                    raise
                raise error from None
        return OpenedDocument(self, job, answer)

    def page_image(
        self, path: Path, number: int, side: int, options: RenderOptions | None = None, kind: str | None = None
    ) -> Image:
        """One page's picture (RGB), its longer side ``side`` pixels. Raises DocumentError."""
        options = options or RenderOptions()
        opened = self.pages(path, path.name, options, kind)
        if not 1 <= number <= opened.pages:
            raise DocumentError(path.name, number, Reason.MISSING, f"the document has {opened.pages} pages")
        return opened.picture(number, side)

    def ask(self, request: dict[str, Any]) -> int:
        """Send a request, return its id."""
        with self._starting:
            if self._child is None and not self._stopped:
                self._child = Child()
        number = next(self._ids)
        if self._child is not None:
            self._child.send({"id": number, **request})
        return number

    def answer(self, number: int, timeout: float) -> tuple[dict[str, Any], bytes]:
        """The answer to request ``number``; answers to others are dropped. Raises Died."""
        if self._child is None:
            raise Died(Reason.RENDERER_CRASH, "the rendering process was ended")
        try:
            while True:
                answer, pixels = self._child.receive(timeout)
                if answer.get("id") == number:
                    return answer, pixels
        except Died:
            self.close()
            raise

    def _opened(self, job: _Job) -> dict[str, Any]:
        """The answer for a document that could be opened. Raises DocumentError, UsageError."""
        self.turn = None
        try:
            answer, _ = self.answer(self.ask(job.request("open")), job.options.page_timeout)
        except Died as died:
            raise DocumentError(job.document, None, died.reason, died.message) from None
        if (error := _error(answer, job.document, None)) is not None:
            raise error
        return answer


# When a second try (``_Job.again``) is worth it. Not for a page that pdfium cannot find: poppler may number pages
# otherwise.
_TRY_TO_OPEN = (Reason.CORRUPT, Reason.RENDERER_CRASH, Reason.TIMEOUT, Reason.TOO_LARGE)
_TRY_PAGE = (Reason.RENDERER_CRASH, Reason.TIMEOUT, Reason.TOO_LARGE)


@dataclass(frozen=True, slots=True)
class _Job:
    """What the child needs to know to open a document."""

    path: str
    document: str
    media_type: str
    renderer: RendererName
    options: RenderOptions

    def request(self, do: str, number: int = 0, side: int = 0) -> dict[str, Any]:
        return {"do": do, "number": number, "side": side, "job": asdict(self)}

    def again(self, reason: Reason) -> _Job | None:
        """What is tried once after a failure: the same in a fresh process where memory ran out, as what was read
        before may have left too little; else with the second renderer, None if there is no other."""
        if reason is Reason.TOO_LARGE:
            return self
        other = self.media_type == "application/pdf" and self.renderer == "pdfium"
        return replace(self, renderer="poppler") if other else None


class OpenedDocument:
    """A document that was opened: iterate over it for its pages, in order; a page that fails is a DocumentError.

    ``pages``: how many it has. ``renderer``: what reads it (pdfium, poppler, pillow, layout). ``locked``: it took a
    password; each of its pages comes with its picture, whatever the options, as it cannot be made again without.
    """

    def __init__(self, owner: Renderer, job: _Job, opened: dict[str, Any]) -> None:
        self._owner, self._job = owner, job
        self.media_type = job.media_type
        self.pages: int = opened["pages"]
        self.renderer: str = opened["renderer"]
        self.locked: bool = opened["locked"]

    def __iter__(self) -> Iterator[Page | DocumentError]:
        return self.read(range(1, self.pages + 1))

    def read(self, numbers: Iterable[int]) -> Iterator[Page | DocumentError]:
        """The pages of these numbers (from 1), in the order given."""
        waiting = iter(numbers)
        asked: deque[tuple[int, int]] = deque()  # (page number, request id), not yet answered
        while True:
            if self._owner.turn is not asked:
                waiting = itertools.chain([number for number, _ in asked], waiting)
                asked.clear()
                self._owner.turn = asked
            for number in itertools.islice(waiting, AHEAD - len(asked)):
                asked.append((number, self._owner.ask(self._job.request("page", number))))
            if not asked:
                return
            number, request = asked[0]
            result: Page | DocumentError
            try:
                answer, pixels = self._owner.answer(request, self._job.options.page_timeout)
                result = _error(answer, self._job.document, number) or _page(answer, pixels)
            except Died as died:
                result = self._second_try(number, DocumentError(self._job.document, number, died.reason, died.message))
            asked.popleft()
            yield result

    def picture(self, number: int, side: int) -> Image:
        """One page's picture (RGB), its longer side ``side`` pixels. Raises DocumentError."""
        found = self._picture(self._job, number, side)
        if not isinstance(found, DocumentError):
            return found
        other = self._job.again(found.reason)
        if other is not None and found.reason in _TRY_PAGE:
            with contextlib.suppress(UsageError):
                second = self._picture(other, number, side)
                if not isinstance(second, DocumentError):
                    return second
        raise found

    def _picture(self, job: _Job, number: int, side: int) -> Image | DocumentError:
        result = self._alone(job.request("picture", number, side), number)
        if isinstance(result, DocumentError):
            return result
        answer, pixels = result
        return _picture(pixels, *answer["size"])

    def _second_try(self, number: int, error: DocumentError) -> Page | DocumentError:
        """The page by a second try, or the first one's error."""
        other = self._job.again(error.reason)
        if other is None or error.reason not in _TRY_PAGE:
            return error
        with contextlib.suppress(UsageError):
            result = self._alone(other.request("page", number), number)
            return error if isinstance(result, DocumentError) else _page(*result)
        return error

    def _alone(self, request: dict[str, Any], number: int) -> tuple[dict[str, Any], bytes] | DocumentError:
        """The answer to one request, out of turn."""
        self._owner.turn = None
        try:
            answer, pixels = self._owner.answer(self._owner.ask(request), self._job.options.page_timeout)
        except Died as died:
            return DocumentError(self._job.document, number, died.reason, died.message)
        return _error(answer, self._job.document, number) or (answer, pixels)


def _error(answer: dict[str, Any], document: str, page: int | None) -> DocumentError | None:
    """The error in an answer. Raises UsageError where that is what it holds."""
    if "usage" in answer:
        raise UsageError(answer["usage"])
    if "reason" not in answer:
        return None
    return DocumentError(document, page, Reason(answer["reason"]), answer["message"])


def _page(answer: dict[str, Any], pixels: bytes) -> Page:
    values = answer["page"]
    values["words"] = tuple(Word(text, at, tuple(map(tuple, boxes))) for text, at, boxes in values["words"])
    return Page(**values, image=functools.partial(_picture, pixels, *answer["size"]) if pixels else None)


def _picture(pixels: bytes, width: int, height: int) -> Image:
    from PIL import Image

    return Image.frombytes("RGB", (width, height), pixels)
