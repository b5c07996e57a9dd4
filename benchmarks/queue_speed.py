"""What the queue costs beside the local mode, how fair it is, and what many documents at once cost.

    python benchmarks/queue_speed.py [--throughput] [--overhead] [--fair] [--many] [--runs N] [--json] [PDFS]

Without a choice all four. A real redis-server and real workers, each run in a new index.

    --throughput  the same files by a local ingest (2 jobs) and by 2 render workers and one of text, in turn: pages a
                  second, models loaded. PDFS: a folder of documents; by default some are made.
    --overhead    messages and the local store alone, with an encoder that costs nothing: ms a page
    --fair        5,000 pages in one document and 50 documents of 2 pages, dropped together
    --many        1,000 documents dropped at once: the broker's memory, `visrag status`
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "services"), str(ROOT / "tests")]

from documents import paper  # noqa: E402
from services import WORKERS, Cluster, end_on_sigterm, wait_until  # noqa: E402

import visrag  # noqa: E402
from visrag.records import PageRef  # noqa: E402

TEXT_ONLY = {name: WORKERS[name] for name in ("render-1", "render-2", "text")}
LONG = 3600.0  # seconds after which a run is given up
BIG, SMALL = 5000, 50  # pages of the big document, number of the small ones


@contextmanager
def cluster(**options: Any) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="queue-speed-") as folder, Cluster(Path(folder), **options) as found:
        yield found


def throughput(documents: Sequence[Path], runs: int) -> dict[str, Any]:
    """Pages a second by both ways, in turn, and the milliseconds of CPU time that a page takes."""
    local, queued = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="queue-speed-") as folder:
            pages, *found = _locally(Path(folder), documents)
            local.append(found)
        with cluster(workers=TEXT_ONLY) as running:
            running.start()
            queued.append(_through_the_queue(running, documents, pages))
    speeds, spent = ([statistics.median(column) for column in zip(*rows, strict=True)] for rows in (local, queued))
    return {
        "pages": pages, "local_pages_per_s": [speed for speed, _ in local],
        "queue_pages_per_s": [speed for speed, _ in queued], "local_cpu_ms_a_page": 1000 * speeds[1],
        "queue_cpu_ms_a_page": 1000 * spent[1], "ratio": spent[0] / speeds[0],
    }  # fmt: skip


def _locally(folder: Path, documents: Sequence[Path]) -> tuple[int, float, float]:
    """Pages, pages a second and seconds of CPU time a page, the models loaded and a document read before."""
    settings = visrag.IngestSettings(jobs=2)
    with visrag.Index(folder / "index") as index:
        index.ingest(paper(folder / "first-4.pdf", 4), settings=settings)
        spent, begun = sum(psutil.Process().cpu_times()[:4]), time.monotonic()
        pages = index.ingest(*documents, settings=settings).pages
        seconds = time.monotonic() - begun
        spent = sum(psutil.Process().cpu_times()[:4]) - spent
    return pages, pages / seconds, spent / pages


def _through_the_queue(found: Cluster, documents: Sequence[Path], pages: int) -> tuple[float, float]:
    """Pages a second and seconds of CPU time a page, by workers that have loaded their models and read a document."""
    with visrag.Queue(found.redis.url, found.index) as queue:
        queue.ingest(paper(found.folder / "first-4.pdf", 4))
        queue.wait(interval=0.05)
        spent, begun = cpu(found), time.monotonic()
        queue.ingest(*documents)
        queue.wait(interval=0.05)
        seconds, spent = time.monotonic() - begun, cpu(found) - spent
        indexed = sum(document.indexed for document in queue.store.documents()) - 4
    if indexed != pages:
        sys.exit(f"{indexed} pages came through the queue, {pages} by the local ingest")
    return pages / seconds, spent / pages


def cpu(found: Cluster) -> float:
    """Seconds of CPU time that the workers have used, and all that they started."""
    times = [
        process.cpu_times()
        for worker in found.workers.values()
        for process in [psutil.Process(worker.pid), *worker.descendants()]
    ]
    return sum(sum(spent[:4]) for spent in times)  # its own, and those of children that have ended


def overhead(documents: int = 40, pages: int = 50) -> dict[str, Any]:
    """Milliseconds a page of what is neither reading nor encoding."""
    reading, encoding = ROOT / "tests" / "services" / "free_renderer.py", ROOT / "benchmarks" / "free_worker.py"
    workers = {"render-1": [str(reading)], "render-2": [str(reading)], "text": [str(encoding)]}
    with cluster(workers=workers, command=[sys.executable]) as found:
        for worker in found.workers.values():
            worker.start()
        papers = [paper(found.folder / f"{number:02}-{pages}.pdf", 1, lines=1) for number in range(documents)]
        speed, spent = _through_the_queue(found, papers, pages * documents)
        with found.store() as store:
            stored = store.vectors("tokens", PageRef(papers[0].name, pages))
    assert stored is not None
    return {"pages": pages * documents, "vectors_a_page": len(stored.vectors), "ms_a_page": 1000 / speed,
            "cpu_ms_a_page": 1000 * spent}  # fmt: skip


def fair() -> dict[str, Any]:
    """How much of the big document is done when the last small one is."""
    with cluster(workers=TEXT_ONLY) as found:
        big = paper(found.folder / "a big one.pdf", BIG, lines=1)
        small = [paper(found.folder / f"small {number:02}.pdf", 2, lines=1) for number in range(SMALL)]
        found.start()
        with visrag.Queue(found.redis.url, found.index) as queue:
            begun = time.monotonic()
            queue.ingest(big, *small)
            wait_until(lambda: len(queue.store.jobs()) <= 1, LONG, "the small documents are done")
            of_small = time.monotonic() - begun
            jobs = queue.store.jobs()
            done = jobs[0].document.indexed if jobs else BIG
            queue.wait()
            seconds = time.monotonic() - begun
    return {"small_done_s": of_small, "big_pages_then": done, "big_pages": BIG, "all_done_s": seconds}


def many(count: int = 1000) -> dict[str, Any]:
    """The broker's memory with so many documents in the queue, and the time of `visrag status`."""
    with cluster(workers=TEXT_ONLY) as found:
        folder = found.folder / "documents"
        folder.mkdir()
        for number in range(count):
            paper(folder / f"{number:04}.pdf", 1, lines=1)
        before = found.redis.used_memory()
        register = _seconds(lambda: found.drop(folder))
        memory = found.redis.used_memory() - before
        status = [_seconds(found.status) for _ in range(5)]
        with visrag.Queue(found.redis.url, found.index) as queue:
            inside = [_seconds(queue.status) for _ in range(5)]
    return {
        "documents": count, "register_s": register, "broker_mb": memory / 2**20,
        "status_s": statistics.median(status), "status_in_process_s": statistics.median(inside),
    }  # fmt: skip


