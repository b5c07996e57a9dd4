"""Requests written byte by byte, as no client library would."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came back on a connection: the first answer's status, headers (in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def line(port: int, timeout: float = 20.0) -> Iterator[socket.socket]:
    """A connection to a server of this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as made:
        yield made


def head(method: str, path: str, *headers: str) -> bytes:
    """The head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", "")).encode("latin-1")


def read_all(made: socket.socket) -> bytes:
    """What comes until the other side closes, or cuts the connection."""
    found = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := made.recv(65_536):
            found += data
    return bytes(found)


def parsed(data: bytes) -> Answer:
    """The first answer in what came."""
    top, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", len(rest)))
    return Answer(int(first.split()[1]), headers, rest[:length])


def ask(port: int, *parts: bytes, pause: float = 0.0, timeout: float = 20.0) -> Answer:
    """Send these, with pauses, and read what comes until the connection ends."""
    with line(port, timeout) as made:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                made.sendall(part)
                time.sleep(pause)
        return parsed(read_all(made))


def closed_within(made: socket.socket, seconds: float) -> float:
    """How long the other side takes to close; AssertionError where it is longer."""
    begun = time.monotonic()
    made.settimeout(seconds)
    try:
        read_all(made)
    except TimeoutError:
        raise AssertionError(f"still open after {seconds} s") from None
    return time.monotonic() - begun
