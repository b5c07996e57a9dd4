"""How fast and how well pages are read, beside RapidOCR called page by page with its defaults.

    python benchmarks/ocr.py [PDF…] [--rounds 5] [--json]    # default: samples/*.pdf

Pages with a text layer of 100 characters or more become pictures, of the size at which `visrag ingest` reads scans;
the text layer is the truth. Sides: RapidOCR on its default number of threads; visrag in 1 process, and in 2 as with
`--jobs 2`, of one thread each. Each round every side reads all pages, its models loaded; medians of the rounds are
printed, and of the ratios within them. The character error rate is edit distance over the length of the truth, spaces
counted as one, compatibility forms (NFKC) as equal. RapidOCR's lines are put in visrag's reading order: order is not
judged.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from visrag.ocr import OcrLine, in_reading_order, read, reading_side
from visrag.pdf import PdfiumDocument

SHORTEST = 100  # characters of a text layer that is taken


def drawn(paths: Sequence[Path], folder: Path) -> list[tuple[Path, str]]:
    """The pictures of the pages, as .npy files in a folder, and their true text."""
    pages = []
    for path in paths:
        document = PdfiumDocument(path, path.name, ())
        for number in range(1, document.pages + 1):
            page, _ = document.content(number)
            if len(page.text) >= SHORTEST:
                picture = folder / f"{len(pages)}.npy"
                np.save(picture, np.asarray(document.picture(number, reading_side(page))))
                pages.append((picture, page.text))
        document.close()
    return pages


def by_visrag(path: Path) -> str:
    from PIL import Image

    return "\n".join(line.text for line in read(Image.fromarray(np.load(path)), threads=1))


def by_rapidocr(path: Path) -> str:
    pixels = np.ascontiguousarray(np.load(path)[:, :, ::-1])
    result = _rapidocr()(pixels)
    lines = []
    for text, corners in zip(result.txts or (), [] if result.boxes is None else result.boxes, strict=True):
        points = np.asarray(corners) / (pixels.shape[1], pixels.shape[0])
        lines.append(OcrLine(" ".join(text.split()), (*points.min(axis=0), *points.max(axis=0)), ()))
    return "\n".join(line.text for line in in_reading_order(lines))


@functools.cache
def _rapidocr() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(params={"Global.log_level": "critical"})


def errors(text: str, truth: str) -> int:
    """The edit distance of two texts: insertions, deletions and substitutions of characters (Wagner and Fischer)."""
    across = np.array([ord(character) for character in truth])
    steps = np.arange(len(truth) + 1)
    row = steps
    for number, character in enumerate(text, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (across != ord(character)))
        row = np.minimum.accumulate(np.concatenate(([number], changed)) - steps) + steps
    return int(row[-1])


def plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def measure(pages: Sequence[tuple[Path, str]], rounds: int) -> dict[str, Any]:
    """Seconds of every side in every round, and its character error rate in percent."""
    paths, truths = [path for path, _ in pages], [plain(truth) for _, truth in pages]
    sides: dict[str, tuple[Callable[[Path], str], int]] = {
        "rapidocr": (by_rapidocr, 1),
        "visrag, 1 process": (by_visrag, 1),
        "visrag, 2 processes": (by_visrag, 2),
    }
    spawn = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(count, spawn) for name, (_, count) in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    rates = {}
    for number in range(rounds + 1):  # the first loads the models and is not counted
        for name, (reader, _) in sides.items():
            start = time.perf_counter()
            texts = list(pools[name].map(reader, paths))
            seconds[name].append(time.perf_counter() - start)
            if number == 0:
                wrong = sum(errors(plain(text), truth) for text, truth in zip(texts, truths, strict=True))
                rates[name] = 100 * wrong / sum(map(len, truths))
    for pool in pools.values():
        pool.shutdown()
    base = seconds["rapidocr"][1:]
    return {
        "pages": len(pages),
        "rounds": rounds,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "sides": {
            name: {
                "pages_per_second": len(pages) / statistics.median(spent[1:]),
                "times_rapidocr": statistics.median(b / s for b, s in zip(base, spent[1:], strict=True)),
                "character_error_percent": rates[name],
            }
            for name, spent in seconds.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pdfs", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    samples = Path(__file__).parent.parent / "samples"
    with tempfile.TemporaryDirectory() as folder:
        result = measure(drawn(options.pdfs or sorted(samples.glob("*.pdf")), Path(folder)), options.rounds)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['pages']} pages, {result['rounds']} rounds, {result['cores']} cores, load {result['load']:.1f}")
    for name, side in result["sides"].items():
        print(
            f"{name:20} {side['pages_per_second']:6.2f} pages/s  {side['times_rapidocr']:5.2f} times RapidOCR"
            f"  character error {side['character_error_percent']:.2f}%"
        )


if __name__ == "__main__":
    main()
