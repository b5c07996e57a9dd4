"""The application: routes, guard, and the page's files."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from .. import __version__
from ..errors import UsageError
from . import asking, documents, events, judging, pages, sessions
from .access import Doors, Guard
from .depends import State
from .keys import KeyFile
from .limits import protocol
from .problems import MEDIA_TYPE, Problem, install
from .served import Served
from .settings import ServerSettings

STATIC = Path(__file__).with_name("static")
SWEEP = 60.0  # seconds between two looks for uploads that nobody needs
HEADER_BYTES = 32_768  # of a request's head

# What any route may answer; one that cannot happen is no harm to a client that knows the form of them all.
PROBLEMS = (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 501, 502, 503)

log = logging.getLogger("visrag")


class Fresh(StaticFiles):
    """Files that a browser asks for again each time, and gets if they have changed."""

    def file_response(self, *arguments: Any, **named: Any) -> Any:
        response = super().file_response(*arguments, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


def make_app(settings: ServerSettings, served: Served) -> FastAPI:
    """The application over collections that are open."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(held))
        try:
            yield
        finally:
            sweeping.cancel()

    app = FastAPI(
        title="visrag",
        version=__version__,
        summary="The page that answers a question, and where on it the answer stands.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses={status: {"model": Problem} for status in PROBLEMS},
    )
    doors = Doors(settings, KeyFile(settings.keys))
    held = app.state.visrag = State(settings, served, doors)
    install(app)
    for part in (sessions, documents, asking, pages, judging, events):
        app.include_router(part.router)
    app.mount("/static", Fresh(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    _describe(app)
    app.add_middleware(Guard, settings=settings, doors=doors)
    return app


def serve(settings: ServerSettings) -> None:
    """Run a server until it is told to end. Raises UsageError, StoreError, IndexMismatch, MissingExtra."""
    if not settings.local and not KeyFile(settings.keys).list():
        cure = "make one (visrag keys create --role admin), or bind to 127.0.0.1"
        raise UsageError(f"{settings.host} can be reached from other machines, and there are no keys: {cure}")
    if settings.broker and settings.ingest and len(settings.collections) > 1:
        cure = "serve one collection, serve them without --broker, or with --no-ingest"
        raise UsageError(f"a broker's workers work for one index: {cure}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again when it has ended
    with Served(settings) as served:
        uvicorn.run(
            make_app(settings, served),
            host=settings.host,
            port=settings.port,
            http=protocol(settings.header_seconds, settings.connections),
            ws="none",
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=5,
            server_header=False,
            proxy_headers=False,
            access_log=False,
            log_level="warning",
        )


def _describe(app: FastAPI) -> None:
    """Let the OpenAPI document say that errors are problems, and how one signs in."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        made = app.openapi_schema is None
        schema = plain()
        if made:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{}, {"key": []}]
            for path in schema["paths"].values():
                for operation in path.values():
                    for status, answer in operation["responses"].items():
                        if int(status) >= 400:
                            answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        return schema

    app.openapi = described  # type: ignore[method-assign]


async def _sweep(held: State) -> None:
    """Delete what uploads left, again and again."""
    while True:
        for collection in held.served.collections.values():
            try:
                await held.work.run(collection.sweep)
            except Exception as error:  # of the store or the disk: the next time, perhaps
                log.warning("uploads of %s: %s", collection.name, error)
        await asyncio.sleep(SWEEP)
