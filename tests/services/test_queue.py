"""The queue with a real broker and real workers: the outcome is that of the local mode."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from checks import busy, compare, damaged, left_behind, strays
from documents import broken, incomplete, locked, paper
from services import GRACE, Cluster, wait_until

import visrag
from visrag.settings import Ocr

pytestmark = pytest.mark.slow

SOON = 180.0  # seconds within which a document is through, on a busy machine, too
BIG = 1500  # pages
RENDERERS = ("render-1", "render-2")


@pytest.fixture(scope="module")
def cluster(make_lasting_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster whose index all tests of this module fill, each with documents of its own names."""
    found = make_lasting_cluster({"VISRAG_SWEEP": "2"})
    found.start()
    return found


@pytest.fixture(autouse=True)
def everyone_is_there(cluster: Cluster) -> None:
    """Start the workers that a test has stopped."""
    if stopped := [name for name, worker in cluster.workers.items() if not worker.running()]:
        cluster.start(*stopped)


def generation(cluster: Cluster, name: str) -> int:
    """Which version of a document can be found."""
    with closing(sqlite3.connect(cluster.index / "index.db")) as connection:
        row = connection.execute("SELECT id FROM generations WHERE visible AND name = ?", (name,)).fetchone()
    return int(row[0])


def pages_of(cluster: Cluster, name: str) -> int:
    """How many pages of a document can be found."""
    with cluster.store() as store:
        found = store.document(name)
    return 0 if found is None or found.state == "ingesting" else found.indexed


def in_queue(cluster: Cluster, name: str) -> int:
    """How many pages of a document in the queue are done."""
    job = cluster.jobs().get(name)
    return 0 if job is None else job.document.indexed + job.document.failed


def as_locally(cluster: Cluster, folder: Path, *paths: Path, ocr: Ocr = "auto") -> None:
    """The documents have come through the queue as they come through a local ingest."""
    reference = folder / "reference"
    with visrag.Index(reference) as index:
        index.ingest(*paths, settings=visrag.IngestSettings(ocr=ocr))
        names = [document.name for document in index.documents()]
    assert compare(cluster.index, reference, names).problems == []


@contextmanager
def counting(index: Path) -> Iterator[Counter[str]]:
    """Counts how often each piece of work was claimed, without those that were given back, and each page written."""
    counted: Counter[str] = Counter()
    with closing(sqlite3.connect(index / "index.db", timeout=60, isolation_level=None)) as connection:
        connection.executescript(
            "CREATE TABLE counted (what TEXT, number INTEGER); "
            "CREATE TRIGGER claimed AFTER UPDATE OF attempts ON pieces BEGIN "
            "INSERT INTO counted VALUES (new.id, new.attempts); END; "
            "CREATE TRIGGER written AFTER INSERT ON pages BEGIN INSERT INTO counted "
            "SELECT 'page ' || new.number, 1 + count(*) FROM counted WHERE what = 'page ' || new.number; END"
        )
        try:
            yield counted
            counted.update(dict(connection.execute("SELECT what, max(number) FROM counted GROUP BY what")))
        finally:
            connection.executescript("DROP TRIGGER claimed; DROP TRIGGER written; DROP TABLE counted")


def test_the_samples_come_through_as_they_do_locally(cluster: Cluster, samples: Path, samples_path: Path) -> None:
    done = cluster.visrag("ingest", "--queue", samples, "--tag", "kind=sample")
    assert done.returncode == 0
    with visrag.Index(samples_path) as index:
        names = [document.name for document in index.documents()]
    assert compare(cluster.index, samples_path, names).problems == []
    before = {name: generation(cluster, name) for name in names}
    cluster.visrag("ingest", "--queue", samples, "--tag", "kind=sample")
    assert {name: generation(cluster, name) for name in names} == before
    cluster.visrag("ingest", "--queue", samples, "--tag", "kind=other")
    with cluster.store() as store:
        assert {document.tags["kind"] for document in store.documents() if document.name in names} == {"other"}


