"""Clients of a server that may die at any moment: they keep what it acknowledged."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
from live_server import LiveServer

PARTS = 10  # of an upload that is not sent at once
UPLOAD = 0.3  # seconds for it
QUIET = {"ocr": "off"}  # options of an upload: the pages have text


def upload(
    server: LiveServer, path: Path, seconds: float = 0.0, halfway: Callable[[], object] = lambda: None
) -> httpx.Response:
    """Upload a file in parts, over so many seconds. ``halfway`` is called when half of it is sent."""
    boundary = os.urandom(8).hex()
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="options"\r\n\r\n{json.dumps(QUIET)}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
    )
    body = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()

    def parts() -> Iterator[bytes]:
        for part in range(PARTS):
            if part == PARTS // 2:
                halfway()
            time.sleep(seconds / PARTS)
            yield body[part * len(body) // PARTS : (part + 1) * len(body) // PARTS]

    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(len(body))}
    return httpx.post(f"{server.api}/documents", content=parts(), headers=headers, timeout=60, trust_env=False)


class Clients:
    """One uploads files, again and again, each until it is acknowledged. One judges a page, each time for another
    question. Both go on until the server dies or ``stop``.

    ``uploaded``, ``judged``: the names and questions that were acknowledged. ``wrong``: answers that say otherwise.
    """

    def __init__(self, server: LiveServer, files: Sequence[Path], judged_document: str) -> None:
        self._server, self._files, self._document = server, deque(files), judged_document
        self.uploaded: set[str] = set()
        self.judged: list[str] = []
        self.wrong: list[str] = []
        self.halfway = threading.Event()
        self._asked = 0
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._stopping.clear()
        self._threads = [threading.Thread(target=self._go_on, args=(act,)) for act in (self._upload, self._judge)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, act: Callable[[], None]) -> None:
        with suppress(httpx.TransportError):  # the server died
            while not self._stopping.is_set():
                act()

    def _upload(self) -> None:
        self.halfway.clear()
        answer = upload(self._server, self._files[0], UPLOAD, self.halfway.set)
        if answer.status_code == 202:
            self.uploaded.add(self._files[0].name)
            self._files.rotate(-1)
        else:
            self.wrong.append(f"upload: {answer.status_code} {answer.text}")

    def _judge(self) -> None:
        self._asked += 1
        question = f"question {self._asked}"
        verdict = {"question": question, "document": self._document, "page": 1, "verdict": "relevant", "review": "r"}
        answer = httpx.post(f"{self._server.api}/feedback", json=verdict, timeout=60, trust_env=False)
        if answer.status_code == 201:
            self.judged.append(question)
        else:
            self.wrong.append(f"feedback: {answer.status_code} {answer.text}")
