"""Pooled and projected pages: by hand, and in an index from its making to the highlighted page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import make_checkpoint
from pdfs import pdf_bytes, rectangle, text, write
from queue_cases import Hand

from visrag import Index, IndexMismatch, IngestSettings, UsageError
from visrag.cli import main
from visrag.encode import reduced
from visrag.encode.reduced import Reduction, pool, project
from visrag.encode.text import TextEncoder
from visrag.models import Models
from visrag.records import Leg, PageRef, PatchVectors, Places, QueryVectors
from visrag.render import Renderer
from visrag.settings import QueueSettings
from visrag.store.local import LocalStore
from visrag.store.remote import Downloads

NO_OCR = IngestSettings(ocr="off", jobs=1)
TEXT = "The depot at Northgate was opened in 1987 and holds forty trams"
REF = PageRef("a.pdf", 1)


def at(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def boxes(count: int) -> list[tuple[float, float, float, float]]:
    return [(i / 10, 0.0, (i + 1) / 10, 1.0) for i in range(count)]


# By hand


def test_near_vectors_become_their_mean_at_the_places_of_both() -> None:
    """90° and 96° become 93°, 0° and 10° become 5°; 45° has no place and stays; the last has two."""
    found = pool(PatchVectors(at(45, 0, 90, 10, 96), Places.of_boxes(boxes(5), [1, 2, 3, 4, 4])), 2)
    assert len(found.vectors) == 3
    np.testing.assert_allclose(found.vectors[2], at(45)[0])
    by_place = found.vectors[found.places.vectors]
    np.testing.assert_allclose(by_place, at(5, 93, 5, 93, 93), atol=1e-6)
    np.testing.assert_allclose(found.places.boxes(), boxes(5), atol=1e-4)


def test_means_are_as_long_as_what_they_stand_for() -> None:
    vectors = at(0, 10, 90, 100) * np.array([[1], [3], [2], [2]], np.float32)
    found = pool(PatchVectors(vectors, Places.of_boxes(boxes(4), range(4))), 2)
    np.testing.assert_allclose(found.vectors[found.places.vectors], 2 * at(5, 5, 95, 95), atol=1e-6)


def test_a_grid_stays_a_grid() -> None:
    """2 rows × 3 columns, one cell without a vector, and a prompt token in front."""
    cells = np.array([1, 2, 3, 4, 5, -1], np.int32)
    found = pool(PatchVectors(at(45, 0, 90, 3, 1, 93), Places.on_grid(2, 3, cells)), 2)
    assert found.places.grid == (2, 3)
    assert found.places.vectors[5] == -1
    rows = found.places.vectors[:5].tolist()
    assert rows[0] == rows[2] == rows[3] != rows[1] == rows[4]
    np.testing.assert_allclose(found.vectors[rows[1]], at(91.5)[0], atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_few_vectors(count: int) -> None:
    vectors = at(*range(count)) if count else np.empty((0, 2), np.float32)
    found = pool(PatchVectors(vectors, Places.of_boxes(boxes(count), range(count))), 3)
    assert len(found.vectors) == min(count, 1)
    assert found.places.vectors.tolist() == [0] * count


def test_vectors_without_any_place_are_left_alone() -> None:
    vectors = at(0, 1, 2)
    assert pool(PatchVectors(vectors, Places.of_boxes([], [])), 2).vectors is vectors


def test_a_page_of_many_vectors_is_pooled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduced, "TOGETHER", 4)
    found = pool(PatchVectors(at(0, 1, 80, 81, 0, 1, 80, 81, 0, 1), Places.of_boxes(boxes(10), range(10))), 2)
    assert len(found.vectors) == 2 + 1 + 1  # of parts of 4, 3 and 3
    assert set(found.places.vectors.tolist()) == set(range(4))


def test_clusters_are_those_of_the_library() -> None:
    import torch
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    vectors = np.random.default_rng(5).normal(size=(200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ours = pool(PatchVectors(vectors, Places.on_grid(10, 20, np.arange(200, dtype=np.int32))), 3)
    theirs = HierarchicalTokenPooling(3, num_protected_tokens=0).pool_one(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(ours.vectors, theirs, atol=1e-6)


def test_a_projection_keeps_length_1() -> None:
    axes = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    vectors = np.array([[3 / 13, 4 / 13, 12 / 13]], np.float32)
    np.testing.assert_allclose(project(vectors, axes), np.array([[0.6, 0.8]]), atol=1e-6)


def test_nothing_is_reduced_unless_it_is_asked_for() -> None:
    leg = Leg("tokens", "m", 3, "f")
    assert not Reduction()
    assert Reduction().leg(leg) == leg
    assert not Reduction.from_settings({})
    assert not Reduction.from_settings(Reduction().to_settings())


def test_what_the_settings_keep() -> None:
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 8)))[0].astype(np.float32)
    kept = Reduction.from_settings(json.loads(json.dumps(Reduction(3, axes).to_settings())))
    assert (kept.pool, kept.dim) == (3, 8)
    np.testing.assert_array_equal(kept.projection, axes)


def test_each_reduction_makes_other_legs() -> None:
    tokens, windows, patches = (Leg(name, "m", 3, "f") for name in ("tokens", "windows", "patches"))
    axes = np.eye(3, dtype=np.float32)
    choices = [Reduction(), Reduction(2), Reduction(3), Reduction(1, axes[:, :2]), Reduction(1, axes[:, 1:]),
               Reduction(2, axes[:, :2])]  # fmt: skip
    assert len({choice.leg(tokens).fingerprint for choice in choices}) == len(choices)
    assert [choice.leg(tokens).dim for choice in choices] == [3, 3, 3, 2, 2, 2]
    assert len({choice.leg(patches).fingerprint for choice in choices}) == 3  # by pooling alone
    assert {choice.leg(windows) for choice in choices} == {windows}
    query = QueryVectors(np.ones((1, 3), np.float32), ("a",), np.ones(1, np.float32))
    assert Reduction(2).query("tokens", query) is query
    assert choices[3].query("windows", query) is query


# In an index


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model with random weights, of 16 dimensions."""
    return str(make_checkpoint("ColBERT", tmp_path_factory.mktemp("models") / "text"))


