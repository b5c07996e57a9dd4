"""How fast PDFs become an index, beside the straightforward pipeline of the libraries at hand.

    python benchmarks/ingest.py [--files PDF_OR_FOLDER…] [--pages N] [--rounds 3] [--json]    # default: samples/*.pdf

"libraries": pdf2image with its defaults renders every page, which is saved as JPEG; the page's text (pypdfium2) is cut
into passages of 256 tokens; MultiVectorEncoder.encode_document of sentence-transformers, with its defaults, encodes
them, with the same weights; qdrant-client in local mode keeps the multivectors. It reads no scans. "visrag" is
`visrag ingest --jobs 2`, which saves no pictures: it draws a page when it is looked at.

In each round each side runs once, in a process of its own, pinned to 2 processors, on 2 threads; medians of the rounds
are printed, and of the ratios within them. Loading models ("start", with visrag also what a new index measures once) is
no part of pages_per_s. "peak_mb": the greatest sum of the RSS of all processes of a side. "render", "words", "ocr",
"encode", "store": seconds, those of libraries one after the other. visrag reads pages in processes beside the encoder:
its render, words and ocr are CPU seconds, taken by reading the same pages once more in one process. "ratio_text":
without the pictures of libraries, render, which visrag does not make. --pages: the first so many pages of all files.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "2")
PASSAGE = 256  # tokens, [CLS] and [SEP] included
STAGES = ("start", "render", "words", "ocr", "encode", "store")


class Clock:
    """Seconds by stage."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._now = now

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begun = self._now()
        try:
            yield
        finally:
            self.seconds[stage] += self._now() - begun

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Count a method's time as a stage's."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(stage):
                return method(*args, **kwargs)

        setattr(owner, name, timed)


# The sides: files and an empty folder → pages and seconds. Each runs in a process of its own.


def by_visrag(files: Sequence[Path], folder: Path) -> dict[str, Any]:
    clock = Clock()
    with clock("start"):
        from visrag import Index
        from visrag.encoders import Encoders
        from visrag.settings import IngestSettings
        from visrag.store.local import LocalStore

        index = Index(folder / "index", device="cpu")
        index.ingest()
    clock.wrap(Encoders, "encode", "encode")
    for name in ("begin", "add_pages", "put_original", "commit"):
        clock.wrap(LocalStore, name, "store")
    with index:
        summary = index.ingest(*files, settings=IngestSettings(jobs=2))
    return {"pages": summary.pages, "seconds": summary.seconds, **clock.seconds}


def by_libraries(files: Sequence[Path], folder: Path) -> dict[str, Any]:
    clock = Clock()
    with clock("start"):
        import pypdfium2
        from pdf2image import convert_from_path
        from qdrant_client import QdrantClient, models
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
        from sentence_transformers.sentence_transformer.modules import Normalize

        from visrag.encode.checkpoint import find_checkpoint

        modules = [
            Transformer(str(find_checkpoint("all-MiniLM-L6-v2"))),
            MultiVectorMask(),
            Normalize("token_embeddings"),
        ]
        model = MultiVectorEncoder(modules=modules, device="cpu")
        client = QdrantClient(path=str(folder / "qdrant"))
        many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        size = model.get_embedding_dimension() or 0
        parameters = models.VectorParams(size=size, distance=models.Distance.COSINE, multivector_config=many)
        client.create_collection("pages", parameters)
    begun, pages, points = time.perf_counter(), 0, 0
    for file in files:
        with clock("render"):
            for number, picture in enumerate(convert_from_path(file), 1):
                picture.save(folder / f"{file.stem}-{number}.jpg")
        with clock("words"):
            pdf = pypdfium2.PdfDocument(file)
            texts = [page.get_textpage().get_text_range() for page in pdf]
            pdf.close()
            found = [(n, text) for n, page in enumerate(texts, 1) for text in passages(model.tokenizer, page)]
        with clock("encode"):
            vectors = model.encode_document([text for _, text in found], convert_to_numpy=True)
        with clock("store"):
            new = [
                models.PointStruct(
                    id=points + i, vector=rows.tolist(), payload={"document": file.name, "page": number, "text": text}
                )
                for i, ((number, text), rows) in enumerate(zip(found, vectors, strict=True))
            ]
            if new:
                client.upsert("pages", new)
        pages, points = pages + len(texts), points + len(found)
    seconds = time.perf_counter() - begun
    client.close()
    return {"pages": pages, "seconds": seconds, **clock.seconds}


