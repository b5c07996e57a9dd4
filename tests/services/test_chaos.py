"""Whatever happens to workers, broker and index while they work: nothing is lost, nothing is there twice.

Shortened; benchmarks/chaos.py does more to more documents.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checks import verify
from disturbances import HURRIED, Chaos
from documents import broken, locked, paper
from services import Cluster

from visrag import Index

pytestmark = pytest.mark.slow

SEED = 20250704
EVENTS = 4  # the most important kinds
PAGES = 40  # of each of the documents made here


@pytest.mark.timeout(600)
def test_nothing_is_lost_whatever_happens(
    make_cluster: Callable[..., Cluster], samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [paper(tmp_path / f"paper {number}.pdf", PAGES) for number in range(3)]
    made += [broken(tmp_path / "broken.pdf"), locked(tmp_path / "locked.pdf", "secret")]
    documents = [samples, *made]
    cluster = make_cluster(HURRIED)
    reference = tmp_path / "reference"
    with Index(reference) as index:
        index.ingest(*documents)
    cluster.start()
    cluster.drop(*documents)
    chaos = Chaos(cluster, SEED, EVENTS, print)
    chaos.run(pages=3 * PAGES, seconds=120)
    assert len(chaos.events) == EVENTS
    found, took = verify(cluster, reference)
    assert found.problems == []
    assert found.documents == 11
    assert found.pages > 3 * PAGES
    assert set(took) == set(cluster.workers)
