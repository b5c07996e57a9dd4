"""The Python API as README.md shows it, on the samples with the default model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pikepdf
import psutil
import pytest
from checkpoints import make_checkpoint
from pdfs import pdf_bytes, text, write
from PIL import Image

import visrag
from visrag import Index, IndexMismatch, IngestSettings, NotFound, StoreError, UsageError
from visrag.calibration import calibrate
from visrag.encode import Encoder
from visrag.encode.text import TextEncoder
from visrag.ingest import Silent
from visrag.records import LegScore, PageRef, Region, TokenScore
from visrag.settings import Rank

REPORT, ROTATED, JAPANESE = "harrowmere-annual-report.pdf", "orchard-trial-appendix.pdf", "library-guide-ja.pdf"
README = Path(__file__).parents[1] / "README.md"
FROST = "When did frost damage the orchard plots?"
RANKS: tuple[Rank, ...] = ("fusion", "maxsim", "fulltext")
NO_OCR = IngestSettings(ocr="off", jobs=1)


@pytest.fixture
def empty(samples_path: Path, tmp_path: Path) -> Path:
    """An index without documents, whose model is known and calibrated already."""
    path = shutil.copytree(samples_path, tmp_path / "empty")
    with Index(path) as index:
        for document in index.documents():
            index.remove(document.name)
    return path


def pdf(path: Path, *pages: str) -> Path:
    return write(path, pdf_bytes([text(72, 700, page) for page in pages]))


# Hits


def test_the_readmes_example(samples_index: Index) -> None:
    hits = samples_index.search("What does a year pass cost?", k=5)
    assert len(hits) == 5
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    best = hits[0]
    assert (best.document, best.page) == (REPORT, 3)
    assert "429.00" in best.text
    assert isinstance(best.score, float)
    assert isinstance(best.snippet, str)
    assert "\n" not in best.snippet
    assert all(isinstance(region, Region) for region in best.regions)
    assert all(isinstance(leg, LegScore) for leg in best.legs)
    assert [leg.leg for leg in best.legs] == ["tokens", "windows", "fulltext"]
    assert all(isinstance(token, TokenScore) for leg in best.legs for token in leg.token_scores)
    assert best.image(side=300).height == best.heatmap(side=300).height == 300


def test_the_public_names() -> None:
    assert all(hasattr(visrag, name) for name in visrag.__all__)
    assert {"Index", "Hit", "VisragError"} <= set(visrag.__all__)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("question", ["What does a year pass cost?", FROST, "会議室の定員は何名ですか"])
def test_the_account_adds_up(question: str, rank: Rank, samples_index: Index) -> None:
    hits = samples_index.search(question, k=30, rank=rank)
    assert hits
    for hit in hits:
        assert sum(leg.weight * leg.score for leg in hit.legs) == pytest.approx(hit.score, abs=1e-6)
        for leg in hit.legs:
            assert sum(token.score for token in leg.token_scores) == pytest.approx(leg.score, abs=1e-3)


def test_maxsim_is_the_sum_over_tokens_of_the_best_stored_vector(samples_index: Index) -> None:
    store = samples_index.open()
    query = TextEncoder.load(device="cpu").encode_query(FROST)["tokens"]
    for hit in samples_index.search(FROST, k=30, rank="maxsim"):
        page = store.vectors("tokens", PageRef(hit.document, hit.page))
        assert page is not None
        expected = [
            max(float(np.dot(token, vector)) for vector in page.vectors)
            for token, weight in zip(query.vectors, query.weights, strict=True)
            if weight  # not of [CLS] and [SEP]
        ]
        (leg,) = hit.legs
        assert (leg.leg, leg.weight) == ("tokens", 1.0)
        assert [token.score for token in leg.token_scores] == pytest.approx(expected, abs=1e-3)
        assert hit.score == pytest.approx(sum(expected), abs=1e-3)


def readme_fusion() -> tuple[dict[str, float], float]:
    """The weights of fusion, from README.md's table of the legs, and how much of the chance level it takes off."""
    readme = README.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", readme, re.M)
    (share,) = re.findall(r"and ([\d.]+) of it taken off", readme)
    return {leg: float(weight) for leg, weight in rows}, float(share)


