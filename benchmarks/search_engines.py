"""The engines of benchmarks/search.py, each in a process of its own, which that starts:

    python benchmarks/search_engines.py build ENGINE DATA INDEX PAGES     makes an index, and prints how fast
    python benchmarks/search_engines.py serve ENGINE DATA INDEX           answers JSON lines (``serve``)

Of an engine's library nothing is imported but in its own process: fast-plaid's is in an environment without visrag.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import struct
import sys
import time
from collections import ChainMap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from search_data import DIM, PATCHES, Data, Floats, unit

DOCUMENT = 50  # pages of a document
ROWS, COLS = 73, 10  # of a page's patches
RUNS = 30  # of neighbours, whose means Qdrant looks through first
TRIES, BEFORE = 5, 3  # documents added to find out a speed, and before that
ADDED = (BEFORE + TRIES) * DOCUMENT  # pages
BITS = 2  # the kind of visrag's segments that hold 1-bit codes


class Engine(Protocol):
    """One index in a folder. ``settings``: the ways of searching it that are tried, by name, in stages: of each stage
    one is chosen and measured."""

    settings: Sequence[Mapping[str, Any]]

    def __init__(self, folder: Path) -> None: ...
    def open(self) -> None:
        """Open what is there, or make it, with all that a search does not do itself."""
        ...

    def add(self, first: int, pages: Sequence[Floats]) -> None:
        """Add a document, of the pages from this number on. It is kept, and found by what is asked next."""
        ...

    def finish(self) -> None:
        """Make the index that searches use, once all is added."""
        ...

    def ask(self, query: Floats, setting: Any) -> list[int]:
        """The numbers of the ten best pages."""
        ...

    def close(self) -> None: ...


class Visrag:
    """``float16``: the vectors are kept so beside the int8 codes, and the best by these are scored by them."""

    def __init__(self, float16: bool, folder: Path) -> None:
        import visrag.search
        import visrag.store.local  # noqa: F401
        from visrag.records import Leg, Places

        self._folder, self._float16 = folder, float16
        self.settings = [{"1-bit, int8, float16" if float16 else "1-bit, int8": None}]
        self._legs = [Leg("patches", "PCA", DIM, "")]
        self._places = Places.on_grid(ROWS, COLS, np.arange(PATCHES, dtype=np.int32))

    def open(self) -> None:
        from visrag.records import Filter, PageRef
        from visrag.store.local import LocalStore

        self._store = LocalStore.open(self._folder, create=True)
        if not self._store.settings():
            self._store.write_settings({"float16": self._float16})
        if self._store.page_count(Filter()):
            self._store.chance("patches", [PageRef("", 1)])  # reads the leg's table

    def add(self, first: int, pages: Sequence[Floats]) -> None:
        from visrag.records import Document, EncodedPage, Page, PatchVectors

        generation = self._store.begin(Document(f"{first:07}", f"{first:064}", "", "application/pdf"))
        encoded = [
            EncodedPage(Page(i, 612.0, 792.0), {"patches": PatchVectors(page, self._places)}, {"patches": 0.0})
            for i, page in enumerate(pages, 1)
        ]
        self._store.add_pages(generation, encoded)
        self._store.commit(generation, len(pages))

    def finish(self) -> None: ...

    def ask(self, query: Floats, setting: Any) -> list[int]:
        from visrag.records import Filter, QueryVectors
        from visrag.search import search

        asked = QueryVectors(query, ("",) * len(query), np.ones(len(query), np.float32))
        found = search(self._store, "", {"patches": asked}, self._legs, "maxsim", Filter(), 10)
        return [int(hit.ref.document) + hit.ref.page - 1 for hit in found]

    def close(self) -> None:
        self._store.close()


class QdrantEdge:
    """Whole pages as a multivector without a graph, its floats on the disk; beside it, but where whole pages
    are scanned by their signs, the page's mean and those of 30 runs of its vectors, each with a graph."""

    def __init__(self, quantization: str, folder: Path) -> None:
        import qdrant_edge as edge

        self._edge, self._folder, self._quantization = edge, folder, quantization
        self.settings: list[dict[str, tuple[str, int, float | None]]]
        self._prefetched: tuple[str, ...] = () if quantization == "binary" else ("mean", "runs")
        if quantization == "binary":
            self.settings = [{f"scan, {times * 10} rescored": ("", 0, float(times)) for times in (2, 5, 10, 20)}]
        else:
            first = [(name, n) for name in self._prefetched for n in (50, 200, 1000, 3000)]
            reranked = {f"{n} by {name}, reranked": (name, n, None) for name, n in first}
            self.settings = [{"scan": ("", 0, None)}, reranked]

    def open(self) -> None:
        edge = self._edge
        if any(self._folder.iterdir()):
            self._shard = edge.EdgeShard.load(str(self._folder))
            self._shard.count(edge.CountRequest(exact=True))
            return
        quantizations: dict[str, Any] = {
            "float32": None,
            "int8": edge.ScalarQuantizationConfig(edge.ScalarType.Int8, always_ram=True),
            "binary": edge.BinaryQuantizationConfig(always_ram=True),
        }
        many = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
        parameters = partial(edge.EdgeVectorParams, size=DIM, distance=edge.Distance.Dot)
        vectors = {
            "pages": parameters(
                on_disk=True,
                multivector_config=many,
                quantization_config=quantizations[self._quantization],
                hnsw_config=edge.HnswIndexConfig(0, 4, 10_000),  # no graph
            ),
            "mean": parameters(hnsw_config=edge.HnswIndexConfig(16, 100, 100)),
            "runs": parameters(multivector_config=many, hnsw_config=edge.HnswIndexConfig(16, 100, 100)),
        }
        vectors = {name: vectors[name] for name in ("pages", *self._prefetched)}
        optimizers = edge.EdgeOptimizersConfig(indexing_threshold=100, default_segment_number=1)
        config = edge.EdgeConfig(vectors, {}, wal_enabled=False, max_search_threads=2, optimizers=optimizers)
        self._shard = edge.EdgeShard.create(str(self._folder), config)

    def add(self, first: int, pages: Sequence[Floats]) -> None:
        points = []
        for i, page in enumerate(pages, first):
            runs = unit(np.stack([run.mean(axis=0) for run in np.array_split(page, RUNS)]))
            vectors = {"pages": page.tolist(), "mean": unit(page.mean(axis=0)).tolist(), "runs": runs.tolist()}
            points.append(self._edge.Point(i, {name: vectors[name] for name in ("pages", *self._prefetched)}, {}))
        self._shard.update(self._edge.UpdateOperation.upsert_points(points))
        self._shard.flush()

    def finish(self) -> None:
        self._shard.optimize()

    def ask(self, query: Floats, setting: tuple[str, int, float | None]) -> list[int]:
        edge = self._edge
        prefetched, limit, oversampling = setting
        quantized = edge.QuantizationSearchParams(rescore=oversampling is not None, oversampling=oversampling)
        tokens = query.tolist()
        first = query.mean(axis=0).tolist() if prefetched == "mean" else tokens
        request = edge.QueryRequest(
            limit=10,
            query=edge.Query.Nearest(tokens, "pages"),
            prefetches=[edge.Prefetch(limit, edge.Query.Nearest(first, prefetched))] if prefetched else None,
            params=edge.SearchParams(quantization=quantized),
        )
        return [int(point.id) for point in self._shard.query(request)]

    def close(self) -> None:
        self._shard.close()


