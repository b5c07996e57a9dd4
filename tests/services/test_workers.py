"""Workers at work: their metrics, a vision model, odd files, a thousand documents at once."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from checks import busy, compare, strays, verify
from documents import incomplete, paper
from pdfs import pdf_bytes, rectangle, text, write
from services import Cluster, free_port

from visrag import Index, IngestSettings

pytestmark = pytest.mark.slow

LONGEST = 25  # pages of an odd file: what is longer takes too long here
MEMORY = 50 * 2**20  # bytes that a thousand documents may take of the broker's memory


def metrics(cluster: Cluster, name: str) -> dict[str, float]:
    """What a worker tells, by name and labels."""
    url = f"http://127.0.0.1:{cluster.workers[name].environment['VISRAG_METRICS_PORT']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if line[:1] not in "#")}


def total(found: dict[str, float], name: str) -> float:
    """The sum over all labels."""
    return sum(value for key, value in found.items() if re.fullmatch(rf"{name}(\{{.*\}})?", key))


def test_metrics_count_the_pages(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    workers = {"render": ("ingest", "render", "--processes", "1"), "text": ("text",)}
    cluster = make_cluster(workers=workers)
    for worker in cluster.workers.values():
        worker.environment["VISRAG_METRICS_PORT"] = str(free_port())
    cluster.start()
    documents = [paper(tmp_path / "whole.pdf", 20), incomplete(tmp_path / "incomplete.pdf")]
    cluster.visrag("ingest", "--queue", *documents, codes=(1,))
    assert busy(cluster) == []
    found = [metrics(cluster, name) for name in cluster.workers]
    sums = {name: sum(total(one, f"visrag_pages_{name}_total") for one in found)
            for name in ("rendered", "encoded", "failed")}  # fmt: skip
    assert sums == {"rendered": 22, "encoded": 22, "failed": 1}
    for name in ("visrag_step_seconds", "visrag_queue_pieces", "visrag_queue_pages", "visrag_batch_fill"):
        assert any(key.startswith(name) for one in found for key in one), name


def test_a_vision_model_behind_the_queue(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    model = make_checkpoint("ColQwen2ForRetrieval", tmp_path / "model")
    cluster = make_cluster({"VISRAG_VISION": str(model)})
    drawn = [
        rectangle(60 + 40 * n, 80 + 30 * n, 300, 240, f"0.{n} 0.5 0.2") + text(72, 790, f"chart {n}") for n in range(9)
    ]
    plain = [text(72, 760, "nothing but text on this page")] * 3
    mixed = write(tmp_path / "mixed.pdf", pdf_bytes(drawn[:5] + plain + drawn[5:]))
    wide = write(tmp_path / "wide.pdf", pdf_bytes(drawn[:4], size=(842.0, 400.0)))
    reference = tmp_path / "reference"
    with Index(reference, vision=str(model)) as index:
        index.ingest(mixed, wide)
    cluster.start()
    cluster.visrag("ingest", "--queue", mixed, wide)
    found, _ = verify(cluster, reference)
    assert found.problems == []
    with cluster.store() as store:
        assert store.vectors("patches", ("mixed.pdf", 1)) is not None  # type: ignore[arg-type]
        assert store.vectors("patches", ("mixed.pdf", 6)) is None  # type: ignore[arg-type]


def test_a_thousand_documents_at_once(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(1000):
        paper(folder / f"{number:04}.pdf", 1, lines=1)
    cluster = make_cluster()
    before = cluster.redis.used_memory()
    cluster.drop(folder)
    assert cluster.redis.used_memory() - before < MEMORY
    status = cluster.status()
    assert status["documents"]["queued"] == 1000


@pytest.mark.data
@pytest.mark.timeout(900)
def test_odd_files_come_out_as_they_do_locally(
    make_cluster: Callable[..., Cluster], data: Path, tmp_path: Path
) -> None:
    cluster = make_cluster()
    reference = tmp_path / "reference"
    rows = [json.loads(line) for line in (data / "odd" / "manifest.jsonl").read_text().splitlines()]
    files = [data / "odd" / "pdfs" / row["file"] for row in rows if row.get("pages", 0) <= LONGEST]
    with Index(reference) as index:
        index.ingest(*files, settings=IngestSettings(ocr="off", page_timeout=20))
    cluster.start()
    cluster.visrag("ingest", "--queue", *files, "--ocr", "off", "--page-timeout", "20", codes=(1,))
    assert all(worker.running() for worker in cluster.workers.values())
    assert [worker.starts for worker in cluster.workers.values()] == [1] * len(cluster.workers)
    assert busy(cluster) == []
    cluster.stop()
    assert compare(cluster.index, reference).problems == []
    assert strays(cluster) == []