def test_fusion_takes_off_chance_and_weighs_as_the_readme_says(samples_index: Index) -> None:
    store = samples_index.open()
    plain = {(hit.document, hit.page): hit.score for hit in samples_index.search(FROST, k=30, rank="maxsim")}
    fused = samples_index.search(FROST, k=30)
    weights, share = readme_fusion()
    best_bm25 = samples_index.search(FROST, k=1, rank="fulltext")[0].score
    counted = 8  # when did frost damage the orchard plots ?
    for hit in fused:
        ref = PageRef(hit.document, hit.page)
        added = {leg.leg: leg.weight * leg.score for leg in hit.legs}
        page = store.vectors("tokens", ref)
        a, b = store.settings()["levels"]["tokens"]
        chance = a + b * np.log(len(page.vectors))
        mean = plain[hit.document, hit.page] / counted
        assert added["tokens"] == pytest.approx(weights["tokens"] * (mean - share * chance), abs=1e-3)
        for leg in hit.legs:
            if leg.leg == "fulltext":
                assert added["fulltext"] == pytest.approx(weights["fulltext"] * leg.score / best_bm25, abs=1e-4)
        assert set(added) <= set(weights)


def test_boxes_are_fractions_of_the_page_and_regions_have_text(samples_index: Index) -> None:
    boxes = 0
    for question in ("How many people can stand in a Kestrel tram?", FROST, "図書館の駐車場には何台とめられますか"):
        for rank in RANKS:
            for hit in samples_index.search(question, k=20, rank=rank):
                found = [token.box for leg in hit.legs for token in leg.token_scores if token.box is not None]
                for x0, y0, x1, y1 in found + [region.box for region in hit.regions]:
                    assert 0 <= x0 < x1 <= 1
                    assert 0 <= y0 < y1 <= 1
                assert all(region.text.strip() and region.score > 0 for region in hit.regions)
                boxes += len(found)
    assert boxes > 300


def test_full_text_alone_needs_no_model_and_gives_words(samples_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: str, device: str | None = None) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(TextEncoder, "load", refuse)
    hit = samples_index.search("crossover", rank="fulltext")[0]
    ((token,),) = (leg.token_scores for leg in hit.legs)
    page = samples_index.open().page(PageRef(hit.document, hit.page))
    assert token.box in [box for word in page.words if "crossover" in word.text.lower() for box in word.boxes]
    assert "crossover" in hit.snippet.lower()
    assert "crossover" in hit.regions[0].text.lower()
    assert all(region.text for region in hit.regions)


# The right page


@pytest.mark.parametrize("rank", ["fulltext", "fusion"])
def test_a_japanese_question_finds_the_japanese_page(rank: Rank, samples_index: Index) -> None:
    best = samples_index.search("図書館の駐車場には何台とめられますか", rank=rank)[0]
    assert (best.document, best.page) == (JAPANESE, 2)
    assert "三十二" in best.text