class LanceDB:
    """Its multivector index, IVF_PQ with the documented defaults: as many parts as the root of the number of vectors,
    8 bytes a vector."""

    settings = (
        {f"{probes} probes, refined {times} times": (probes, times) for probes in (20, 100) for times in (10, 50, 100)},
    )

    def __init__(self, folder: Path) -> None:
        import lancedb
        import pyarrow  # noqa: F401

        self._lancedb, self._folder = lancedb, folder

    def open(self) -> None:
        self._table: Any = None
        self._database = self._lancedb.connect(str(self._folder))
        if any(self._folder.iterdir()):
            self._table = self._database.open_table("pages")
            self._table.count_rows()

    def add(self, first: int, pages: Sequence[Floats]) -> None:
        import pyarrow as pa

        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(pages).reshape(-1)), DIM)
        lists = pa.ListArray.from_arrays(pa.array(np.arange(len(pages) + 1, dtype=np.int32) * PATCHES), vectors)
        rows = pa.table({"id": pa.array(range(first, first + len(pages)), pa.int64()), "vector": lists})
        if self._table is None:
            self._table = self._database.create_table("pages", rows)
        else:
            self._table.add(rows)

    def finish(self) -> None:
        from datetime import timedelta

        from lancedb.index import IvfPq

        self._table.optimize(cleanup_older_than=timedelta(seconds=1))
        self._table.create_index("vector", config=IvfPq(distance_type="cosine"))

    def ask(self, query: Floats, setting: tuple[int, int]) -> list[int]:
        probes, times = setting
        search = self._table.search(query).distance_type("cosine").nprobes(probes).refine_factor(times)
        found: list[int] = search.limit(10).select(["id", "_distance"]).to_arrow()["id"].to_pylist()
        return found

    def close(self) -> None:
        del self._table, self._database


