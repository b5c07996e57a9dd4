"""Vision models through colpali-engine, on tiny random checkpoints. The judge is the library itself.

They run in an environment of their own, .venv-colpali: `make test-colpali`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import make_checkpoint
from patch_cases import (
    LANDSCAPE,
    PORTRAIT,
    SIZES,
    check_attention_calls,
    check_bfloat16,
    check_canary,
    check_nothing_is_cached,
    check_one_is_many,
    check_painted_cell,
    check_patch_wins_at_its_place,
    check_question,
    encode,
    maxsim,
    page,
    picture,
    placed,
)
from report_cases import CHART, ROTATED, TEXT, check_heat, check_planted_signal, report, settings

if find_spec("colpali_engine") is None:
    if os.environ.get("VIRTUAL_ENV", "").endswith(".venv-colpali"):
        raise RuntimeError("colpali-engine is missing from .venv-colpali")
    pytest.skip("colpali-engine is not installed here: make test-colpali", allow_module_level=True)

import torch
import torchvision_cpu  # noqa: F401

from visrag import Index, IndexMismatch
from visrag.encode.colpali import ColpaliEncoder
from visrag.encode.families import FAMILIES
from visrag.encode.patches import PATCHES, PatchEncoder
from visrag.encode.preparing import LANCZOS
from visrag.encode.vision import load_vision
from visrag.errors import EncoderError

pytestmark = pytest.mark.filterwarnings(
    # transformers 5.23, of its own PaliGemma processor
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

TILES = ("ColIdefics3", "ColModernVBert")
SQUARE = ("ColPali", "ColGemma3")
QWEN = ("ColQwen2", "ColQwen2_5", "ColQwen3", "ColQwen3_5")
MADE = (*QWEN, *TILES, *SQUARE)
AUGMENTATION = dict.fromkeys(QWEN, "<|endoftext|>") | dict.fromkeys(TILES, "<end_of_utterance>") | {"ColPali": "<pad>"}
GRIDS = dict.fromkeys(QWEN, ((7, 5), (4, 8))) | dict.fromkeys(TILES, ((16, 12), (8, 16)))
GRIDS |= dict.fromkeys(SQUARE, ((8, 8), (8, 8)))
QUESTION = "capital expenditure in 2018?"

Folder = Callable[[str], Path]
Load = Callable[[str], PatchEncoder]


@pytest.fixture(scope="module", autouse=True)
def _as_the_libraries() -> Iterator[None]:
    """In float32, to be held against the libraries; threads only get in each other's way in models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISRAG_DTYPE", "float32")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a family's tiny checkpoint."""
    root = tmp_path_factory.mktemp("colpali-checkpoints")
    return cache(lambda family: make_checkpoint(family, root / family))


@pytest.fixture(scope="session")
def load(folder: Folder) -> Load:
    return cache(lambda family: load_vision(str(folder(family)), device="cpu"))


@pytest.fixture(scope="session")
def library(folder: Folder) -> Callable[[str], tuple[Any, Any]]:
    """The same checkpoint's model and processor as colpali-engine loads them, without visrag."""
    import colpali_engine.models as models

    def load(family: str) -> tuple[Any, Any]:
        processor = next(made.processor for made in FAMILIES if made.architecture == family)
        model = getattr(models, family).from_pretrained(folder(family))
        if family == "ColPali":  # 0.3.18 leaves its head without data
            model.model.tie_weights()
        return model.eval(), getattr(models, processor).from_pretrained(folder(family))

    return cache(load)


def test_every_family_of_colpali_engine_is_tested() -> None:
    assert sorted(MADE) == sorted(family.architecture for family in FAMILIES if family.processor)


@pytest.mark.parametrize("family", MADE)
def test_vectors_and_scores_equal_the_librarys(
    family: str, load: Load, library: Callable[[str], tuple[Any, Any]]
) -> None:
    assert isinstance(load(family), ColpaliEncoder)
    model, processor = library(family)
    images = [picture(size) for size in (PORTRAIT, LANDSCAPE)]
    with torch.no_grad():
        documents = [model(**processor.process_images([image]))[0] for image in images]
        question = model(**processor.process_queries([QUESTION]))[0]
    scores = processor.score([question], documents, device="cpu")[0].tolist()
    query = load(family).encode_query(QUESTION)[PATCHES]
    np.testing.assert_allclose(query.vectors, question, rtol=0, atol=1e-5)
    for image, document, score in zip(images, documents, scores, strict=True):
        found = encode(load(family), image)
        np.testing.assert_allclose(found.vectors, document, rtol=0, atol=1e-5)
        assert maxsim(query, found) == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("family", MADE)
def test_one_page_is_encoded_as_among_many(family: str, folder: Folder) -> None:
    check_one_is_many(ColpaliEncoder.load(str(folder(family)), device="cpu"))