def test_the_right_page_is_in_the_top_3_over_all_samples(samples_index: Index, samples: Path) -> None:
    missed = []
    for line in (samples / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        question = json.loads(line)
        hits = [(hit.document, hit.page) for hit in samples_index.search(question["question"], k=3)]
        if (question["doc"], question["page"]) not in hits:
            missed.append(question["id"])
    assert len(missed) <= 3, missed


# Filters and errors


@pytest.mark.parametrize("rank", RANKS)
def test_only_in_these_documents(rank: Rank, samples_index: Index) -> None:
    everywhere = samples_index.search("depot heaters", k=30, rank=rank)
    assert everywhere[0].document == "depot-letter-scan.pdf"
    hits = samples_index.search("depot heaters", k=30, documents=[REPORT, JAPANESE], rank=rank)
    assert {hit.document for hit in hits} <= {REPORT, JAPANESE}
    assert hits
    assert samples_index.search("depot heaters", documents=[], rank=rank) == []


def test_only_with_these_tags(empty: Path, tmp_path: Path) -> None:
    with Index(empty) as index:
        index.ingest(pdf(tmp_path / "a.pdf", "a walrus"), tags={"year": "2023", "kind": "sea"}, settings=NO_OCR)
        index.ingest(pdf(tmp_path / "b.pdf", "a walrus"), tags={"year": "2024", "kind": "sea"}, settings=NO_OCR)
        for rank in RANKS:

            def found(rank: Rank = rank, **tags: str) -> list[str]:
                return [hit.document for hit in index.search("walrus", tags=tags, rank=rank)]

            assert found() == ["a.pdf", "b.pdf"]
            assert found(kind="sea") == ["a.pdf", "b.pdf"]
            assert found(year="2024") == ["b.pdf"]
            assert found(year="2024", kind="land") == []
            assert found(colour="2024") == []


def test_what_is_not_there_is_an_error_not_an_empty_answer(samples_index: Index, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no document nothing\.pdf: visrag documents lists them"):
        samples_index.search("x", documents=[REPORT, "nothing.pdf"])
    with pytest.raises(NotFound, match=r"no page 9 of harrowmere"):
        samples_index.page_image(REPORT, 9)
    with pytest.raises(NotFound, match=r"nothing\.pdf"):
        samples_index.highlight("x", "nothing.pdf", 1)
    with pytest.raises(NotFound, match=r"nothing\.pdf"):
        samples_index.remove("nothing.pdf")
    for question in ("", " \n"):
        with pytest.raises(UsageError, match="the question is empty"):
            samples_index.search(question)
    missing = Index(tmp_path / "missing")
    calls: tuple[Callable[[], object], ...] = (
        lambda: missing.search("x"),
        missing.documents,
        missing.failures,
        missing.retry,
        lambda: missing.remove("a.pdf"),
    )
    for call in calls:
        with pytest.raises(StoreError, match="missing"):
            call()
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "question", ["?", "…!?", "🚋🚋", "的", "a" * 5000, "walrus " * 5000, "\x00\x07", 'NOT AND OR * "']
)
def test_odd_questions_have_an_answer(question: str, samples_index: Index) -> None:
    for rank in RANKS:
        for hit in samples_index.search(question, k=3, rank=rank):
            assert np.isfinite(hit.score)
            assert hit.page >= 1


def test_another_text_model_is_refused(samples_path: Path, tmp_path: Path) -> None:
    other = make_checkpoint("ColBERT", tmp_path / "ColBERT")
    with Index(samples_path, text=str(other)) as index:
        with pytest.raises(IndexMismatch, match=r"made with other weights.*all-MiniLM-L6-v2.*new index"):
            index.search("tram")
        with pytest.raises(IndexMismatch):
            index.ingest(tmp_path)
        assert index.search("tram", rank="fulltext")


def test_a_model_that_gives_other_vectors_than_it_did_is_refused(samples_path: Path, tmp_path: Path) -> None:
    path = shutil.copytree(samples_path, tmp_path / "index")
    with Index(path) as index:
        settings = index.open().settings()
        canary = np.array(settings["canaries"]["tokens"])
        turned = canary + np.random.default_rng(0).normal(0, 0.01, canary.shape)  # a cosine of about 0.98
        settings["canaries"]["tokens"] = turned.tolist()
        index.open().write_settings(settings)
        with pytest.raises(IndexMismatch, match="gives other vectors here than when the index was made"):
            index.search("tram")


def test_a_little_rounding_is_no_other_model(samples_path: Path, tmp_path: Path) -> None:
    path = shutil.copytree(samples_path, tmp_path / "index")
    with Index(path) as index:
        settings = index.open().settings()
        canary = np.array(settings["canaries"]["tokens"])
        rounded = canary + np.random.default_rng(0).normal(0, 0.0005, canary.shape)  # a cosine of about 0.9999
        settings["canaries"]["tokens"] = rounded.tolist()
        index.open().write_settings(settings)
        assert index.search("tram")


def test_two_processes_that_make_one_index_with_two_models_do_not_mix_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one writes its model while this one still measures its own."""
    first = make_checkpoint("ColBERT", tmp_path / "first")
    other = shutil.copytree(first, tmp_path / "other")
    tokens = json.loads((other / "tokenizer_config.json").read_text(encoding="utf-8"))
    (other / "tokenizer_config.json").write_text(json.dumps(tokens | {"visrag": "other"}), encoding="utf-8")
    walrus, path = pdf(tmp_path / "a.pdf", "a walrus"), tmp_path / "index"

    def slow(encoder: Encoder) -> dict[str, tuple[float, float]]:
        monkeypatch.undo()
        with Index(path, text=str(other)) as meanwhile:
            meanwhile.ingest(walrus, settings=NO_OCR)
        return calibrate(encoder)

    monkeypatch.setattr("visrag.models.calibrate", slow)
    with Index(path, text=str(first)) as index, pytest.raises(IndexMismatch, match="made with other weights"):
        index.ingest(walrus, settings=NO_OCR)
    with Index(path) as index:
        assert [hit.legs[0].encoder for hit in index.search("walrus")] == ["other"]


class Vanishing(Silent):
    """The file goes after its hash was taken and before it is read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def start(self, size: int) -> None:
        self._file.unlink()


def test_a_file_that_vanishes_costs_no_other(empty: Path, tmp_path: Path) -> None:
    files = [pdf(tmp_path / name, f"a walrus in {name}") for name in ("a.pdf", "b.pdf", "c.pdf")]
    with Index(empty) as index:
        summary = index.ingest(*files, progress=Vanishing(files[1]), settings=NO_OCR)
        assert [(failure.document, failure.reason) for failure in summary.failures] == [("b.pdf", "missing")]
        assert {document.name: document.state for document in index.documents()} == {
            "a.pdf": "indexed",
            "b.pdf": "failed",
            "c.pdf": "indexed",
        }


# Highlights


def heat(drawn: Image.Image, plain: Image.Image) -> np.ndarray:
    """How much of each pixel's blue the heatmap has taken away: it lays yellow to orange on the page."""
    return np.asarray(plain, np.int32)[:, :, 2] - np.asarray(drawn, np.int32)[:, :, 2]


def inside(pixels: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    height, width = pixels.shape
    x0, y0, x1, y1 = (round(edge * side) for edge, side in zip(box, (width, height) * 2, strict=True))
    return pixels[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1]


def test_heat_lies_on_the_word_as_a_person_sees_it_on_a_rotated_page(samples_index: Index) -> None:
    page = samples_index.open().page(PageRef(ROTATED, 1))
    words = {word.text: word for word in page.words}
    assert sum(word.text == "Frost" for word in page.words) == 1
    (box,) = words["Frost"].boxes
    plain = samples_index.page_image(ROTATED, 1)
    assert plain.width == 1600 > plain.height  # landscape, as displayed
    drawn = samples_index.highlight(FROST, ROTATED, 1, token="frost").image
    warm = heat(drawn, plain)
    on_word = inside(warm, box)
    ink = inside(np.asarray(plain.convert("L"), np.int32), box)
    assert (ink < 128).mean() > 0.05  # the word stands there
    paper = on_word[ink > 240]
    assert paper.min() > 60  # all of the white around its letters is hot
    for far in ("Appendix", "Plot", "Lammas", "Penfold"):
        (elsewhere,) = words[far].boxes
        assert inside(warm, elsewhere).mean() < paper.mean() / 2
    blank = warm[round(0.75 * plain.height) :]
    assert blank.max() == 0
    # mirrored or turned back, the word's box would be one of these
    x0, y0, x1, y1 = box
    for wrong in (
        (1 - x1, y0, 1 - x0, y1),
        (x0, 1 - y1, x1, 1 - y0),
        (y0, 1 - x1, y1, 1 - x0),
        (1 - y1, x0, 1 - y0, x1),
    ):
        assert inside(warm, wrong).mean() < paper.mean() / 3


def test_the_map_of_a_token_is_not_that_of_the_question(samples_index: Index) -> None:
    whole = samples_index.highlight(FROST, ROTATED, 1)
    frost = samples_index.highlight(FROST, ROTATED, 1, token="Frost")
    orchard = samples_index.highlight(FROST, ROTATED, 1, token="orchard")
    assert len({picture.image.tobytes() for picture in (whole, frost, orchard)}) == 3
    page = samples_index.open().page(PageRef(ROTATED, 1))
    plain = samples_index.page_image(ROTATED, 1)
    (title,) = (word.boxes[0] for word in page.words if word.text == "orchard" and word.boxes[0][1] < 0.2)
    on_title = [inside(heat(picture.image, plain), title).mean() for picture in (whole, frost, orchard)]
    assert on_title[0] > 3 * on_title[1]
    assert on_title[2] > 3 * on_title[1]
    assert "Frost on 21 April 2023" in whole.regions[0].text
    assert "Frost" in frost.regions[0].text
    assert "orchard" in orchard.regions[0].text


def test_a_token_that_the_question_lacks_is_named_with_those_it_has(samples_index: Index) -> None:
    with pytest.raises(UsageError, match=r"no token walrus; it has: .*frost, damage, the, orchard, plots") as error:
        samples_index.highlight(FROST, ROTATED, 1, token="walrus")
    assert "[cls]" not in str(error.value).lower()


def test_a_word_of_several_tokens_has_one_map(samples_index: Index) -> None:
    question = "What does the Mill Lane crossover cost?"
    tokens = TextEncoder.load(device="cpu").encode_query(question)["tokens"].tokens
    assert "crossover" in tokens or any(token.startswith("##") for token in tokens)
    region, *_ = samples_index.highlight(question, REPORT, 7, token="crossover").regions
    assert "crossover" in region.text


@pytest.mark.parametrize(
    ("document", "page", "shape"),
    [
        (REPORT, 1, 210 / 297),
        (ROTATED, 1, 297 / 210),
        ("brightwell-slides.pdf", 1, 16 / 9),
        ("depot-letter-scan.pdf", 1, 210 / 297),
        ("observatory-handbook.md", 2, 210 / 297),
    ],
)
@pytest.mark.parametrize("side", [400, 1600])
def test_page_images_have_the_side_that_was_asked_for(
    document: str, page: int, shape: float, side: int, samples_index: Index
) -> None:
    picture = samples_index.page_image(document, page, side)
    width, height = (side, side / shape) if shape > 1 else (side * shape, side)
    assert picture.mode == "RGB"
    assert max(picture.size) == side
    assert picture.size == pytest.approx((width, height), abs=1.5)


def test_highlight_of_a_page_without_vectors_is_the_page(empty: Path, tmp_path: Path) -> None:
    with Index(empty) as index:
        index.ingest(write(tmp_path / "blank.pdf", pdf_bytes([""])), settings=NO_OCR)
        found = index.highlight("walrus", "blank.pdf", 1, side=300)
        assert found.regions == ()
        assert found.image.tobytes() == index.page_image("blank.pdf", 1, 300).tobytes()


# Opening and closing


def test_another_object_sees_what_was_ingested_meanwhile(empty: Path, tmp_path: Path) -> None:
    with Index(empty) as reader, Index(empty) as writer:
        assert reader.search("walrus") == []
        writer.ingest(pdf(tmp_path / "a.pdf", "a walrus"), settings=NO_OCR)
        assert [hit.document for hit in reader.search("walrus")] == ["a.pdf"]
        writer.remove("a.pdf")
        assert reader.search("walrus") == []
        assert reader.documents() == []


def test_close_ends_the_rendering_process_and_the_index_opens_again(samples_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    index = Index(samples_path)
    first = index.page_image(REPORT, 1, 200)
    children = set(psutil.Process().children(recursive=True)) - before
    assert children
    index.close()
    psutil.wait_procs(children, timeout=5)
    assert not [child for child in children if child.is_running()]
    index.close()
    assert index.page_image(REPORT, 1, 200).tobytes() == first.tobytes()
    index.close()


def test_hits_outlive_a_search_but_not_their_document(empty: Path, tmp_path: Path) -> None:
    with Index(empty) as index:
        index.ingest(pdf(tmp_path / "a.pdf", "a walrus"), settings=NO_OCR)
        (hit,) = index.search("walrus")
        assert hit.image(100).size == (71, 100)
        index.remove("a.pdf")
        assert hit.text.strip() == "a walrus"
        with pytest.raises(NotFound, match=r"a\.pdf"):
            hit.image()


def test_retry_reads_the_indexs_copy_of_a_file_that_has_gone(empty: Path, tmp_path: Path) -> None:
    pdf = write(tmp_path / "plain.pdf", pdf_bytes([text(72, 700, "The safe is behind the clock")]))
    locked = tmp_path / "locked.pdf"
    with pikepdf.open(pdf) as opened:
        opened.save(locked, encryption=pikepdf.Encryption(owner="o", user="clock"))
    with Index(empty) as index:
        assert [failure.reason for failure in index.ingest(locked, settings=NO_OCR).failures] == ["password"]
        locked.unlink()
        assert index.retry(settings=replace(NO_OCR, passwords=("clock",))).failures == []
        assert index.search("where is the safe", k=1)[0].text == "The safe is behind the clock"
