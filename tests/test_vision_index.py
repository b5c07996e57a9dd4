"""From a PDF to a heatmap with a vision model: real architectures and processors, tiny random weights."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import make_checkpoint
from pdfs import rectangle
from PIL import Image
from report_cases import (
    CHART,
    ROTATED,
    TEXT,
    cells,
    check_heat,
    check_planted_signal,
    report,
    settings,
    stored,
    warmth,
)
from safetensors.torch import load_file, save_file

from visrag import Index, IndexMismatch, UsageError
from visrag.encode.vision import load_vision
from visrag.records import FULLTEXT, PageRef
from visrag.search import CHANCE, WEIGHTS
from visrag.settings import Route

COLQWEN2 = "ColQwen2ForRetrieval"
FAMILIES = (COLQWEN2, "ColPaliForRetrieval", "ColModernVBertForRetrieval")
GRIDS = {COLQWEN2: (7, 5), "ColPaliForRetrieval": (8, 8), "ColModernVBertForRetrieval": (16, 12)}  # of an A4 page
QUESTION = "capital expenditure in 2018"
SPOT = (430.0, 90.0, 110.0, 110.0)  # x, y, width, height in user space of a page of 595 × 842 points

Folder = Callable[[str], Path]


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
        for hit in hits:  # whatever found them, evidence is painted
            assert warmth(hit.heatmap(side=600), hit.image(side=600)).max() > 50
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {(hit.page, leg.leg) for hit in hits for leg in hit.legs if leg.leg != "fulltext"} == {
        (1, "tokens"),
        (1, "windows"),
        (2, "patches"),
        (3, "patches"),
    }
    assert hits[0].page == 1  # which says it in these words; the others' patches are random


def test_a_picture_that_the_processor_refuses_costs_no_other(pdf: Path, tmp_path: Path, folder: Folder) -> None:
    Image.new("RGB", (3000, 10), "black").save(tmp_path / "rule.png")
    with Index(tmp_path / "index", text=str(folder("ColBERT")), vision=str(folder(COLQWEN2)), device="cpu") as index:
        summary = index.ingest(pdf, tmp_path / "rule.png", settings=settings())
        (failure,) = summary.failures
        assert (failure.document, failure.page, failure.reason) == ("rule.png", 1, "encoder")
        assert "aspect ratio must be smaller than 200" in failure.message
        assert (summary.documents, summary.pages) == (2, 3)
        assert legs_of(index)[CHART] == {"patches"}


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


@pytest.mark.parametrize("ref", [CHART, ROTATED])
def test_a_planted_signal_wins_at_its_row_and_column(ref: PageRef, index: Index, family: str) -> None:
    check_planted_signal(index, ref, GRIDS[family] if ref == CHART else GRIDS[family][::-1])


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
    check_heat(index, monkeypatch)


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


def test_other_vectors_of_the_canarys_page_are_refused(
    made: Callable[[str, Route], Path], pdf: Path, tmp_path: Path
) -> None:
    """As of a library that makes pictures smaller in another way, of which no hash tells. Questions may be asked."""
    with Index(shutil.copytree(made(COLQWEN2, "auto"), tmp_path / "index"), device="cpu") as index:
        settings_of = deepcopy(index.open().settings())
        kept = settings_of["canary_page"]
        patches = np.frombuffer(base64.b64decode(kept["patches"]), "<f4")
        other = np.roll(patches.reshape(16, -1), 1, axis=0)
        kept["patches"] = base64.b64encode(other.tobytes()).decode()
        index.open().write_settings(settings_of)
    with Index(tmp_path / "index", device="cpu") as index:
        assert len(index.search(QUESTION)) == 3
        with pytest.raises(IndexMismatch, match=f"{COLQWEN2} gives other vectors here than when the index was made"):
            index.ingest(pdf, settings=settings())


def test_pages_are_refused_where_pictures_are_prepared_otherwise_and_questions_are_not(
    made: Callable[[str, Route], Path], pdf: Path, tmp_path: Path
) -> None:
    """As where torchvision is installed on the machine that encodes pages, and not on the one where one searches."""
    with Index(shutil.copytree(made(COLQWEN2, "auto"), tmp_path / "index"), device="cpu") as index:
        expected = [(hit.page, hit.score) for hit in index.search(QUESTION)]
        settings_of = deepcopy(index.open().settings())
        settings_of["canary_page"]["image_processor"] = "transformers.models.other.OtherImageProcessor"
        index.open().write_settings(settings_of)
    with Index(tmp_path / "index", device="cpu") as index:
        assert [(hit.page, hit.score) for hit in index.search(QUESTION)] == expected
        with pytest.raises(IndexMismatch, match=r"OtherImageProcessor prepared .*Qwen2VL.* would: install"):
            index.ingest(pdf, settings=settings())


@pytest.mark.parametrize(("arithmetic", "accepted"), [(None, False), ("bfloat16 cuda", True)])
def test_what_rounds_otherwise_may_differ_more(
    arithmetic: str | None, accepted: bool, made: Callable[[str, Route], Path], pdf: Path, tmp_path: Path
) -> None:
    """A page at a cosine of 0.995: within the rounding of a GPU's bfloat16, not of what the index was made with."""
    with Index(shutil.copytree(made(COLQWEN2, "auto"), tmp_path / "index"), device="cpu") as index:
        settings_of = deepcopy(index.open().settings())
        kept = settings_of["canary_page"]
        patches = np.frombuffer(base64.b64decode(kept["patches"]), "<f4")
        noise = np.random.default_rng(0).standard_normal(patches.size)
        noise *= 0.1 * np.linalg.norm(patches) / np.linalg.norm(noise)  # 1 / sqrt(1 + 0.1²) = 0.995
        kept["patches"] = base64.b64encode((patches + noise).astype("<f4").tobytes()).decode()
        kept["arithmetic"] = arithmetic or kept["arithmetic"]
        index.open().write_settings(settings_of)
    with Index(tmp_path / "index", device="cpu") as index:
        if accepted:
            assert index.ingest(pdf, settings=settings()).unchanged == 1
        else:
            with pytest.raises(IndexMismatch, match="other vectors"):
                index.ingest(pdf, settings=settings())


def test_an_index_keeps_its_image_tokens(pdf: Path, tmp_path: Path, folder: Folder) -> None:
    models = {"text": str(folder("ColBERT")), "vision": str(folder(COLQWEN2))}
    with Index(tmp_path / "index", **models, device="cpu", visual_tokens=20) as index:
        index.ingest(pdf, settings=settings())
        assert stored(index, CHART).places.grid == (5, 3)
    with Index(tmp_path / "index", device="cpu") as index:
        assert index.ingest(pdf, settings=settings("both")).failures == []
        assert stored(index, CHART).places.grid == (5, 3)
    other = Index(tmp_path / "index", device="cpu", visual_tokens=30)
    with other, pytest.raises(IndexMismatch, match="was made with visual_tokens 20, not 30"):
        other.search(QUESTION)
    none = Index(tmp_path / "none", text=models["text"], device="cpu", visual_tokens=30)
    with none, pytest.raises(UsageError, match="is for a vision model"):
        none.ingest(pdf, settings=settings())


def test_a_slow_model_on_the_cpu_is_said_to_be(
    pdf: Path, tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("visrag.canary.SLOW", 0.0)
    with Index(tmp_path / "index", text=str(folder("ColBERT")), vision=str(folder(COLQWEN2)), device="cpu") as index:
        index.ingest(pdf, settings=settings())
    assert any("runs on the CPU: about" in record.getMessage() for record in caplog.records)


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