@pytest.fixture(scope="module")
def pdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(
        tmp_path_factory.mktemp("pdf") / "a.pdf", pdf_bytes([text(72, 700, TEXT), text(72, 500, "forty trams")])
    )


def stored(index: Index, leg: str = "tokens", ref: PageRef = REF) -> PatchVectors:
    found = index.open().vectors(leg, ref)
    assert found is not None
    return found


def covered(found: PatchVectors) -> set[tuple[int, ...]]:
    assert found.places.packed is not None
    assert (found.places.vectors < len(found.vectors)).all()
    return set(map(tuple, found.places.packed.tolist()))


def test_pooled_vectors_cover_the_page(pdf: Path, tmp_path: Path) -> None:
    with Index(tmp_path / "whole", device="cpu") as whole, Index(tmp_path / "small", device="cpu", pool=3) as small:
        for index in (whole, small):
            index.ingest(pdf, settings=NO_OCR)
        before, after = stored(whole), stored(small)
        placed = len(before.vectors) - 2  # [CLS] and [SEP]
        assert len(after.vectors) == placed // 3 + 2
        assert covered(before) == covered(after)
        np.testing.assert_array_equal(stored(whole, "windows").vectors, stored(small, "windows").vectors)
        (hit, *_) = small.search("forty trams", k=2)
        assert sum(leg.weight * leg.score for leg in hit.legs) == pytest.approx(hit.score, abs=1e-5)
        assert any("trams" in region.text for region in small.regions("How many trams?", *REF))
        assert small.highlight("How many trams?", *REF, side=200).image.height == 200
        assert whole.open().settings()["legs"] == [asdict(leg) for leg in TextEncoder.load(device="cpu").legs]


