"""The whole search over an index on disk: visrag beside other engines for many vectors a page.

    python benchmarks/search.py --vectors INDEX --questions FILE [--pages 5000 20000 100000] [--asked 100] [--rounds 3]
                                [--no-peers] [--fast-plaid PYTHON] [--folder WHERE] [--only-data] [--json]

Pages of 730 vectors of 128 dimensions and questions of 20 tokens, made of real ones as search_data.py says, of an index
of visrag and a file with a question in each line's JSON (both are read once: what is made of them, and the exact
scores, stay in --folder for the next run with as many questions; --only-data makes no more than that). "recall@10": of
the ten best pages by exact MaxSim in float32.

Each engine makes its index, in documents of 50 pages, and is then a process of its own on the same 2 processors. Asked
in turn, question by question; of each question the median of the rounds, after one that is not counted, and of those
the median and the 95th percentile ("p50_ms", "p95_ms").

    visrag        LocalStore and visrag.search.search: candidates by bits, scores by int8 codes, and the accounts of the
                  10 hits with their places
    visrag float16    likewise; of the 30 best by float16 vectors, which the index keeps, too
    peers         the numbers of the 10 best pages. Of the settings in search_engines.py the fastest whose recall is
                  not below visrag's better one over 20 questions, else that with the best recall. Qdrant Edge has two
                  rows: a scan of whole pages, and a prefetch by pooled vectors whose pages are then scored
    "times"       as long as visrag float16 takes

    "warm"        the files are in the page cache as far as they fit
    "cold"        before each of 20 questions the index is closed, its files are dropped from the page cache and it is
                  opened again, untimed (the disk of a virtual machine may have a cache of its own)
    open_s        opening, in a process that has imported everything, with warm files; ours with the tables of pages and
                  of the leg, which the first search would read
    add_pages_per_s    median of 5 documents of 50 pages into the full index, after 3 that are not counted, kept and to
                  be found when they are in; "_empty": likewise of the first (peers scan what is added until they index
                  it, which is not counted)
    search_after_add_ms    median of one question right after each of these documents
    bytes_per_page_memory, _cached    what came into memory by opening and asking: ours what belongs to no file and the
                  1-bit codes; apart from it ("cached") resident pages of the int8 codes, which may be evicted. Of peers
                  all, and how much of it are mapped files, by all that was asked of the engine

Each page takes 94 KB of disk in int8, 12 KB in bits, 187 KB in float16 and 374 KB in float32, which peers keep, too,
and for a while twice. So they are tried up to LIMITS: the indexes of all at 20,000 pages would fill 48 GB, and more
than 60 while they are made, and LanceDB finds some 3,800 centres of 15 million vectors for it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from search_data import make, truth
from search_engines import ADDED, DOCUMENT

OURS = ("visrag", "visrag float16")  # the better last
LIMITS = {
    "Qdrant Edge float32": 20_000,
    "Qdrant Edge int8": 5_000,
    "Qdrant Edge binary": 5_000,
    "LanceDB": 5_000,
    "fast-plaid": 5_000,
}
FEW = 20  # questions asked to choose a setting, and cold
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS"), "2")
Answer = tuple[float, list[int]]  # seconds, pages


class Served:
    """An engine's process, which answers."""

    def __init__(self, program: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            program, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.open_s = float(self._read())

    def __call__(self, *command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"an engine ended with {self._process.wait()}, see above")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()


class Built:
    """An engine's index of some pages."""

    def __init__(self, name: str, python: str, data: Path, folder: Path, pages: int) -> None:
        self.name, self._folder = name, folder
        program = [python, str(Path(__file__).with_name("search_engines.py"))]
        own = python != sys.executable  # an environment of its own
        self._environment = {key: value for key, value in os.environ.items() if not (own and key == "PYTHONPATH")}
        self._serve = [*program, "serve", name, str(data), str(folder)]
        made = subprocess.run(
            [*program, "build", name, str(data), str(folder), str(pages)],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self.row: dict[str, Any] = {"engine": name, "pages": pages, **json.loads(made.stdout.splitlines()[-1])}
        files = (path.stat() for path in folder.rglob("*") if path.is_file())
        self.row["bytes_per_page_disk"] = sum(file.st_blocks * 512 for file in files) / pages

    def serve(self) -> Served:
        return Served(self._serve, self._environment)

    def delete(self) -> None:
        shutil.rmtree(self._folder)


def tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def recall(answers: Sequence[Answer], best: Sequence[Sequence[int]]) -> float:
    """Of the first questions that were asked."""
    pairs = zip(answers, best, strict=False)
    return statistics.fmean(len({*found} & {*exact}) / len(exact) for (_, found), exact in pairs)


def chosen(built: Built, best: Sequence[Sequence[int]], wanted: float) -> list[dict[str, Any]]:
    """Of each stage the fastest setting that has the recall that is wanted, else that of the best recall: its "mode",
    and what was "tried"."""
    found = []
    served = built.serve()
    for stage in served("settings"):
        tried = []
        for setting in stage:
            served("ask", 0, setting)
            answers = [served("ask", number, setting) for number in range(FEW)]
            typical = statistics.median(taken for taken, _ in answers)
            tried.append({"mode": setting, "p50_ms": typical * 1000, "recall@10": recall(answers, best)})
            tell(f"{built.name}, {setting}: {typical * 1000:.1f} ms, recall {tried[-1]['recall@10']:.3f}")
        taken = min(tried, key=lambda row: (max(wanted - row["recall@10"], 0), row["p50_ms"]))
        found.append({"mode": taken["mode"], "tried": tried})
    served.close()
    return found


def measure(data: Path, where: Path, pages: int, asked: int, rounds: int, pythons: Mapping[str, str]) -> list[Any]:
    best = truth(data, pages, asked)
    tell(f"{pages} pages: exact scores are there")
    engines = []
    for name, python in pythons.items():
        try:
            engines.append(Built(name, python, data, where / f"{name}-{pages}".replace(" ", "-"), pages))
            tell(f"{name}: its index took {engines[-1].row['build_s']:.0f} s")
        except subprocess.CalledProcessError as error:
            tell(f"left out: {name}, whose index could not be made ({error})")
    ways: list[tuple[Built, dict[str, Any]]] = []
    wanted = 0.0
    for built in engines:
        ways += [(built, way) for way in chosen(built, best, wanted)]
        if built.name in OURS:
            wanted = max(wanted, ways[-1][1]["tried"][0]["recall@10"])
    served = {built.name: built.serve() for built in engines}

    def ask(command: str, number: int) -> list[Answer]:
        return [served[built.name](command, number, way["mode"]) for built, way in ways]

    warm = [[ask("ask", number) for number in range(asked)] for _ in range(rounds + 1)][1:]
    memories = {name: engine("memory") for name, engine in served.items()}
    cold = [ask("cold", number) for number in range(min(FEW, asked))]
    rows = []
    for i, (built, way) in enumerate(ways):
        engine = served[built.name]
        row = {**built.row, **way, "open_s": engine.open_s}
        row |= engine("add", pages + i * ADDED, way["mode"])
        row["bytes_per_page_memory"], row["bytes_per_page_cached"] = (size / pages for size in memories[built.name])
        rounds_of = ([each[number][i] for each in warm] for number in range(asked))
        typical = [(statistics.median(taken for taken, _ in each), each[0][1]) for each in rounds_of]
        for cache, answers in (("warm", typical), ("cold", [each[i] for each in cold])):
            times = np.array([taken for taken, _ in answers]) * 1000
            p50, p95 = np.percentile(times, (50, 95)).tolist()
            rows.append({**row, "cache": cache, "p50_ms": p50, "p95_ms": p95, "recall@10": recall(answers, best)})
    for built in engines:
        served[built.name].close()
        built.delete()
    return rows


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"{'engine':20} {'mode':28} {'pages':>6} cache {'p50 ms':>9} {'p95 ms':>9} times recall@10", end="")
    print("  KB a page: disk memory cached  open s  pages/s added (to empty)  ms after")
    ours = {(row["pages"], row["cache"]): row["p50_ms"] for row in rows if row["engine"] == OURS[-1]}
    for row in rows:
        times = row["p50_ms"] / ours[row["pages"], row["cache"]]
        empty = row["add_pages_per_s_empty"] or math.nan
        sizes = [row[f"bytes_per_page_{kind}"] / 1000 for kind in ("disk", "memory", "cached")]
        print(
            f"{row['engine']:20} {row['mode']:28} {row['pages']:6} {row['cache']:5} {row['p50_ms']:9.1f} "
            f"{row['p95_ms']:9.1f} {times:5.1f} {row['recall@10']:9.3f} {sizes[0]:16.1f} {sizes[1]:6.1f} "
            f"{sizes[2]:6.1f} {row['open_s']:7.2f} {row['add_pages_per_s']:8.0f} {empty:10.0f} "
            f"{row['search_after_add_ms']:14.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="an index of visrag")
    parser.add_argument("--questions", type=Path, help="a file with a question in each line's JSON")
    parser.add_argument("--pages", type=int, nargs="+", default=[5_000, 20_000, 100_000])
    parser.add_argument("--asked", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--fast-plaid", help="the python of an environment that has it")
    parser.add_argument("--folder", type=Path, help="where data, scores and indexes lie; the indexes are deleted")
    parser.add_argument("--only-data", action="store_true", help="only data and exact scores, for the next run")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if any(pages % DOCUMENT for pages in args.pages):
        parser.error(f"pages come in documents of {DOCUMENT}")
    if not THREADS.keys() <= os.environ.keys():  # libraries read them when they are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **THREADS})
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="search-", dir=args.folder) as where:
        data = args.folder or Path(where) / "data"
        if not (data / "questions.npy").exists():
            if args.vectors is None or args.questions is None:
                parser.error("--vectors and --questions are needed to make the data")
            make(data, args.vectors, args.questions)
        asked = min(args.asked, len(np.load(data / "questions.npy")))
        if args.only_data:
            truth(data, max(args.pages), asked)
            return
        rows = []
        for pages in args.pages:
            peers = [name for name, limit in LIMITS.items() if args.peers and pages <= limit]
            pythons = {name: args.fast_plaid if name == "fast-plaid" else sys.executable for name in (*OURS, *peers)}
            pythons = {name: python for name, python in pythons.items() if python}
            rows += measure(data, Path(where), pages, asked, args.rounds, pythons)
    print(json.dumps(rows)) if args.json else print_rows(rows)


if __name__ == "__main__":
    main()
