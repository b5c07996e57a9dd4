"""Real worker processes and a broker: on free ports, in folders of their own, ended by their process ids."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import psutil
from brokers import Redis, free_port, tail, wait_until

from visrag.records import Job
from visrag.store.local import LocalStore

__all__ = [
    "GRACE", "ROOT", "START", "VISRAG", "WORKERS", "Cluster", "Redis", "Worker", "end_on_sigterm", "free_port", "lives",
    "resume", "tail", "wait_until",
]  # fmt: skip
ROOT = Path(__file__).parents[2]
VISRAG = (sys.executable, "-m", "visrag")
GRACE = 60.0  # seconds from SIGTERM to the end of a worker
START = 120.0  # seconds for a worker to be ready
READY = re.compile(r"\bready\.$", re.MULTILINE)  # celery's line
WORKERS: Mapping[str, tuple[str, ...]] = {
    "render-1": ("ingest", "render", "--processes", "1"),
    "render-2": ("ingest", "render", "--processes", "1"),
    "encode": ("encode",),
    "text": ("text",),
}


def end_on_sigterm() -> None:
    """SIGTERM ends this process as ctrl-C does, so that it takes what it started with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Worker:
    """A `visrag worker` process. ``starts`` counts how often it was started, ``ends`` holds the exit codes."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name, self.command = name, tuple(command)
        self.log = folder / f"{name}.log"
        self.wanted = False  # whether whoever looks after it is to start it when it ends
        self.starts, self.ends = 0, list[int]()
        self.orphans: list[psutil.Process] = []
        self.environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0  # bytes of the log from before the last start
        self._lock = threading.RLock()

    def start(self) -> None:
        with self._lock:
            self._seen = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    env=self.environment, cwd=ROOT, start_new_session=True,
                )  # fmt: skip
            self.wanted = True
            self.starts += 1

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def running(self) -> bool:
        with self._lock:
            return self._process is not None and self._process.poll() is None

    def ready(self) -> bool:
        """Whether it takes messages. Raises RuntimeError where it has ended."""
        if not self.running():
            raise RuntimeError(f"the worker {self.name} has ended:\n{tail(self.log)}")
        with self.log.open("rb") as log:
            log.seek(self._seen)
            return READY.search(log.read().decode(errors="replace")) is not None

    def output(self) -> str:
        """All that it wrote since it was made."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def pool(self) -> list[psutil.Process]:
        """The processes forked off the main one to work: those that run nothing else."""
        try:
            main = psutil.Process(self.pid)
            return [child for child in main.children() if child.cmdline() == main.cmdline()]
        except psutil.NoSuchProcess:
            return []

    def stop(self, seconds: float = GRACE) -> float:
        """SIGTERM: how many seconds it took to end. Raises TimeoutError after ``seconds``, when it is killed."""
        with self._lock:
            self.wanted = False
            assert self._process is not None
            self.orphans += self.descendants()
            self._process.terminate()
        begun = time.monotonic()
        try:
            self.ends.append(self._process.wait(seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self.name} did not end within {seconds:.0f} s of SIGTERM") from None
        return time.monotonic() - begun

    def kill(self) -> None:
        """SIGKILL to the main process only. Its children are kept in ``orphans``."""
        with self._lock:
            assert self._process is not None
            self.orphans += self.descendants()
            self._process.kill()
            self.ends.append(self._process.wait())

    def kill_child(self, chance: random.Random) -> int:
        """SIGKILL to one of the pool's processes: its id."""
        child: psutil.Process = chance.choice(wait_until(self.pool, START, f"{self.name} has a process in its pool"))
        child.kill()
        return child.pid

    def pause(self) -> list[psutil.Process]:
        """Stop it and all that it started, as `docker pause` does: the processes, to be resumed."""
        processes = [psutil.Process(self.pid), *self.descendants()]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        return processes

    def revive(self) -> bool:
        """Start it if it has ended though it is wanted, as docker's restart policy does: whether it did."""
        with self._lock:
            if not self.wanted or self.running():
                return False
            if self._process is not None and len(self.ends) < self.starts:
                self.ends.append(self._process.returncode)
            self.start()
            return True

    def close(self) -> None:
        """End it and all that it left, at once."""
        with self._lock:
            self.wanted = False
            if self.running():
                self.kill()
            for process in self.orphans:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def resume(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()


class Cluster:
    """A broker, an index and workers, which are started again when they die. A context manager: all of it ends."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        workers: Mapping[str, Sequence[str]] = WORKERS,
        command: Sequence[str] = (*VISRAG, "worker"),
    ) -> None:
        self.folder, self.index, self.temp = folder, folder / "index", folder / "temp"
        self.redis = Redis(folder / "redis")
        self.temp.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VISRAG_")}
        ours = {"VISRAG_INDEX": str(self.index), "VISRAG_BROKER": self.redis.url, "TMPDIR": str(self.temp)}
        self.environment = kept | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | ours | dict(environment or {})
        self.workers = {
            name: Worker(name, [*command, *steps], self.environment, folder) for name, steps in workers.items()
        }
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def __enter__(self) -> Self:
        try:
            self.redis.start()
            self._keeper.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._ended.set()
        if self._keeper.is_alive():
            self._keeper.join()
        with ExitStack() as stack:
            stack.callback(self.redis.stop, kill=True)
            for worker in self.workers.values():
                stack.callback(worker.close)

    def start(self, *names: str) -> None:
        """Start workers, all of them where none is named, and wait until they are ready."""
        for name in names or self.workers:
            self.workers[name].start()
        for name in names or self.workers:
            wait_until(self.workers[name].ready, START, f"{name} is ready")

    def stop(self, *names: str) -> dict[str, float]:
        """SIGTERM to workers, all of them where none is named, one after the other: the seconds that each took."""
        return {name: self.workers[name].stop() for name in names or self.workers if self.workers[name].running()}

    def visrag(
        self, *arguments: str | Path, codes: Sequence[int] = (0,), seconds: float | None = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of visrag's to its end. Raises AssertionError for an exit code that is not among ``codes``."""
        command = [*VISRAG, *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode in codes, f"{' '.join(command[2:])}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def drop(self, *paths: Path | str) -> None:
        """Files into the queue, without waiting for them; options may be among them."""
        self.visrag("ingest", "--queue", "--no-wait", *paths)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.visrag("status", "--json").stdout)
        return found

    def store(self) -> LocalStore:
        """The index, opened: to be closed by the caller."""
        return LocalStore.open(self.index)

    def jobs(self) -> dict[str, Job]:
        """The documents in the queue, by name."""
        with self.store() as store:
            return {job.document.name: job for job in store.jobs()}

    def wait(self, seconds: float, every: float = 0.2) -> None:
        """Until the queue is empty. Raises TimeoutError."""
        with self.store() as store:
            wait_until(lambda: not store.jobs(), seconds, "the queue is empty", every)

    def logs(self) -> dict[str, Path]:
        return {"redis": self.redis.log} | {name: worker.log for name, worker in self.workers.items()}

    def _keep(self) -> None:
        while not self._ended.wait(0.3):
            for worker in self.workers.values():
                worker.revive()
