"""The queue without a broker: one child process that does every step of an index's queue.

The store is the queue, as for workers on many machines; in place of messages the process looks into it. A socket joins
it to its parent: a byte wakes it, and its end, by ``close`` or by the parent's death, ends the process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from .dispatch import mend, room
from .errors import StoreError, UsageError, VisragError
from .models import Models
from .reader import spawn
from .records import Load, QueueName
from .settings import MEMORY, ModelSettings, QueueSettings
from .steps import Outcome
from .store.opening import QDRANT
from .store.qdrant_address import Address
from .working import Worker

if TYPE_CHECKING:
    from .encoders import Encoders

LEASE = 15.0  # seconds for which a piece is a child's, unless it says that it goes on
POLL = 1.5  # seconds between two looks for what other processes have put into the queue
PAUSE = 10.0  # seconds to wait where the store or a model cannot be had
GRACE = 3.0  # seconds for a piece that is being worked on, once the process shall end
END = 10.0  # seconds after which a child that does not end is killed
IDLE = 600.0  # seconds without work after which a child that has loaded models makes room for a small one
STEADY = 60.0  # seconds after which a child that dies had started well
FIRST_WAIT, LAST_WAIT = 0.5, 30.0  # seconds until one that died is started again

log = logging.getLogger("visrag")

# The end that asks.

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from visrag.alone import serve; serve(sys.argv[2])"


class Alone:
    """A child process that does the queue's work, started again when it dies. A context manager.

    ``index``: a folder, or a qdrant:// URL of a server. ``models``: those to use. ``passwords``, ``memory``: as of
    ``QueueSettings``. ``lease``: seconds for which a piece stays a dead child's. Raises UsageError for an index that no
    second process can open.
    """

    def __init__(
        self,
        index: str,
        models: ModelSettings | None = None,
        *,
        passwords: tuple[str, ...] = (),
        memory: int = MEMORY,
        lease: float = LEASE,
    ) -> None:
        if index.startswith(QDRANT) and (address := Address.parse(index)).local:
            why = "local mode is for one process, so nothing can be handed in: give a folder, or a Qdrant server"
            raise UsageError(f"{QDRANT}…/{address.collection}: {why}")
        self._settings = QueueSettings(
            index=index,
            **{name: value for name, value in asdict(models or ModelSettings()).items() if value is not None},
            passwords=passwords,
            memory=memory,
            lease=lease,
            sweep=lease / 3,
        )
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self._start()
        self._keeper = threading.Thread(target=self._keep, name="alone", daemon=True)
        self._keeper.start()

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the child, the last one where it has ended."""
        return self._process.pid

    def wake(self) -> None:
        """Say that there is something to do."""
        with contextlib.suppress(OSError):  # gone, and a new one looks at once; or woken often enough
            self._channel.send(b".", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """End the child, which gives back what it cannot finish within seconds."""
        with self._changing:
            self._closed.set()
            self._channel.close()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._keeper.join()

    def _start(self) -> None:
        threads = str(max(1, (os.cpu_count() or 1) - 1))  # of torch: a core is left to the parent
        self._process, self._channel = spawn(_START, {"OMP_NUM_THREADS": threads, **os.environ})
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(asdict(self._settings)).encode() + b"\n")

    def _keep(self) -> None:
        wait = FIRST_WAIT
        while True:
            begun = time.monotonic()
            code = self._process.wait()
            if self._closed.is_set():
                return
            wait = FIRST_WAIT if time.monotonic() - begun > STEADY else min(2 * wait, LAST_WAIT)
            if code:
                log.warning("the process that ingests ended (%d); it is started again", code)
            if self._closed.wait(wait):
                return
            with self._changing:
                if self._closed.is_set():
                    return
                self._channel.close()
                self._start()


# The end that answers.


def serve(descriptor: str) -> NoReturn:
    """What the child runs: the queue's work, until the other end of the socket is closed."""
    channel = socket.socket(fileno=int(descriptor))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: channel.shutdown(socket.SHUT_RD))
    os.nice(10)  # searches go first
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    with channel.makefile("rb", buffering=0) as lines:
        line = lines.readline()
    if not line.endswith(b"\n"):
        os._exit(0)
    given: dict[str, Any] = json.loads(line)
    hands = _Hands(QueueSettings(**{**given, "passwords": tuple(given["passwords"])}))
    work = threading.Thread(target=hands.run, name="alone", daemon=True)
    work.start()
    with contextlib.suppress(OSError):
        while channel.recv(4096):
            hands.wake()
    hands.stop()
    work.join(GRACE)  # or it is in the middle of a piece
    threading.Timer(GRACE, os._exit, [70]).start()
    hands.give_back()
    os._exit(0)


