"""Exact MaxSim of one question against all pages in memory: visrag's kernel beside what else scores it on a CPU.

    python benchmarks/maxsim.py [--pages 400] [--patches 730] [--dim 128] [--tokens 20] [--rounds 11] [--json]

Pages are of random unit vectors: noise, and the vector of a topic, of which there is one for 25 pages, in a share that
is the page's own. A question is made of vectors of one page with as much noise again. In each round every engine in its
turn scores all pages three times, of which the median counts; printed are the medians of the rounds. Peers run on 2
threads, ours also on 1; the process is pinned to 2 processors. "recall@10": of the ten best pages by float64, over 50
questions. "peak_share": products a second of ours in int8 by VNNI, of those that as many cores as it has threads make
in a loop of vpdpbusd on registers alone, in the same rounds.

Peers that are not installed are left out: pip install maxsim-cpu lancedb. Two are not here at all. fast-plaid keeps no
vectors, only their centroids and what is left over in 4 bits a dimension, of which it decodes the pages that its
centroids put forward: benchmarks/search.py has it. colpali-engine needs torchvision, which breaks sentence-transformers
beside torch for CPUs alone; its score_multi_vector is "torch einsum", after batches of 128 pages have been padded.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from visrag.compress import sign_bits, to_bits, to_int8, tokens_to_int8
from visrag.maxsim import Block, kernels, scan
from visrag.records import Floats

QUESTIONS = 50
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "2")
Engine = Callable[[Floats], Any]  # a question (t, dim) → a score for each page, or the ten best pages


def unit(vectors: Floats) -> Floats:
    found: Floats = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return found


def made(pages: int, patches: int, dim: int, tokens: int) -> tuple[Floats, list[Floats]]:
    """Pages (p, n, dim), and questions (t, dim)."""
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((max(1, pages // 25), dim), np.float32)
    share = rng.uniform(0.1, 0.9, (pages, 1, 1)).astype(np.float32)
    vectors = rng.standard_normal((pages, patches, dim), np.float32)
    vectors = unit(vectors + share * topics[rng.integers(0, len(topics), pages), None])
    questions = []
    for page in rng.integers(0, pages, QUESTIONS):
        own = vectors[page, rng.integers(0, patches, tokens)]
        questions.append(unit(own + rng.standard_normal((tokens, dim), np.float32) / np.sqrt(dim)))
    return vectors, questions


# Ours


def block_of(vectors: Floats, bits: bool) -> Block:
    pages, patches, dim = vectors.shape
    codes = [to_int8(page) for page in vectors]
    parts = [to_bits(found) if bits else found.reshape(-1) for found, _ in codes]
    length = len(parts[0]) + -len(parts[0]) % 64
    buffer = np.zeros(pages * length, np.int8)
    for i, part in enumerate(parts):
        buffer[i * length : i * length + len(part)] = part
    zeros, offsets = np.zeros(pages, np.int64), np.arange(pages, dtype=np.int64) * length
    scales = np.array([scale for _, scale in codes], np.float32)
    counts = np.full(pages, patches, np.int64)
    return Block((buffer,), zeros, offsets, counts, np.ones_like(scales) if bits else scales, dim, bits)


def ours(vectors: Floats) -> Iterator[tuple[dict[str, Any], Engine]]:
    for bits in (False, True):
        block = block_of(vectors, bits)
        for path in kernels():
            for threads in (1, 2) if path != "numpy" else (1,):
                row = {"engine": f"visrag {path}", "mode": "1-bit" if bits else "int8", "threads": threads}
                yield row, scorer(block, path, threads)


def scorer(block: Block, path: str, threads: int) -> Engine:
    def score(query: Floats) -> Floats:
        codes, scales = tokens_to_int8(query)
        asked = sign_bits(query) if block.bits else codes
        return scan(asked, scales.astype(np.float64), block, path=path, most=threads)

    return score


# Peers


def by_numpy(vectors: Floats) -> Iterator[tuple[dict[str, Any], Engine]]:
    flat, patches = vectors.reshape(-1, vectors.shape[2]), vectors.shape[1]
    yield (
        {"engine": "numpy sgemm", "mode": "float32", "threads": 2},
        lambda query: (query @ flat.T).reshape(len(query), -1, patches).max(axis=2).sum(axis=0),
    )


def by_torch(vectors: Floats) -> Iterator[tuple[dict[str, Any], Engine]]:
    import torch
    from sentence_transformers.util import maxsim

    torch.set_num_threads(2)
    pages = torch.from_numpy(vectors)
    yield (
        {"engine": "torch einsum", "mode": "float32", "threads": 2},
        lambda query: torch.einsum("td,pnd->ptn", torch.from_numpy(query), pages).amax(dim=2).sum(dim=1).numpy(),
    )
    yield (
        {"engine": "sentence-transformers util.maxsim", "mode": "float32", "threads": 2},
        lambda query: maxsim(torch.from_numpy(query)[None], pages)[0].numpy(),
    )


def by_maxsim_cpu(vectors: Floats) -> Iterator[tuple[dict[str, Any], Engine]]:
    import maxsim_cpu

    row = {"engine": "maxsim-cpu", "mode": "float32", "threads": 2}
    yield row, lambda query: np.asarray(maxsim_cpu.maxsim_scores(query, vectors))


def by_qdrant_edge(vectors: Floats) -> Iterator[tuple[dict[str, Any], Engine]]:
    import qdrant_edge as edge

    modes: dict[str, Any] = {
        "float32": None,
        "int8": edge.ScalarQuantizationConfig(edge.ScalarType.Int8, always_ram=True),
        "binary": edge.BinaryQuantizationConfig(always_ram=True),
        "turbo": edge.TurboQuantQuantizationConfig(always_ram=True),
    }
    for mode, quantization in modes.items():
        folder = tempfile.mkdtemp(dir=FOLDER.name)
        parameters = edge.EdgeVectorParams(
            size=vectors.shape[2],
            distance=edge.Distance.Dot,
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
            quantization_config=quantization,
            hnsw_config=edge.HnswIndexConfig(0, 4, 10_000),  # no graph: every page is scored
        )
        config = edge.EdgeConfig({"": parameters}, {}, wal_enabled=False, max_search_threads=2)
        shard = edge.EdgeShard.create(folder, config)
        for first in range(0, len(vectors), 100):
            part = vectors[first : first + 100]
            points = [edge.Point(first + i, {"": page.tolist()}, {}) for i, page in enumerate(part)]
            shard.update(edge.UpdateOperation.upsert_points(points))
        shard.optimize()
        yield {"engine": "Qdrant Edge", "mode": mode, "threads": 2}, edge_search(edge, shard, quantization is not None)


def edge_search(edge: Any, shard: Any, quantized: bool) -> Engine:
    parameters = edge.SearchParams(exact=not quantized, quantization=edge.QuantizationSearchParams(rescore=False))

    def search(query: Floats) -> list[int]:
        request = edge.QueryRequest(limit=10, query=edge.Query.Nearest(query.tolist()), params=parameters)
        return [point.id for point in shard.query(request)]

    return search


def by_qdrant_client(vectors: Floats) -> Iterator[tuple[dict[str, Any], Engine]]:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    parameters = models.VectorParams(size=vectors.shape[2], distance=models.Distance.DOT, multivector_config=many)
    client.create_collection("pages", parameters)
    for first in range(0, len(vectors), 100):
        part = vectors[first : first + 100]
        client.upsert("pages", [models.PointStruct(id=first + i, vector=page.tolist()) for i, page in enumerate(part)])
    yield (
        {"engine": "qdrant-client local", "mode": "float32", "threads": 2},
        lambda query: [point.id for point in client.query_points("pages", query.tolist(), limit=10).points],
    )


def by_lancedb(vectors: Floats) -> Iterator[tuple[dict[str, Any], Engine]]:
    import lancedb
    import pyarrow as pa

    database = lancedb.connect(tempfile.mkdtemp(dir=FOLDER.name))
    kind = pa.list_(pa.list_(pa.float32(), vectors.shape[2]))
    schema = pa.schema([("id", pa.int64()), ("vector", kind)])
    rows = [{"id": i, "vector": page.tolist()} for i, page in enumerate(vectors)]
    table = database.create_table("pages", rows, schema=schema)
    yield (
        {"engine": "LanceDB", "mode": "float32", "threads": 2},
        lambda query: table.search(query).distance_type("cosine").limit(10).to_arrow()["id"].to_pylist(),
    )


PEERS = (by_numpy, by_torch, by_maxsim_cpu, by_qdrant_edge, by_qdrant_client, by_lancedb)
FOLDER = tempfile.TemporaryDirectory(prefix="maxsim-")


# The measure


def ten(found: Any) -> list[int]:
    return found if isinstance(found, list) else np.argsort(-np.asarray(found), kind="stable")[:10].tolist()


def peak_of_this_core() -> Callable[[], float]:
    """Products of bytes a second by vpdpbusd on registers alone; NaN where there is no compiler, or no VNNI."""
    program = Path(FOLDER.name) / "peak.so"
    source = Path(__file__).with_name("vnni_peak.c")
    if kernels()[0] != "avx512" or shutil.which("cc") is None:
        return lambda: float("nan")
    subprocess.run(["cc", "-O3", "-shared", "-fPIC", str(source), "-o", str(program)], check=True)
    function = ctypes.CDLL(str(program)).peak
    function.restype = ctypes.c_double
    return lambda: float(function(ctypes.c_long(1_000_000)))


def seconds(engine: Engine, query: Floats) -> float:
    begun = time.perf_counter()
    engine(query)
    return time.perf_counter() - begun


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    vectors, questions = made(args.pages, args.patches, args.dim, args.tokens)
    exact = [
        np.array([(query.astype(np.float64) @ page.T.astype(np.float64)).max(axis=1).sum() for page in vectors])
        for query in questions
    ]
    engines: list[tuple[dict[str, Any], Engine]] = [*ours(vectors)]
    for peer in PEERS:
        try:
            engines += peer(vectors)
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)
    times: list[list[float]] = [[] for _ in engines]
    peaks, peak = [], peak_of_this_core()
    for number in range(args.rounds + 1):
        query = questions[number % QUESTIONS]
        peaks.append(peak())
        for (_, engine), taken in zip(engines, times, strict=True):
            taken.append(statistics.median(seconds(engine, query) for _ in range(3)))
    rows = []
    for (row, engine), taken in zip(engines, times, strict=True):
        typical = statistics.median(taken[1:])  # the first round warms up
        recall = [len({*ten(engine(q))} & {*ten(scores)}) / 10 for q, scores in zip(questions, exact, strict=True)]
        row |= {"ms": typical * 1000, "pages_per_s": args.pages / typical, "recall@10": statistics.fmean(recall)}
        if row["engine"] == "visrag avx512" and row["mode"] == "int8":
            row["peak_share"] = vectors.size * args.tokens / typical / statistics.median(peaks) / row["threads"]
        rows.append(row)
    return rows


def print_rows(rows: list[dict[str, Any]]) -> None:
    best = min(row["ms"] for row in rows if row["engine"].startswith("visrag") and row["mode"] == "int8")
    print(f"{'engine':34} {'mode':8} threads {'ms':>9} {'pages/s':>10} recall@10  peak   times ours (int8)")
    for row in rows:
        share = f"{row['peak_share']:5.0%}" if "peak_share" in row else "     "
        line = f"{row['engine']:34} {row['mode']:8} {row['threads']:7} {row['ms']:9.2f} {row['pages_per_s']:10.0f}"
        print(f"{line} {row['recall@10']:9.2f} {share}   {row['ms'] / best:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--patches", type=int, default=730)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not THREADS.keys() <= os.environ.keys():  # libraries read them when they are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **THREADS})
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    rows = measure(args)
    print(json.dumps(rows)) if args.json else print_rows(rows)


if __name__ == "__main__":
    main()
