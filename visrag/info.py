"""What an index holds, what it takes, and what it is searched with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .maxsim import kernel, threads
from .store import Store
from .store.local import LegUsage, LocalStore


@dataclass(frozen=True, slots=True)
class Info:
    """``visual_tokens``: image tokens of a page, at most, where that was chosen. ``legs``, ``bytes`` (on the disk, by
    what they are for), and the ``kernel`` and ``threads`` with which MaxSim is computed here, are of an index in a
    folder; one on Qdrant has none of them."""

    index: str
    documents: int
    pages: int
    models: dict[str, str]
    visual_tokens: int | None
    legs: list[LegUsage]
    bytes: dict[str, int]
    kernel: str
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """What `visrag info --json` prints. "in_memory": bytes of the bits, which a search of many pages reads all."""
        whole = {
            "bytes_per_page": round(sum(self.bytes.values()) / max(1, self.pages)),
            "in_memory_per_page": round(sum(leg.bits for leg in self.legs) / max(1, self.pages)),
        }
        return asdict(self) | whole


def read_info(store: Store, where: str) -> Info:
    """Raises UsageError for a VISRAG_KERNEL or VISRAG_THREADS that cannot be."""
    documents = store.documents()
    pages = sum(document.indexed for document in documents)
    settings = store.settings()
    made_with = settings.get("models", {}), settings.get("visual_tokens")
    if not isinstance(store, LocalStore):
        return Info(where, len(documents), pages, *made_with, [], {}, "", 0)
    used = store.legs_used(), store.bytes_used()
    return Info(where, len(documents), pages, *made_with, *used, kernel(), threads())
