"""Chaos: what may happen to a cluster while it works, at random moments of its work."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from services import Cluster, resume, wait_until

from visrag.store.local import LocalStore

HURRIED = {"VISRAG_LEASE": "10", "VISRAG_VISIBILITY": "15", "VISRAG_SWEEP": "3"}  # seconds
PAUSE = 22.0  # seconds: longer than the lease and the visibility timeout
REFUSAL = 10.0  # seconds for which the store refuses writes
REFUSED = ("generations", "pages", "page_texts", "page_vectors", "places", "failures", "originals", "images",
           "jobs", "pieces")  # fmt: skip
ONCE = "flush redis"


@dataclass(frozen=True, slots=True)
class Event:
    """``at``: seconds since the documents were dropped; ``done``: how many pages were in the index then."""

    at: float
    done: int
    kind: str
    target: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.done:6} pages  {self.kind:22} {self.target:24} {self.seconds:5.1f} s"


def finished(store: LocalStore) -> int:
    """How many pages are in the index or have failed, those of documents that are on their way among them."""
    there = [document for document in store.documents() if document.state != "ingesting"]
    return sum(found.indexed + found.failed for found in (*there, *(job.document for job in store.jobs())))


@contextmanager
def refused(index: Path) -> Iterator[None]:
    """The index refuses every write of documents, pages and their work."""
    kinds = [(table, kind) for table in REFUSED for kind in ("INSERT", "UPDATE", "DELETE")]
    with closing(sqlite3.connect(index / "index.db", timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, kind in kinds:
            connection.execute(
                f"CREATE TRIGGER refused_{table}_{kind} BEFORE {kind} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'refused by a test'); END"
            )
        connection.execute("COMMIT")
        try:
            yield
        finally:
            connection.execute("BEGIN IMMEDIATE")
            for table, kind in kinds:
                connection.execute(f"DROP TRIGGER refused_{table}_{kind}")
            connection.execute("COMMIT")


@contextmanager
def locked(index: Path) -> Iterator[None]:
    """Someone else writes to the index all the time."""
    with closing(sqlite3.connect(index / "index.db", timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


class Chaos:
    """Disturbs a cluster: each kind once, then kinds at random, at random moments between the first page and the last.

    A moment is a number of pages that are in the index, so that work is going on whenever something happens.
    """

    def __init__(self, cluster: Cluster, seed: int, count: int, report: Callable[[str], None] = lambda line: None):
        self.cluster, self.report = cluster, report
        self.events: list[Event] = []
        self._chance = random.Random(seed)
        self._kinds = self._plan(count)
        self._begun = time.monotonic()

    def _plan(self, count: int) -> list[str]:
        kinds = list(self._acts())
        again = [kind for kind in kinds if kind != ONCE]
        plan = kinds[:count] + [self._chance.choice(again) for _ in range(count - len(kinds))]
        self._chance.shuffle(plan)
        return plan

    def _acts(self) -> Mapping[str, Callable[[], str]]:
        """What may happen, the most important first; each says to whom it did."""
        return {
            "kill -9 render": self._kill_main_of_render,
            "flush redis": self._flush,
            "kill -9 text": lambda: self._kill("text"),
            "pause past the lease": self._pause,
            "refuse writes": self._refuse,
            "stop and start redis": lambda: self._restart_redis(kill=False),
            "kill -9 a render child": self._kill_child,
            "kill -9 encode": lambda: self._kill("encode"),
            "kill -9 redis": lambda: self._restart_redis(kill=True),
            "lock the index": self._lock,
        }

    def run(self, pages: int, seconds: float) -> None:
        """Disturb the work on ``pages`` pages that were dropped just now, then wait for its end.

        Raises TimeoutError where no page is finished for ``seconds``.
        """
        self._begun = time.monotonic()
        moments = sorted(self._chance.uniform(0, 0.9 * pages) for _ in self._kinds)
        acts = self._acts()
        with self.cluster.store() as store:
            for moment, kind in zip(moments, self._kinds, strict=True):
                self._wait(store, moment, seconds)
                at, done = time.monotonic() - self._begun, finished(store)
                target = acts[kind]()
                self.events.append(Event(at, done, kind, target, time.monotonic() - self._begun - at))
                self.report(str(self.events[-1]))
            self._wait(store, None, seconds)

    def _wait(self, store: LocalStore, pages: float | None, seconds: float) -> None:
        """Until so many pages are done, or with None until the queue is empty."""
        done, since = -1, time.monotonic()
        while (jobs := len(store.jobs())) and (pages is None or done < pages):
            if (now := finished(store)) != done:
                done, since = now, time.monotonic()
            if time.monotonic() - since > seconds:
                raise TimeoutError(f"{done} pages and no more for {seconds:.0f} s, {jobs} documents in the queue")
            time.sleep(0.2)

    # What happens

    def _kill_main_of_render(self) -> str:
        return self._kill(self._chance.choice(["render-1", "render-2"]))

    def _kill(self, name: str) -> str:
        worker = self.cluster.workers[name]
        wait_until(worker.running, 60, f"{name} runs")
        before = len(worker.orphans)
        worker.kill()
        return f"{name}, {len(worker.orphans) - before} children left"

    def _kill_child(self) -> str:
        name = self._chance.choice(["render-1", "render-2"])
        wait_until(self.cluster.workers[name].running, 60, f"{name} runs")
        return f"{name}, process {self.cluster.workers[name].kill_child(self._chance)}"

    def _flush(self) -> str:
        self.cluster.redis.flush()
        return "redis"

    def _restart_redis(self, kill: bool) -> str:
        self.cluster.redis.stop(kill)
        time.sleep(self._chance.uniform(0.2, 5))
        self.cluster.redis.start()
        return "redis"

    def _refuse(self) -> str:
        with refused(self.cluster.index):
            time.sleep(REFUSAL)
        return "the index"

    def _lock(self) -> str:
        with locked(self.cluster.index):
            time.sleep(REFUSAL)
        return "the index"

    def _pause(self) -> str:
        name = self._chance.choice(["text", "render-1"])
        wait_until(self.cluster.workers[name].running, 60, f"{name} runs")
        stopped = self.cluster.workers[name].pause()
        try:
            time.sleep(PAUSE)
        finally:
            resume(stopped)
        return f"{name}, {len(stopped)} processes"
