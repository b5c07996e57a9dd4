"""What must hold after a run: the index equals that of an undisturbed local ingest, and nothing is left lying about."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from services import ROOT, Cluster, lives

from visrag.errors import NotFound
from visrag.fulltext import terms
from visrag.records import Document, Filter, PageRef, PatchVectors
from visrag.store.local import LocalStore

COSINE, STEPS = 0.9999, 1  # how far vectors may be from the reference's: their cosine, and their int8 codes
LEGS = ("tokens", "windows", "patches")
TERMS = 25  # of full text that are searched for
QUIET = 60.0  # seconds within which the broker's queues are empty and no task runs


@dataclass(slots=True)
class Comparison:
    """``pages``: compared, failed ones included. ``cosine``, ``steps``: the worst of all vectors, of all codes."""

    documents: int = 0
    pages: int = 0
    vectors: int = 0
    cosine: float = 1.0
    steps: int = 0
    problems: list[str] = field(default_factory=list)


def copy_index(index: Path, folder: Path) -> Path:
    """A copy that may be opened, so that an index that is only lent is not written to."""

    def link(source: str, target: str) -> None:
        try:
            Path(target).hardlink_to(source) if source.endswith(".seg") else shutil.copyfile(source, target)
        except OSError:
            shutil.copyfile(source, target)

    return Path(shutil.copytree(index, folder, copy_function=link, ignore=shutil.ignore_patterns("writers")))


def compare(index: Path, reference: Path, names: Sequence[str] | None = None) -> Comparison:
    """Every document (or those named) of an index with that of the same name in the reference."""
    found = Comparison()
    with LocalStore.open(index) as ours, LocalStore.open(reference) as theirs:
        chosen = set(names) if names is not None else {d.name for d in (*ours.documents(), *theirs.documents())}
        for name in sorted(chosen):
            _compare_document(found, ours, theirs, name)
        _compare_fulltext(found, ours, theirs, chosen)
    return found


def _compare_document(found: Comparison, ours: LocalStore, theirs: LocalStore, name: str) -> None:
    document, expected = ours.document(name), theirs.document(name)
    if document is None or expected is None:
        found.problems.append(f"{name}: {'is not in the index' if document is None else 'should not be there'}")
        return
    found.documents += 1
    if (seen := _facts(document)) != (wanted := _facts(expected)):
        found.problems.append(f"{name}: {seen}, not {wanted}")
    failures, reasons = ({f.page: f.reason for f in store.failures(name)} for store in (ours, theirs))
    if failures != reasons:
        found.problems.append(f"{name}: failures {failures}, not {reasons}")
    originals = [_has_original(store, name) for store in (ours, theirs)]
    if originals[0] != originals[1]:
        found.problems.append(f"{name}: has its original: {originals[0]}, not {originals[1]}")
    numbers, others = ([page for _, page in store_pages(store, name)] for store in (ours, theirs))
    if numbers != others:
        found.problems.append(f"{name}: pages {numbers}, not {others}")
    if whole := None in failures or document.pages == 0:
        found.pages += 1
    if not whole and Counter(numbers + [page for page in failures if page is not None]) != Counter(
        range(1, document.pages + 1)
    ):
        found.problems.append(f"{name}: not every page is there once, or failed: {numbers} and {failures}")
    for number in sorted(set(numbers) & set(others)):
        _compare_page(found, ours, theirs, PageRef(name, number))


def _facts(document: Document) -> dict[str, Any]:
    names = ("content", "settings", "media_type", "tags", "pages", "indexed", "failed", "state", "renderer")
    return {name: getattr(document, name) for name in names}


def _has_original(store: LocalStore, name: str) -> bool:
    try:
        return store.original(name).is_file()
    except NotFound:
        return False


def store_pages(store: LocalStore, name: str) -> list[tuple[str, int]]:
    """The pages of a document that can be found, in order; one that is there twice is given twice."""
    with closing(sqlite3.connect(store.folder / "index.db")) as connection:
        sql = (
            "SELECT g.name, p.number FROM generations g JOIN pages p ON p.generation = g.id WHERE visible AND name = ?"
        )
        return sorted(connection.execute(sql, (name,)))


def _compare_page(found: Comparison, ours: LocalStore, theirs: LocalStore, ref: PageRef) -> None:
    found.pages += 1
    where = f"{ref.document}, page {ref.page}"
    if ours.page(ref) != theirs.page(ref):
        found.problems.append(f"{where}: another text, size or other words")
    images = [path is not None and path.exists() for path in (ours.image_path(ref), theirs.image_path(ref))]
    if images[0] != images[1]:
        found.problems.append(f"{where}: has its picture: {images[0]}, not {images[1]}")
    for leg in LEGS:
        mine, other = ours.vectors(leg, ref), theirs.vectors(leg, ref)
        if mine is None or other is None:
            if mine is not other:
                found.problems.append(f"{where}: {leg} {'is missing' if mine is None else 'should not be there'}")
            continue
        _compare_vectors(found, f"{where}, {leg}", mine, other)
        chance = [float(store.chance(leg, [ref])[0]) for store in (ours, theirs)]
        if not abs(chance[0] - chance[1]) < 1e-4:
            found.problems.append(f"{where}, {leg}: chance level {chance[0]}, not {chance[1]}")


def _compare_vectors(found: Comparison, where: str, mine: PatchVectors, other: PatchVectors) -> None:
    a, b = mine.vectors, other.vectors
    if a.shape != b.shape:
        found.problems.append(f"{where}: vectors {a.shape}, not {b.shape}")
        return
    if mine.places.to_bytes() != other.places.to_bytes():
        found.problems.append(f"{where}: other places")
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dots = np.einsum("nd,nd->n", a, b)
    worst = float(np.divide(dots, lengths, out=np.ones_like(dots), where=lengths > 0).min(initial=1.0))
    steps = int(np.abs(codes(a) - codes(b)).max(initial=0))
    found.vectors += len(a)
    found.cosine, found.steps = min(found.cosine, worst), max(found.steps, steps)
    if worst < COSINE or steps > STEPS:
        found.problems.append(f"{where}: cosine {worst:.6f}, {steps} steps of int8 apart")


def codes(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The int8 codes that vectors read from a store were made of, as int32: the greatest is always 127."""
    largest = np.abs(vectors).max(initial=0.0)
    return np.rint(vectors * (127 / largest)).astype(np.int32) if largest else np.zeros(vectors.shape, np.int32)