class FastPlaid:
    """On the CPU, 4 bits a dimension; on 1 thread, too, which may be faster. It is made of all pages at once: there is
    no adding to an empty index."""

    settings = (
        {
            f"{probes} probes, {full} scored, {threads} threads": (probes, full, threads)
            for probes in (8, 32)
            for full in (256, 1024)
            for threads in (1, 2)
        },
    )

    def __init__(self, folder: Path) -> None:
        import torch
        from fast_plaid.search import FastPlaid as Index

        torch.set_num_threads(2)
        self._torch, self._open, self._folder = torch, Index, folder
        self._first: list[Any] = []

    def open(self) -> None:
        self._made = any(self._folder.iterdir())
        self._index = self._open(str(self._folder), device="cpu")

    def add(self, first: int, pages: Sequence[Floats]) -> None:
        tensors = [self._torch.from_numpy(page) for page in pages]
        if self._made:
            self._index.update(tensors)
        else:
            self._first += tensors

    def finish(self) -> None:
        self._index.create(self._first)

    def ask(self, query: Floats, setting: tuple[int, int, int]) -> list[int]:
        probes, full, threads = setting
        self._torch.set_num_threads(threads)
        asked = self._torch.from_numpy(query)[None]
        found = self._index.search(asked, 10, n_full_scores=full, n_ivf_probe=probes, show_progress=False)
        return [number for number, _ in found[0]]

    def close(self) -> None:
        self._index.close()


ENGINES: Mapping[str, Any] = {
    "visrag": partial(Visrag, False),
    "visrag float16": partial(Visrag, True),
    "Qdrant Edge float32": partial(QdrantEdge, "float32"),
    "Qdrant Edge int8": partial(QdrantEdge, "int8"),
    "Qdrant Edge binary": partial(QdrantEdge, "binary"),
    "LanceDB": LanceDB,
    "fast-plaid": FastPlaid,
}


def build(engine: Engine, data: Data, pages: int) -> dict[str, float | None]:
    engine.open()
    taken = []
    for first in range(0, pages, DOCUMENT):
        document = list(data.pages(first, first + DOCUMENT))
        begun = time.perf_counter()
        engine.add(first, document)
        taken.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    engine.finish()
    finished = time.perf_counter() - begun
    engine.close()
    empty = None if isinstance(engine, FastPlaid) else DOCUMENT / statistics.median(taken[BEFORE:][:TRIES])
    return {"add_pages_per_s_empty": empty, "build_s": sum(taken) + finished}


