"""Opening the store that an index lies in."""

from __future__ import annotations

from pathlib import Path

from . import Store
from .local import LocalStore


def open_store(where: str | Path, create: bool = False) -> Store:
    """The store of an index: a folder."""
    return LocalStore.open(where, create)
