"""Every error that visrag raises.

    VisragError
    ├── UsageError       an argument or a setting that cannot be used
    ├── MissingExtra     an optional part is not installed
    ├── DocumentError    a document, or one of its pages, could not be read or encoded
    ├── EncoderError     a model could not be loaded, or gave vectors that cannot be used
    ├── NotFound         the index holds no such document or page
    ├── BrokerError      the queue's broker could not be reached
    ├── AccessError      a server wants a key, or refuses this one
    ├── LimitError       a limit of a server was reached
    ├── ServerError      an HTTP server could not be reached, or failed
    └── StoreError       an index could not be opened, read or written
        ├── IndexMismatch    the index was made with another model or a newer version
        ├── Damaged          a file of an index is not as it was written
        ├── PageRefused      a page that cannot be stored
        ├── NotWritten       a document that is not being written any more
        └── FileChanged      a file was changed while it was read

Each message says what was wrong with which file, page or setting, and what to do. ``CODES`` names them over HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class VisragError(Exception):
    """The root. Raised only as one of its subclasses."""


class UsageError(VisragError):
    """Raised when an argument or a setting cannot be used."""


class MissingExtra(VisragError):
    """Raised when a feature needs a package that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs a package that is not installed: pip install 'visrag[{extra}]'")


class Reason(StrEnum):
    """Why a document or a page is not in the index."""

    CORRUPT = "corrupt"  # not readable as what it claims to be
    PASSWORD = "password"  # encrypted, and no password that was given opens it
    TOO_LARGE = "too_large"  # over a limit of size
    TIMEOUT = "timeout"  # took longer than the limit of time
    RENDERER_CRASH = "renderer_crash"  # the rendering process died of it
    ENCODER = "encoder"  # the model could not encode it
    UNSUPPORTED = "unsupported"  # a kind of file that visrag does not read
    MISSING = "missing"  # the file is not there or may not be read


class DocumentError(VisragError):
    """Raised when a document (``page`` is None) or one page of it could not be read or encoded."""

    def __init__(self, document: str, page: int | None, reason: Reason, message: str) -> None:
        where = document if page is None else f"{document}, page {page}"
        super().__init__(f"{where}: {message}")
        self.document = document
        self.page = page
        self.reason = reason
        self.message = message


class EncoderError(VisragError):
    """Raised when a model could not be loaded, or gave vectors that cannot be used."""


class NotFound(VisragError):
    """Raised when the index holds no such document or page."""


class BrokerError(VisragError):
    """Raised when the queue's broker could not be reached."""


class AccessError(VisragError):
    """Raised when a server wants a key, or the key does not allow what was asked for."""


class LimitError(VisragError):
    """Raised when a limit of a server was reached. ``retry_after``: seconds to wait, None where waiting won't help."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerError(VisragError):
    """Raised when an HTTP server could not be reached, failed, or gave what is no answer of visrag's."""


class StoreError(VisragError):
    """Raised when an index could not be opened, read or written."""


class IndexMismatch(StoreError):
    """Raised when an index was made with another model, or by a newer version of visrag."""


class Damaged(StoreError):
    """Raised when a file of an index, or a row of its database, is not as it was written."""


class PageRefused(StoreError):
    """Raised when a page holds what cannot be stored. ``page``: its number."""

    def __init__(self, document: str, page: int, message: str) -> None:
        super().__init__(f"{document}, page {page}: {message}")
        self.page = page
        self.message = message


class NotWritten(StoreError):
    """Raised when a document is written that was committed, abandoned or removed meanwhile."""


class FileChanged(StoreError):
    """Raised when a file was changed while it was read."""


CODES: Mapping[str, type[VisragError]] = {
    "usage": UsageError,
    "missing_extra": MissingExtra,
    "document": DocumentError,
    "encoder": EncoderError,
    "not_found": NotFound,
    "broker": BrokerError,
    "access": AccessError,
    "limit": LimitError,
    "server": ServerError,
    "store": StoreError,
    "index_mismatch": IndexMismatch,
    "damaged": Damaged,
    "page_refused": PageRefused,
    "not_written": NotWritten,
    "file_changed": FileChanged,
}
"""What the errors are called over HTTP (``code`` of a problem)."""


def code_of(error: VisragError) -> str:
    """An error's code: that of the most derived of its classes that has one, "server" for none."""
    names = {kind: code for code, kind in CODES.items()}
    return next((names[kind] for kind in type(error).__mro__ if kind in names), "server")


def error_of(code: str, message: str, members: Mapping[str, Any]) -> VisragError:
    """The error of a code, with its message as it was; ServerError where the code is not known.

    ``members``: of a DocumentError "document", "page" and "reason". Raises KeyError, ValueError where they are wrong.
    """
    kind = CODES.get(code, ServerError)
    if kind is DocumentError:
        document, page, reason = members["document"], members["page"], Reason(members["reason"])
        start = DocumentError(document, page, reason, "")
        return DocumentError(document, page, reason, message.removeprefix(str(start)))
    if kind in (MissingExtra, PageRefused):  # which make up their messages, and this is made
        kind = ServerError
    return kind(message)
