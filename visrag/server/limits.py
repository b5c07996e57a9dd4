"""What keeps one caller from taking all: rates, turns, and the time and size of a request."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypeVar

import anyio
import anyio.to_thread
import h11
from starlette.datastructures import Headers
from starlette.types import Message, Receive
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import LimitError
from .problems import MEDIA_TYPE, Refusal, problem, too_large

CALLERS = 10_000  # whose rates are remembered
SLOWEST = 8192  # bytes a second that a body must come at in the long run

WHY = {
    400: "this is no HTTP request",
    431: "the request's head is longer than this server takes: send long questions and many filters by POST",
    503: "too many connections are open: close some",
}

T = TypeVar("T")


class Rates:
    """A bucket of tokens for each caller: ``burst`` requests at once, ``rate`` a second in the long run."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, caller: str) -> None:
        """Raises LimitError."""
        now = time.monotonic()
        tokens, then = self._buckets.pop(caller, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        self._buckets[caller] = (tokens - 1 if tokens >= 1 else tokens), now
        if len(self._buckets) > CALLERS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            wait = (1 - tokens) / self._rate
            raise LimitError(f"more than {self._rate:g} requests a second: wait {wait:.1f} s", wait)


class Turns:
    """Work on threads: so many calls at once, the others wait for their turn, up to a number of them."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._waiting = waiting

    async def run(self, work: Callable[[], T]) -> T:
        """Raises LimitError where too many wait, and what ``work`` raises."""
        if self._limiter.statistics().tasks_waiting >= self._waiting:
            raise LimitError("too many requests wait for this server: try again in a few seconds", 2.0)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class Places:
    """A number of long-lived things that may be open at once, half of them by one caller at most."""

    def __init__(self, count: int, what: str) -> None:
        self._count, self._what = count, what
        self._open: Counter[str] = Counter()

    @asynccontextmanager
    async def one(self, caller: str) -> AsyncIterator[None]:
        """Raises LimitError."""
        if self._open.total() >= self._count or self._open[caller] >= max(1, self._count // 2):
            raise LimitError(f"too many {self._what} are open: close some", 5.0)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            self._open += Counter()  # forget those that have none


class Body:
    """A request's body as it comes: not more than ``limit`` bytes, ``seconds`` without any, SLOWEST a second else."""

    def __init__(self, headers: Headers, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._limit, self._seconds = receive, limit, seconds
        self._came, self._waited = 0, 0.0
        self.unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._ended = False

    async def receive(self) -> Message:
        """As of ASGI. Raises Refusal."""
        if self._ended:  # what is waited for now is that the other side hangs up
            return await self._receive()
        begun = time.monotonic()
        patience = min(self._seconds, self._seconds + self._came / SLOWEST - self._waited)
        try:
            async with asyncio.timeout(patience):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, "the request's body does not come, or comes too slowly") from None
        self._waited += time.monotonic() - begun
        if message["type"] == "http.request":
            self._came += len(message.get("body", b""))
            if self._came > self._limit:
                raise too_large(self._limit)
            if not message.get("more_body", False):
                self._ended, self.unread = True, False
        return message


def refused(status: int) -> bytes:
    """The whole answer to what the application never sees."""
    body = bytes(problem(status, WHY[status], "limit" if status == 503 else "usage").body)
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
    head += f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"{head}{'Retry-After: 5' if status == 503 else 'Cache-Control: no-store'}\r\n\r\n".encode() + body


def protocol(header_seconds: float, connections: int) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, which closes a connection when the head of a request does not come within this time, and at
    once when there are more than so many."""

    class Protocol(H11Protocol):
        _head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > connections:
                transport.write(refused(503))
                transport.close()
                return
            self._head = self.loop.call_later(header_seconds, self.transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._head_came()
            elif self._head is None and self.conn.trailing_data[0]:  # the next request has begun
                self._head = self.loop.call_later(header_seconds, self.transport.close)

        def send_400_response(self, msg: str) -> None:
            """Answer what is no request, while it is being refused for that: a head that is too long, too."""
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                hint = getattr(sys.exception(), "error_status_hint", 400)
                self.transport.write(refused(hint if hint in WHY else 400))
            self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_came()
            super().connection_lost(exc)

        def _head_came(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

    return Protocol