def test_small_documents_overtake_a_big_one(cluster: Cluster, tmp_path: Path) -> None:
    big = paper(tmp_path / "a big one.pdf", BIG, lines=1)
    small = [paper(tmp_path / f"small {number:02}.pdf", 2, lines=1) for number in range(50)]
    cluster.drop(big, *small)
    names = {path.name for path in small}
    with cluster.store() as store:
        wait_until(lambda: not names & {job.document.name for job in store.jobs()}, 240, "the small ones are done")
        job = next(job for job in store.jobs() if job.document.name == big.name)
    assert job.document.pages == BIG
    assert job.document.indexed < BIG / 2
    cluster.wait(240)
    assert pages_of(cluster, big.name) == BIG
    assert {pages_of(cluster, name) for name in names} == {2}


@pytest.mark.parametrize("name", ["text", "render-1"])
def test_a_worker_that_is_asked_to_end_loses_nothing_and_nothing_is_done_twice(
    cluster: Cluster, tmp_path: Path, name: str
) -> None:
    ocr: Ocr
    if name == "text":
        document, ocr = paper(tmp_path / "end of text.pdf", 100), "auto"
    else:  # pages that take their time to be read
        document, ocr = paper(tmp_path / f"end of {name}.pdf", 40, lines=2), "always"
    with counting(cluster.index) as counted:
        cluster.drop(document, "--ocr", ocr)
        with cluster.store() as store:
            step = "text" if name == "text" else "render"
            wait_until(lambda: step in (load := store.load()) and load[step].held > 1, SOON, "it is on its way", 0.02)
        assert cluster.stop(name)[name] < GRACE
        assert document.name in cluster.jobs(), "it was done before the worker ended"
        cluster.start(name)
        cluster.wait(SOON)
    assert set(counted.values()) == {1}
    assert cluster.workers[name].ends[-1] == 0
    assert strays(cluster, 5) == []
    as_locally(cluster, tmp_path, document, ocr=ocr)


def test_a_document_is_taken_out_of_the_queue(cluster: Cluster, tmp_path: Path) -> None:
    document = paper(tmp_path / "revoked.pdf", 3)
    cluster.visrag("ingest", "--queue", document)
    before = generation(cluster, document.name)
    paper(document, 400, seed=1)
    cluster.drop(document)
    wait_until(lambda: in_queue(cluster, document.name) >= 8, SOON, "it is on its way")
    cluster.visrag("revoke", document.name)
    assert document.name not in cluster.jobs()
    assert busy(cluster) == []
    assert generation(cluster, document.name) == before
    assert pages_of(cluster, document.name) == 3
    wait_until(lambda: left_behind(cluster.index) == [], 30, "nothing of it is left")
    cluster.visrag("revoke", document.name, codes=(2,))


def test_a_document_is_removed_while_it_is_on_its_way(cluster: Cluster, tmp_path: Path) -> None:
    document = paper(tmp_path / "removed.pdf", 400)
    cluster.drop(document)
    wait_until(lambda: in_queue(cluster, document.name) >= 8, SOON, "it is on its way")
    cluster.visrag("remove", document.name)
    assert busy(cluster) == []
    with cluster.store() as store:
        assert store.document(document.name) is None
    wait_until(lambda: left_behind(cluster.index) == [], 30, "nothing of it is left")


def test_a_document_that_is_dropped_twice_is_one(cluster: Cluster, tmp_path: Path) -> None:
    document = paper(tmp_path / "twice.pdf", 20)
    cluster.stop("text")
    cluster.drop(document)
    cluster.drop(document)
    assert list(cluster.jobs()) == [document.name]
    cluster.start("text")
    cluster.wait(SOON)
    as_locally(cluster, tmp_path, document)
    first = generation(cluster, document.name)
    cluster.drop(document)
    cluster.wait(SOON)
    assert generation(cluster, document.name) == first


