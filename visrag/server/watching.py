"""What changes in a collection's queue, looked at while somebody listens: twice a second, once for all listeners."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import partial

from ..errors import NotFound
from ..ids import document_id
from .limits import Turns
from .schemas import Changes, DocumentInfo
from .served import Collection

BEHIND = 200  # changes that a listener may be behind
LOOK = 0.5  # seconds between two looks
ALIVE = 15.0  # seconds after which it is said that nothing has changed

log = logging.getLogger("visrag")


@dataclass(slots=True)
class Watch:
    """The queue of a collection as it was seen last, and who wants to know of changes."""

    collection: Collection
    listeners: set[asyncio.Queue[Changes]] = field(default_factory=set)
    queued: dict[str, DocumentInfo] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    _expected: dict[str, DocumentInfo] = field(default_factory=dict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def listen(self, work: Turns) -> AsyncIterator[Changes | None]:
        """The documents in the queue, then every change; None where nothing has changed for a while."""
        changes: asyncio.Queue[Changes] = asyncio.Queue(BEHIND)
        await self._look(work)  # what it sees is told of when it has left, however soon
        self.listeners.add(changes)
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run(work))
        try:
            yield Changes(documents=list(self.queued.values()), removed=[])
            while changes in self.listeners:
                try:
                    yield await asyncio.wait_for(changes.get(), ALIVE)
                except TimeoutError:
                    yield None
        finally:
            self.listeners.discard(changes)

    def expect(self, documents: Iterable[DocumentInfo]) -> None:
        """Documents that were put into the queue just now: they are told of even if the next look finds them gone."""
        if self.listeners:
            self._expected.update({info.document: info for info in documents})

    def tell(self, changes: Changes) -> None:
        for listener in list(self.listeners):
            try:
                listener.put_nowait(changes)
            except asyncio.QueueFull:  # it does not read: its stream ends, and begins anew if it comes back
                self.listeners.discard(listener)

    async def _run(self, work: Turns) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if not self.listeners:
                return
            try:
                await self._look(work)
            except Exception as error:  # of the store: the next look, perhaps
                log.warning("events of %s: %s", self.collection.name, error)

    async def _look(self, work: Turns) -> None:
        """Look at the queue, and tell what has changed since the last look."""
        async with self._looking:
            before, self._expected = {**self.queued, **self._expected}, {}
            found = await work.run(self._jobs)
            left = [name for name in before if name not in found]
            ended = await work.run(partial(self.ended, left))
            self.queued = found
        changed = [info for name, info in found.items() if before.get(name) != info]
        removed = [document_id(name) for name in left if name not in ended]
        if changed or left:
            self.tell(Changes(documents=[*changed, *ended.values()], removed=removed))

    def _jobs(self) -> dict[str, DocumentInfo]:
        return {info.document: info for info in self.collection.jobs()}

    def ended(self, names: list[str]) -> dict[str, DocumentInfo]:
        """What has become of documents that left the queue; those that are gone are not in it."""
        found = {}
        for name in names:
            try:
                found[name] = self.collection.document(name)
            except NotFound:
                continue
        return found
