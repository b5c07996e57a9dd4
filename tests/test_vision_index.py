"""From a PDF to a heatmap with a vision model: real architectures and processors, tiny random weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
import torch
from checkpoints import make_checkpoint
from pdfs import pdf_bytes, rectangle, text, write
from PIL import Image
from safetensors.torch import load_file, save_file

from visrag import Index, IndexMismatch, IngestSettings
from visrag.encode.vision import load_vision
from visrag.heatmap import cell_map, question_map, token_maps
from visrag.records import FULLTEXT, Filter, Leg, PageRef, PatchVectors, QueryVectors
from visrag.search import CHANCE, WEIGHTS, search
from visrag.settings import Route

COLQWEN2 = "ColQwen2ForRetrieval"
FAMILIES = (COLQWEN2, "ColPaliForRetrieval", "ColModernVBertForRetrieval")
GRIDS = {COLQWEN2: (7, 5), "ColPaliForRetrieval": (8, 8), "ColModernVBertForRetrieval": (16, 12)}  # of an A4 page
QUESTION = "capital expenditure in 2018"
TEXT, CHART, ROTATED = (PageRef("report.pdf", number) for number in (1, 2, 3))
SPOT = (430.0, 90.0, 110.0, 110.0)  # x, y, width, height in user space of a page of 595 × 842 points

Folder = Callable[[str], Path]


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


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads only get in each other's way in models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a family's tiny checkpoint."""
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda family: make_checkpoint(family, root / family))


@pytest.fixture(scope="module")
def pdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(tmp_path_factory.mktemp("pdf") / "report.pdf")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, folder: Folder, pdf: Path) -> Callable[[str, Route], Path]:
    """An index of the report by vision model and route; tiny text model, too. Not to be changed."""
    root = tmp_path_factory.mktemp("indexes")

    def make(family: str, route: Route) -> Path:
        path = root / f"{family}-{route}"
        with Index(path, text=str(folder("ColBERT")), vision=str(folder(family)), device="cpu") as index:
            assert index.ingest(pdf, settings=settings(route)).failures == []
        return path

    return cache(make)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def index(family: str, made: Callable[[str, Route], Path]) -> Iterator[Index]:
    with Index(made(family, "auto"), device="cpu") as index:
        yield index


def legs_of(index: Index) -> dict[PageRef, set[str]]:
    return {
        ref: {leg for leg in ("tokens", "windows", "patches") if index.open().vectors(leg, ref) is not None}
        for ref in (TEXT, CHART, ROTATED)
    }


# Routing and ranking


def test_a_pdf_becomes_one_ranked_list_of_both_legs(pdf: Path, tmp_path: Path, folder: Folder) -> None:
    """With the default text model; everything else here uses a tiny one."""
    with Index(tmp_path / "index", vision=str(folder(COLQWEN2)), device="cpu") as index:
        summary = index.ingest(pdf, settings=settings())
        assert (summary.documents, summary.pages, summary.failures) == (1, 3, [])
        assert legs_of(index) == {TEXT: {"tokens", "windows"}, CHART: {"patches"}, ROTATED: {"patches"}}
        hits = index.search(QUESTION)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {(hit.page, leg.leg) for hit in hits for leg in hit.legs if leg.leg != "fulltext"} == {
        (1, "tokens"),
        (1, "windows"),
        (2, "patches"),
        (3, "patches"),
    }
    assert hits[0].page == 1  # which says it in these words; the others' patches are random


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("auto", {TEXT: {"tokens"}, CHART: {"patches"}, ROTATED: {"patches"}}),
        ("vision", {ref: {"patches"} for ref in (TEXT, CHART, ROTATED)}),
        ("text", {ref: {"tokens"} for ref in (TEXT, CHART, ROTATED)}),
        ("both", {ref: {"tokens", "patches"} for ref in (TEXT, CHART, ROTATED)}),
    ],
)
def test_routes(route: Route, expected: dict[PageRef, set[str]], made: Callable[[str, Route], Path]) -> None:
    with Index(made(COLQWEN2, route), device="cpu") as index:
        assert legs_of(index) == expected
        for hit in index.search(QUESTION):
            assert {leg.leg for leg in hit.legs} - {"fulltext"} == expected[PageRef(hit.document, hit.page)]


