"""Routes: who one is, what there is, and whether the server is well."""

from __future__ import annotations

import logging
from functools import partial

from fastapi import APIRouter, Request, Response

from ..errors import AccessError, VisragError
from ..records import Load
from . import metrics
from .access import COOKIE, Caller
from .depends import Held, State, Who
from .problems import Refusal
from .schemas import CollectionInfo, Collections, Health, Limits, Session, SignIn

router = APIRouter(tags=["server"])
log = logging.getLogger("visrag")


@router.get("/v1/health")
async def health() -> Health:
    """Whether the process answers."""
    return Health(status="ok")


@router.get("/v1/ready")
async def ready(held: Held) -> Health:
    """Whether every collection answers."""

    def ask() -> None:
        for collection in held.served.collections.values():
            try:
                collection.store.settings()
            except VisragError as error:  # says where the index is, which is not everybody's to know
                log.error("%s is not ready: %s", collection.name, error)
                raise Refusal(503, "not every collection answers: the server's log says why", "store") from error

    await held.work.run(ask)
    return Health(status="ready")


@router.get("/v1/session")
async def session(held: Held, caller: Who) -> Session:
    """Who one is, and what one may."""
    return await _session(held, caller)


@router.post("/v1/session")
async def sign_in(given: SignIn, request: Request, response: Response, held: Held) -> Session:
    """Sign in with a key: the page's requests then bring it in a cookie that no script can read."""
    address = request.client.host if request.client else ""
    caller = held.doors.caller(given.key, address)
    if caller is None:
        raise Refusal(401, "this key is not one of this server's", "access", {"WWW-Authenticate": "Bearer"})
    if held.doors.open:  # whatever it is, it is no key
        return await _session(held, caller)
    secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
    response.set_cookie(COOKIE, given.key, httponly=True, samesite="strict", secure=secure)
    return await _session(held, caller)


@router.delete("/v1/session", status_code=204)
async def sign_out(response: Response) -> None:
    """Forget the key."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


@router.get("/v1/collections")
async def collections(held: Held, caller: Who) -> Collections:
    """The collections that this caller sees."""
    return Collections(collections=await held.work.run(partial(_collections, held, caller)))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def prometheus(held: Held, caller: Who) -> Response:
    """What Prometheus asks for; with keys, an admin's of all collections."""
    if not caller.may("admin") or caller.collections is not None:
        raise AccessError("this needs an admin's key that sees all collections")

    def gather() -> bytes:
        for collection in held.served.collections.values():
            states: dict[str, int] = dict.fromkeys(("queued", "working", "indexed", "partial", "failed"), 0)
            for document in collection.documents():
                states[document.state] += 1
            load: dict[str, Load] = {str(step): found for step, found in collection.store.load().items()}
            metrics.observe_collection(collection.name, states, load)
        return metrics.text()

    return Response(await held.work.run(gather), media_type=metrics.CONTENT_TYPE)


async def _session(held: State, caller: Caller) -> Session:
    return Session(
        access="open" if held.doors.open else "keys",
        name=caller.name,
        role=caller.role,
        collections=await held.work.run(partial(_collections, held, caller)),
        limits=Limits(k=held.settings.hits, question=held.settings.question, upload_bytes=held.settings.upload_bytes),
    )


def _collections(held: State, caller: Caller) -> list[CollectionInfo]:
    writes = caller.may("writer")
    return [found.info(writes) for name, found in held.served.collections.items() if caller.sees(name)]
