"""Makes the PDFs of this folder: ``python samples/make_samples.py [FOLDER]``.

The same bytes every time, given the versions in MADE_WITH. Everything in them is invented.
``observatory-handbook.md`` and ``questions.jsonl`` are written by hand.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy
import others
import PIL
import report
import reportlab
from drawing import register_fonts

MADE_WITH = {"reportlab": "5.1.0", "pillow": "13.0.0", "numpy": "2.4.6", "zlib": "1.2.13"}

DOCUMENTS = {
    "harrowmere-annual-report.pdf": report.write,
    "brightwell-slides.pdf": others.slides,
    "depot-letter-scan.pdf": others.scanned_letter,
    "library-guide-ja.pdf": others.japanese_guide,
    "orchard-trial-appendix.pdf": others.rotated_appendix,
}


def versions() -> dict[str, str]:
    """What is installed of MADE_WITH."""
    return {
        "reportlab": reportlab.__version__,
        "pillow": PIL.__version__,
        "numpy": numpy.__version__,
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }


def make(folder: Path) -> list[Path]:
    """Write every document into ``folder``. Raises FileNotFoundError where a font is not installed."""
    register_fonts()
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in DOCUMENTS.items():
        write(folder / name)
    return [folder / name for name in DOCUMENTS]


if __name__ == "__main__":
    if versions() != MADE_WITH:
        print(f"made with {versions()}, the committed ones with {MADE_WITH}: the bytes may differ", file=sys.stderr)
    for written in make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent):
        print(f"{written}  {written.stat().st_size / 1000:.0f} kB")
