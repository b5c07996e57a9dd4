"""The process in which documents are read: both ends of the socket to it.

Requests and answers are JSON, and come in the same order; the pixels of a picture follow their answer as raw RGB.
Nothing that comes back is executed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_DATA, RUSAGE_CHILDREN, getrlimit, getrusage, setrlimit
from typing import TYPE_CHECKING, Any, NoReturn

from .drawn import DRAWN_THRESHOLD
from .errors import DocumentError, Reason, UsageError

if TYPE_CHECKING:
    from .ocr import Source
    from .records import Page

OVER_MEMORY = 77  # exit status of a process that went over its limit
LOOK = 20  # milliseconds between two looks at the memory: what is written to meanwhile is some 50 MB
MAXRSS = 1 if sys.platform == "darwin" else 1024  # bytes, the unit of ru_maxrss
WORD = 10  # characters of a word, on the average, that a page may have
HEADROOM = 1 << 30  # bytes over the limit that the system lets a process reserve, and each program that it starts

# The end that asks.


class Died(Exception):
    """Raised when the process is gone, hangs, or answers nonsense."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from visrag.reader import serve; serve(sys.argv[2])"


def spawn(start: str, environment: Mapping[str, str] | None = None) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process in a session of its own, and our end of the socket to it. ``start``: its code, whose arguments are the
    module path as JSON and the descriptor of the other end. ``environment``: None for this process's."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", start, json.dumps(sys.path), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env=environment,
        )
    return process, ours


class Child:
    """The process, started: requests in, answers out."""

    def __init__(self) -> None:
        self.process, ours = spawn(_START)
        self._connection = Connection(ours.detach())

    def send(self, request: dict[str, Any]) -> None:
        """If the process is gone, ``receive`` says so, after the answers that it left."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps(request).encode())

    def receive(self, timeout: float) -> tuple[dict[str, Any], bytes]:
        """The next answer, and the pixels of its picture. Raises Died."""
        deadline = time.monotonic() + timeout
        try:
            if not self._connection.poll(timeout):
                raise Died(Reason.TIMEOUT, f"took longer than {timeout:g} s: raise the limit if it is worth the wait")
            answer = json.loads(self._connection.recv_bytes(1 << 28))
            if not isinstance(answer, dict):
                raise ValueError
            if not answer.get("size"):
                return answer, b""
            if not self._connection.poll(max(1.0, deadline - time.monotonic())):
                raise Died(Reason.TIMEOUT, f"took longer than {timeout:g} s")
            return answer, self._connection.recv_bytes(1 << 31)
        except (OSError, EOFError, ValueError):
            raise self._death() from None

    def _death(self) -> Died:
        self.close()
        if self.process.returncode == OVER_MEMORY:
            why = "needs more memory than its limit, or than there is: raise the limit or split the document"
            return Died(Reason.TOO_LARGE, why)
        return Died(Reason.RENDERER_CRASH, "the rendering process died of it")

    def kill(self) -> None:
        """End the process and whatever it started. For any thread."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # does not change the status of one that is dead already

    def close(self) -> None:
        """As ``kill``, and wait for its end."""
        self._connection.close()
        self.kill()
        self.process.wait()


# The end that answers.


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
        _bound(limit[0])
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
            os._exit(OVER_MEMORY)
        except Exception as error:  # whatever a library raises for one page must not end the others
            what = f"cannot be read ({type(error).__name__}: {error})"
            answer = {"reason": Reason.CORRUPT, "message": what}
        if limit[0] and getrusage(RUSAGE_CHILDREN).ru_maxrss * MAXRSS > limit[0]:  # a program of poppler's
            os._exit(OVER_MEMORY)
        connection.send_bytes(json.dumps({"id": request["id"], **answer}).encode())
        if pixels:
            connection.send_bytes(pixels)


def _bound(limit: int) -> None:
    """Have the system refuse this process, and each that it starts, what is far above ``limit`` bytes (0: nothing)."""
    hard = getrlimit(RLIMIT_DATA)[1]
    wanted = limit + HEADROOM if limit else hard
    setrlimit(RLIMIT_DATA, (wanted if hard == RLIM_INFINITY else min(wanted, hard), hard))


def _watch(descriptor: int, limit: list[int]) -> None:
    """End this process, and what it started, when the other end is closed; itself when it is over ``limit`` bytes."""
    hangup = select.poll()
    hangup.register(descriptor, 0)
    page = os.sysconf("SC_PAGE_SIZE")
    statm = Path("/proc/self/statm")
    while not hangup.poll(LOOK):
        if limit[0] and statm.exists() and int(statm.read_text().split()[1]) * page > limit[0]:
            os._exit(OVER_MEMORY)
    os.killpg(0, signal.SIGKILL)


def _open(job: dict[str, Any]) -> Source:
    """Open a document. Raises DocumentError, UsageError."""
    path, document, kind, options = Path(job["path"]), job["document"], job["media_type"], job["options"]
    if kind == "application/pdf":
        if job["renderer"] == "poppler":
            from .poppler import PopplerDocument

            return PopplerDocument(path, document, options["passwords"])
        from .pdf import PdfiumDocument

        return PdfiumDocument(path, document, options["passwords"])
    if kind.startswith("image/"):
        from .picture import ImageDocument

        return ImageDocument(path, document, options["max_pixels"])
    from .layout import LaidOutDocument

    return LaidOutDocument(path, document, kind)


def _do(request: dict[str, Any], source: Source) -> tuple[dict[str, Any], bytes]:
    """The answer to one request: its fields, and the pixels of a picture."""
    number, options = request["number"], request["job"]["options"]
    if request["do"] == "open":
        if source.pages > options["max_pages"]:
            why = f"has {source.pages} pages, more than {options['max_pages']}: raise the limit, or split the document"
            raise DocumentError("", None, Reason.TOO_LARGE, why)
        return {"pages": source.pages, "renderer": source.renderer, "locked": source.locked}, b""
    if request["do"] == "picture":
        picture = source.picture(number, request["side"])
        return {"size": picture.size}, picture.tobytes()
    page, pixels, size = _read(source, number, options)
    values = {name: getattr(page, name) for name in ("number", "width", "height", "text", "text_source", "drawn")}
    words = [(word.text, word.start, word.boxes) for word in page.words]
    return {"page": {**values, "words": words}, "size": size}, pixels


def _read(source: Source, number: int, options: dict[str, Any]) -> tuple[Page, bytes, tuple[int, int] | None]:
    """A page, and the pixels and size of its picture where it is wanted, or could not be made again later."""
    if options["ocr"] == "off" or source.renderer == "layout":
        page, _ = source.content(number)
    else:
        from .ocr import with_ocr

        page = with_ocr(source, number, options["ocr"] == "always", options["threads"])
    if len(page.words) > options["max_words"]:
        why = f"has {len(page.words)} words, more than {options['max_words']}: raise the limit, or split the page"
        raise DocumentError("", number, Reason.TOO_LARGE, why)
    if len(page.text) > WORD * options["max_words"]:  # however few words they are: each may become as many vectors
        why = (
            f"has {len(page.text)} characters, more than {WORD} for each of {options['max_words']} words: "
            "raise the limit, or split the page"
        )
        raise DocumentError("", number, Reason.TOO_LARGE, why)
    wanted = options["image"] == "all" or (options["image"] == "drawn" and page.drawn > DRAWN_THRESHOLD)
    if not (wanted or source.locked):
        return page, b"", None
    picture = source.picture(number, options["image_side"])
    return page, picture.tobytes(), picture.size
