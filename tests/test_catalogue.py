"""The table of models: what it says of each, and the commit that is downloaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from pdfs import pdf_bytes, text, write

from visrag import Index
from visrag.encode.catalogue import known_model, known_models, pinned_revision
from visrag.encode.checkpoint import find_checkpoint
from visrag.encode.families import FAMILIES
from visrag.errors import EncoderError, UsageError

NEWEST = "0123456789" * 4  # the commit that the hub gives where none is asked for
COLPALI = "vidore/colpali-v1.3"
COLPALI_COMMIT = "1b5c8929330df1a66de441a9b5409a878f0de5b0"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str | None]]:
    """The ids and revisions that are asked of the hub, which has them all."""
    asked: list[tuple[str, str | None]] = []

    def download(repo_id: str, *, revision: str | None = None) -> str:
        asked.append((repo_id, revision))
        return str(tmp_path / "snapshots" / (revision or NEWEST))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def test_every_vision_family_has_a_model_and_every_family_is_known() -> None:
    families = {model.family for model in known_models() if model.kind == "vision" and model.family}
    assert families == {family.architecture for family in FAMILIES}
    assert {model.family for model in known_models() if model.kind == "text"} == {"ColBERT", "dense"}


def test_the_library_is_the_one_that_loads_the_family() -> None:
    libraries = {
        family.architecture: "colpali-engine" if family.processor else "sentence-transformers" for family in FAMILIES
    }
    for model in known_models():
        if model.kind == "vision":
            unknown = model.library if model.library in ("remote code", "none") else None
            assert model.library == libraries.get(model.family or "", unknown), model.id


def test_hub_ids_and_revisions_have_their_form() -> None:
    ids = [model.id for model in known_models()]
    assert len(set(ids)) == len(ids)
    for model in known_models():
        for id in (model.id, model.base or model.id):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", id), id
        for revision in (model.revision, model.base_revision):
            assert revision is None or re.fullmatch(r"[0-9a-f]{40}", revision), model.id
        assert model.adapter == (model.base is not None), model.id
        assert model.sources, model.id


PUBLISHED = {  # the dimension; nDCG × 100 on ViDoRe V1 and V2 @5, on the public half of V3 @10; NanoViDoRe v3
    "webAI-Official/webAI-ColVec1.1-8b": (640, None, None, 65.32, None),
    "vultr/VultronRetrieverPrime-Qwen3.5-8B": (320, 92.08, 68.18, 64.72, None),
    "webAI-Official/webAI-ColVec1.1-4b": (640, None, None, 64.24, None),
    "nvidia/nemotron-colembed-vl-8b-v2": (4096, 92.65, 65.16, 63.54, None),
    "TomoroAI/tomoro-colqwen3-embed-8b": (320, 90.76, 65.40, 61.60, None),
    "athrael-soju/colqwen3.5-4.5B-v3": (320, 91.54, 64.25, 61.56, None),
    "OpenSearch-AI/Ops-Colqwen3-4B": (2560, 91.36, 68.66, 61.27, None),
    "TomoroAI/tomoro-colqwen3-embed-4b": (320, 90.57, 64.69, 60.16, 60.19),
    "vultr/VultronRetrieverFlash-Qwen3.5-0.8B": (320, 88.15, 60.36, 56.49, None),
    "vidore/colqwen2.5-v0.2": (128, 89.54, 60.06, 52.44, 54.02),
    "vidore/colqwen2-v1.0": (128, 89.23, 56.04, 44.18, 46.85),
    "vidore/colpali-v1.3": (128, 84.75, 54.72, 42.95, 48.02),
    "ModernVBERT/colmodernvbert": (128, None, None, 26.12, 26.32),
    "tencent/EVIE-Preview-4.5B": (128, None, None, None, 64.05),
}
# the dimension; nDCG × 100 on NanoBEIR; nDCG@10 × 100 on SciFact
PUBLISHED_TEXT = {
    "lightonai/LateOn": (128, 68.68, None),
    "lightonai/GTE-ModernColBERT-v1": (128, 67.20, None),
    "answerdotai/answerai-colbert-small-v1": (96, 65.50, None),
    "colbert-ir/colbertv2.0": (128, None, 69.58),
    "BAAI/bge-small-en": (384, None, 73.70),
    "sentence-transformers/all-MiniLM-L6-v2": (384, None, 70.72),
}


def test_figures_are_the_published_ones_and_no_model_has_others() -> None:
    vision = {
        model.id: (model.dim, model.vidore_v1, model.vidore_v2, model.vidore_v3, model.nano_vidore)
        for model in known_models()
    }
    assert {id: figures for id, figures in vision.items() if any(figures[1:])} == PUBLISHED
    text = {model.id: (model.dim, model.nano_beir, model.scifact) for model in known_models()}
    assert {id: figures for id, figures in text.items() if any(figures[1:])} == PUBLISHED_TEXT


def test_models_stand_in_the_order_that_the_head_of_the_table_says() -> None:
    kinds = [model.kind for model in known_models()]
    assert kinds == sorted(kinds, reverse=True)
    for figures in (
        [model.vidore_v3 for model in known_models() if model.vidore_v3],
        [model.nano_beir for model in known_models() if model.nano_beir],
    ):
        assert figures == sorted(figures, reverse=True)


def test_a_model_goes_by_its_name_alone_in_any_case() -> None:
    assert known_model("colnetraembed").id == "Cognitive-Lab/ColNetraEmbed"
    with pytest.raises(UsageError, match="no model walrus"):
        known_model("walrus")


def test_the_pinned_commit_is_downloaded(downloads: list[tuple[str, str | None]]) -> None:
    find_checkpoint(COLPALI)
    find_checkpoint("vidore/colpaligemma-3b-pt-448-base")
    assert downloads == [
        (COLPALI, COLPALI_COMMIT),
        ("vidore/colpaligemma-3b-pt-448-base", "30ab955d073de4a91dc5a288e8c97226647e3e5a"),
    ]


def test_a_model_that_is_not_pinned_is_downloaded_as_it_is_now(downloads: list[tuple[str, str | None]]) -> None:
    assert pinned_revision("lightonai/LateOn") is None
    find_checkpoint("lightonai/LateOn")
    find_checkpoint("owner/unknown")
    assert downloads == [("lightonai/LateOn", None), ("owner/unknown", None)]


def test_a_revision_that_is_asked_for_goes_before_the_pinned_one(downloads: list[tuple[str, str | None]]) -> None:
    find_checkpoint(f"{COLPALI}@main")
    find_checkpoint("owner/unknown@v1.2")
    assert downloads == [(COLPALI, "main"), ("owner/unknown", "v1.2")]


def test_the_revision_is_told_where_there_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo_id: str, *, revision: str | None = None) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(EncoderError, match=f"the model {COLPALI} at {COLPALI_COMMIT} is neither in the local cache"):
        find_checkpoint(COLPALI)


def test_a_model_that_cannot_be_loaded_is_not_downloaded(downloads: list[tuple[str, str | None]]) -> None:
    with pytest.raises(EncoderError, match="jina-colbert-v2 cannot be loaded"):
        find_checkpoint("jinaai/jina-colbert-v2")
    assert downloads == []


def test_an_index_keeps_the_commit_that_it_was_made_with(
    downloads: list[tuple[str, str | None]], tmp_path: Path
) -> None:
    """So that a table that names another one later does not part the index from its model."""
    revision = known_model("answerai-colbert-small-v1").revision
    for commit in (revision, NEWEST):
        make_checkpoint("ColBERT", tmp_path / "snapshots" / str(commit))
    with Index(tmp_path / "index", text="answerdotai/answerai-colbert-small-v1", device="cpu") as index:
        index.ingest(write(tmp_path / "a.pdf", pdf_bytes([text(72, 700, "revenue")])))
        kept = index.open().settings()
    assert kept["models"]["text"] == f"answerdotai/answerai-colbert-small-v1@{revision}"
    assert kept["legs"][0]["encoder"] == "answerdotai/answerai-colbert-small-v1"
    with Index(tmp_path / "index", device="cpu") as index:
        assert len(index.search("revenue")) == 1
    assert set(downloads) == {("answerdotai/answerai-colbert-small-v1", revision)}


def test_so_it_does_of_a_model_that_is_not_in_the_table(
    downloads: list[tuple[str, str | None]], tmp_path: Path
) -> None:
    make_checkpoint("ColBERT", tmp_path / "snapshots" / NEWEST)
    with Index(tmp_path / "index", text="owner/unknown", device="cpu") as index:
        index.ingest(write(tmp_path / "a.pdf", pdf_bytes([text(72, 700, "revenue")])))
        assert index.open().settings()["models"]["text"] == f"owner/unknown@{NEWEST}"
