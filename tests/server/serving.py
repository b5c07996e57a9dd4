"""A real server in a process of its own: started on a free port, waited for, ended by its pid."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

READY = 60.0  # seconds that a start may take
END = 15.0  # seconds from SIGTERM to SIGKILL

# As `visrag serve`, with limits that have no option: JSON of ServerSettings, paths as texts.
LIMITED = """
import json, sys
from pathlib import Path
from visrag.server.app import serve
from visrag.server.settings import ServerSettings

if __name__ == "__main__":  # a child process of the server reads this once more
    told = json.loads(sys.argv[1])
    lists = {name: tuple(told[name]) for name in ("roots", "hosts", "passwords") if name in told}
    paths = {name: Path(told[name]) for name in ("keys", "cache")}
    serve(ServerSettings(**{**told, **lists, **paths}))
"""


@dataclass
class Server:
    """A server that runs. ``folder`` has its keys, its cache of pictures and its log."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    collections: tuple[str, ...]
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys(self) -> Path:
        return self.folder / "keys.json"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self, key: str = "", **options: Any) -> httpx.Client:
        """A client of the API, which presents this key; closed with the server."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        options = {"timeout": 60.0, "trust_env": False, **options}
        client = httpx.Client(base_url=self.url, headers=headers, **options)
        self.clients.append(client)
        return client

    def wait(self) -> None:
        """Until it answers. Raises AssertionError, with its log, where it ends before."""
        end = time.monotonic() + READY
        with httpx.Client(trust_env=False) as client:
            while time.monotonic() < end:
                assert self.process.poll() is None, self.log
                try:
                    if client.get(f"{self.url}/v1/ready").is_success:
                        return
                except httpx.TransportError:
                    time.sleep(0.05)
        raise AssertionError(f"not ready within {READY} s: {self.log}")

    def end(self) -> None:
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serving(
    folder: Path,
    collections: Mapping[str, Path | str],
    *options: str | Path,
    limits: Mapping[str, Any] | None = None,
    port: int | None = None,
) -> Iterator[Server]:
    """`visrag serve` over collections (indexes by their names), ready to answer.

    ``folder``: for its keys (keys.json: made before it, there are keys), cache and log. ``options``: of the command.
    ``limits``: fields of ServerSettings, in place of options, for those that the command has no option for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    if limits is None:
        indexes = [part for name, index in collections.items() for part in ("--index", f"{name}={index}")]
        beside = ("--keys", folder / "keys.json", "--cache", folder / "cache", "--port", str(port))
        command = [sys.executable, "-m", "visrag", "serve", *map(str, (*indexes, *options, *beside))]
    else:
        told = {"collections": {name: str(index) for name, index in collections.items()}, "port": port}
        told |= {"keys": str(folder / "keys.json"), "cache": str(folder / "cache"), **limits}
        script = folder / "limited.py"
        script.write_text(LIMITED)
        command = [sys.executable, str(script), json.dumps(told)]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = Server(folder, port, process, tuple(collections))
    try:
        server.wait()
        yield server
    finally:
        server.end()


def finished(client: httpx.Client, collection: str, id: str, seconds: float = 120.0) -> dict[str, Any]:
    """A document as it is once it has left the queue."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = client.get(f"/v1/collections/{collection}/documents/{id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        if found["state"] not in ("queued", "working"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"still in the queue after {seconds} s: {found}")


def upload(client: httpx.Client, collection: str, name: str, data: bytes, **fields: str) -> httpx.Response:
    """Hand a document in under this name."""
    return client.post(
        f"/v1/collections/{collection}/documents",
        files={"file": ("file", data, "application/octet-stream")},
        data={"name": name, **fields},
    )
