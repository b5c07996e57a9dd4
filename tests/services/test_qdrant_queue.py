"""The queue of an index on Qdrant: a real broker, real workers, and Qdrant's core over HTTP.

The core is tests/contract/qdrant_core.py, which says what it lacks of a server.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from checks import TERMS, compare, strays
from documents import broken, paper
from qdrant_client import models
from services import GRACE, ROOT, START, Cluster, Worker, free_port, resume, wait_until

import visrag
from visrag.copy import copy_index
from visrag.fulltext import terms
from visrag.records import Filter, PageRef
from visrag.store import Store
from visrag.store.local import LocalStore
from visrag.store.qdrant import QdrantStore

pytestmark = pytest.mark.slow

CORE = ROOT / "tests" / "contract" / "qdrant_core.py"
WORKERS = {"render": ("ingest", "render", "--processes", "1"), "text": ("text",)}
HURRIED = {"VISRAG_LEASE": "5", "VISRAG_VISIBILITY": "10", "VISRAG_SWEEP": "2"}  # seconds
PAGES = 24  # of each document that is made here
SOON = 120.0  # seconds within which all that a test has dropped is through


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an index on Qdrant's core, which runs in a process of its own."""
    folder, port = tmp_path_factory.mktemp("core"), free_port()
    core = Worker("core", [sys.executable, str(CORE), str(port), str(folder)], os.environ, folder)
    core.start()
    try:
        wait_until(core.ready, START, "Qdrant's core is ready")
        yield f"qdrant://127.0.0.1:{port}/pages?files=file://{folder}/files"
        assert core.running()
    finally:
        core.close()


@pytest.fixture(scope="module")
def cluster(make_lasting_cluster: Callable[..., Cluster], index: str) -> Cluster:
    """A cluster whose index all tests of this module fill, each with documents of its own names."""
    found = make_lasting_cluster({**HURRIED, "VISRAG_INDEX": index}, WORKERS)
    found.start()
    return found


def as_locally(index: str, reference: Path, folder: Path) -> None:
    """The documents of a reference are in the index as they are there: pages, vectors, failures, originals, images,
    and full text finds the same pages."""
    copy_index(index, folder / "copy")
    with LocalStore.open(reference) as expected, QdrantStore.open(index) as store:
        names = [document.name for document in expected.documents()]
        assert compare(folder / "copy", reference, names).problems == []
        assert hits(store, names, asked(expected)) == hits(expected, names, asked(expected))


def asked(store: Store) -> list[str]:
    """Some terms of the pages of a store, at random."""
    refs = [PageRef(document.name, 1 + n) for document in store.documents() for n in range(document.indexed)]
    chance = random.Random(0)
    return [chance.choice(found) for ref in refs if (found := sorted(set(terms(store.page(ref).text))))][:TERMS]


def hits(store: Store, names: list[str], words: list[str]) -> dict[str, set[PageRef]]:
    among = Filter(frozenset(names))
    return {word: {ref for ref, _ in store.candidates("fulltext", [word], among, 10_000)} for word in words}


def test_the_samples_come_through_as_they_do_locally(
    cluster: Cluster, index: str, samples: Path, samples_path: Path, tmp_path: Path
) -> None:
    cluster.visrag("ingest", "--queue", samples, "--tag", "kind=sample")
    as_locally(index, samples_path, tmp_path)
    with QdrantStore.open(index) as store, closing(visrag.Queue(cluster.redis.url, index)) as queue:
        before = store._records.documents()
        queue.ingest(samples, tags={"kind": "sample"})
        queue.wait()
        assert store._records.documents() == before  # of the same generations: nothing was done again


def test_a_text_worker_that_is_killed_costs_nothing(cluster: Cluster, index: str, tmp_path: Path) -> None:
    documents = [paper(tmp_path / f"killed {number}.pdf", PAGES, lines=8) for number in range(2)]
    documents.append(broken(tmp_path / "broken.pdf"))
    with visrag.Index(tmp_path / "reference") as reference:
        reference.ingest(*documents)
    cluster.drop(*documents)
    with QdrantStore.open(index) as store:
        wait_until(lambda: killed_at_work(cluster, store), SOON, "the text worker is killed amid its work", 0.02)
        wait_until(lambda: not store.jobs(), SOON, "the queue is empty")
    assert cluster.workers["text"].ends == [-9]
    as_locally(index, tmp_path / "reference", tmp_path)


def killed_at_work(cluster: Cluster, store: Store) -> bool:
    """Stop the text worker, and kill it if it holds a piece; otherwise it goes on."""
    worker = cluster.workers["text"]
    stopped = worker.pause()
    if at_work := held(store) > 0:
        worker.kill()
    resume(stopped)
    return at_work


def held(store: Store) -> int:
    """How many text pieces a worker is at."""
    found = store.load()
    return found["text"].held if "text" in found else 0


def test_nothing_is_left_in_the_end(cluster: Cluster, index: str) -> None:
    assert max(cluster.stop().values()) < GRACE
    assert strays(cluster) == []
    with QdrantStore.open(index) as store:
        assert (store.jobs(), store.load()) == ([], {})
        documents = store.documents()
        assert {document.state for document in documents} == {"indexed", "failed"}
        assert store._pages.count(models.Filter()) == sum(document.indexed for document in documents)
        assert store._records.generations("staged", "piece") == set()
        assert store.tidy() <= 1  # the parcel of a worker that was killed between its piece's end and its parcel's
        assert store._files.names("parcels/") == []
        assert store.tidy() == 0