class _Hands:
    """Two threads work: one reads documents while the other encodes. A third puts right what was left by the dead."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._woken = [threading.Event() for _ in range(3)]
        self._later: dict[str, float] = {}  # pieces that failed of the store or a file: when they may be tried again
        self._worker: Worker | None = None
        self._encoders: Encoders | None = None
        self._busy = time.monotonic()

    def run(self) -> NoReturn:
        """Work until ``stop``, or there is nothing to do for long; then, and where the index cannot be opened, the
        process ends."""
        try:
            self._worker = Worker(self._settings, self._stopping.is_set)
            self._recall(time.time())
        except Exception as error:  # it is to be started again, later
            log.error("%s", error, exc_info=not isinstance(error, VisragError | OSError))
            os._exit(1)
        acts = ((self._read, POLL), (self._encode, POLL), (self._mend, self._settings.sweep))
        loops = [
            threading.Thread(target=self._loop, args=(*act, woken), daemon=True)
            for act, woken in zip(acts, self._woken, strict=True)
        ]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()
        self._worker.close()
        os._exit(0)

    def wake(self) -> None:
        for woken in self._woken[:2]:
            woken.set()

    def stop(self) -> None:
        self._stopping.set()
        for woken in self._woken:
            woken.set()

    def give_back(self) -> None:
        """Let go of the pieces that are held."""
        with contextlib.suppress(VisragError, OSError):
            if self._worker is not None:
                self._worker.leases.give_back()

    def _loop(self, act: Callable[[], bool], seconds: float, woken: threading.Event) -> None:
        """Act until the process shall end; where there was nothing to do, after some seconds, or when woken."""
        while True:
            woken.clear()
            if self._stopping.is_set():
                return
            try:
                if not act():
                    woken.wait(seconds)
            except (VisragError, OSError) as error:  # of the store, or of a model
                log.error("%s", error)
                self._stopping.wait(PAUSE)
            except Exception:
                log.exception("the queue goes on")
                self._stopping.wait(PAUSE)

    def _read(self) -> bool:
        return self._work(["ingest", "render"])

    def _encode(self) -> bool:
        store = self._here.store
        if not store.load():
            if self._encoders is not None and time.monotonic() - self._busy > IDLE:
                self.stop()
            return False
        self._busy = time.monotonic()
        kinds = store.settings().get("models", {})
        if self._encoders is None or (self._encoders.vision is None and "vision" in kinds):
            self._encoders = Models(self._settings.wanted).for_ingest(store)
            self._here.encode = self._encoders.encode
            self.wake()
        return self._work(["text", "encode"])

    def _work(self, steps: Sequence[QueueName]) -> bool:
        """Do the piece of each step whose turn it is: whether there was one."""
        done = False
        for step in steps:
            load = self._here.store.load()
            found = load.get(step, Load())
            wanted = self._settings
            if not found.waiting or not room(self._here.store, step, load, wanted.models, wanted.waiting_pages):
                continue
            for piece in self._here.store.take(step, found.sent + 1):
                done = True
                if self._later.get(piece.id, 0.0) <= time.monotonic():
                    self._later.pop(piece.id, None)
                    self._do(piece.id)
        return done

    def _do(self, name: str) -> None:
        with self._here.leases.hold(name) as piece:
            if piece is None:
                return
            try:
                _tell(self._here.do(piece))
            except (StoreError, OSError) as error:
                log.warning("%s: %s; it is tried again in %.0f s", name, error, PAUSE)
                self._later[name] = time.monotonic() + PAUSE
        self.wake()

    def _mend(self) -> bool:
        for outcome in mend(self._here.store):
            _tell(outcome)
        self._recall(time.time() - PAUSE)
        return False

    def _recall(self, before: float) -> None:
        """Let pieces wait again that were handed out before, and not claimed: by a process that died, or put off."""
        for step, load in self._here.store.load().items():
            if load.sent:
                self._here.store.recall(step, before)

    @property
    def _here(self) -> Worker:
        assert self._worker is not None
        return self._worker


def _tell(outcome: Outcome | None) -> None:
    if outcome is not None and outcome.document is not None:
        log.info("%s: %s", outcome.document.name, outcome.document.state)
