"""A file's bytes → its Pages, one by one, read in a process of its own that may die.

``Renderer`` owns that process. It asks for a few pages ahead and no more, so memory is bounded whatever the
document's size; when the process dies or hangs it is replaced, the page is tried once with the other renderer, and
the document goes on. Pages come over a socket as JSON, pictures as raw RGB: nothing that comes back is executed.

What ``Page.drawn`` measures is said at ``visrag.pdf._drawn_cells``: the share of a 64 × 64 grid that lies under
images, shadings and paths, but for rules, frames, light shading and backgrounds. For pages read with poppler it is
the share of cells that are mostly inked outside words; 1 for images and for pages without text under a picture.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from .errors import DocumentError, Reason, UsageError
from .records import Page, Word

if TYPE_CHECKING:
    from PIL.Image import Image

    from .ocr import Source

DRAWN_THRESHOLD = 0.02
"""A page is drawn, and not only text, if its ``drawn`` is above this."""

AHEAD = 3  # pages asked for and not yet taken
OVER_MEMORY = 77  # exit status of a process that went over its limit

SUFFIXES = frozenset(
    {".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".txt", ".md", ".markdown", ".html", ".htm"}
)
"""The suffixes, in lower case, of the files that a walk through a folder takes."""

RendererName = Literal["pdfium", "poppler"]


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How pages are read.

    ``ocr``: "auto" reads pages without a text layer, and large images; "always" replaces the text layer.
    ``image``: which pages come with a picture: none, those drawn above ``DRAWN_THRESHOLD``, or all;
    ``image_side``: its longer side in pixels. ``page_timeout``: seconds for a page, OCR included, and for opening.
    ``max_pixels``: of an image file. ``memory``: resident bytes of the process at which it is ended, 0 for any.
    ``threads``: of OCR, 0 for as many as cores; processes side by side with one each are the faster.
    """

    renderer: RendererName = "pdfium"
    ocr: Literal["auto", "off", "always"] = "auto"
    passwords: tuple[str, ...] = field(default=(), repr=False)
    image: Literal["none", "drawn", "all"] = "none"
    image_side: int = 1600
    page_timeout: float = 60.0
    max_pixels: int = 180_000_000
    memory: int = 4 << 30
    threads: int = 1


# What a file is.

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
)
_TEXT_SUFFIXES = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
}
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def media_type(path: Path, document: str | None = None) -> str:
    """What a file is by its content; only kinds of text are told apart by their names.

    Raises DocumentError: missing, corrupt (not what its name says), or unsupported.
    """
    name = path.name if document is None else document
    try:
        with path.open("rb") as file:
            head = file.read(8192)
    except OSError as error:
        why = "is a folder" if path.is_dir() else f"cannot be read ({error.strerror}): check the path and its rights"
        raise DocumentError(name, None, Reason.MISSING, why) from error
    if b"%PDF" in head[:1024]:
        return "application/pdf"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    suffix = path.suffix.lower()
    is_html = b"<html" in head.lower() or head.lstrip().lower().startswith(b"<!doctype html")
    if suffix in SUFFIXES and suffix not in _TEXT_SUFFIXES:
        raise DocumentError(name, None, Reason.CORRUPT, _not_what_it_says(suffix, head, is_html))
    if b"\x00" in head and not head.startswith(_BOMS):
        why = "is of a kind that visrag does not read: save it as PDF, or as an image or text"
        raise DocumentError(name, None, Reason.UNSUPPORTED, why)
    return _TEXT_SUFFIXES.get(suffix, "text/html" if is_html else "text/plain")


def _not_what_it_says(suffix: str, head: bytes, is_html: bool) -> str:
    if not head:
        return "is empty (0 bytes): fetch or save it again"
    if is_html:
        return f"is an HTML page named {suffix}: fetch the file itself, or name the page .html"
    return f"does not begin as a {suffix} file does: fetch or save it again"


# The side of whoever wants pages.