def test_another_route_makes_the_pages_again(pdf: Path, tmp_path: Path, made: Callable[[str, Route], Path]) -> None:
    shutil.copytree(made(COLQWEN2, "text"), tmp_path / "index")
    with Index(tmp_path / "index", device="cpu") as index:
        assert index.ingest(pdf, settings=settings("text")).unchanged == 1
        assert index.ingest(pdf, settings=settings("vision")).documents == 1
        assert set(map(frozenset, legs_of(index).values())) == {frozenset({"patches"})}


def test_the_account_adds_up(index: Index) -> None:
    hits = index.search(QUESTION)
    assert len(hits) == 3
    for hit in hits:
        assert sum(leg.weight * leg.score for leg in hit.legs) == pytest.approx(hit.score, abs=1e-6)
        for leg in hit.legs:
            assert sum(token.score for token in leg.token_scores) == pytest.approx(leg.score, abs=1e-6)


def test_scores_are_those_of_the_stored_vectors(index: Index, family: str, folder: Folder) -> None:
    """``maxsim`` token by token in plain Python; fusion takes each page's chance level off and the mean."""
    store = index.open()
    query = load_vision(str(folder(family)), device="cpu").encode_query(QUESTION)["patches"]
    plain = {hit.page: hit for hit in index.search(QUESTION, rank="maxsim")}
    fused = {hit.page: hit for hit in index.search(QUESTION)}
    (level, slope) = store.settings()["levels"]["patches"]
    assert slope == 0
    for ref in (CHART, ROTATED):
        found = store.vectors("patches", ref)
        assert found is not None
        expected = [max(float(np.dot(token, patch)) for patch in found.vectors) for token in query.vectors]
        (leg,) = plain[ref.page].legs
        assert [token.score for token in leg.token_scores] == pytest.approx(expected, abs=1e-3)
        assert (leg.weight, plain[ref.page].score) == (1.0, pytest.approx(sum(expected), abs=1e-3))
        (leg,) = (leg for leg in fused[ref.page].legs if leg.leg == "patches")
        mean = sum(expected) / len(expected)
        assert leg.weight * leg.score == pytest.approx(WEIGHTS["patches"] * (mean - CHANCE * level), abs=1e-3)


# Places


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


@pytest.mark.parametrize("ref", [CHART, ROTATED])
def test_a_planted_signal_wins_at_its_row_and_column(ref: PageRef, index: Index, family: str) -> None:
    found = stored(index, ref)
    grid = found.places.grid
    assert grid == (GRIDS[family] if ref == CHART else GRIDS[family][::-1])
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


def test_a_rotated_page_has_its_places_where_a_person_sees_them(
    index: Index, family: str, pdf: Path, tmp_path: Path
) -> None:
    """A black spot low and right in user space: turned by 90° (clockwise) it is low and left. What changes most
    between the page with it and without is the patch that a person would point at."""
    x, y, width, height = SPOT
    middle = ((y + height / 2) / 842, (x + width / 2) / 595)  # bottom left of user space is the top left as displayed
    other = report(tmp_path / "report.pdf", rotated=rectangle(*SPOT, colour="0 0 0"))
    before = cells(stored(index, ROTATED))
    shutil.copytree(index.path, tmp_path / "index")
    with Index(tmp_path / "index", device="cpu") as changed:
        assert changed.ingest(other, settings=settings()).documents == 1
        after = cells(stored(changed, ROTATED))
        picture = changed.page_image("report.pdf", 3, 842)
    assert picture.size == (842, 595)
    assert picture.getpixel((round(middle[0] * 842), round(middle[1] * 595))) == (0, 0, 0)
    rows, cols, _ = after.shape
    change = np.linalg.norm(after - before, axis=-1)
    row, col = np.unravel_index(change.argmax(), change.shape)
    left, top, right, bottom = col / cols, row / rows, (col + 1) / cols, (row + 1) / rows
    assert left < (y + height) / 842
    assert right > y / 842
    assert top < (x + width) / 595
    assert bottom > x / 595


