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


def test_figures_are_the_published_ones() -> None:
    colpali = known_model(COLPALI)
    assert (colpali.vidore_v1, colpali.vidore_v2, colpali.vidore_v3, colpali.nano_vidore) == (
        84.75,
        54.72,
        42.95,
        48.02,
    )
    tomoro = known_model("TomoroAI/tomoro-colqwen3-embed-4b")
    assert (tomoro.vidore_v1, tomoro.vidore_v2, tomoro.vidore_v3, tomoro.nano_vidore) == (90.57, 64.69, 60.16, 60.19)
    assert (tomoro.dim, known_model("answerdotai/answerai-colbert-small-v1").dim) == (320, 96)
    assert known_model("lightonai/GTE-ModernColBERT-v1").nano_beir == 67.20
    assert known_model("sentence-transformers/all-MiniLM-L6-v2").scifact == 70.72


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
