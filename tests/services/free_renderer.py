"""A render worker for which reading costs nothing: what it takes all the same is for messages and store.

    python tests/services/free_renderer.py    # settings from the environment, as for `visrag worker ingest render`

Every document has the number of pages that its name ends with ("paper-50.pdf"); each is the same page of the samples.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from visrag.queue import work  # noqa: E402
from visrag.records import Page  # noqa: E402
from visrag.render import Renderer  # noqa: E402
from workers import process  # noqa: E402

SAMPLE = ROOT / "samples" / "harrowmere-annual-report.pdf"


class FreeDocument:
    """As visrag.render.OpenedDocument."""

    media_type, renderer, locked = "application/pdf", "pdfium", False

    def __init__(self, pages: int, page: Page) -> None:
        self.pages, self._page = pages, page

    def read(self, numbers: Sequence[int]) -> Iterator[Page]:
        return (replace(self._page, number=number) for number in numbers)


class FreeRenderer:
    """As visrag.render.Renderer."""

    def __init__(self) -> None:
        with Renderer() as renderer:
            self._page = next(page for page in renderer.pages(SAMPLE, SAMPLE.name).read([6]) if isinstance(page, Page))

    def pages(self, path: Path, document: str, *_: Any) -> FreeDocument:
        return FreeDocument(int(Path(document).stem.rpartition("-")[2]), self._page)


class FreeProcess(process.Process):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.renderer = FreeRenderer()  # type: ignore[assignment]


if __name__ == "__main__":
    process.Process = FreeProcess  # type: ignore[misc]
    work(["ingest", "render"], 1, "info", {})