class _Died(Exception):
    """Raised when the process is gone, hangs, or answers nonsense."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from visrag.render import serve; serve(sys.argv[2])"


class _Child:
    """The process: requests in, answers out, in the same order."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())

    def send(self, request: dict[str, Any]) -> None:
        """If the process is gone, ``receive`` says so, after the answers that it left."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps(request).encode())

    def receive(self, timeout: float) -> tuple[dict[str, Any], bytes]:
        """The next answer, and the pixels of its picture. Raises _Died."""
        deadline = time.monotonic() + timeout
        try:
            if not self._connection.poll(timeout):
                raise _Died(Reason.TIMEOUT, f"took longer than {timeout:g} s: raise the limit if it is worth the wait")
            answer = json.loads(self._connection.recv_bytes(1 << 28))
            if not isinstance(answer, dict):
                raise ValueError
            if not answer.get("size"):
                return answer, b""
            if not self._connection.poll(max(1.0, deadline - time.monotonic())):
                raise _Died(Reason.TIMEOUT, f"took longer than {timeout:g} s")
            return answer, self._connection.recv_bytes(1 << 31)
        except (OSError, EOFError, ValueError):
            raise self._death() from None

    def _death(self) -> _Died:
        self.close()
        if self.process.returncode == OVER_MEMORY:
            return _Died(Reason.TOO_LARGE, "needs more memory than its limit: raise it or split the document")
        return _Died(Reason.RENDERER_CRASH, "the rendering process died of it")

    def close(self) -> None:
        """End the process and whatever it started."""
        self._connection.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # does not change the status of one that is dead already
        self.process.wait()


class Renderer:
    """Reads documents in a child process, started on first use. One document at a time; not for several threads.

    A context manager: leaving it ends the process.
    """

    def __init__(self) -> None:
        self._child: _Child | None = None
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

    def close(self) -> None:
        """End the process."""
        self.turn = None
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
            count = self._opened(job)
        except DocumentError as error:
            other = job.with_poppler()
            if other is None or error.reason not in _TRY_TO_OPEN:
                raise
            try:
                count, job = self._opened(other), other
            except (DocumentError, UsageError) as second:
                if isinstance(second, DocumentError) and second.reason is Reason.PASSWORD:
                    raise
                raise error from None
        return OpenedDocument(self, job, *count)

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
        if self._child is None:
            self._child = _Child()
        number = next(self._ids)
        self._child.send({"id": number, **request})
        return number

    def answer(self, number: int, timeout: float) -> tuple[dict[str, Any], bytes]:
        """The answer to request ``number``; answers to others are dropped. Raises _Died."""
        if self._child is None:
            raise _Died(Reason.RENDERER_CRASH, "the rendering process was ended")
        try:
            while True:
                answer, pixels = self._child.receive(timeout)
                if answer.get("id") == number:
                    return answer, pixels
        except _Died:
            self.close()
            raise

    def _opened(self, job: _Job) -> tuple[int, str]:
        """The number of pages and the renderer's name. Raises DocumentError, UsageError."""
        self.turn = None
        try:
            answer, _ = self.answer(self.ask(job.request("open")), job.options.page_timeout)
        except _Died as died:
            raise DocumentError(job.document, None, died.reason, died.message) from None
        if (error := _error(answer, job.document, None)) is not None:
            raise error
        return answer["pages"], answer["renderer"]


# When the second renderer is tried. Not for a page that pdfium cannot find: poppler may number pages otherwise.
_TRY_TO_OPEN = (Reason.CORRUPT, Reason.RENDERER_CRASH, Reason.TIMEOUT)
_TRY_PAGE = (Reason.RENDERER_CRASH, Reason.TIMEOUT)


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

    def with_poppler(self) -> _Job | None:
        """The same with the second renderer, None if there is no other."""
        other = self.media_type == "application/pdf" and self.renderer == "pdfium"
        return replace(self, renderer="poppler") if other else None


class OpenedDocument:
    """A document that was opened: iterate over it for its pages, in order; a page that fails is a DocumentError.

    ``pages``: how many it has. ``renderer``: what reads it (pdfium, poppler, pillow, layout).
    """

    def __init__(self, owner: Renderer, job: _Job, pages: int, renderer: str) -> None:
        self._owner, self._job = owner, job
        self.pages, self.renderer, self.media_type = pages, renderer, job.media_type

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
            except _Died as died:
                result = DocumentError(self._job.document, number, died.reason, died.message)
            asked.popleft()
            yield self._second_try(number, result) if isinstance(result, DocumentError) else result

    def picture(self, number: int, side: int) -> Image:
        """One page's picture (RGB), its longer side ``side`` pixels. Raises DocumentError."""
        first = self._picture(self._job, number, side)
        other = self._job.with_poppler()
        if isinstance(first, DocumentError) and other is not None and first.reason in _TRY_PAGE:
            with contextlib.suppress(UsageError):
                second = self._picture(other, number, side)
                first = first if isinstance(second, DocumentError) else second
        if isinstance(first, DocumentError):
            raise first
        return first

    def _picture(self, job: _Job, number: int, side: int) -> Image | DocumentError:
        result = self._alone(job.request("picture", number, side), number)
        if isinstance(result, DocumentError):
            return result
        answer, pixels = result
        return _picture(pixels, *answer["size"])

    def _second_try(self, number: int, error: DocumentError) -> Page | DocumentError:
        """The page by the second renderer, or the first one's error."""
        other = self._job.with_poppler()
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
        except _Died as died:
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


