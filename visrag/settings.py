"""What a user may choose. Read at the edges (CLI, Python API, workers) and passed in."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Rank: TypeAlias = Literal["fusion", "maxsim", "fulltext"]
Route: TypeAlias = Literal["auto", "vision", "text", "both"]
Ocr: TypeAlias = Literal["auto", "off", "always"]
RendererName: TypeAlias = Literal["pdfium", "poppler"]


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How documents become pages.

    ``route``: which encoder a page goes to where the index has a vision model. ``link``: keep the path of a
    file, not a copy. ``jobs``: rendering processes. ``page_timeout``: seconds for one page, OCR included.
    """

    ocr: Ocr = "auto"
    renderer: RendererName = "pdfium"
    route: Route = "auto"
    link: bool = False
    passwords: tuple[str, ...] = field(default=(), repr=False)
    jobs: int = field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)))
    page_timeout: float = 60.0