def warmth(drawn: Image.Image, plain: Image.Image) -> np.ndarray:
    """How much of each pixel's blue a heatmap has taken (it lays yellow to orange on the page)."""
    return np.asarray(plain, np.int32)[:, :, 2] - np.asarray(drawn, np.int32)[:, :, 2]


def test_heatmap_of_a_drawn_page(index: Index) -> None:
    hit = next(hit for hit in index.search(QUESTION) if hit.page == 3)
    drawn, plain = hit.heatmap(side=600), hit.image(side=600)
    assert drawn.size == plain.size == (600, 424)
    assert drawn.mode == plain.mode == "RGB"
    assert warmth(drawn, plain).max() > 50
    for region in hit.regions:
        assert all(0 <= edge <= 1 for edge in region.box)
    highlight = index.highlight(QUESTION, "report.pdf", 3, side=600)
    assert highlight.image.tobytes() == drawn.tobytes()
    assert highlight.regions == hit.regions


def test_heat_is_painted_on_the_patch_that_matches(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question is a patch's own vector: of the white ground only what lies at that patch turns yellow."""
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
    assert np.unravel_index(mean.argmax(), mean.shape) == (row, col)


# One index, one model


def test_the_second_opening_takes_the_models_that_were_kept(
    pdf: Path, made: Callable[[str, Route], Path], folder: Folder
) -> None:
    with Index(made(COLQWEN2, "auto"), device="cpu") as index:
        assert index.ingest(pdf, settings=settings()).unchanged == 1
        encoders = {leg.leg: leg.encoder for hit in index.search(QUESTION) for leg in hit.legs}
    assert encoders == {"tokens": "ColBERT", "patches": COLQWEN2, "fulltext": FULLTEXT.encoder}
    with Index(made(COLQWEN2, "auto"), vision=str(folder(COLQWEN2)), device="cpu") as index:
        assert len(index.search(QUESTION)) == 3


def test_other_weights_are_refused(
    made: Callable[[str, Route], Path], folder: Folder, pdf: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(folder(COLQWEN2), tmp_path / COLQWEN2)
    weights = load_file(other / "model.safetensors")
    weights["embedding_proj_layer.weight"] += 0.1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    path = made(COLQWEN2, "auto")
    for model in (other, folder("ColPaliForRetrieval")):
        with Index(path, vision=str(model), device="cpu") as index:
            with pytest.raises(IndexMismatch, match="made with other weights or settings"):
                index.search(QUESTION)
            with pytest.raises(IndexMismatch, match="ingest into a new index"):
                index.ingest(pdf, settings=settings())
            assert len(index.search(QUESTION, rank="fulltext")) == 1  # which needs no model
            assert index.documents()[0].state == "indexed"


def test_a_vision_model_may_be_added_later(pdf: Path, tmp_path: Path, folder: Folder) -> None:
    path = tmp_path / "index"
    with Index(path, text=str(folder("ColBERT")), device="cpu") as index:
        index.ingest(pdf, settings=settings())
        assert set(map(frozenset, legs_of(index).values())) == {frozenset({"tokens"})}
    with Index(path, vision=str(folder(COLQWEN2)), device="cpu") as index:
        assert len(index.search(QUESTION)) == 3  # only asked: the pages are as they were
        assert index.ingest(pdf, settings=settings()).documents == 1
        assert legs_of(index) == {TEXT: {"tokens"}, CHART: {"patches"}, ROTATED: {"patches"}}
    with Index(path, device="cpu") as index:
        assert {leg.leg for hit in index.search(QUESTION) for leg in hit.legs} >= {"tokens", "patches"}
        assert index.ingest(pdf, settings=settings()).unchanged == 1