def serve(engine: Engine, data: Data, folder: Path) -> None:
    """Read a JSON list in each line, and answer it with a JSON value.

    ["settings"], their names by stage; ["ask", question, setting], seconds and pages; ["cold", question, setting], the
    same for an index that was opened again, with none of its files in the page cache; ["memory"], bytes; ["add", page,
    setting], how fast, as columns of a row. The first line that is written is what opening took, in seconds.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print
    before = resident()
    print(seconds(engine.open), file=answers)
    settings = ChainMap(*engine.settings)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        if command == "settings":
            answer: Any = [list(stage) for stage in engine.settings]
        elif command == "memory":
            answer = memory(before, folder, isinstance(engine, Visrag))
        elif command == "add":
            first, setting = arguments
            answer = adding(engine, data, first, settings[setting])
        else:
            number, setting = arguments
            if command == "cold":
                engine.close()
                gc.collect()
                forget(folder)
                engine.open()
            begun = time.perf_counter()
            found = engine.ask(data.questions[number], settings[setting])
            answer = time.perf_counter() - begun, found
        print(json.dumps(answer), file=answers)
    engine.close()


def seconds(act: Any) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def adding(engine: Engine, data: Data, start: int, setting: Any) -> dict[str, float]:
    """Documents of the pages from a number on are added, and after each a question is asked."""
    taken, after = [], []
    for first in range(start, start + ADDED, DOCUMENT):
        document = list(data.pages(first, first + DOCUMENT))
        taken.append(seconds(partial(engine.add, first, document)))
        after.append(seconds(partial(engine.ask, data.questions[0], setting)))
    return {
        "add_pages_per_s": DOCUMENT / statistics.median(taken[BEFORE:]),
        "search_after_add_ms": statistics.median(after[BEFORE:]) * 1000,
    }


def forget(folder: Path) -> None:
    """Drop the files of a folder from the page cache; what a process has mapped stays."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)  # what is not on the disk stays, too
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def resident() -> tuple[int, int]:
    """Bytes of this process that are in memory: of no file, and of mapped files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024, int(lines["RssFile"].split()[0]) * 1024


def memory(before: tuple[int, int], folder: Path, ours: bool) -> tuple[int, int]:
    """Bytes that came into memory: those that a search needs there, and those of mapped files that may be evicted.

    Ours: what is in no file and the 1-bit codes; the int8 codes. Of peers all, and of it the mapped files.
    """
    anonymous, mapped = (now - then for now, then in zip(resident(), before, strict=True))
    if not ours:
        return anonymous + mapped, mapped
    kinds = resident_segments(folder)
    bits = sum(size for kind, size in kinds if kind == BITS)
    return anonymous + bits, sum(size for _, size in kinds) - bits


def kind_of(segment: Path) -> int:
    """What a segment of visrag holds."""
    with segment.open("rb") as file:
        return int(struct.unpack("<8sHH", file.read(12))[2])


def resident_segments(folder: Path) -> list[tuple[int, int]]:
    """Kind and resident bytes of each mapping of visrag's segments."""
    found, kind = [], None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head, *rest = line.split()
        if not head.endswith(":"):  # a mapping: addresses, rights, offset, device, inode, path
            path = Path(rest[-1]) if len(rest) == 5 else None
            ours = path is not None and path.is_relative_to(folder) and path.suffix == ".seg"
            kind = kind_of(path) if path is not None and ours else None
        elif head == "Rss:" and kind is not None:
            found.append((kind, int(rest[0]) * 1024))
    return found


def main() -> None:
    command, name, where, folder, *count = sys.argv[1:]
    data, index = Data(Path(where)), Path(folder).resolve()
    index.mkdir(parents=True, exist_ok=True)
    engine: Engine = ENGINES[name](index)
    if command == "build":
        print(json.dumps(build(engine, data, int(count[0]))))
    else:
        serve(engine, data, index)


if __name__ == "__main__":
    main()
