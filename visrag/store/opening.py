"""Opening the store that an index lies in."""

from __future__ import annotations

from pathlib import Path

from ..errors import MissingExtra
from . import Store
from .local import LocalStore

QDRANT = "qdrant://"


def open_store(where: str | Path, create: bool = False) -> Store:
    """The store of an index: a folder, or a URL that begins with qdrant:// (see ``qdrant_connection``).

    ``create`` makes one that is not there. Raises UsageError, MissingExtra, StoreError, IndexMismatch.
    """
    if not str(where).startswith(QDRANT):
        return LocalStore.open(where, create)
    try:
        from .qdrant import QdrantStore  # qdrant-client is an extra, and takes a second to import
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("qdrant_client", "grpc", "httpx"):
            raise
        raise MissingExtra(f"an index at {QDRANT}", "qdrant") from error
    return QdrantStore.open(str(where), create)
