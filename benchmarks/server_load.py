"""A server under load: many searchers at once while documents come in, then single views of pages without load.

    python benchmarks/server_load.py --index DIR [--searchers 32] [--seconds 60] [--ingest FOLDER] [--questions FILE]
                                     [--text MODEL] [--json]

A copy of the index is served by a real server (--rate 100000, else the searchers, who all come from one address, would
be refused). The searchers, one process of asyncio beside the server on the same cores, ask one question after another,
drawn from all of them (the server keeps the vectors of the last 256); meanwhile the files of FOLDER (default: samples/)
are uploaded one after another, each under a new name when its predecessor is indexed. FILE: questions as of `visrag
evaluate` (default: the dev set's under VISRAG_DATA or ../shared/data, else the samples'). Every second the server's
memory is read; what no file backs (the index's vectors are mapped) is its private memory. Flat: the median of the last
third of the time is at most 5% and 8 MiB above that of the second.

The server is then started anew, with an empty cache of pictures, and asked for one thing at a time: a heatmap's numbers
and a picture for the first time, and again. Times are those of a client: connection kept, answer read. Exit code 1
where there was an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "services"), str(ROOT / "tests")]

from checks import copy_index  # noqa: E402
from live_server import LiveServer, all_ended  # noqa: E402
from services import end_on_sigterm  # noqa: E402

from visrag.evaluate import read_questions  # noqa: E402
from visrag.kinds import SUFFIXES  # noqa: E402

RATE = "100000"
VIEWS = 200  # of pages, without load
QUESTIONS = 40  # that these are for
SIDE = 1200  # pixels of a picture
FLAT, SLACK = 1.05, 8.0  # how far memory may rise: a factor, and MiB
TARGETS = {"heatmap, asked before": 20.0, "picture, cached": 10.0}  # ms, p50
WARM = "What is the warmest month?"


@dataclass(slots=True)
class Times:
    """Seconds of the answers, and what else came, by kind."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def row(self, what: str) -> dict[str, Any]:
        found: dict[str, Any] = {"what": what, "answers": len(self.seconds), "errors": dict(self.errors)}
        for percent in (50, 95, 99):
            found[f"p{percent}_ms"] = (
                round(float(np.percentile(self.seconds, percent)) * 1e3, 2) if self.seconds else None
            )
        return found

    def note(self, answer: httpx.Response, begun: float) -> bool:
        """Count an answer: whether it is one."""
        if answer.status_code == 200:
            self.seconds.append(time.perf_counter() - begun)
            return True
        with suppress(ValueError):
            self.errors[f"{answer.status_code} {answer.json().get('detail', '')}"[:100]] += 1
            return False
        self.errors[str(answer.status_code)] += 1
        return False


@dataclass(slots=True)
class Memory:
    """MiB each second: of the server, of that what no file backs, and of it with all that it started."""

    server: list[float] = field(default_factory=list)
    private: list[float] = field(default_factory=list)
    tree: list[float] = field(default_factory=list)

    def look(self, pid: int) -> None:
        found = psutil.Process(pid).memory_info()
        total = found.rss
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += child.memory_info().rss
        for values, size in ((self.server, found.rss), (self.private, found.rss - found.shared), (self.tree, total)):
            values.append(size / 2**20)

    def rows(self) -> list[dict[str, Any]]:
        series = {"memory, server": self.server, "memory, server, private": self.private, "memory, all": self.tree}
        return [_memory_row(what, values) for what, values in series.items()]


