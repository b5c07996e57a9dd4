"""The queue under chaos: real workers and a real redis-server are killed, stopped and refused while they work.

    python benchmarks/chaos.py [PDFS] [--events 20] [--seed N] [--documents LIMIT] [--reference INDEX] [--json]

PDFS is a folder of documents (default: the dev set under VISRAG_DATA, or ../shared/data). Two render workers, one of
text, one of encode; the default encoder. Afterwards every page must be in the index once, or have failed, as in an
undisturbed local ingest of the same files (--reference INDEX, or made first), and nothing may be left behind. Exit
code 1 where that is not so. The logs stay where it says.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "services"), str(ROOT / "tests")]

from checks import copy_index, verify  # noqa: E402
from disturbances import HURRIED, Chaos, finished  # noqa: E402
from services import Cluster, end_on_sigterm  # noqa: E402

from visrag.store.local import LocalStore  # noqa: E402

STUCK = 300.0  # seconds without a page after which the run has failed


def find_documents(folder: Path | None, limit: int | None) -> list[Path]:
    data = Path(os.environ.get("VISRAG_DATA", ROOT.parent / "shared" / "data"))
    found = sorted((folder or data / "dev" / "pdfs").glob("*.pdf"))
    if not found:
        sys.exit(f"no PDFs in {folder or data / 'dev' / 'pdfs'}: give a folder, or set VISRAG_DATA")
    return found[:limit]


def make_reference(cluster: Cluster, folder: Path, given: Path | None, documents: list[Path]) -> Path:
    """An index of these documents and no others: made by a local ingest, or a copy of the one that is given."""
    if given is None:
        cluster.visrag("ingest", *documents, "--index", folder, codes=(0, 1), seconds=None)
        return folder
    names = {document.name for document in documents}
    with LocalStore.open(copy_index(given, folder)) as store:
        there = {document.name for document in store.documents()}
        if missing := names - there:
            sys.exit(f"{given} lacks {', '.join(sorted(missing))}: leave --reference out, and it is made")
        for name in there - names:
            store.remove(name)
    return folder


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Disturb a cluster at work: the report."""

    def say(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    documents = find_documents(args.pdfs, args.documents)
    with Cluster(folder, HURRIED) as cluster:
        reference = make_reference(cluster, folder / "reference", args.reference, documents)
        with LocalStore.open(reference) as store:
            pages = finished(store)
        say(f"{len(documents)} documents, {pages} pages, {args.events} events, seed {args.seed}; logs in {folder}")
        cluster.start()
        begun = time.monotonic()
        cluster.drop(*documents)
        chaos = Chaos(cluster, args.seed, args.events, say)
        stuck = []
        try:
            chaos.run(pages, STUCK)
        except TimeoutError as error:
            stuck = [f"stuck: {error}"]
        seconds = time.monotonic() - begun
        found, took = verify(cluster, reference)
        starts = {name: worker.starts for name, worker in cluster.workers.items()}
    problems = stuck + found.problems
    if len(chaos.events) < args.events:
        problems.append(f"only {len(chaos.events)} events")
    return {
        "documents": len(documents), "pages": pages, "seed": args.seed, "seconds": round(seconds, 1),
        "events": [asdict(event) for event in chaos.events], "compared_pages": found.pages, "vectors": found.vectors,
        "worst_cosine": found.cosine, "worst_int8_steps": found.steps, "starts": starts,
        "seconds_to_end": {name: round(value, 1) for name, value in took.items()}, "problems": problems,
    }  # fmt: skip


def print_report(report: dict[str, Any]) -> None:
    print(f"\n{report['pages']} pages in {report['seconds']:.0f} s, {len(report['events'])} events")
    print(f"workers started: {', '.join(f'{name} {count} times' for name, count in report['starts'].items())}")
    print(f"ended by SIGTERM in s: {', '.join(f'{name} {s}' for name, s in report['seconds_to_end'].items())}")
    print(f"compared: {report['compared_pages']} pages, {report['vectors']} vectors, worst cosine "
          f"{report['worst_cosine']:.6f}, worst difference of int8 codes {report['worst_int8_steps']}")  # fmt: skip
    print("\n".join(report["problems"]) or "nothing was lost, nothing is there twice, nothing was left behind")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pdfs", type=Path, nargs="?", help="a folder of PDFs")
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10**6)
    parser.add_argument("--documents", type=int, metavar="LIMIT", help="only so many of them")
    parser.add_argument("--reference", type=Path, metavar="INDEX", help="a local index of these documents")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    end_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    report = run(args, folder)
    print(json.dumps(report)) if args.json else print_report(report)
    if report["problems"]:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
