"""Calls to Qdrant, made again where it is worth it. The stores of a process share one client of local mode."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from ..blas import one_blas_thread
from ..errors import StoreError
from .qdrant_address import MEMORY, Address

OLDEST = (1, 16)  # the server's version: conditional updates
TIMEOUT = 60  # seconds for one request
PATIENCE = 30.0  # seconds for which a call that failed is made again: a server restarts in less
FIRST_PATIENCE = 2.0  # and the first call of all: a wrong address should be told soon
SCROLL = 1000  # points a request
FACETS = 1_000_000  # different values of a field

_TEMPORARY = (408, 429, 500, 502, 503, 504)
_TEMPORARY_GRPC = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")


@dataclass(slots=True)
class _Shared:
    """The one client of a folder in local mode, which all stores of this process share. It is not thread-safe."""

    client: QdrantClient
    lock: threading.RLock
    scratch: tempfile.TemporaryDirectory[str] | None
    users: int = 0


_shared: dict[str, _Shared] = {}
_opening = threading.Lock()


class Connection:
    """Calls to the Qdrant that an address names. Thread-safe.

    ``first``: whether nothing else in this process has the folder of local mode open, and so nothing at all.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.first = False
        self._process = os.getpid()
        self._closed = False
        self._patience = FIRST_PATIENCE
        self._local: _Shared | None = None
        if address.local:
            self._local = self._share()
            self._client = self._local.client
        else:
            self._client = self._connect()

    def close(self) -> None:
        """Close the client; in local mode, when no other store uses it."""
        if self._closed:
            return
        self._closed = True
        if self._local is None:
            self._client.close()
            return
        with _opening:
            shared, self._local = self._local, None
            shared.users -= 1
            if not shared.users:
                del _shared[self.address.folder]
                with shared.lock:
                    shared.client.close()
                if shared.scratch is not None:
                    shared.scratch.cleanup()

    def default_files(self) -> str:
        """Where the files of an index lie if nobody said."""
        name = self.address.collection
        if self._local is not None and self._local.scratch is not None:
            return str(Path(self._local.scratch.name, name))
        if self.address.local:
            return str(Path(self.address.folder, f"{name}.files"))
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        return str(data / "visrag" / f"{self.address.host}-{name}")

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the client; where it cannot be reached or has no time, again. So whatever is asked for must
        be such that doing it twice does no harm. Raises StoreError."""
        if os.getpid() != self._process:
            raise StoreError(f"{self.address.url} was opened before this process was forked: open it again here")
        if self._closed:
            raise StoreError(f"{self.address.url} was closed: open it again")
        if self._local is not None:
            return self._call_local(self._local, method, arguments)
        begun, delay = time.monotonic(), 0.1
        while True:
            try:
                answer = getattr(self._client, method)(**arguments)
                self._patience = PATIENCE
                return answer
            except (ResponseHandlingException, UnexpectedResponse, ResourceExhaustedResponse, grpc.RpcError) as error:
                if not _is_temporary(error) or time.monotonic() - begun + delay > self._patience:
                    raise StoreError(self._explain(method, error)) from error
            except (ValueError, httpx.HTTPError) as error:
                raise StoreError(self._explain(method, error)) from error
            time.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(5.0, delay * 2)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """In local mode no other call is made in between; of a server's other clients nothing can be said."""
        with nullcontext() if self._local is None else self._local.lock:
            yield

    def scroll(self, collection: str, where: models.Filter, payload: bool | list[str]) -> Iterator[models.Record]:
        """All points that a filter lets through."""
        offset = None
        while True:
            points, offset = self.call(
                "scroll",
                collection_name=collection,
                scroll_filter=where,
                limit=SCROLL,
                offset=offset,
                with_payload=payload,
                with_vectors=False,
            )
            yield from points
            if offset is None:
                return

    def count(self, collection: str, where: models.Filter) -> int:
        return int(self.call("count", collection_name=collection, count_filter=where, exact=True).count)

    def counts(self, collection: str, key: str, where: models.Filter) -> dict[int, int]:
        """How many points there are by a payload's integer."""
        found = self.call(
            "facet", collection_name=collection, key=key, facet_filter=where, limit=FACETS, exact=True, timeout=TIMEOUT
        )
        return {hit.value: hit.count for hit in found.hits}

    def make(
        self, collection: str, shards: int, indexes: Mapping[str, models.PayloadSchemaType], **config: Any
    ) -> None:
        """Make a collection and the indexes of its payload, if they are not there."""
        if not self.call("collection_exists", collection_name=collection):
            try:
                self.call(
                    "create_collection",
                    collection_name=collection,
                    shard_number=shards,
                    replication_factor=self.address.replicas,
                    write_consistency_factor=self.address.replicas // 2 + 1,
                    on_disk_payload=True,
                    timeout=TIMEOUT,
                    **config,
                )
            except StoreError:
                if not self.call("collection_exists", collection_name=collection):  # made by another process meanwhile
                    raise
        self.describe(collection, indexes)

    def describe(self, collection: str, indexes: Mapping[str, models.PayloadSchemaType]) -> models.CollectionParams:
        """A collection's parameters. Indexes of its payload that are not there are made: whoever made the collection
        may have died since, or be about to make them."""
        found = self.call("get_collection", collection_name=collection)
        if not self.address.local:  # local mode has none, and warns
            for name in sorted(indexes.keys() - found.payload_schema.keys()):
                self.call(
                    "create_payload_index", collection_name=collection, field_name=name, field_schema=indexes[name]
                )
        params: models.CollectionParams = found.config.params
        return params

    def check_version(self) -> None:
        """Reach the server. Raises StoreError where it cannot be reached, or is too old."""
        if self.address.local:
            return
        version = str(self.call("info").version)
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers < OLDEST:
            raise StoreError(f"{self.address.url}: its Qdrant is {version}; upgrade it to 1.16 or newer")

    def _call_local(self, shared: _Shared, method: str, arguments: dict[str, Any]) -> Any:
        with shared.lock, one_blas_thread():  # its products are small ones: a page each
            try:
                return getattr(shared.client, method)(**arguments)
            except (ValueError, KeyError, RuntimeError, OSError, sqlite3.Error) as error:
                raise StoreError(f"{self.address.url}: {method} failed in Qdrant's local mode: {error}") from error

    def _connect(self) -> QdrantClient:
        address = self.address
        return QdrantClient(
            host=address.host,
            port=address.port,
            grpc_port=address.port + 1,
            prefer_grpc=address.grpc,
            https=address.https,
            api_key=os.environ.get(address.key_name) or None,
            timeout=TIMEOUT,
            check_compatibility=False,
        )

    def _share(self) -> _Shared:
        folder = self.address.folder
        with _opening:
            if folder not in _shared:
                self.first = True
                scratch = tempfile.TemporaryDirectory(prefix="visrag-") if folder == MEMORY else None
                where: dict[str, Any] = {"location": MEMORY} if folder == MEMORY else {"path": folder}
                try:
                    client = QdrantClient(**where, force_disable_check_same_thread=True)
                except (OSError, ValueError, sqlite3.Error, RuntimeError) as error:
                    cure = (
                        "local mode serves one process at a time, a server many" if "already" in str(error) else error
                    )
                    raise StoreError(f"{self.address.url}: cannot be opened: {cure}") from error
                _shared[folder] = _Shared(client, threading.RLock(), scratch)
            _shared[folder].users += 1
            return _shared[folder]

    def _explain(self, method: str, error: Exception) -> str:
        url = self.address.url
        status = error.status_code if isinstance(error, UnexpectedResponse) else None
        code = _code(error)
        if status in (401, 403) or code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return f"{url}: refused: set the API key in {self.address.key_name}"
        if _is_temporary(error):
            cause = error.source if isinstance(error, ResponseHandlingException) else error
            told = " ".join(str(cause).split()) or type(cause).__name__
            return f"{url}: cannot be reached, or has no time ({told}): check the address, and that Qdrant runs there"
        return f"{url}: {method} failed: {' '.join(str(error).split())}"


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _TEMPORARY
    return isinstance(error, ResourceExhaustedResponse) or _code(error) in _TEMPORARY_GRPC


def _code(error: Exception) -> str:
    """The name of a gRPC status."""
    return str(error.code().name) if isinstance(error, grpc.RpcError) and hasattr(error, "code") else ""