def test_an_index_keeps_how_it_was_made(pdf: Path, colbert: str, tmp_path: Path) -> None:
    with Index(tmp_path / "index", text=colbert, device="cpu", pool=2, dim=8) as index:
        index.ingest(pdf, settings=NO_OCR)
        first = stored(index)
        answers = [(hit.page, hit.score) for hit in index.search("forty trams")]
        assert first.vectors.shape[1] == 8
    with Index(tmp_path / "index", device="cpu") as index:
        assert index.ingest(pdf, settings=NO_OCR).unchanged == 1
        assert [(hit.page, hit.score) for hit in index.search("forty trams")] == answers
        index.remove("a.pdf")
        index.ingest(pdf, settings=NO_OCR)
        np.testing.assert_allclose(stored(index).vectors, first.vectors, atol=0.01)
    others: list[dict[str, Any]] = [{"pool": 3}, {"pool": 1}, {"dim": 16}]
    for given in others:
        with Index(tmp_path / "index", device="cpu", **given) as index, pytest.raises(IndexMismatch, match="not"):
            index.ingest(pdf, settings=NO_OCR)
        with Index(tmp_path / "index", device="cpu", **given) as index, pytest.raises(IndexMismatch, match="not"):
            index.search("forty trams")


def test_an_index_that_is_whole_refuses_to_be_reduced(pdf: Path, colbert: str, tmp_path: Path) -> None:
    with Index(tmp_path / "index", text=colbert, device="cpu") as index:
        index.ingest(pdf, settings=NO_OCR)
    others: list[tuple[dict[str, Any], str]] = [({"pool": 2}, "with pool 1, not 2"), ({"dim": 8}, "made without dim")]
    for given, told in others:
        with Index(tmp_path / "index", device="cpu", **given) as index, pytest.raises(IndexMismatch, match=told):
            index.ingest(pdf, settings=NO_OCR)
    with Index(tmp_path / "index", device="cpu", pool=1) as index:
        assert index.ingest(pdf, settings=NO_OCR).unchanged == 1


def test_float16_is_of_a_new_index(colbert: str, pdf: Path, tmp_path: Path) -> None:
    with Index(tmp_path / "index", text=colbert, device="cpu", float16=True) as index:
        index.ingest(pdf, settings=NO_OCR)
        (leg,) = index.info().legs
        assert leg.halves == 2 * leg.codes > 0
    with Index(tmp_path / "index", device="cpu") as index:  # it stays so
        assert index.open().settings()["float16"] is True
    with Index(tmp_path / "plain", text=colbert, device="cpu") as index:
        index.ingest(pdf, settings=NO_OCR)
        assert index.info().legs[0].halves == 0
    with (
        Index(tmp_path / "plain", device="cpu", float16=True) as index,
        pytest.raises(IndexMismatch, match="made without float16"),
    ):
        index.ingest(pdf, settings=NO_OCR)


@pytest.mark.parametrize("given", [{"pool": 0}, {"dim": 0}, {"dim": 12}, {"dim": 16}, {"dim": 24}])
def test_what_cannot_be(given: dict[str, Any], pdf: Path, colbert: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="="), Index(tmp_path / "i", text=colbert, device="cpu", **given) as index:
        index.ingest(pdf, settings=NO_OCR)


def test_api_command_line_and_queue_agree(pdf: Path, colbert: str, tmp_path: Path) -> None:
    with Index(tmp_path / "api", text=colbert, device="cpu", pool=2, dim=8) as index:
        index.ingest(pdf, settings=NO_OCR)
        expected, document = stored(index), index.documents()
    options = ["--text", colbert, "--device", "cpu", "--pool", "2", "--dim", "8", "--ocr", "off", "--jobs", "1"]
    with pytest.raises(SystemExit) as ended:
        main(["ingest", str(pdf), "--index", str(tmp_path / "cli"), *options])
    assert ended.value.code == 0
    settings = QueueSettings.from_environment({"VISRAG_TEXT": colbert, "VISRAG_POOL": "2", "VISRAG_DIM": "8"})
    with (
        LocalStore.open(tmp_path / "queue", create=True) as store,
        Renderer() as renderer,
        Downloads(tmp_path / "downloads") as downloads,
    ):
        hand = Hand(store, Models(settings.wanted).for_ingest(store), renderer, downloads)
        hand.enqueue(pdf, NO_OCR)
        hand.work()
    for name in ("cli", "queue"):
        with Index(tmp_path / name) as index:
            assert index.documents() == document
            np.testing.assert_allclose(stored(index).vectors, expected.vectors, atol=0.01)
            np.testing.assert_array_equal(stored(index).places.vectors, expected.places.vectors)