@pytest.mark.parametrize("family", MADE)
def test_portrait_and_landscape_have_rows_first(family: str, load: Load) -> None:
    grids = tuple(encode(load(family), picture(size)).places.grid for size in (PORTRAIT, LANDSCAPE))
    assert grids == GRIDS[family]


@pytest.mark.parametrize("family", QWEN)
def test_grid_is_that_of_the_library(family: str, load: Load, library: Callable[[str], tuple[Any, Any]]) -> None:
    _, processor = library(family)
    for size in SIZES:
        cols, rows = processor.get_n_patches(size, processor.image_processor.merge_size)
        assert encode(load(family), picture(size)).places.grid == (rows, cols)


@pytest.mark.parametrize("family", TILES)
def test_tiles_lie_where_the_library_puts_them(
    family: str, load: Load, library: Callable[[str], tuple[Any, Any]]
) -> None:
    model, processor = library(family)
    image = picture(PORTRAIT)  # 256 × 192 pixels for the model: 4 × 3 tiles of 64
    pixels = processor.process_images([image])
    with torch.no_grad():
        document = model(**pixels)[0]
    mask = processor.get_local_image_mask(pixels)[0]
    expected = processor.rearrange_image_embeddings(document, mask, (12, 16)).permute(1, 0, 2)
    found = encode(load(family), image)
    np.testing.assert_allclose(placed(found), expected, rtol=0, atol=1e-5)
    assert set(found.places.vectors.tolist()) == set(np.flatnonzero(mask).tolist())


@pytest.mark.parametrize("family", MADE)
def test_painted_cell_changes_the_patch_at_its_row_and_column(family: str, load: Load) -> None:
    check_painted_cell(load(family), LANDSCAPE)


@pytest.mark.parametrize("family", MADE)
def test_patch_wins_at_its_own_place(family: str, load: Load) -> None:
    check_patch_wins_at_its_place(load(family), PORTRAIT)