# The side of the process that reads.


def serve(descriptor: str) -> NoReturn:
    """What the child runs: answer requests until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(descriptor))
    limit = [0]
    threading.Thread(target=_watch, args=(int(descriptor), limit), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    opened: tuple[dict[str, Any], Source] | None = None
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (OSError, EOFError):
            os._exit(0)
        job = request["job"]
        limit[0] = job["options"]["memory"]
        pixels = b""
        try:
            if opened is None or opened[0] != job or request["do"] == "open":
                if opened is not None:
                    opened[1].close()
                    opened = None
                opened = job, _open(job)
            answer, pixels = _do(request, opened[1])
        except DocumentError as error:
            answer = {"reason": error.reason, "message": error.message}
        except UsageError as error:
            answer = {"usage": str(error)}
        except MemoryError:
            answer = {"reason": Reason.TOO_LARGE, "message": "needs more memory than there is"}
        except Exception as error:  # whatever a library raises for one page must not end the others
            what = f"cannot be read ({type(error).__name__}: {error})"
            answer = {"reason": Reason.CORRUPT, "message": what}
        connection.send_bytes(json.dumps({"id": request["id"], **answer}).encode())
        if pixels:
            connection.send_bytes(pixels)


def _watch(descriptor: int, limit: list[int]) -> None:
    """End this process, and what it started, when the other end is closed; itself when it is over ``limit`` bytes."""
    hangup = select.poll()
    hangup.register(descriptor, 0)
    page = os.sysconf("SC_PAGE_SIZE")
    statm = Path("/proc/self/statm")
    while not hangup.poll(200):
        if limit[0] and statm.exists() and int(statm.read_text().split()[1]) * page > limit[0]:
            os._exit(OVER_MEMORY)
    os.killpg(0, signal.SIGKILL)


def _open(job: dict[str, Any]) -> Source:
    """Open a document. Raises DocumentError, UsageError."""
    path, document, kind, options = Path(job["path"]), job["document"], job["media_type"], job["options"]
    if kind == "application/pdf":
        from .pdf import PdfiumDocument, PopplerDocument

        reader = PdfiumDocument if job["renderer"] == "pdfium" else PopplerDocument
        return reader(path, document, options["passwords"])
    if kind.startswith("image/"):
        from .ocr import ImageDocument

        return ImageDocument(path, document, options["max_pixels"])
    from .layout import LaidOutDocument

    return LaidOutDocument(path, document, kind)


def _do(request: dict[str, Any], source: Source) -> tuple[dict[str, Any], bytes]:
    """The answer to one request: its fields, and the pixels of a picture."""
    number, options = request["number"], request["job"]["options"]
    if request["do"] == "open":
        return {"pages": source.pages, "renderer": source.renderer}, b""
    if request["do"] == "picture":
        picture = source.picture(number, request["side"])
        return {"size": picture.size}, picture.tobytes()
    page, pixels, size = _read(source, number, options)
    values = {name: getattr(page, name) for name in ("number", "width", "height", "text", "text_source", "drawn")}
    words = [(word.text, word.start, word.boxes) for word in page.words]
    return {"page": {**values, "words": words}, "size": size}, pixels


def _read(source: Source, number: int, options: dict[str, Any]) -> tuple[Page, bytes, tuple[int, int] | None]:
    """A page, and the pixels and size of its picture where it is wanted."""
    if options["ocr"] == "off" or source.renderer == "layout":
        page, _ = source.content(number)
    else:
        from .ocr import with_ocr

        page = with_ocr(source, number, options["ocr"] == "always", options["threads"])
    if options["image"] == "none" or (options["image"] == "drawn" and page.drawn <= DRAWN_THRESHOLD):
        return page, b"", None
    picture = source.picture(number, options["image_side"])
    return page, picture.tobytes(), picture.size
