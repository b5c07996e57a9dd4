"""visrag: find the page that answers a question, and show where on the page the answer stands."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    AccessError,
    BrokerError,
    DocumentError,
    EncoderError,
    IndexMismatch,
    LimitError,
    MissingExtra,
    NotFound,
    ServerError,
    StoreError,
    UsageError,
    VisragError,
)
from .settings import IngestSettings

if TYPE_CHECKING:
    from .client import Client
    from .hits import Hit
    from .index import Index
    from .queue import Queue

__version__ = "0.1.0"
__all__ = [
    "AccessError",
    "BrokerError",
    "Client",
    "DocumentError",
    "EncoderError",
    "Hit",
    "Index",
    "IndexMismatch",
    "IngestSettings",
    "LimitError",
    "MissingExtra",
    "NotFound",
    "Queue",
    "ServerError",
    "StoreError",
    "UsageError",
    "VisragError",
]


_MODULES = {"Client": "client", "Hit": "hits", "Index": "index", "Queue": "queue"}  # imported when first used


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
