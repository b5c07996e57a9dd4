"""Vision models through sentence-transformers, on tiny random checkpoints. The judge is the library itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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
from safetensors.torch import load_file, save_file

from visrag.canary import page_vectors
from visrag.encode.colpali import ColpaliEncoder
from visrag.encode.patches import PATCHES, PatchEncoder, tiled
from visrag.encode.preparing import Preparing
from visrag.encode.vision import VisionEncoder, load_vision
from visrag.errors import EncoderError, MissingExtra, UsageError
from visrag.records import Page

COLQWEN2 = "ColQwen2ForRetrieval"
COLPALI = "ColPaliForRetrieval"
COLMODERNVBERT = "ColModernVBertForRetrieval"
FAMILIES = (COLQWEN2, COLPALI, COLMODERNVBERT)
AUGMENTATION = {COLQWEN2: "<|endoftext|>", COLPALI: "<pad>", COLMODERNVBERT: "<end_of_utterance>"}
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
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda family: make_checkpoint(family, root / family))


@pytest.fixture(scope="session")
def load(folder: Folder) -> Load:
    return cache(lambda family: load_vision(str(folder(family)), device="cpu"))


@pytest.fixture(scope="session")
def library(folder: Folder) -> Callable[[str], Any]:
    """The same checkpoint as sentence-transformers loads it, without visrag."""
    from sentence_transformers import MultiVectorEncoder

    return cache(lambda family: MultiVectorEncoder(str(folder(family)), device="cpu"))


@pytest.fixture
def copy(folder: Folder, tmp_path: Path) -> Folder:
    """A copy of a family's checkpoint, to be damaged."""
    return lambda family: Path(shutil.copytree(folder(family), tmp_path / family))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# Vectors


