"""Routes: how far the documents in the queue are, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from .depends import DocumentName, Held, Readable, State, Who
from .schemas import Changes, DocumentInfo
from .served import Collection
from .watching import Watch

router = APIRouter(prefix="/v1/collections/{collection}", tags=["events"])


class EventStream(StreamingResponse):
    media_type = "text/event-stream"


@router.get("/events", response_class=EventStream)
async def events(collection: Readable, held: Held, caller: Who) -> EventStream:
    """The documents in the queue, then each change of a document that is or was in it. Ends when the key is revoked."""
    watch = watch_of(held, collection)

    async def stream() -> AsyncIterator[str]:
        async with held.listeners.one(caller.id):
            async for changes in watch.listen(held.work):
                if not held.doors.knows(caller):
                    return
                yield _event(changes)

    return await _begun(stream())


@router.get("/documents/{id}/events", response_class=EventStream)
async def document_events(name: DocumentName, collection: Readable, held: Held, caller: Who) -> EventStream:
    """As the events of the collection, of one document; they end when it has left the queue."""
    info = await held.work.run(partial(collection.document, name))
    watch = watch_of(held, collection)

    async def stream() -> AsyncIterator[str]:
        if info.state not in ("queued", "working"):
            yield _event(Changes(documents=[info], removed=[]))
            return
        async with held.listeners.one(caller.id):
            async for changes in watch.listen(held.work):
                if not held.doors.knows(caller):
                    return
                chosen = None if changes is None else _of(changes, info)
                if changes is None or (chosen is not None and (chosen.documents or chosen.removed)):
                    yield _event(chosen)
                if name not in watch.queued:
                    last = await held.work.run(partial(watch.ended, [name]))
                    if chosen is None or not (chosen.documents or chosen.removed):
                        removed = [] if last else [info.id]
                        yield _event(Changes(documents=list(last.values()), removed=removed))
                    return

    return await _begun(stream())


def watch_of(held: State, collection: Collection) -> Watch:
    """The watch over a collection's queue, one for all who listen."""
    return held.watches.setdefault(collection.name, Watch(collection))


def _of(changes: Changes, wanted: DocumentInfo) -> Changes:
    """Of changes those of one document."""
    return Changes(
        documents=[info for info in changes.documents if info.id == wanted.id],
        removed=[id for id in changes.removed if id == wanted.id],
    )


async def _begun(stream: AsyncIterator[str]) -> EventStream:
    """A stream whose first event has been made, so that what goes wrong before it is an answer with its status."""
    first = await anext(stream)

    async def whole() -> AsyncIterator[str]:
        yield first
        async for event in stream:
            yield event

    return EventStream(whole(), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


def _event(changes: Changes | None) -> str:
    return ": still here\n\n" if changes is None else f"event: documents\ndata: {changes.model_dump_json()}\n\n"