def passages(tokenizer: Any, text: str) -> list[str]:
    """A page's text in pieces of so many tokens."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    parts = [offsets[start : start + PASSAGE - 2] for start in range(0, len(offsets), PASSAGE - 2)]
    return [text[part[0][0] : part[-1][1]] for part in parts]


def by_reading(files: Sequence[Path], _: Path) -> dict[str, Any]:
    """CPU seconds of what visrag's rendering processes do."""
    from visrag.ocr import with_ocr
    from visrag.pdf import PdfiumDocument

    clock = Clock(time.process_time)
    clock.wrap(PdfiumDocument, "content", "words")
    clock.wrap(PdfiumDocument, "picture", "render")
    with clock("all"):
        for file in files:
            document = PdfiumDocument(file, file.name, ())
            for number in range(1, document.pages + 1):
                with_ocr(document, number, always=False, threads=1)
            document.close()
    ocr = clock.seconds.pop("all") - sum(clock.seconds.values())
    return {**clock.seconds, "ocr": ocr}


SIDES = {"visrag": by_visrag, "libraries": by_libraries, "reading": by_reading}


# The measure


def run(side: str, files: Sequence[Path]) -> dict[str, Any]:
    """What a side prints, in a process of its own, and the peak of its memory."""
    command = [sys.executable, __file__, "--side", side, "--files", *map(str, files)]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                peak = max(peak, sum(resident(each) for each in [tree, *tree.children(recursive=True)]))
            time.sleep(0.1)
        printed = process.stdout.read() if process.stdout is not None else ""
    if process.returncode:
        raise SystemExit(f"{side} failed: run {' '.join(command)}")
    return {**json.loads(printed), "peak_mb": peak / 1e6}


def resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def first_pages(paths: Sequence[Path], most: int | None, folder: Path) -> list[Path]:
    """The files, up to so many pages of all; of the last a copy, with its first pages."""
    import pypdfium2

    found = sorted(file for path in paths for file in (path.glob("*.pdf") if path.is_dir() else [path]))
    if most is None:
        return found
    taken: list[Path] = []
    for file in found:
        with pypdfium2.PdfDocument(file) as pdf:
            count = len(pdf)
            if most < count:
                with pypdfium2.PdfDocument.new() as cut:
                    cut.import_pages(pdf, list(range(most)))
                    cut.save(folder / file.name)
        taken.append(file if count <= most else folder / file.name)
        most -= count
        if most <= 0:
            break
    return taken


def measure(files: Sequence[Path], rounds: int) -> list[dict[str, Any]]:
    runs: dict[str, list[dict[str, Any]]] = {"visrag": [], "libraries": []}
    for number in range(rounds):
        for side in sorted(runs, reverse=number % 2 == 0):
            runs[side].append(run(side, files))
    reading = run("reading", files)
    rows = []
    for side, done in runs.items():
        middle = {key: statistics.median(each.get(key, 0.0) for each in done) for key in (*STAGES, "peak_mb")}
        rate = statistics.median(each["pages"] / each["seconds"] for each in done)
        rows.append({"engine": side, "pages": done[0]["pages"], "pages_per_s": rate, **middle})
    rows[0] |= {key: reading[key] for key in ("render", "words", "ocr") if key in reading}
    pairs = list(zip(*runs.values(), strict=True))
    rows[0]["ratio"] = statistics.median(theirs["seconds"] / ours["seconds"] for ours, theirs in pairs)
    rows[0]["ratio_text"] = statistics.median((b["seconds"] - b["render"]) / a["seconds"] for a, b in pairs)
    return rows


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(f"{'engine':10} pages pages/s peak MB  {'  '.join(f'{stage:>6}' for stage in STAGES)}")
    for row in rows:
        stages = "  ".join(f"{row[stage]:6.2f}" for stage in STAGES)
        print(f"{row['engine']:10} {row['pages']:5} {row['pages_per_s']:7.2f} {row['peak_mb']:7.0f}  {stages}")
    print(f"visrag is {rows[0]['ratio']:.1f} times as fast, {rows[0]['ratio_text']:.1f} times without pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    samples = sorted((Path(__file__).parent.parent / "samples").glob("*.pdf"))
    parser.add_argument("--files", nargs="+", type=Path, default=samples)
    parser.add_argument("--pages", type=int, metavar="N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(SIDES[args.side](args.files, Path(folder))))
        return
    os.environ.update(THREADS)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(first_pages(args.files, args.pages, Path(folder)), args.rounds)
    print(json.dumps(rows)) if args.json else print_rows(rows)


if __name__ == "__main__":
    main()