@pytest.mark.parametrize("family", [COLQWEN2, COLPALI])
def test_vectors_equal_the_librarys(family: str, load: Load, library: Callable[[str], Any]) -> None:
    images = [picture(size) for size in (PORTRAIT, LANDSCAPE)]
    expected = library(family).encode_document(images, convert_to_numpy=True)
    for image, vectors in zip(images, expected, strict=True):
        found = encode(load(family), image)
        assert found.vectors.dtype == np.float32
        np.testing.assert_allclose(found.vectors, vectors, rtol=0, atol=1e-5)
    query = load(family).encode_query(QUESTION)[PATCHES]
    np.testing.assert_allclose(
        query.vectors, library(family).encode_query(QUESTION, convert_to_numpy=True), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("family", [COLQWEN2, COLPALI])
def test_maxsim_equals_the_librarys(family: str, load: Load, library: Callable[[str], Any]) -> None:
    images = [picture(size) for size in (PORTRAIT, LANDSCAPE)]
    model = library(family)
    expected = model.similarity(model.encode_query([QUESTION]), model.encode_document(images))[0]
    query = load(family).encode_query(QUESTION)[PATCHES]
    for image, score in zip(images, expected.tolist(), strict=True):
        assert maxsim(query, encode(load(family), image)) == pytest.approx(score, abs=1e-4)


def test_colmodernvbert_equals_transformers_own(load: Load, folder: Folder) -> None:
    from transformers import ColModernVBertForRetrieval, ColModernVBertProcessor

    model = ColModernVBertForRetrieval.from_pretrained(folder(COLMODERNVBERT)).eval()
    processor = ColModernVBertProcessor.from_pretrained(folder(COLMODERNVBERT))
    image = picture(PORTRAIT)  # 256 × 192 pixels for the model: 4 × 3 tiles of 64
    pixels, text = processor.process_images([image]), processor.process_queries([QUESTION])
    with torch.no_grad():
        document, question = model(**pixels).embeddings[0], model(**text).embeddings[0]
    found, query = encode(load(COLMODERNVBERT), image), load(COLMODERNVBERT).encode_query(QUESTION)[PATCHES]
    np.testing.assert_allclose(found.vectors, document, rtol=0, atol=1e-5)
    np.testing.assert_allclose(query.vectors, question, rtol=0, atol=1e-5)
    assert maxsim(query, found) == pytest.approx(processor.score_retrieval([question], [document]).item(), abs=1e-4)
    patches = document[pixels["input_ids"][0] == processor.image_token_id]
    local = patches[: 4 * 3 * 16].view(4, 3, 4, 4, -1).permute(0, 2, 1, 3, 4).reshape(16, 12, -1)
    np.testing.assert_allclose(placed(found), local, rtol=0, atol=1e-5)
    assert not set(np.flatnonzero(pixels["input_ids"][0] == processor.image_token_id)[-16:]) & set(
        found.places.vectors.tolist()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_one_page_is_encoded_as_among_many(family: str, folder: Folder) -> None:
    check_one_is_many(VisionEncoder.load(str(folder(family)), device="cpu"))


def test_what_sentence_transformers_saved_loads_too(library: Callable[[str], Any], load: Load, tmp_path: Path) -> None:
    library(COLQWEN2).save(str(tmp_path / "saved"), create_model_card=False)
    assert (tmp_path / "saved" / "modules.json").exists()
    encoder = load_vision(str(tmp_path / "saved"), device="cpu")
    image = picture(PORTRAIT)
    np.testing.assert_allclose(encode(encoder, image).vectors, encode(load(COLQWEN2), image).vectors, rtol=0, atol=1e-5)


def test_a_meanmaxsim_model_counts_each_token_by_the_questions_length(
    library: Callable[[str], Any], tmp_path: Path
) -> None:
    model = library(COLQWEN2)
    model.similarity_fn_name = "meanmaxsim"
    try:
        model.save(str(tmp_path / "mean"), create_model_card=False)
        image = picture(LANDSCAPE)
        expected = model.similarity(model.encode_query([QUESTION]), model.encode_document([image])).item()
    finally:
        model.similarity_fn_name = "maxsim"
    encoder = load_vision(str(tmp_path / "mean"), device="cpu")
    assert maxsim(encoder.encode_query(QUESTION)[PATCHES], encode(encoder, image)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16(family: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    check_bfloat16(lambda: load_vision(str(folder(family)), device="cpu"), monkeypatch)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_cached(family: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    check_nothing_is_cached(load(family), monkeypatch)


@pytest.mark.parametrize("family", FAMILIES)
def test_pages_of_one_shape_attend_together(family: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    check_attention_calls(load_vision(str(folder(family)), device="cpu"), monkeypatch)


def test_torch_has_one_core_in_a_thread_that_prepares_pages_and_all_in_others() -> None:
    torch.set_num_threads(3)
    try:
        preparing = Preparing(None, "cpu", torch.float32)
        assert list(preparing.each(lambda _, __: torch.get_num_threads(), range(2))) == [1, 1]
        with ThreadPoolExecutor(1) as later:
            assert (torch.get_num_threads(), later.submit(torch.get_num_threads).result()) == (3, 3)
    finally:
        torch.set_num_threads(1)


def test_two_threads_have_what_one_has(load: Load, folder: Folder) -> None:
    """While one has the model the other prepares: each gets its own pages' vectors."""
    encoder = VisionEncoder.load(str(folder(COLQWEN2)), device="cpu")
    halves = [[page(picture(SIZES[seed % 10], seed), seed) for seed in range(begin, begin + 10)] for begin in (0, 10)]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(partial(encoder.encode_in, batch_size=2), halves))
    for pages, encoded in zip(halves, found, strict=True):
        for one, vectors in zip(pages, encoded, strict=True):
            alone = load(COLQWEN2).encode_pages([one])[0][PATCHES]
            np.testing.assert_allclose(vectors[PATCHES].vectors, alone.vectors, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "cublas"],
)
def test_a_batch_that_is_too_large_for_the_memory_is_halved(
    error: RuntimeError, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = VisionEncoder.load(str(folder(COLQWEN2)), device="cpu")
    forward, sizes = encoder._forward, []

    def small(features: dict[str, Any], task: Any) -> Any:
        sizes.append(len(features["input_ids"]))
        if sizes[-1] > 3:
            raise error
        return forward(features, task)

    pages = [page(picture(PORTRAIT, seed), seed) for seed in range(8)]
    expected = encoder.encode_in(pages, 8)
    monkeypatch.setattr(encoder, "_forward", small)
    for found, whole in zip(encoder.encode_in(pages, 8), expected, strict=True):
        np.testing.assert_allclose(found[PATCHES].vectors, whole[PATCHES].vectors, rtol=0, atol=1e-5)
    assert sizes == [8, 4, 2, 2, 2, 2]  # what was found too large is not tried again
    monkeypatch.setattr(encoder, "_forward", lambda *_: (_ for _ in ()).throw(MemoryError("none at all")))
    with pytest.raises(MemoryError):
        encoder.encode_pages(pages[:2])


# Image tokens


@pytest.mark.parametrize("tokens", [16, 24, 35])
def test_visual_tokens_are_the_most_that_a_page_has(tokens: int, folder: Folder, library: Callable[[str], Any]) -> None:
    """The same as the library's processor with so many pixels, of 28 × 28 a token."""
    encoder = load_vision(str(folder(COLQWEN2)), device="cpu", visual_tokens=tokens)
    processor = type(library(COLQWEN2).processor).from_pretrained(folder(COLQWEN2))
    processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": tokens * 28 * 28}
    for size in SIZES:
        found = encode(encoder, picture(size))
        _, height, width = processor.process_images([picture(size)])["image_grid_thw"][0].tolist()
        assert found.places.grid == (height // 2, width // 2)
        assert len(found.places.vectors) <= tokens
    assert encoder.legs[0].fingerprint != load_vision(str(folder(COLQWEN2)), device="cpu").legs[0].fingerprint


@pytest.mark.parametrize(
    ("tokens", "tiles"), [(16, 0), (79, 0), (80, 2), (159, 2), (160, 3), (272, 4), (1000, 4)]
)  # 16 each, and 16 of the whole page
def test_visual_tokens_are_the_most_that_tiles_have(tokens: int, tiles: int, folder: Folder) -> None:
    """So many to a side of a square page, of the 4 that the processor says; none where the page is not split."""
    encoder = load_vision(str(folder(COLMODERNVBERT)), device="cpu", visual_tokens=tokens)
    assert encode(encoder, picture((280, 280))).places.grid == (4 * max(1, tiles), 4 * max(1, tiles))
    assert encode(encoder, picture(LANDSCAPE)).places.grid == (4 * max(1, -(-tiles // 2)), 4 * max(1, tiles))


def test_visual_tokens_are_refused_where_pages_have_the_same_number_or_more(folder: Folder) -> None:
    with pytest.raises(UsageError, match=f"visual_tokens=64: {COLPALI} has the same number"):
        load_vision(str(folder(COLPALI)), device="cpu", visual_tokens=64)
    with pytest.raises(UsageError, match=f"visual_tokens=15: {COLMODERNVBERT} has at least 16 image tokens a page"):
        load_vision(str(folder(COLMODERNVBERT)), device="cpu", visual_tokens=15)


# The canary


CHANGES: dict[str, dict[str, Any]] = {
    COLQWEN2: {
        "image_mean": [0.3, 0.5, 0.5],
        "size": {"shortest_edge": 3136, "longest_edge": 28 * 28 * 30},
        "do_rescale": False,
    },
    COLPALI: {"image_std": [0.25, 0.5, 0.5], "do_rescale": False, "resample": 0},
    COLMODERNVBERT: {"size": {"longest_edge": 192}, "do_normalize": False, "do_image_splitting": False},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_canary_notices_a_changed_processor(family: str, folder: Folder) -> None:
    check_canary(lambda: load_vision(str(folder(family)), device="cpu"), CHANGES[family])


def test_a_model_that_depends_on_the_batch_is_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_vision(str(folder(COLQWEN2)), device="cpu")
    forward = encoder._forward

    def other(features: dict[str, Any], task: Any) -> Any:
        vectors, mask = forward(features, task)
        return (vectors.roll(1, dims=2) if len(vectors) > 1 else vectors), mask

    monkeypatch.setattr(encoder, "_forward", other)
    with pytest.raises(EncoderError, match=r"other vectors among others than alone \(cosine"):
        page_vectors(encoder)


# Places


@pytest.mark.parametrize(
    ("family", "portrait", "landscape"),
    [(COLQWEN2, (7, 5), (4, 8)), (COLPALI, (8, 8), (8, 8)), (COLMODERNVBERT, (16, 12), (8, 16))],
)
def test_portrait_and_landscape_have_rows_first(
    family: str, portrait: tuple[int, int], landscape: tuple[int, int], load: Load
) -> None:
    assert encode(load(family), picture(PORTRAIT)).places.grid == portrait
    assert encode(load(family), picture(LANDSCAPE)).places.grid == landscape


def test_grid_is_that_of_the_library(load: Load, library: Callable[[str], Any]) -> None:
    from sentence_transformers.multi_vector_encoder.interpretability import get_n_patches

    for size in SIZES:
        cols, rows = get_n_patches(library(COLQWEN2), size)
        assert encode(load(COLQWEN2), picture(size)).places.grid == (rows, cols)


def test_a_page_has_as_many_tiles_as_the_processor_makes(load: Load) -> None:
    encoder = load(COLMODERNVBERT)
    for size in SIZES:
        made = encoder._processor.image_processor(images=[[picture(size)]], return_row_col_info=True)
        assert encode(encoder, picture(size)).places.grid == (4 * made["rows"][0][0], 4 * made["cols"][0][0])


def test_tiles_go_back_to_rows_of_the_page() -> None:
    """Two tiles beside each other, 2 × 2 patches each, numbered as the model gives them, then the global tile."""
    grid = tiled(1, 2, 2)
    assert grid.order.reshape(grid.rows, grid.cols).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert grid.tokens == 12
    for whole in (tiled(0, 0, 2), tiled(1, 1, 2)):
        assert (whole.rows, whole.cols, whole.order.tolist(), whole.tokens) == (2, 2, [0, 1, 2, 3], 4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [PORTRAIT, LANDSCAPE])
def test_painted_cell_changes_the_patch_at_its_row_and_column(family: str, size: tuple[int, int], load: Load) -> None:
    check_painted_cell(load(family), size)


@pytest.mark.parametrize("family", FAMILIES)
def test_patch_wins_at_its_own_place(family: str, load: Load) -> None:
    check_patch_wins_at_its_place(load(family), LANDSCAPE)


@pytest.mark.parametrize(("family", "others"), [(COLQWEN2, 16), (COLPALI, 8), (COLMODERNVBERT, None)])
def test_prompt_tokens_and_the_global_tile_have_no_place(family: str, others: int | None, load: Load) -> None:
    vectors = encode(load(family), picture(PORTRAIT))
    cells = vectors.places.vectors
    assert len(set(cells.tolist())) == len(cells)
    unplaced = len(vectors.vectors) - len(cells)
    assert unplaced > 4 * 4 if others is None else unplaced == others


# Questions


@pytest.mark.parametrize("family", FAMILIES)
def test_question_tokens_and_weights(family: str, load: Load) -> None:
    check_question(load(family), AUGMENTATION[family])


@pytest.mark.parametrize("family", [COLQWEN2, COLPALI])
def test_question_begins_where_the_library_says(family: str, load: Load, library: Callable[[str], Any]) -> None:
    from sentence_transformers.multi_vector_encoder.interpretability import real_query_token_slice

    expected = real_query_token_slice(library(family), QUESTION)
    found = load(family).encode_query(QUESTION)["patches"].own
    assert found is not None
    assert found.start == expected.start
    # the prompt's last space, a token of its own before an empty question, makes the library's end one token early
    assert found.stop - 1 == expected.stop


# What goes wrong


def test_not_a_number_in_the_weights_is_named(copy: Folder) -> None:
    damaged = copy(COLQWEN2)
    edit_weights(damaged, lambda weights: weights["embedding_proj_layer.weight"].fill_(float("nan")))
    encoder = load_vision(str(damaged), device="cpu")
    with pytest.raises(EncoderError, match=r"ColQwen2ForRetrieval gave NaN or infinity for page 3: .*Download"):
        encoder.encode_pages([page(picture(PORTRAIT), number=3)])
    with pytest.raises(EncoderError, match="for the question"):
        encoder.encode_query(QUESTION)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_would_be_random_are_an_error(family: str, copy: Folder) -> None:
    damaged = copy(family)
    edit_weights(damaged, lambda weights: weights.pop("embedding_proj_layer.weight"))
    with pytest.raises(
        EncoderError, match=r"1 of \d+ weights are not in the checkpoint \(embedding_proj_layer.weight\)"
    ):
        load_vision(str(damaged), device="cpu")


def test_weights_of_another_shape_are_an_error(copy: Folder) -> None:
    damaged = copy(COLQWEN2)
    edit_weights(damaged, lambda weights: weights.update({"embedding_proj_layer.weight": torch.zeros(3, 32)}))
    with pytest.raises(EncoderError, match="could not be loaded"):
        load_vision(str(damaged), device="cpu")


def test_files_that_are_cut_short_are_an_error(copy: Folder) -> None:
    damaged = copy(COLPALI)
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(EncoderError, match=r"ColPaliForRetrieval .* could not be loaded"):
        load_vision(str(damaged), device="cpu")
    (damaged / "config.json").write_text('{"architectures": ["ColPali', encoding="utf-8")
    with pytest.raises(EncoderError, match=r"config.json is not JSON"):
        load_vision(str(damaged), device="cpu")


@pytest.mark.parametrize("model", ["no/such-model", "./no/such/folder", "none"])
def test_model_that_is_not_there(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match=r"folder"):
        load_vision(model)


def test_family_that_nobody_loads_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}), encoding="utf-8")
    with pytest.raises(EncoderError, match=r"BertModel.*ColPaliForRetrieval, ColQwen2ForRetrieval"):
        load_vision(str(tmp_path))


def test_text_model_is_no_vision_model(folder: Folder) -> None:
    with pytest.raises(EncoderError, match="reads text, not pictures"):
        load_vision(str(folder("ColBERT")), device="cpu")


def test_page_without_a_picture_is_an_error(load: Load) -> None:
    with pytest.raises(EncoderError, match="page 7 has no picture"):
        load(COLQWEN2).encode_pages([Page(7, 100.0, 100.0)])


def test_processor_that_splits_otherwise_than_it_says_is_refused(copy: Folder) -> None:
    damaged = copy(COLMODERNVBERT)
    settings = json.loads((damaged / "processor_config.json").read_text(encoding="utf-8"))
    settings["image_seq_len"] = 15
    (damaged / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(EncoderError, match="cannot place the patches"):
        encode(load_vision(str(damaged), device="cpu"), picture(PORTRAIT))


def test_missing_colpali_engine_names_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ColQwen2_5"]}), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "colpali_engine", None)
    with pytest.raises(MissingExtra, match=r"ColQwen2_5 needs .* pip install 'visrag\[colpali\]'"):
        load_vision(str(tmp_path))


def test_adapter_is_known_by_the_model_it_stands_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}), encoding="utf-8")
    adapter = {"base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "colpali_engine", None)
    with pytest.raises(MissingExtra, match="ColQwen2_5"):
        load_vision(str(tmp_path))


def test_adapter_on_a_model_of_transformers_must_be_merged(folder: Folder, tmp_path: Path) -> None:
    adapter = {"base_model_name_or_path": str(folder(COLQWEN2))}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")
    with pytest.raises(EncoderError, match="merge it into ColQwen2ForRetrieval"):
        load_vision(str(tmp_path))


def test_each_library_refuses_what_the_other_loads(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="is not a model of colpali-engine"):
        ColpaliEncoder.load(str(folder(COLQWEN2)))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ColQwen2_5"]}), encoding="utf-8")
    with pytest.raises(EncoderError, match="is a model of colpali-engine"):
        VisionEncoder.load(str(tmp_path))


# The leg


def test_leg_is_named_by_the_folder(load: Load) -> None:
    (leg,) = load(COLQWEN2).legs
    assert (leg.name, leg.encoder, leg.dim) == ("patches", COLQWEN2, 16)
    assert load(COLQWEN2).needs_image


def test_fingerprint_knows_weights_and_processor(copy: Folder, load: Load) -> None:
    changed = copy(COLQWEN2)
    assert load_vision(str(changed), device="cpu").legs == load(COLQWEN2).legs
    settings = json.loads((changed / "processor_config.json").read_text(encoding="utf-8"))
    settings["image_processor"]["image_mean"][0] += 0.01
    (changed / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    processor = load_vision(str(changed), device="cpu").legs[0].fingerprint
    edit_weights(changed, lambda weights: weights["embedding_proj_layer.bias"].add_(1.0))
    weights = load_vision(str(changed), device="cpu").legs[0].fingerprint
    assert len({load(COLQWEN2).legs[0].fingerprint, processor, weights}) == 3


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, visrag.encode.vision; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
