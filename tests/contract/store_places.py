"""Where the stores of the contract tests lie."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

SERVER = os.environ.get("VISRAG_TEST_QDRANT_URL", "")  # as qdrant://127.0.0.1:6333; with ?grpc=1 through gRPC
NO_SERVER = "no Qdrant server: set VISRAG_TEST_QDRANT_URL"


def place_of(store: str, folder: Path) -> str | Path:
    """A place for a new index of a store: "local", "qdrant" (its local mode) or "server"."""
    if store == "local":
        return folder / "index"
    if store == "qdrant":
        return f"qdrant://{folder}/qdrant/pages"
    server, _, options = SERVER.rstrip("/").partition("?")
    return f"{server}/test-{secrets.token_hex(8)}?{options}{'&' if options else ''}files={folder}/files"


def drop_collections(url: str) -> None:
    """Delete what a test made on the server."""
    from visrag.store.qdrant_address import Address
    from visrag.store.qdrant_connection import Connection

    connection = Connection(Address.parse(url))
    for name in (connection.address.collection, connection.address.collection + ".meta"):
        connection.call("delete_collection", collection_name=name)
    connection.close()
