"""Who may do what: the guard before every request, and the roles of callers.

Without keys everybody who can reach the server is an admin; that is why only this machine may be able to, and why
requests that another site's page sends from a browser here are refused: by their Host (DNS rebinding) and their Origin.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import AccessError, StoreError
from . import metrics
from .keys import KeyFile
from .limits import Body, Rates
from .problems import Refusal, of_error, problem, too_large
from .settings import LOOPBACK, ROLES, Role, ServerSettings

COOKIE = "visrag_key"
PUBLIC = ("/v1/health", "/v1/ready", "/v1/openapi.json")
SAFE = ("GET", "HEAD", "OPTIONS")

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

log = logging.getLogger("visrag")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request. ``collections``: those that it sees, None for all."""

    id: str
    name: str
    role: Role
    collections: tuple[str, ...] | None = None

    def may(self, role: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)

    def sees(self, collection: str) -> bool:
        return self.collections is None or collection in self.collections


class Doors:
    """Who is let in: all where there are no keys, else who presents one.

    A server that has seen keys asks for one until it ends, also when the last has been revoked or their file is gone.
    """

    def __init__(self, settings: ServerSettings, keys: KeyFile) -> None:
        self._keys = keys
        self._hosts = {name.lower() for name in (*LOOPBACK, settings.host, *settings.hosts)}
        self._shut = not settings.local

    @property
    def open(self) -> bool:
        """Raises Refusal where the keys cannot be read."""
        self._shut = self._shut or bool(self._known())
        return not self._shut

    def caller(self, presented: str, address: str) -> Caller | None:
        """Who presents this key, "" for none; None where it is not one. ``address``: where the request comes from.

        Raises Refusal where the keys cannot be read."""
        if self.open:
            return Caller(address, "", "admin")
        with _readable():
            key = self._keys.find(presented) if presented else None
        return None if key is None else Caller(key.id, key.name, key.role, key.collections)

    def knows(self, caller: Caller) -> bool:
        """Whether who was let in would be let in now: keys are revoked while answers go on."""
        return self.open or caller.id in self._known()

    def check_site(self, method: str, path: str, headers: Headers) -> None:
        """Raises AccessError for what another site's page had a browser send."""
        host = headers.get("host", "")
        if self.open and (_split(f"//{host}").hostname or "") not in self._hosts:
            raise AccessError(f"this server is not {host}: call it by its address, or start it with --allow-host")
        own = headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        if method in SAFE:  # a link on another site may lead here; its page may not ask here
            own = own or headers.get("sec-fetch-mode") == "navigate" or not _guarded(path)
        elif (origin := headers.get("origin")) is not None:
            own = own and _split(origin).netloc == host
        if not own:
            raise AccessError("requests from other sites' pages are refused")

    def _known(self) -> set[str]:
        """The keys' ids. Raises Refusal."""
        with _readable():
            return {key.id for key in self._keys.list()}


class Guard:
    """The ASGI application before the application: it lets in, measures, and sets limits and headers."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, doors: Doors) -> None:
        self._app, self._settings, self._doors = app, settings, doors
        self._rates = Rates(settings.rate, settings.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status, answered = 500, False
        body = Body(Headers(scope=scope), receive, self._limit(scope), self._settings.body_seconds)

        async def answer(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
                if _guarded(scope["path"]):
                    headers.setdefault("Cache-Control", "no-store")
                if body.unread:
                    headers["Connection"] = "close"
            await send(message)

        try:
            try:
                self._let_in(scope)
            except Exception as error:
                await of_error(error)(scope, receive, answer)
            else:
                await self._app(scope, body.receive, answer)
        except asyncio.CancelledError:  # the server ends, and waits for this request no longer
            if not answered:
                await problem(503, "the server is being ended", "server")(scope, receive, answer)
        finally:
            metrics.observe_request(scope, status, time.perf_counter() - begun)

    def _let_in(self, scope: Scope) -> None:
        """Set the request's caller. Raises AccessError, LimitError, Refusal."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        address = scope["client"][0] if scope.get("client") else ""
        self._doors.check_site(method, path, headers)
        caller = self._doors.caller(presented(headers), address)
        if _guarded(path):
            self._rates.take(address if caller is None else caller.id)
        public = path in PUBLIC or (path == "/v1/session" and method != "GET")
        if _guarded(path) and not public and caller is None:
            why = "give a key: Authorization: Bearer KEY (visrag keys create makes one)"
            raise Refusal(401, why, "access", {"WWW-Authenticate": "Bearer"})
        if headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "compressed requests are not read: send it as it is")
        if "content-length" in headers and "transfer-encoding" in headers:  # a proxy may believe the other one
            raise Refusal(400, "a request's length is told once: by Content-Length or by Transfer-Encoding")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limit(scope):
            raise too_large(self._limit(scope))
        scope.setdefault("state", {})["caller"] = caller

    def _limit(self, scope: Scope) -> int:
        """How many bytes a request's body may have."""
        upload = scope["method"] == "POST" and scope["path"].endswith("/documents")
        return self._settings.body_bytes + (self._settings.upload_bytes if upload else 0)


@contextmanager
def _readable() -> Iterator[None]:
    """Turn the error of a file of keys that cannot be read into one that does not tell everybody where it is."""
    try:
        yield
    except StoreError as error:
        log.error("%s", error)
        why = "the server cannot read its keys: its log says why"
        raise Refusal(503, why, "store", {"Retry-After": "5"}) from error


def _guarded(path: str) -> bool:
    """Whether it is of the API, not of the page's files."""
    return path.startswith("/v1/") or path == "/metrics"


def _split(url: str) -> SplitResult:
    """A URL's parts, empty ones of what is no URL."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def presented(headers: Headers) -> str:
    """The key that a request brings: as a bearer token, or in the cookie of the page."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    cookies = (cookie.strip().partition("=") for cookie in headers.get("cookie", "").split(";"))
    return next((value for name, _, value in cookies if name == COOKIE), "")