def _memory_row(what: str, values: Sequence[float]) -> dict[str, Any]:
    third = max(1, len(values) // 3)
    first, second, last = (
        float(np.median(part)) for part in (values[:third], values[third:-third] or values, values[-third:])
    )
    return {
        "what": what, "start_mib": round(values[0]), "first_third_mib": round(first), "second_third_mib": round(second),
        "last_third_mib": round(last), "most_mib": round(max(values)), "flat": last <= second * FLAT + SLACK,
    }  # fmt: skip


class Load:
    """Searchers and one uploader against a server."""

    def __init__(self, server: LiveServer, questions: Sequence[str], files: Sequence[Path]) -> None:
        self._server, self._questions, self._files = server, questions, files
        self.searches, self.memory = Times(), Memory()
        self.states: Counter[str] = Counter()  # of the documents that came in
        self.pages = 0
        self._end = self._seconds = 0.0

    async def run(self, searchers: int, seconds: float) -> None:
        limits = httpx.Limits(max_connections=searchers + 4, max_keepalive_connections=searchers + 4)
        async with httpx.AsyncClient(timeout=60, trust_env=False, limits=limits) as client:
            begun = time.monotonic()
            self._end = begun + seconds
            ingest = asyncio.create_task(self._ingest(client))
            await asyncio.gather(self._watch(), *(self._search(client, number) for number in range(searchers)))
            self._seconds = time.monotonic() - begun  # with the answers that were waited for at the end
            await ingest

    async def _until_end(self, act: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self._end:
            await act()

    async def _search(self, client: httpx.AsyncClient, number: int) -> None:
        chance = random.Random(number)

        async def ask() -> None:
            begun = time.perf_counter()
            try:
                answer = await client.get(f"{self._server.api}/search", params={"q": chance.choice(self._questions)})
            except httpx.HTTPError as error:
                self.searches.errors[type(error).__name__] += 1
                await asyncio.sleep(0.1)
            else:
                self.searches.note(answer, begun)

        await self._until_end(ask)

    async def _watch(self) -> None:
        async def look() -> None:
            self.memory.look(self._server.pid)
            await asyncio.sleep(1)

        await self._until_end(look)

    async def _ingest(self, client: httpx.AsyncClient) -> None:
        number = 0

        async def bring() -> None:
            nonlocal number
            path = self._files[number % len(self._files)]
            number += 1
            try:
                await self._bring(client, path, f"load-{number:04}-{path.name}")
            except httpx.HTTPError as error:
                self.states[type(error).__name__] += 1

        await self._until_end(bring)

    async def _bring(self, client: httpx.AsyncClient, path: Path, name: str) -> None:
        url = f"{self._server.api}/documents"
        answer = await client.post(url, files={"file": (path.name, path.read_bytes())}, data={"name": name})
        if answer.status_code != 202:
            self.states[f"{answer.status_code}"] += 1
            return
        document = answer.json()
        while document["state"] in ("queued", "working"):
            await asyncio.sleep(0.2)
            document = (await client.get(f"{url}/{document['id']}")).json()
        self.states[document["state"]] += 1
        self.pages += document["indexed"]

    def rows(self, searchers: int) -> list[dict[str, Any]]:
        searches = self.searches.row(f"searches, {searchers} at once")
        searches["per_second"] = round(len(self.searches.seconds) / self._seconds, 2)
        ingest = {"what": "ingest meanwhile", "documents": dict(self.states), "pages": self.pages}
        return [searches, ingest, *self.memory.rows()]


class Views:
    """One client that asks for one thing at a time."""

    def __init__(self, server: LiveServer, questions: Sequence[str]) -> None:
        self._server, self._questions = server, questions
        self._client = httpx.Client(timeout=60, trust_env=False)

    def pages(self) -> list[tuple[str, str]]:
        """Questions, and for each the path of its best page."""
        found = []
        for question in self._questions:
            hits = self._client.get(f"{self._server.api}/search", params={"q": question, "k": 1}).json()["hits"]
            found += [(question, f"documents/{hit['id']}/pages/{hit['page']}") for hit in hits]
        return found

    def rows(self, pages: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        self._get(Times(), "search", q=WARM)  # so that the model is loaded
        heatmaps = [(f"{page}/heatmap", {"q": question}) for question, page in pages]
        pictures = [(f"{page}/image", {"side": SIDE}) for page in dict.fromkeys(page for _, page in pages)]
        searches = [("search", {"q": question}) for question, _ in pages]
        rows = []
        for what, asked in (("heatmap", heatmaps), ("picture", pictures)):
            again = random.Random(0).choices(asked, k=VIEWS)
            rows.append(self._times(asked).row(f"{what}, first time"))
            rows.append(self._times(again).row(f"{what}, {'cached' if what == 'picture' else 'asked before'}"))
        return [*rows, self._times(searches).row("search, alone")]

    def _times(self, asked: Sequence[tuple[str, dict[str, Any]]]) -> Times:
        times = Times()
        for path, parameters in asked:
            self._get(times, path, **parameters)
        return times

    def _get(self, times: Times, path: str, **parameters: Any) -> None:
        begun = time.perf_counter()
        times.note(self._client.get(f"{self._server.api}/{path}", params=parameters), begun)


def run(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    questions = [question.text for question in read_questions(args.questions or find_questions())]
    files = sorted(path for path in args.ingest.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        sys.exit(f"no documents in {args.ingest}")
    index = copy_index(args.index, folder / "index")
    options = ["--rate", RATE, *(["--text", args.text] if args.text else [])]
    with LiveServer(index, folder / "loaded", *options) as server:
        server.start()
        load = Load(server, questions, files)
        asyncio.run(load.run(args.searchers, args.seconds))
        pages = Views(server, random.Random(0).sample(questions, min(QUESTIONS, len(questions)))).pages()
        left = server.descendants()
        server.terminate(30)
        all_ended(left, 30)
    rows = load.rows(args.searchers)
    with LiveServer(index, folder / "quiet", *options) as server:
        server.start()
        return rows + Views(server, []).rows(pages)


def find_questions() -> Path:
    data = Path(os.environ.get("VISRAG_DATA", ROOT.parent / "shared" / "data")) / "dev" / "questions.jsonl"
    return data if data.is_file() else ROOT / "samples" / "questions.jsonl"


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'':26} {'answers':>7} {'errors':>6} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8}")
    for row in (row for row in rows if "p50_ms" in row):
        times = "".join(f" {row[f'p{percent}_ms'] or float('nan'):8.1f}" for percent in (50, 95, 99))
        line = f"{row['what']:26} {row['answers']:7} {sum(row['errors'].values()):6}{times}"
        if row["what"] in TARGETS:
            line += f"   p50 is to be under {TARGETS[row['what']]:.0f}"
        print(line + (f"   {row['per_second']:.2f} a second" if "per_second" in row else ""))
    for row in (row for row in rows if "flat" in row):
        sizes = ", ".join(f"{row[f'{name}_third_mib']} MiB in the {name} third" for name in ("first", "second", "last"))
        print(f"{row['what']}: {row['start_mib']} MiB at the start, {sizes}, at most {row['most_mib']}: "
              f"{'flat' if row['flat'] else 'not flat'}")  # fmt: skip
    for row in rows:
        if "pages" in row:
            documents = ", ".join(f"{count} {state}" for state, count in row["documents"].items())
            print(f"{row['what']}: {documents or 'no'} documents, {row['pages']} pages")
        for kind, count in row.get("errors", {}).items():
            print(f"{row['what']}: {count} times {kind}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True, metavar="DIR", help="a local index; it is copied")
    parser.add_argument("--searchers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--ingest", type=Path, default=ROOT / "samples", metavar="FOLDER", help="documents to upload")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="questions to ask")
    parser.add_argument("--text", metavar="MODEL", help="the index's text model, where it has moved")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    end_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="server-load-"))
    try:
        rows = run(args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(rows)) if args.json else print_rows(rows)
    if any(row.get("errors") for row in rows) or set(rows[1]["documents"]) - {"indexed"}:
        sys.exit(1)


if __name__ == "__main__":
    main()
