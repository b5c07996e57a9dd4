"""Where the stores of the contract tests lie."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = os.environ.get("VISRAG_TEST_QDRANT_URL", "")  # as qdrant://127.0.0.1:6333; with ?grpc=1 through gRPC
NO_SERVER = "no Qdrant server: set VISRAG_TEST_QDRANT_URL"
CORE = Path(__file__).with_name("qdrant_core.py")
START = 60.0  # seconds for the core to come up


def place_of(store: str, folder: Path, url: str = SERVER) -> str | Path:
    """A place for a new index of a store: "local", "qdrant" (its local mode), or on the server or core at a URL."""
    if store == "local":
        return folder / "index"
    if store == "qdrant":
        return f"qdrant://{folder}/qdrant/pages"
    server, _, options = url.rstrip("/").partition("?")
    return f"{server}/test-{secrets.token_hex(8)}?{options}{'&' if options else ''}files={folder}/files"


def drop_collections(url: str) -> None:
    """Delete what a test made on the server."""
    from visrag.store.qdrant_address import Address
    from visrag.store.qdrant_connection import Connection

    connection = Connection(Address.parse(url))
    for name in (connection.address.collection, connection.address.collection + ".meta"):
        connection.call("delete_collection", collection_name=name)
    connection.close()


@contextmanager
def core_server(folder: Path) -> Iterator[str]:
    """The URL of a core (``qdrant_core``) that runs in a new process and keeps what it holds in a folder.

    Raises RuntimeError with its log where it does not come up.
    """
    log = folder / "core.log"
    with log.open("wb") as output:
        command = [sys.executable, str(CORE), "0", str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START
        while not (ready := re.search(r"http(://127\.0\.0\.1:\d+) is ready", log.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{CORE.name} did not come up: {log.read_text()}")
            time.sleep(0.05)
        yield f"qdrant{ready[1]}"
    finally:
        process.kill()
        process.wait()