@pytest.mark.parametrize("family", MADE)
def test_from_a_pdf_to_a_heatmap(family: str, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index(tmp_path / "index", text=str(folder("ColBERT")), vision=str(folder(family)), device="cpu") as index:
        summary = index.ingest(report(tmp_path / "report.pdf"), settings=settings())
        assert (summary.pages, summary.failures) == (3, [])
        legs = {hit.page: {leg.leg for leg in hit.legs} - {"fulltext"} for hit in index.search(QUESTION)}
        assert legs == {TEXT.page: {"tokens"}, CHART.page: {"patches"}, ROTATED.page: {"patches"}}
        portrait, landscape = GRIDS[family][0], GRIDS[family][0][::-1]  # the third page is the second's size, turned
        check_planted_signal(index, CHART, portrait)
        check_planted_signal(index, ROTATED, landscape)
        check_heat(index, monkeypatch)


@pytest.mark.parametrize("family", MADE)
def test_nothing_is_cached(family: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    check_nothing_is_cached(load(family), monkeypatch)


@pytest.mark.parametrize("family", MADE)
def test_pages_of_one_shape_attend_together(family: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    check_attention_calls(load_vision(str(folder(family)), device="cpu"), monkeypatch)


@pytest.mark.parametrize("family", MADE)
def test_bfloat16(family: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    check_bfloat16(lambda: load_vision(str(folder(family)), device="cpu"), monkeypatch)


CHANGES: dict[tuple[str, ...], dict[str, Any]] = {
    QWEN: {
        "image_mean": [0.3, 0.5, 0.5],
        "size": {"shortest_edge": 3136, "longest_edge": 24_000},
        "do_rescale": False,
    },
    TILES: {"size": {"longest_edge": 192}, "do_normalize": False, "do_image_splitting": False},
    SQUARE: {"image_std": [0.25, 0.5, 0.5], "do_rescale": False, "resample": 0},
}


@pytest.mark.parametrize("family", MADE)
def test_the_canary_notices_a_changed_processor(family: str, folder: Folder) -> None:
    changes = next(changes for families, changes in CHANGES.items() if family in families)
    check_canary(lambda: load_vision(str(folder(family)), device="cpu"), changes)


@pytest.mark.parametrize("family", QWEN)
def test_visual_tokens_are_the_most_that_a_page_has(
    family: str, folder: Folder, library: Callable[[str], tuple[Any, Any]]
) -> None:
    encoder = load_vision(str(folder(family)), device="cpu", visual_tokens=24)
    assert library(family)[1].image_processor.size != encoder._processor.image_processor.size
    for size in SIZES:
        rows, cols = encode(encoder, picture(size)).places.grid or (0, 0)
        assert 12 < rows * cols <= 24


@pytest.mark.parametrize("family", MADE)
def test_the_pictures_that_a_gpu_would_make_otherwise_are_those_of_lanczos(family: str, folder: Folder) -> None:
    """``Preparing`` knows them by these two attributes."""
    images = load_vision(str(folder(family)), device="cpu")._processor.image_processor
    assert (images.backend, images.resample == LANCZOS) == ("torchvision", family in TILES)


def test_processors_of_torchvision_obey_the_device_that_preparing_sets(folder: Folder) -> None:
    encoder = ColpaliEncoder.load(str(folder("ColQwen2")), device="cpu")
    encoder._processor.image_processor.device = "meta"
    assert encoder._processor.process_images([picture(PORTRAIT)])["pixel_values"].device.type == "meta"


@pytest.mark.parametrize("family", MADE)
def test_question_tokens_and_weights(family: str, load: Load) -> None:
    if family == "ColGemma3":  # trained without augmentation
        check_question(load(family), "<eos>", times=0)
    else:
        check_question(load(family), AUGMENTATION[family])


def make_adapter(base: Path, folder: Path) -> Any:
    """A random adapter on a ColQwen2_5, which calls it owner/base. The model, as peft has it."""
    from colpali_engine.models import ColQwen2_5
    from peft import LoraConfig, get_peft_model

    targets = r"(.*language_model.*(down_proj|q_proj).*$|.*(custom_text_proj).*$)"  # as vidore/colqwen2.5-v0.2
    lora = LoraConfig(r=4, init_lora_weights=False, target_modules=targets)
    model = get_peft_model(ColQwen2_5.from_pretrained(base), lora).eval()
    model.save_pretrained(folder)
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "owner/base"}))
    return model


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.20
def test_adapter_is_loaded_onto_its_base(
    folder: Folder, tmp_path: Path, library: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that visrag found, which the hub has under another commit than the newest; and merged into it, so that it
    costs nothing."""
    base = folder("ColQwen2_5")
    model = make_adapter(base, tmp_path / "adapter")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda id, revision=None: {"owner/base": str(base)}[id])
    encoder = load_vision(str(tmp_path / "adapter"), device="cpu")
    image = picture(PORTRAIT)
    with torch.no_grad():
        expected = model(**library("ColQwen2_5")[1].process_images([image]))[0]
    np.testing.assert_allclose(encode(encoder, image).vectors, expected, rtol=0, atol=1e-5)
    alone = load_vision(str(base), device="cpu")
    linear, calls = torch.nn.functional.linear, [0]

    def counted(*rows: Any) -> Any:
        calls[0] += 1
        return linear(*rows)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    encode(alone, image)
    products, calls[0] = calls[0], 0
    encode(encoder, image)
    assert calls[0] == products > 0


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.20
def test_an_index_keeps_the_commits_of_an_adapter_and_its_base(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When both have got other commits the index is still searched with those that it was made with."""
    hub, newest = tmp_path / "snapshots", {"owner/adapter": "a1", "owner/base": "b1"}
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda id, revision=None: str(hub / (revision or newest[id]))
    )
    for adapter, base in (("a1", "b1"), ("a2", "b2")):
        shutil.copytree(folder("ColQwen2_5"), hub / base)
        make_adapter(hub / base, hub / adapter)
    (hub / "b2" / "README.txt").write_text("a later commit")
    with Index(tmp_path / "index", text=str(folder("ColBERT")), vision="owner/adapter", device="cpu") as index:
        index.ingest(report(tmp_path / "report.pdf"), settings=settings())
        expected = [(hit.page, hit.score) for hit in index.search(QUESTION)]
    newest |= {"owner/adapter": "a2", "owner/base": "b2"}
    for vision in (None, "owner/adapter"):
        with Index(tmp_path / "index", vision=vision, device="cpu") as index:
            assert [(hit.page, hit.score) for hit in index.search(QUESTION)] == expected
    other = Index(tmp_path / "index", vision="owner/adapter@a2", device="cpu")
    with other, pytest.raises(IndexMismatch, match="other weights or settings"):
        other.search(QUESTION)


@pytest.mark.parametrize("family", MADE)
def test_weights_that_would_be_random_are_an_error(family: str, folder: Folder, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    damaged = Path(shutil.copytree(folder(family), tmp_path / family))
    weights = load_file(damaged / "model.safetensors")
    name = next(name for name in weights if "proj.weight" in name or name == "linear.weight")
    del weights[name]
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"1 of \d+ weights are not in the checkpoint"):
        load_vision(str(damaged), device="cpu")


def test_a_device_that_is_too_small_for_the_model_is_an_error(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("colpali_engine.models.ColQwen2_5.to", small)
    with pytest.raises(EncoderError, match=r"ColQwen2_5 .* could not be loaded: OutOfMemoryError: CUDA out of memory"):
        load_vision(str(folder("ColQwen2_5")), device="cpu")


def test_not_a_number_in_the_weights_is_named(folder: Folder) -> None:
    encoder = ColpaliEncoder.load(str(folder("ColQwen2_5")), device="cpu")
    encoder._model.custom_text_proj.weight.data.fill_(float("nan"))
    with pytest.raises(EncoderError, match="NaN or infinity for page 2"):
        encoder.encode_pages([page(picture(PORTRAIT), number=2)])
