"""What whoever runs a server may choose."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ..settings import MEMORY, ModelSettings

Role: TypeAlias = Literal["reader", "writer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def cache_folder() -> Path:
    """Where page pictures are kept, unless another folder is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visrag" / "pages"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How an HTTP server behaves.

    ``collections``: an index (a folder or a qdrant:// URL) by its name. ``keys``: the file of keys. ``broker``: a
    Redis URL, where Celery workers ingest; without one a process of the server does. ``roots``: folders and URLs
    from which documents may be taken by URI. ``ingest``: whether documents are taken at all. ``passwords``,
    ``memory``: as of ``visrag.settings.QueueSettings``. ``models``: of the collections, those of new ones included.
    ``cache``: page pictures, ``cache_bytes`` of them. ``hosts``: names by which the server may be called, beside its
    address.

    Limits: ``upload_bytes`` and ``body_bytes`` of a request, ``question`` characters, ``hits`` of an answer,
    ``searches`` at once, and ``waiting`` for one of these; ``rate`` requests a second and caller, ``burst`` of them
    at once; ``connections``; ``listeners``: event streams, ``senders``: uploads at once, of all callers;
    ``header_seconds`` for a request's head, ``body_seconds`` without any byte of its body.
    """

    collections: dict[str, str]
    host: str = "127.0.0.1"
    port: int = 8080
    keys: Path = Path("visrag-keys.json")
    broker: str = field(default="", repr=False)
    roots: tuple[str, ...] = ()
    ingest: bool = True
    passwords: tuple[str, ...] = field(default=(), repr=False)
    memory: int = MEMORY
    models: ModelSettings = field(default_factory=ModelSettings)
    cache: Path = field(default_factory=cache_folder)
    cache_bytes: int = 1 << 30
    hosts: tuple[str, ...] = ()
    upload_bytes: int = 512 << 20
    body_bytes: int = 1 << 20
    question: int = 2000
    hits: int = 100
    searches: int = field(default_factory=lambda: max(2, os.cpu_count() or 1))
    waiting: int = 64
    rate: float = 100.0
    burst: int = 400
    connections: int = 500
    listeners: int = 100
    senders: int = 20
    header_seconds: float = 20.0
    body_seconds: float = 30.0

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK or self.host.startswith("127.")
