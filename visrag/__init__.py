"""visrag: find the page that answers a question, and show where on the page the answer stands."""

from __future__ import annotations

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
    from .index import Hit, Index
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


def __getattr__(name: str) -> Any:
    if name in ("Index", "Hit"):  # imported when first used: they need numpy
        from . import index

        return getattr(index, name)
    if name == "Client":
        from . import client

        return client.Client
    if name == "Queue":
        from . import queue

        return queue.Queue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
