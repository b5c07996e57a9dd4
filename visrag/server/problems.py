"""Errors → answers: one table, and RFC 9457's form (application/problem+json)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from ..errors import (
    AccessError,
    BrokerError,
    Damaged,
    DocumentError,
    EncoderError,
    FileChanged,
    IndexMismatch,
    LimitError,
    MissingExtra,
    NotFound,
    NotWritten,
    PageRefused,
    Reason,
    ServerError,
    StoreError,
    UsageError,
    VisragError,
    code_of,
)

MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[type[VisragError], int] = {
    UsageError: 400,
    AccessError: 403,
    NotFound: 404,
    FileChanged: 409,
    NotWritten: 409,
    DocumentError: 422,
    LimitError: 429,
    MissingExtra: 501,
    ServerError: 502,
    BrokerError: 503,
    EncoderError: 503,
    IndexMismatch: 503,
    Damaged: 503,
    PageRefused: 503,
    StoreError: 503,
}
REASONS: Mapping[Reason, int] = {Reason.UNSUPPORTED: 415, Reason.CORRUPT: 415, Reason.TOO_LARGE: 413}

LONGEST = 2000  # characters of a detail: it may quote what was sent
SENTENCES = 5  # of what is wrong with a request

log = logging.getLogger("visrag")


class Problem(BaseModel):
    """What went wrong, and the cure. ``code`` names the error of the Python package."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    document: str | None = None
    page: int | None = None
    reason: str | None = None


class Refusal(HTTPException):
    """Raised where a request is refused for what HTTP says, and no VisragError fits."""

    def __init__(self, status: int, detail: str, code: str = "usage", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.code = code


def too_large(limit: int) -> Refusal:
    """For a body of more bytes than the limit."""
    why = f"the request is larger than this server takes ({limit >> 20} MiB): split it, or raise the server's limit"
    return Refusal(413, why, "limit")


def problem(
    status: int, detail: str, code: str, headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    """The answer to a request that failed."""
    title = HTTPStatus(status).phrase
    detail = detail[:LONGEST].encode("utf-8", "replace").decode()  # half of a pair of surrogates is no UTF-8
    body = {"type": f"urn:visrag:problem:{code}", "title": title, "status": status, "detail": detail, "code": code}
    return JSONResponse({**body, **members}, status, dict(headers or {}), MEDIA_TYPE)


def of_error(error: Exception) -> JSONResponse:
    """The answer for what was raised."""
    if isinstance(error, Refusal):
        return problem(error.status_code, error.detail, error.code, error.headers)
    if isinstance(error, VisragError):
        return _of_visrag(error)
    if isinstance(error, RequestValidationError):
        return problem(422, "; ".join(_sentence(item) for item in error.errors()[:SENTENCES]), "usage")
    if isinstance(error, ClientDisconnect):  # nobody hears it
        return problem(400, "the request ends before its body does", "usage")
    if isinstance(error, HTTPException):
        code = "not_found" if error.status_code == 404 else "usage"
        return problem(error.status_code, str(error.detail), code, error.headers)
    log.error("a request failed", exc_info=error)
    return problem(500, "the server failed: its log says why", "server")


def install(app: FastAPI) -> None:
    """Let the app answer every error by ``of_error``."""

    async def answer(_: Request, error: Exception) -> Response:
        return of_error(error)

    for kind in (VisragError, Refusal, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, answer)


def _of_visrag(error: VisragError) -> JSONResponse:
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    members: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if isinstance(error, DocumentError):
        status = REASONS.get(error.reason, status)
        members = {"document": error.document, "page": error.page, "reason": str(error.reason)}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, round(getattr(error, "retry_after", None) or 1)))
    detail = str(error)
    if status >= 500:
        log.error("%s", error)
    if isinstance(error, StoreError):  # its message says where the index lies
        detail = "the index cannot be used now: the server's log says why"
    return problem(status, detail, code_of(error), headers, **members)


def _sentence(item: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"] if part not in ("body", "query", "path"))
    return f"{where}: {item['msg']}" if where else str(item["msg"])