def test_a_changed_document_replaces_the_old_one(cluster: Cluster, tmp_path: Path) -> None:
    document = paper(tmp_path / "changed.pdf", 10)
    cluster.visrag("ingest", "--queue", document)
    paper(document, 4, seed=1)
    cluster.visrag("ingest", "--queue", document)
    as_locally(cluster, tmp_path, document)


def test_what_cannot_be_read_fails_as_it_does_locally(cluster: Cluster, tmp_path: Path) -> None:
    documents = [
        broken(tmp_path / "broken.pdf"),
        locked(tmp_path / "locked.pdf", "secret"),
        incomplete(tmp_path / "incomplete.pdf"),
        paper(tmp_path / "whole.pdf", 2),
    ]
    done = cluster.visrag("ingest", "--queue", *documents, codes=(1,))
    assert [reason in done.stdout for reason in ("corrupt", "password")] == [True, True]
    as_locally(cluster, tmp_path, *documents)


def test_a_file_that_goes_before_it_is_read_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    document = paper(tmp_path / "gone.pdf", 2)
    cluster.stop(*RENDERERS)
    cluster.drop(document)
    document.unlink()
    cluster.start(*RENDERERS)
    cluster.wait(SOON)
    with cluster.store() as store:
        assert [(failure.page, failure.reason) for failure in store.failures(document.name)] == [(None, "missing")]


def test_what_the_broker_forgot_is_found_by_the_sweep(cluster: Cluster, tmp_path: Path) -> None:
    documents = [paper(tmp_path / f"forgotten {number}.pdf", 3) for number in range(4)]
    cluster.stop(*RENDERERS)
    cluster.drop(*documents)
    cluster.redis.flush()
    assert not any(cluster.redis.messages().values())
    cluster.start(*RENDERERS)
    cluster.wait(SOON)
    assert {pages_of(cluster, document.name) for document in documents} == {3}


def test_the_queue_from_python(cluster: Cluster, tmp_path: Path) -> None:
    documents = [paper(tmp_path / f"python {number}.pdf", 2) for number in range(2)]
    big = paper(tmp_path / "python revoked.pdf", 400)
    queue = visrag.Queue(cluster.redis.url, cluster.index)
    try:
        assert queue.ingest(*documents, tags={"from": "python"}) == [document.name for document in documents]
        queue.wait()
        assert queue.status().jobs == []
        queue.ingest(big)
        queue.revoke(big.name)
        queue.wait()
    finally:
        queue.close()
    with cluster.store() as store:
        assert store.document(big.name) is None
        for document in documents:
            found = store.document(document.name)
            assert found is not None
            assert (found.state, found.indexed, found.tags) == ("indexed", 2, {"from": "python"})


def test_the_status_tells_what_is_there(cluster: Cluster, tmp_path: Path) -> None:
    document = paper(tmp_path / "status.pdf", 200, lines=30)
    before = cluster.status()["documents"]
    cluster.drop(document)
    wait_until(lambda: in_queue(cluster, document.name) >= 8, SOON, "it is on its way")
    status = cluster.status()
    [row] = [row for row in status["working"] if row["document"] == document.name]
    assert (row["pages"], row["failed"]) == (200, 0)
    assert 8 <= row["indexed"] < 200
    assert status["documents"]["working"] == 1
    assert set(status["queues"]) <= {"ingest", "render", "text", "encode"}
    cluster.wait(SOON)
    after = cluster.status()
    assert after["working"] == []
    assert after["documents"]["indexed"] == before.get("indexed", 0) + 1


def test_nothing_is_left_in_the_end(cluster: Cluster) -> None:
    assert busy(cluster) == []
    took = cluster.stop()
    assert max(took.values()) < GRACE
    assert strays(cluster) + left_behind(cluster.index, cluster.temp) + damaged(cluster.index) == []
