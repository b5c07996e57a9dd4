"""A real redis-server in a folder of its own, on a free port, and what waiting for servers takes."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import redis


def free_port() -> int:
    """A port of 127.0.0.1 that no client is given by chance: one that connects to its own port would get itself."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(max(1025, lowest - 15_000), lowest)
        with closing(socket.socket()) as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.1) -> Any:
    """What the condition returns as soon as that is true. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(every)
    return found


def tail(path: Path, count: int = 60) -> str:
    """The end of a log, without the sweeps, which are many."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join([line for line in lines if "Task visrag.sweep[" not in line][-count:])


class Redis:
    """A redis-server that keeps its append-only file, as in production."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder / "redis.log"
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    def start(self) -> None:
        options = {
            "port": self.port, "bind": "127.0.0.1", "dir": self.folder, "appendonly": "yes",
            "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction", "logfile": self.log,
        }  # fmt: skip
        command = ["redis-server", *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self._answers, 30, f"redis answers: {tail(self.log)}")

    def stop(self, kill: bool = False) -> None:
        """End the server: by SIGTERM, after which nothing is lost, or by SIGKILL."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._process.wait(30)
            self._process = None

    def flush(self) -> None:
        with self._client() as client:
            client.flushall()

    def used_memory(self) -> int:
        """In bytes."""
        with self._client() as client:
            return int(client.info("memory")["used_memory"])

    def messages(self) -> dict[str, int]:
        """What lies in the broker, by key: messages that wait, and those that a worker got and did not acknowledge."""
        with self._client() as client:
            sizes = {}
            for key in client.scan_iter():
                name, kind = key.decode(), client.type(key)
                if kind == b"list" and not name.endswith(".pidbox"):
                    sizes[name] = client.llen(key)
                elif kind == b"hash" and name == "unacked":
                    sizes[name] = client.hlen(key)
            return sizes

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=10)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"redis-server ended: {tail(self.log)}")
        with suppress(redis.ConnectionError, redis.exceptions.BusyLoadingError), self._client() as client:
            return bool(client.ping())
        return False
