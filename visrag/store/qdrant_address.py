"""Where an index on Qdrant lies.

    qdrant://HOST[:PORT]/COLLECTION     a server or a cluster; port 6333
    qdrant:///FOLDER/COLLECTION         qdrant-client's local mode: it lies in /FOLDER, one process at a time
    qdrant://:memory:/COLLECTION        the same, in memory

and, after "?", joined by "&":

    files=URL          where originals, page images and parcels lie: a path or an fsspec URL (percent-encoded)
    api_key_env=NAME   the environment variable that holds the API key, in place of VISRAG_QDRANT_API_KEY
    https=1            TLS
    grpc=1             gRPC, at the next port, in place of REST: to write a page of 690 vectors is 1.4 MB and 0.06 s of
                       this side's time, in place of 6.9 MB and 0.16 s
    shards=N           of a collection that is made, and
    replicas=N         of each shard
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from ..errors import UsageError

SCHEME = "qdrant://"
MEMORY = ":memory:"

_OPTIONS = ("files", "api_key_env", "https", "grpc", "shards", "replicas")
_NAME = re.compile(r"[^<>:\"/\\|?*\x00-\x1f]{1,200}")


@dataclass(frozen=True, slots=True)
class Address:
    """A URL of an index on Qdrant, taken apart. ``folder``: of local mode, ":memory:" for none; "" for a server."""

    url: str
    collection: str
    host: str = ""
    port: int = 6333
    folder: str = ""
    files: str = ""
    key_name: str = "VISRAG_QDRANT_API_KEY"
    https: bool = False
    grpc: bool = False
    shards: int = 1
    replicas: int = 1

    @property
    def local(self) -> bool:
        return bool(self.folder)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises UsageError."""
        place, _, query = url.removeprefix(SCHEME).partition("?")
        where, slash, collection = place.rstrip("/").rpartition("/")
        collection = unquote(collection)
        if not url.startswith(SCHEME) or not slash or not _NAME.fullmatch(collection):
            raise UsageError(f"{url}: is no index on Qdrant: write qdrant://host:6333/collection")
        if collection.endswith(".meta") or collection in (".", ".."):
            raise UsageError(f"{url}: {collection} is no name for an index: choose another")
        options = _options(url, query)
        if where == MEMORY or where.startswith("/") or not where:
            return cls(url, collection, folder=where or "/", **options)
        host, _, port = where.partition(":") if not where.startswith("[") else where.partition("]:")
        if "@" in where or "/" in where or (port and not port.isdigit()) or int(port or 1) > 65535:
            cure = "write qdrant://host:6333/collection, and keep the API key in VISRAG_QDRANT_API_KEY"
            raise UsageError(f"{SCHEME}…/{collection}: its server's address cannot be read: {cure}")
        return cls(url, collection, host.strip("[]"), int(port or 6333), **options)


def _options(url: str, query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise UsageError(f"{url}: after ? come settings as NAME=VALUE, joined by &: {', '.join(_OPTIONS)}") from None
    for name, value in pairs:
        if name not in _OPTIONS:
            raise UsageError(f"{url.partition('?')[0]}: has no setting {name}; there are {', '.join(_OPTIONS)}")
        if name in ("https", "grpc"):
            found[name] = value.lower() in ("1", "true", "yes")
        elif name in ("shards", "replicas"):
            if not value.isdigit() or not 1 <= int(value) <= 1000:
                raise UsageError(f"{url}: {name}={value} is no number from 1 to 1000")
            found[name] = int(value)
        else:
            found["key_name" if name == "api_key_env" else name] = value
    return found