def test_patches_are_pooled_and_the_grid_stays(colbert: str, tmp_path: Path) -> None:
    vision = str(make_checkpoint("ColQwen2ForRetrieval", tmp_path / "vision"))
    file = write(tmp_path / "a.pdf", pdf_bytes([text(72, 790, "costs") + rectangle(50, 80, 495, 660, "0.2 0.6 0.3")]))
    found = []
    for pooling in (1, 2):
        with Index(tmp_path / str(pooling), text=colbert, vision=vision, device="cpu", pool=pooling) as index:
            index.ingest(file, settings=NO_OCR)
            found.append(stored(index, "patches"))
            assert index.highlight("costs", *REF, side=200).image.height == 200
    whole, pooled = found
    assert pooled.places.grid == whole.places.grid
    patches = len(whole.places.vectors)
    assert len(pooled.vectors) == len(whole.vectors) - patches + patches // 2
    assert (pooled.places.vectors >= 0).all()


def test_copies_are_of_the_same_making(pdf: Path, colbert: str, tmp_path: Path) -> None:
    from visrag.copy import copy_index

    for name, factor in (("one", 2), ("two", 2), ("other", 3)):
        with Index(tmp_path / name, text=colbert, device="cpu", pool=factor) as index:
            index.ingest(pdf, settings=NO_OCR)
    assert copy_index(tmp_path / "one", tmp_path / "two").unchanged == 1
    with pytest.raises(IndexMismatch):
        copy_index(tmp_path / "one", tmp_path / "other")


def lines(questions: Sequence[tuple[str, int]]) -> str:
    return "\n".join(json.dumps({"question": asked, "doc": "a.pdf", "page": page}) for asked, page in questions)


def test_evaluate_measures_what_would_be_lost(
    pdf: Path, colbert: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = tmp_path / "q.jsonl"
    asked.write_text(lines([("Where is the depot?", 1), ("forty trams", 2), ("Northgate 1987", 1)]))
    for name, factor, dim in (("whole", None, None), ("small", 2, 8)):
        with Index(tmp_path / name, text=colbert, device="cpu", pool=factor, dim=dim) as index:
            index.ingest(pdf, settings=NO_OCR)
    command = ["evaluate", str(asked), "--rank", "maxsim", "--device", "cpu", "--index"]

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*command, *arguments])
        assert ended.value.code == 0
        return capsys.readouterr().out

    rows = json.loads(run(str(tmp_path / "whole"), "--pool", "2", "--dim", "8", "--json"))["reduced"]
    assert [(row["pool"], row["dim"]) for row in rows] == [(1, None), (1, 8), (2, None), (2, 8)]
    alone = json.loads(run(str(tmp_path / "small"), "--json"))["by_scope"]["document"]
    both = rows[3]["by_scope"]["document"]
    for name, lost in rows[3]["loss"]["document"].items():
        assert both[name] == pytest.approx(alone[name], abs=1e-4)  # as an index that was made so
        assert lost == pytest.approx(rows[0]["by_scope"]["document"][name] - both[name], abs=1e-4)
    with Index(tmp_path / "whole") as whole, Index(tmp_path / "small") as small:
        for row, index in ((rows[0], whole), (rows[3], small)):
            sizes = [stored(index, ref=PageRef("a.pdf", page)).vectors.size for page in (1, 2)]
            assert row["bytes_per_page"] == round(sum(sizes) / 2)
    assert "bytes a page" in run(str(tmp_path / "whole"), "--pool", "2")
    with pytest.raises(SystemExit) as ended:
        main([*command, str(tmp_path / "small"), "--pool", "2"])
    assert ended.value.code == 2
    assert "measure with an index that is not" in capsys.readouterr().err
