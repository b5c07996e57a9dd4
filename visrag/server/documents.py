"""Routes: bringing documents in, listing, removing, trying again, and their files."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool
from starlette.responses import FileResponse

from ..errors import AccessError, NotFound, UsageError
from ..ids import document_id
from ..kinds import SUFFIXES, media_type
from ..records import Order
from ..settings import IngestSettings
from ..sources import find_sources
from ..steps import options_of
from ..store.remote import is_url, local_path
from ..uploads import upload_order
from .depends import DocumentName, Held, Readable, Who, Writable
from .events import watch_of
from .problems import Refusal
from .schemas import (
    OPENAPI_UPLOAD,
    Changes,
    DocumentInfo,
    Documents,
    Failures,
    FromUri,
    NamedFailure,
    Options,
    Queued,
    State,
)
from .served import Collection
from .uploading import Form, document_name, receive

router = APIRouter(prefix="/v1/collections/{collection}", tags=["documents"])

INLINE = ("application/pdf", "image/png", "image/jpeg", "image/webp")  # what a browser shows and does not run

_TRICKS = ("%", "\\", "::")  # that may make a URL mean another place than it says


@router.post("/documents", status_code=202, openapi_extra=OPENAPI_UPLOAD)
async def upload(request: Request, response: Response, collection: Writable, held: Held, caller: Who) -> DocumentInfo:
    """Bring in a document. When this is answered it is on the disk and in the queue; its events say how far it is.

    One of the same name is replaced when the new one is done."""
    async with held.uploads.one(caller.id), contextmanager_in_threadpool(collection.uploads.part()) as part:
        form = await receive(request, part)
        info = await held.work.run(partial(_keep, collection, part, form))
    watch_of(held, collection).expect([info])
    response.headers["Location"] = f"/v1/collections/{quote(collection.name)}/documents/{info.id}"
    return info


@router.post("/documents/from-uri", status_code=202)
async def from_uri(given: FromUri, collection: Writable, held: Held) -> Queued:
    """Bring in the documents at a path or URL, which must lie under one of the roots that the server was given."""
    uri = _under_roots(given.uri, held.settings.roots)
    options = options_of(_settings(given.options))

    def enqueue() -> list[DocumentInfo]:
        orders = []
        for source in find_sources([uri]):
            with suppress(AccessError, UsageError):  # a link in a folder that leads out of it; no name for a document
                where = _under_roots(source.uri, held.settings.roots)
                orders.append(Order(document_name(source.name), where, options, given.tags))
        if not orders:
            raise _elsewhere(given.uri)
        return collection.enqueue(orders)

    queued = await held.work.run(enqueue)
    watch_of(held, collection).expect(queued)
    return Queued(documents=queued)


@router.get("/documents")
async def documents(
    collection: Readable,
    held: Held,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    state: State | None = None,
) -> Documents:
    """The documents, by name; those in the queue, too."""
    found = await held.work.run(collection.documents)
    chosen = [document for document in found if state is None or document.state == state]
    return Documents(total=len(chosen), documents=chosen[offset : offset + limit])


@router.get("/documents/{id}")
async def document(name: DocumentName, collection: Readable, held: Held) -> DocumentInfo:
    """A document, and all that failed of it."""
    return await held.work.run(partial(collection.document, name))


@router.delete("/documents/{id}", status_code=204)
async def remove(name: DocumentName, collection: Writable, held: Held) -> None:
    """Remove a document from the index and the queue. Verdicts on its pages stay."""
    await held.work.run(partial(collection.remove, name))
    watch_of(held, collection).tell(Changes(documents=[], removed=[document_id(name)]))


@router.post("/documents/{id}/retry", status_code=202)
async def retry(name: DocumentName, collection: Writable, held: Held) -> DocumentInfo:
    """Read a document once more of which something failed."""

    def act() -> DocumentInfo:
        info = collection.document(name)
        if info.state not in ("partial", "failed"):
            raise Refusal(409, f"{name} is {info.state}: nothing of it has failed")
        return collection.retry(name)

    info = await held.work.run(act)
    watch_of(held, collection).expect([info])
    return info


@router.get("/documents/{id}/original", response_class=FileResponse)
async def original(name: DocumentName, collection: Readable, held: Held) -> FileResponse:
    """A document's file. What a browser might run comes as a download."""

    def find() -> tuple[str, str]:
        found = collection.index.document(name)
        try:
            return str(collection.store.original(name)), found.media_type
        except NotFound:
            raise NotFound(f"the file of {name} is not kept, or has gone from where it was") from None

    path, kind = await held.work.run(find)
    inline = kind in INLINE
    return FileResponse(
        path,
        media_type=kind if inline else "application/octet-stream",
        filename=PurePosixPath(name).name,
        content_disposition_type="inline" if inline else "attachment",
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            "Cache-Control": "private, no-cache",
        },
    )


@router.get("/failures")
async def failures(collection: Readable, held: Held) -> Failures:
    """The documents and pages that are not in the index, and why."""
    found = await held.work.run(collection.store.failures)
    return Failures(
        failures=[
            NamedFailure(
                document=f.document, id=document_id(f.document), page=f.page, reason=str(f.reason), message=f.message
            )
            for f in found
        ]
    )


def _keep(collection: Collection, part: Path, form: Form) -> DocumentInfo:
    """Put an upload into the queue. Raises DocumentError for what is no document."""
    suffix = PurePosixPath(form.name).suffix.lower()
    named = part.with_suffix(suffix if suffix in SUFFIXES else ".upload")  # kinds of text are told apart by their names
    part.rename(named)
    try:
        media_type(named, form.name)
        uri = collection.uploads.keep(named, form.name)
    finally:
        named.unlink(missing_ok=True)
    return collection.enqueue([upload_order(form.name, uri, _settings(form.options), form.tags)])[0]


def _settings(options: Options) -> IngestSettings:
    return IngestSettings(**options.model_dump())


def _elsewhere(uri: str) -> AccessError:
    return AccessError(f"{uri}: is no document under the folders and URLs that this server may read (--root)")


def _under_roots(uri: str, roots: tuple[str, ...]) -> str:
    """A URI as it is to be opened. Raises AccessError where it does not lie under one of the roots."""
    refused = _elsewhere(uri)
    if is_url(uri):
        inside = any(uri == root or uri.startswith(f"{root.rstrip('/')}/") for root in roots if is_url(root))
        if not inside or not uri.isprintable() or ".." in uri.split("/") or any(sign in uri for sign in _TRICKS):
            raise refused
        return uri
    try:
        path = local_path(uri).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # of a null byte, a long name, links in a circle
        raise refused from error
    if not any(path.is_relative_to(local_path(root).resolve()) for root in roots if not is_url(root)):
        raise refused
    if path.name.startswith(".") or (os.path.isfile(path) and path.suffix.lower() not in SUFFIXES):
        raise refused
    return str(path)