def _seconds(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def find_documents(folder: Path | None, made: Path) -> list[Path]:
    if folder is None:
        return [paper(made / f"paper {number:02}.pdf", 25, lines=40) for number in range(8)]
    found = sorted(folder.glob("*.pdf"))
    if not found:
        sys.exit(f"no PDFs in {folder}")
    return found


def print_report(report: dict[str, Any]) -> None:
    for name, values in report.items():
        print(name)
        for key, value in values.items():
            numbers = value if isinstance(value, list) else [value]
            print(f"  {key:22} {'  '.join(f'{number:.3g}' if number < 100 else f'{number:.0f}' for number in numbers)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pdfs", type=Path, nargs="?", help="a folder of PDFs")
    for name in ("throughput", "overhead", "fair", "many"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    end_on_sigterm()
    chosen = [name for name in ("throughput", "overhead", "fair", "many") if getattr(args, name)]
    with tempfile.TemporaryDirectory() as made:
        acts: dict[str, Callable[[], dict[str, Any]]] = {
            "throughput": lambda: throughput(find_documents(args.pdfs, Path(made)), args.runs),
            "overhead": overhead,
            "fair": fair,
            "many": many,
        }
        report = {name: acts[name]() for name in chosen or acts}
    print(json.dumps(report)) if args.json else print_report(report)


if __name__ == "__main__":
    main()
