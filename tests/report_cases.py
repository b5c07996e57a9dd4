"""A report of three pages, from a PDF through a vision model into an index, and back as a heatmap: what every family
must show. Cases for test_vision_index and test_colpali.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from pdfs import pdf_bytes, rectangle, text, write
from PIL import Image

from visrag import Index, IngestSettings
from visrag.heatmap import cell_map, question_map, token_maps
from visrag.records import Filter, Leg, PageRef, PatchVectors, QueryVectors
from visrag.search import search
from visrag.settings import Route

TEXT, CHART, ROTATED = (PageRef("report.pdf", number) for number in (1, 2, 3))


def settings(route: Route = "auto") -> IngestSettings:
    return IngestSettings(ocr="off", jobs=1, route=route)


def blocks(seed: int) -> str:
    """A mosaic over the page's middle: every patch there looks different."""
    colours = np.random.default_rng(seed).random((12, 9, 3))
    cells = [(50 + 55 * col, 80 + 55 * row, colours[row, col]) for row in range(12) for col in range(9)]
    return "".join(rectangle(x, y, 55, 55, " ".join(f"{part:.2f}" for part in colour)) for x, y, colour in cells)


def report(path: Path, rotated: str = "") -> Path:
    """Three pages: text only; a portrait one drawn over; one drawn over and turned by 90°."""
    lines = "".join(
        text(72, 760 - 20 * line, words)
        for line, words in enumerate(["The capital expenditure in 2018", "was the cost of the north region."])
    )
    drawn = text(72, 790, "Costs by year") + blocks(1)
    turned = text(72, 790, "Transport by region") + blocks(2) + rotated
    plain = write(path.with_suffix(".plain"), pdf_bytes([lines, drawn, turned]))
    with pypdfium2.PdfDocument(plain) as document:
        page = document[2]
        page.set_rotation(90)
        document.save(path)
        page.close()
    plain.unlink()
    return path


def stored(index: Index, ref: PageRef) -> PatchVectors:
    found = index.open().vectors("patches", ref)
    assert found is not None
    return found


def cells(found: PatchVectors) -> np.ndarray:
    """The patches by row and column, (rows, cols, dim)."""
    assert found.places.grid is not None
    return found.vectors[found.places.vectors].reshape(*found.places.grid, -1)


def unlike_all_others(found: PatchVectors) -> tuple[int, int]:
    """A cell whose row is past the last column, if it can be, and whose vector is least like any other's."""
    rows, cols, _ = cells(found).shape
    likeness = found.vectors @ found.vectors.T
    np.fill_diagonal(likeness, -np.inf)
    worst = likeness.max(axis=1)[found.places.vectors].reshape(rows, cols)
    worst[np.arange(min(rows, cols)), np.arange(min(rows, cols))] = np.inf
    if rows > cols:
        worst[:cols] = np.inf
    elif cols > rows:
        worst[:, :rows] = np.inf
    row, col = np.unravel_index(worst.argmin(), worst.shape)
    return int(row), int(col)


def check_planted_signal(index: Index, ref: PageRef, grid: tuple[int, int]) -> None:
    """A question that is a patch's own vector wins there, in the account, in the map and in the raster."""
    found = stored(index, ref)
    assert found.places.grid == grid
    rows, cols = grid
    row, col = unlike_all_others(found)
    vector = cells(found)[row, col]
    query = QueryVectors(vector[None], ("planted",), np.ones(1, np.float32))

    legs = [Leg(**leg) for leg in index.open().settings()["legs"] if leg["name"] == "patches"]
    best, *_ = search(index.open(), "", {"patches": query}, legs, "maxsim", Filter(), 3)
    assert best.ref == ref
    ((token,),) = (leg.token_scores for leg in best.legs)
    assert token.box == pytest.approx((col / cols, row / rows, (col + 1) / cols, (row + 1) / rows), abs=1e-4)

    values = question_map(token_maps(query, found), np.ones(1, np.float32))
    assert np.unravel_index(values.argmax(), (rows, cols)) == (row, col)
    height, width = 10 * rows, 10 * cols
    for smooth in (False, True):
        raster = cell_map(values, found.places, height, width, smooth=smooth)
        y, x = np.unravel_index(raster.argmax(), raster.shape)
        assert (y // 10, x // 10) == (row, col)


def warmth(drawn: Image.Image, plain: Image.Image) -> np.ndarray:
    """How much of each pixel's blue a heatmap has taken (it lays yellow to orange on the page)."""
    return np.asarray(plain, np.int32)[:, :, 2] - np.asarray(drawn, np.int32)[:, :, 2]


def check_heat(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question is a patch's own vector: of the white ground what lies at that patch turns yellow, more than all but
    a few of its neighbours, which the blur makes one blot with it."""
    found = stored(index, ROTATED)
    rows, cols = found.places.grid or (0, 0)
    row, col = unlike_all_others(found)
    query = QueryVectors(cells(found)[row, col][None], ("planted",), np.ones(1, np.float32))
    monkeypatch.setattr(index, "_encode", lambda question: {"patches": query})
    monkeypatch.setattr(
        index, "page_image", lambda document, page, side: Image.new("RGB", (20 * cols, 20 * rows), "white")
    )
    warm = warmth(
        index.highlight("planted", "report.pdf", 3, "planted").image, Image.new("RGB", (20 * cols, 20 * rows), "white")
    )
    mean = warm.reshape(rows, 20, cols, 20).mean(axis=(1, 3))
    assert mean[row, col] > 50
    assert (mean > mean[row, col]).mean() < 0.03
