"""What routes ask for: the collection, once its caller may use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias, cast

from fastapi import Depends, Path, Request

from ..errors import AccessError, NotFound, UsageError
from ..ids import document_name
from .access import Caller, Doors
from .limits import Places, Turns
from .pictures import Pictures
from .served import Collection, Served
from .settings import Role, ServerSettings
from .watching import Watch


class State:
    """What the application holds for all requests."""

    def __init__(self, settings: ServerSettings, served: Served, doors: Doors) -> None:
        self.settings, self.served, self.doors = settings, served, doors
        self.pictures = Pictures(settings.cache, settings.cache_bytes)
        self.searches = Turns(settings.searches, settings.waiting)
        self.views = Turns(settings.searches, 4 * settings.waiting)  # of a page: quick, or waiting for its picture
        self.large = Turns(1, settings.waiting)  # exports, large pictures: they do not keep others waiting
        self.work = Turns(8, 4 * settings.waiting)  # that waits for the disk
        self.listeners = Places(settings.listeners, "event streams")
        self.uploads = Places(settings.senders, "uploads")
        self.watches: dict[str, Watch] = {}


async def _state(request: Request) -> State:
    return cast(State, request.app.state.visrag)


async def _caller(request: Request) -> Caller:
    return cast(Caller, request.state.caller)


Held: TypeAlias = Annotated[State, Depends(_state)]
Who: TypeAlias = Annotated[Caller, Depends(_caller)]


def _for(role: Role) -> Callable[..., Awaitable[Collection]]:
    async def find(collection: Annotated[str, Path(max_length=200)], held: Held, caller: Who) -> Collection:
        found = held.served.collections.get(collection) if caller.sees(collection) else None
        if found is None:
            raise NotFound(f"there is no collection {collection}, or this key does not see it")
        if not caller.may(role):
            raise AccessError(f"this needs a key of the role {role}; this one is a {caller.role}'s")
        return found

    return find


Readable: TypeAlias = Annotated[Collection, Depends(_for("reader"))]
Writable: TypeAlias = Annotated[Collection, Depends(_for("writer"))]


async def _document(id: Annotated[str, Path(max_length=6000)]) -> str:
    return document_name(id)


DocumentName: TypeAlias = Annotated[str, Depends(_document)]
PageNumber: TypeAlias = Annotated[int, Path(ge=1, le=10**9)]


def checked_question(question: str, held: State) -> str:
    """Raises UsageError."""
    if not question.strip():
        raise UsageError("the question is empty")
    if len(question) > held.settings.question:
        raise UsageError(f"the question is longer than {held.settings.question} characters: shorten it")
    return question
