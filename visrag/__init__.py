"""visrag: find the page that answers a question, and show where on the page the answer stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    BrokerError,
    DocumentError,
    EncoderError,
    IndexMismatch,
    MissingExtra,
    NotFound,
    StoreError,
    UsageError,
    VisragError,
)
from .settings import IngestSettings

if TYPE_CHECKING:
    from .index import Hit, Index
    from .queue import Queue

__version__ = "0.1.0"
__all__ = [
    "BrokerError",
    "DocumentError",
    "EncoderError",
    "Hit",
    "Index",
    "IndexMismatch",
    "IngestSettings",
    "MissingExtra",
    "NotFound",
    "Queue",
    "StoreError",
    "UsageError",
    "VisragError",
]


def __getattr__(name: str) -> Any:
    if name in ("Index", "Hit"):  # imported when first used: they need numpy
        from . import index

        return getattr(index, name)
    if name == "Queue":
        from . import queue

        return queue.Queue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