def _compare_fulltext(found: Comparison, ours: LocalStore, theirs: LocalStore, names: set[str]) -> None:
    chance, asked = random.Random(0), set[str]()
    refs = [PageRef(*page) for name in sorted(names) for page in store_pages(theirs, name)]
    for ref in chance.sample(refs, min(TERMS, len(refs))):
        if words := sorted(set(terms(theirs.page(ref).text))):
            asked.add(chance.choice(words))
    whole = all({d.name for d in store.documents()} == names for store in (ours, theirs))
    for term in sorted(asked):
        hits, others = (_hits(store, term, names) for store in (ours, theirs))
        if hits.keys() != others.keys():
            found.problems.append(f"full text, {term}: found {sorted(hits)}, not {sorted(others)}")
        elif whole and any(abs(hits[ref] - others[ref]) > 1e-3 for ref in hits):
            found.problems.append(f"full text, {term}: other scores")


def _hits(store: LocalStore, term: str, names: set[str]) -> dict[PageRef, float]:
    return dict(store.candidates("fulltext", [term], Filter(frozenset(names)), 10**6))


def left_behind(index: Path, temp: Path | None = None) -> list[str]:
    """What no document needs, in an index that nobody writes to and, where no worker runs, in ``temp``.

    Looked up before a store is opened, which would sweep.
    """
    problems = []
    with closing(sqlite3.connect(index / "index.db", timeout=60)) as connection:
        rows = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("jobs", "pieces")
        }
        problems += [f"{count} rows in {table}" for table, count in rows.items() if count]
        staged = connection.execute("SELECT id, name FROM generations WHERE NOT visible").fetchall()
        problems += [f"generation {generation} of {name} is staged" for generation, name in staged]
        contents = {content for (content,) in connection.execute("SELECT content FROM generations WHERE visible")}
        files = {file for (file,) in connection.execute("SELECT file FROM images")}
        unused = set(connection.execute("SELECT content FROM originals")) - {(content,) for content in contents}
        problems += [f"a row of originals that nothing uses: {content}" for (content,) in unused]
        problems += [f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
        try:
            connection.execute("INSERT INTO fulltext (fulltext, rank) VALUES ('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            problems.append(f"full text is not that of the pages: {error}")
        connection.rollback()
    problems += [f"originals/{p.name}" for p in (index / "originals").iterdir() if p.name not in contents]
    problems += [f"images/{p.name}" for p in (index / "images").iterdir() if p.name not in files]
    problems += [str(p.relative_to(index)) for p in (index / "waiting").glob("**/*") if not p.is_dir()]
    if temp is not None:
        problems += [str(path) for path in temp.glob("visrag-*/*")]
    return [f"left behind: {problem}" for problem in problems]


def damaged(index: Path) -> list[str]:
    """Pages whose vectors cannot be read, and documents that are on their way still."""
    with LocalStore.open(index) as store:
        problems = [f"damaged: {damage.page}, {damage.leg}: {damage.message}" for damage in store.check()]
        problems += [f"still in the queue: {job.document.name}" for job in store.jobs()]
        return problems + [f"{d.name} is {d.state}" for d in store.documents() if d.state == "ingesting"]


def busy(cluster: Cluster, seconds: float = QUIET) -> list[str]:
    """What goes on in a cluster that has nothing to do, once it has had some seconds to come to rest."""
    end = time.monotonic() + seconds
    while (problems := _busy(cluster)) and time.monotonic() < end:
        time.sleep(1)
    return problems


def _busy(cluster: Cluster) -> list[str]:
    status = cluster.status()
    problems = [f"status: {state} {status['documents'][state]}" for state in ("queued", "working")
                if status["documents"].get(state)]  # fmt: skip
    problems += [f"status: working on {status['working']}"] if status["working"] else []
    problems += [f"{count} messages in {name}" for name, count in cluster.redis.messages().items() if count]
    return problems + [f"{worker} runs {task}" for worker, tasks in running(cluster).items() for task in tasks]


def running(cluster: Cluster) -> dict[str, list[str]]:
    """The tasks that run, by worker, as celery tells."""
    command = [sys.executable, "-m", "celery", "-A", "workers.app", "inspect", "active", "--json", "--timeout", "2"]
    done = subprocess.run(
        command, env=cluster.environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    answers = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
    return {worker: [f"{task['name']}{task['args']}" for task in tasks] for worker, tasks in answers.items()}


def strays(cluster: Cluster, seconds: float = 30.0) -> list[str]:
    """Processes that outlive the worker that started them by some seconds."""
    end = time.monotonic() + seconds
    orphans = [(name, process) for name, worker in cluster.workers.items() for process in worker.orphans]
    while (orphans := [found for found in orphans if lives(found[1])]) and time.monotonic() < end:
        time.sleep(0.2)
    return [f"{name} left process {process.pid}: {' '.join(process.cmdline())[:120]}" for name, process in orphans]


def verify(cluster: Cluster, reference: Path) -> tuple[Comparison, dict[str, float]]:
    """All that must hold after a run, and how long each worker took to end. The cluster's workers are stopped."""
    problems = busy(cluster)
    took = cluster.stop()
    problems += strays(cluster) + left_behind(cluster.index, cluster.temp) + damaged(cluster.index)
    found = compare(cluster.index, reference)
    found.problems[:0] = problems
    return found, took
