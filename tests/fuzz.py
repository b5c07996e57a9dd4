"""Damaged files, read as an ingest reads them: python tests/fuzz.py --count 2000 --seed 1 [--ocr] [--ingest]

Each file is one of the evaluation data's odd/ or of samples/, with bytes flipped, a part cut out, the end of another
file put on, or numbers changed. The same seed gives the same files. Every page is drawn. Printed: what the files came
to, how long they took, and the memory of this process and of the rendering process after each. Exit code 1 if an error
other than DocumentError came up, or a file took longer than its pages' limits.

--ocr: pages without words and large images are read, as an ingest reads them unless it is told otherwise.
--ingest: they go through Index.ingest, with a small model of random weights, in lots of 100 files, and pages are drawn
for OCR only; then it is also a fault if a file is neither a document of the index nor among its failures, or if a page
of one is not there to be seen.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
from checkpoints import make_checkpoint

from visrag import Index, IngestSettings, VisragError
from visrag.encoders import render_options
from visrag.errors import DocumentError
from visrag.records import Page
from visrag.render import Renderer, RenderOptions
from visrag.settings import Ocr

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("VISRAG_DATA", ROOT.parent / "shared" / "data"))
LARGEST = 400_000  # bytes of a file that is mutated: large ones take long and say little more
LOT = 100  # files that are ingested together
TIMEOUT = 20.0  # seconds a page
SPARE = 60.0  # seconds that a file may take beyond the limits of its pages
SETTINGS = IngestSettings(ocr="off", page_timeout=TIMEOUT, max_pages=2000)
SIDE = 300  # pixels of the longer side of a page that is drawn
ENDED = ("renderer_crash", "timeout", "too_large")
NUMBERS = (
    b"0",
    b"1",
    b"-1",
    b"7",
    b"255",
    b"4096",
    b"65536",
    b"99999",
    b"2147483647",
    b"-2147483648",
    b"1e30",
    b"0.00001",
)


def originals() -> list[Path]:
    """The files that are mutated, in order of name."""
    folders = [ROOT / "samples", DATA / "odd" / "pdfs"]
    kinds = {".pdf", ".md"}
    found = (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()))
    return [path for path in found if path.suffix in kinds and 0 < path.stat().st_size <= LARGEST]


def mutated(seed: int, files: Sequence[Path]) -> tuple[str, bytes]:
    """One damaged file: its name, which says how it was made, and its bytes."""
    chance = random.Random(seed)
    path = chance.choice(files)
    data = bytearray(path.read_bytes())
    ways = [chance.choice(("flip", "cut", "splice", "numbers")) for _ in range(chance.choice((1, 1, 2)))]
    for way in ways:
        if way == "flip":
            for _ in range(chance.choice((1, 4, 16, 64))):
                data[chance.randrange(len(data))] = chance.randrange(256)
        elif way == "cut":
            start = chance.randrange(len(data))
            end = len(data) if chance.random() < 0.5 else min(len(data), start + chance.randrange(1, 4096))
            del data[start:end]
        elif way == "splice":
            other = chance.choice(files).read_bytes()
            data[chance.randrange(1, len(data) + 1) :] = other[chance.randrange(len(other)) :]
        else:
            _change_numbers(data, chance)
        if not data:
            data = bytearray(b"%")
    return f"{seed}-{'-'.join(ways)}-{path.name}", bytes(data)


def _change_numbers(data: bytearray, chance: random.Random) -> None:
    """Put others in the place of up to five numbers outside of what looks packed."""
    found = list(re.finditer(rb"(?<=[\s\[/<])\d{1,10}(?=[\s\]>/R])", data))
    for match in sorted(chance.sample(found, min(len(found), chance.randint(1, 5))), key=lambda m: -m.start()):
        near = str(int(match.group()) + chance.choice((-1, 1, 256))).encode()
        data[match.start() : match.end()] = chance.choice((near, *NUMBERS))


@dataclass
class Report:
    """What came of the files. ``slowest``: (seconds, name) of three. ``parent``, ``child``: MB resident after each
    file, of this process and of the rendering process; ``children``: the process ids of the latter.

    In arrays of numbers, which take no memory to speak of: what grows is what is measured. ``each``: files that one of
    the numbers stands for.
    """

    each: int = 1

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: array[float] = field(default_factory=lambda: array("d"))
    slowest: list[tuple[float, str]] = field(default_factory=list)
    parent: array[float] = field(default_factory=lambda: array("d"))
    child: array[float] = field(default_factory=lambda: array("d"))
    children: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        quarter = max(1, len(self.seconds) // 4)
        middle = float(np.median(self.seconds)) * 1000
        lines = [
            f"{sum(self.seconds):.0f} s, of each {self.each} p50 {middle:.0f} ms",
            "slowest: " + (", ".join(f"{seconds:.1f} s {name}" for seconds, name in self.slowest) or "not timed"),
            ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items())),
        ]
        for name, values in (("this process", self.parent), ("rendering process", self.child)):
            if not values:
                continue
            first, last = np.median(values[:quarter]), np.median(values[-quarter:])
            files = np.arange(len(values)) * self.each
            slope = np.polyfit(files, values, 1)[0] * 1000 if len(values) > 1 else 0.0
            lines.append(
                f"{name}: {first:.1f} MB in the first quarter, {last:.1f} in the last, at most {max(values):.1f};"
                f" a straight line rises by {slope:+.2f} MB in 1,000 files"
            )
        lines.append(f"rendering processes: {len(self.children)}")
        return lines + [f"FAULT {fault}" for fault in self.faults]


def run(count: int, seed: int, folder: Path, ocr: Ocr = "off", keep: Path | None = None) -> Report:
    """Read and draw ``count`` damaged files. ``keep``: where those go of which the rendering process died, or that
    took long."""
    report, files, this = Report(), originals(), psutil.Process()
    settings = replace(SETTINGS, ocr=ocr)
    options = replace(render_options(settings, vision=False), image="all", image_side=SIDE)
    with Renderer() as renderer:
        for number in range(seed * 1_000_000, seed * 1_000_000 + count):
            name, data = mutated(number, files)
            path = folder / f"file{Path(name).suffix}"
            path.write_bytes(data)
            begun = time.monotonic()
            pages, outcomes = _read(renderer, path, options, report)
            seconds = time.monotonic() - begun
            report.seconds.append(seconds)
            report.slowest = sorted([*report.slowest, (seconds, name)], reverse=True)[:3]
            report.outcomes.update(outcomes)
            report.parent.append(this.memory_info().rss / 1e6)
            if renderer.pid is not None:
                report.children.add(renderer.pid)
                report.child.append(psutil.Process(renderer.pid).memory_info().rss / 1e6)
            if seconds > 2 * TIMEOUT * (pages + 1) + SPARE:
                report.faults.append(f"{name}: {seconds:.0f} s")
            if keep is not None and (seconds > 5 or any(outcome.endswith(ENDED) for outcome in outcomes)):
                keep.mkdir(parents=True, exist_ok=True)
                (keep / name).write_bytes(data)
    return report


def _read(renderer: Renderer, path: Path, options: RenderOptions, report: Report) -> tuple[int, Counter[str]]:
    """How many pages a file has, and what it and they came to."""
    outcomes: Counter[str] = Counter()
    pages = 0
    try:
        opened = renderer.pages(path, path.name, options)
        pages = opened.pages
        outcomes[f"document {opened.renderer}"] += 1
        for page in opened:
            outcomes["page" if isinstance(page, Page) else f"page {page.reason}"] += 1
    except DocumentError as error:
        outcomes[f"document {error.reason}"] += 1
    except Exception:  # whatever it is, it would have ended an ingest
        report.faults.append(traceback.format_exc())
    return pages, outcomes


def ingest(count: int, seed: int, folder: Path, ocr: Ocr = "off") -> Report:
    """Ingest ``count`` damaged files into an index in a folder."""
    report, files, this = Report(each=LOT), originals(), psutil.Process()
    settings = replace(SETTINGS, ocr=ocr)
    model = str(make_checkpoint("ColBERT", folder / "model"))
    with Index(folder / "index", text=model, device="cpu") as index:
        for first in range(seed * 1_000_000, seed * 1_000_000 + count, LOT):
            lot = folder / str(first)
            lot.mkdir()
            for number in range(first, min(first + LOT, seed * 1_000_000 + count)):
                name, data = mutated(number, files)
                (lot / name).write_bytes(data)
            begun = time.monotonic()
            try:
                index.ingest(lot, settings=settings)
                report.faults += _missing(index, sorted(path.name for path in lot.iterdir()))
            except Exception:
                report.faults.append(traceback.format_exc())
            shutil.rmtree(lot)
            report.seconds.append(time.monotonic() - begun)
            report.parent.append(this.memory_info().rss / 1e6)
        report.outcomes.update(
            f"{'document' if failure.page is None else 'page'} {failure.reason}" for failure in index.failures()
        )
        report.outcomes["document"] = sum(document.state != "failed" for document in index.documents())
        report.outcomes["page"] = sum(document.indexed for document in index.documents())
        if not index.search("the heat pump"):
            report.faults.append("a search finds nothing")
    return report


def _missing(index: Index, names: Sequence[str]) -> list[str]:
    """What of some files an index neither has nor calls a failure."""
    known = {document.name: document for document in index.documents()}
    failed = {(failure.document, failure.page) for failure in index.failures()}
    faults = []
    for name in names:
        if (name, None) in failed:
            continue
        if name not in known:
            faults.append(f"{name}: is not in the index")
            continue
        for number in range(1, known[name].pages + 1):
            if (name, number) not in failed:
                try:
                    index.page(name, number)
                except VisragError as error:
                    faults.append(f"{name}, page {number}: {error}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ocr", action="store_const", const="auto", default="off", help="read what has no text layer")
    parser.add_argument("--ingest", action="store_true", help="through Index.ingest")
    parser.add_argument("--keep", type=Path, help="a folder for files that ended the process or took long")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.ingest:
            report = ingest(options.count, options.seed, Path(folder), options.ocr)
        else:
            report = run(options.count, options.seed, Path(folder), options.ocr, options.keep)
    sys.stdout.write("\n".join([*report.lines(), ""]))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
