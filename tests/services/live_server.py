"""A real server process, `visrag serve`, on a free port: started, killed, ended, and started again on its index."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import psutil
from brokers import free_port, tail, wait_until
from services import ROOT, VISRAG, lives

COLLECTION = "index"
START = 60.0  # seconds for a server to answer
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class LiveServer:
    """A server of one index, whose collection is called "index". A context manager: all that it started ends.

    ``folder``: for its log, its keys, its pictures and its temporary files. ``options``: of `visrag serve`. It is not
    started until ``start``.
    """

    def __init__(self, index: Path, folder: Path, *options: str) -> None:
        self.index, self.port = index, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api = f"{self.url}/v1/collections/{COLLECTION}"
        self.log, self.temp = folder / "server.log", folder / "temp"
        self.orphans: list[psutil.Process] = []
        self._process: subprocess.Popen[bytes] | None = None
        places = ("--port", str(self.port), "--keys", str(folder / "keys.json"), "--cache", str(folder / "pages"))
        self._command = [*VISRAG, "serve", "--index", f"{COLLECTION}={index}", *places, *options]
        self._environment = {
            name: value for name, value in os.environ.items()
            if not name.startswith("VISRAG_") and name.lower() not in PROXIES
        } | {"HF_HUB_OFFLINE": "1", "TMPDIR": str(self.temp)}  # fmt: skip
        self.temp.mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running():
            self.kill()
        for process in self.orphans:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._environment, cwd=ROOT,
            )  # fmt: skip
        wait_until(self._answers, START, "the server answers")

    def kill(self) -> list[psutil.Process]:
        """SIGKILL to it alone: the processes that it leaves, which are to end themselves."""
        return self._end(signal.SIGKILL, 10)

    def terminate(self, seconds: float) -> float:
        """SIGTERM: how many seconds it took to end. Raises TimeoutExpired."""
        begun = time.monotonic()
        self._end(signal.SIGTERM, seconds)
        return time.monotonic() - begun

    def descendants(self) -> list[psutil.Process]:
        """What it, and what that, has started."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def child(self) -> psutil.Process:
        """The process that does the work of its queue."""
        found = [child for child in psutil.Process(self.pid).children() if "visrag.alone" in " ".join(child.cmdline())]
        assert len(found) == 1
        return found[0]

    def _answers(self) -> bool:
        if not self.running():
            raise RuntimeError(f"the server has ended:\n{tail(self.log)}")
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/v1/ready", trust_env=False).status_code == 200
        return False

    def _end(self, number: signal.Signals, seconds: float) -> list[psutil.Process]:
        assert self._process is not None
        left = self.descendants()
        self.orphans += left
        self._process.send_signal(number)
        self._process.wait(seconds)
        return left


def all_ended(processes: list[psutil.Process], seconds: float) -> None:
    """Wait until these have ended by themselves. Raises TimeoutError."""
    wait_until(lambda: not any(map(lives, processes)), seconds, "its child processes have ended")
