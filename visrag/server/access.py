"""Who may do what: the guard before every request, and the roles of callers.

Without keys everybody who can reach the server is an admin; that is why only this machine may be able to, and why
requests that another site's page sends from a browser here are refused: by their Host (DNS rebinding) and their Origin.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import AccessError
from . import metrics
from .keys import KeyFile
from .limits import Rates
from .problems import Refusal, of_error
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
    """Who is let in: all where there are no keys, else who presents one."""

    def __init__(self, settings: ServerSettings, keys: KeyFile) -> None:
        self._keys = keys
        self._hosts = {*LOOPBACK, settings.host, *settings.hosts}

    @property
    def open(self) -> bool:
        return not self._keys.list()

    def caller(self, presented: str, address: str) -> Caller | None:
        """Who presents this key, "" for none; None where it is not one. ``address``: where the request comes from."""
        if self.open:
            return Caller(address, "", "admin")
        key = self._keys.find(presented) if presented else None
        return None if key is None else Caller(key.id, key.name, key.role, key.collections)

    def check_site(self, method: str, headers: Headers) -> None:
        """Raises AccessError for what another site's page had a browser send."""
        host = headers.get("host", "")
        if self.open and (urlsplit(f"//{host}").hostname or "") not in self._hosts:
            raise AccessError(f"this server is not {host}: call it by its address, or start it with --allow-host")
        if method in SAFE:
            return
        origin = headers.get("origin")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or (
            origin is not None and urlsplit(origin).netloc != host
        ):
            raise AccessError("requests from other sites' pages are refused")


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
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._let_in(scope)
        except Exception as error:
            response = of_error(error)
            if scope["method"] not in SAFE:
                response.headers["Connection"] = "close"  # the body is not read
            await response(scope, receive, answer)
        else:
            await self._app(scope, self._measured(scope, receive), answer)
        metrics.observe_request(scope, status, time.perf_counter() - begun)

    def _let_in(self, scope: Scope) -> None:
        """Set the request's caller. Raises AccessError, LimitError, Refusal."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        address = scope["client"][0] if scope.get("client") else ""
        self._doors.check_site(method, headers)
        caller = self._doors.caller(presented(headers), address)
        self._rates.take(f"{address} {'' if caller is None else caller.id}")
        guarded = path.startswith("/v1/") or path == "/metrics"
        if path in PUBLIC or (path == "/v1/session" and method != "GET"):
            guarded = False
        if guarded and caller is None:
            why = "give a key: Authorization: Bearer KEY (visrag keys create makes one)"
            raise Refusal(401, why, "access", {"WWW-Authenticate": "Bearer"})
        if headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "compressed requests are not read: send it as it is")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limit(scope):
            raise _too_large(self._limit(scope))
        scope.setdefault("state", {})["caller"] = caller

    def _limit(self, scope: Scope) -> int:
        """How many bytes a request's body may have."""
        upload = scope["method"] == "POST" and scope["path"].endswith("/documents")
        return self._settings.body_bytes + (self._settings.upload_bytes if upload else 0)

    def _measured(self, scope: Scope, receive: Receive) -> Receive:
        """``receive``, which raises Refusal when a body is too long or does not go on."""
        left = self._limit(scope)
        done = False

        async def measured() -> Message:
            nonlocal left, done
            if done:  # what is waited for now is that the other side hangs up
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._settings.body_seconds)
            except TimeoutError:
                raise Refusal(408, "the request's body does not come", headers={"Connection": "close"}) from None
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                done = not message.get("more_body", False)
                if left < 0:
                    raise _too_large(self._limit(scope))
            return message

        return measured


def presented(headers: Headers) -> str:
    """The key that a request brings: as a bearer token, or in the cookie of the page."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _too_large(limit: int) -> Refusal:
    why = f"the request is larger than this server takes ({limit >> 20} MiB): split it, or raise the server's limit"
    return Refusal(413, why, "limit", {"Connection": "close"})
