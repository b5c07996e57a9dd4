"""The text encoder. The judge is sentence-transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from checkpoints import make_checkpoint
from safetensors.torch import load_file, save_file

from visrag.calibration import TEXTS
from visrag.encode.bert import BertQuestions
from visrag.encode.checkpoint import find_checkpoint, fingerprint, page_dtype
from visrag.encode.text import TOKENS, WINDOWS, TextEncoder
from visrag.errors import EncoderError, UsageError
from visrag.records import Page, Word

QUESTION = "How much was spent on maintenance in 2023?"


def page(text: str, number: int = 1) -> Page:
    """A page whose words stand one below the other, each a hundredth of the page wide and a thousandth high."""
    words, at = [], 0
    for i, word in enumerate(text.split(" ")):
        words.append(Word(word, at, ((0.1, i / 1000, 0.11, (i + 1) / 1000),)))
        at += len(word) + 1
    return Page(number, 600, 800, text, tuple(words))


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load(device="cpu")


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("ColBERT", tmp_path_factory.mktemp("colbert") / "tiny")


def test_question_in_numpy_is_the_librarys(encoder: TextEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(find_checkpoint("all-MiniLM-L6-v2")), device="cpu")
    tokens = library.encode(QUESTION, output_value="token_embeddings").numpy()
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    query = encoder.encode_query(QUESTION)
    np.testing.assert_allclose(query[TOKENS].vectors, tokens, atol=1e-5)
    np.testing.assert_allclose(query[WINDOWS].vectors[0], library.encode(QUESTION), atol=1e-5)
    assert query[TOKENS].tokens[:3] == ("[CLS]", "how", "much")
    assert query[TOKENS].weights.tolist() == [0.0] + [1.0] * (len(tokens) - 2) + [0.0]
    assert query[TOKENS].own == range(1, len(tokens) - 1)
    assert query[WINDOWS].tokens == (QUESTION,)


def test_page_is_the_librarys(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISRAG_DTYPE", "float32")
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize

    folder = str(find_checkpoint("all-MiniLM-L6-v2"))
    text = "Maintenance cost 10.3 million in 2023, against 9.8 million in the year before."
    modules = [Transformer(folder), MultiVectorMask(), Normalize("token_embeddings")]
    tokens = MultiVectorEncoder(modules=modules, device="cpu").encode_document(text, convert_to_numpy=True)
    pooled = SentenceTransformer(folder, device="cpu").encode(text)
    (legs,) = encoder.encode_pages([page(text)])
    np.testing.assert_allclose(legs[TOKENS].vectors, tokens, atol=1e-5)
    np.testing.assert_allclose(legs[WINDOWS].vectors, pooled[None], atol=1e-5)


def test_token_vectors_have_the_boxes_of_their_words(encoder: TextEncoder) -> None:
    (legs,) = encoder.encode_pages([page("Expenditure on unbelievably long words")])
    places = legs[TOKENS].places
    by_vector = {vector: box.tolist() for vector, box in zip(places.vectors.tolist(), places.boxes(), strict=True)}
    count = len(legs[TOKENS].vectors)
    assert 0 not in by_vector  # [CLS]
    assert count - 1 not in by_vector  # [SEP]
    tops = [round(by_vector[i][1] * 1000) for i in range(1, count - 1)]
    assert sorted(set(tops)) == [0, 1, 2, 3, 4]
    assert tops == sorted(tops)
    window = legs[WINDOWS].places.boxes()[0]
    np.testing.assert_allclose(window, [0.1, 0.0, 0.11, 0.005], atol=1e-4)


def test_a_word_on_two_lines_has_two_places(encoder: TextEncoder) -> None:
    word = Word("information", 0, ((0.8, 0.1, 0.9, 0.12), (0.1, 0.13, 0.2, 0.15)))
    (legs,) = encoder.encode_pages([Page(1, 600, 800, "information", (word,))])
    assert legs[TOKENS].places.vectors.tolist() == [1, 1]


def test_a_page_longer_than_the_window_loses_no_word(encoder: TextEncoder) -> None:
    words = [f"word{i}" for i in range(900)]
    (legs,) = encoder.encode_pages([page(" ".join(words))])
    tops = np.rint(legs[TOKENS].places.boxes()[:, 1] * 1000).astype(int)
    assert set(tops.tolist()) == set(range(900))
    assert len(legs[WINDOWS].vectors) > 5
    assert np.bincount(tops).max() > np.bincount(tops).min()  # windows overlap


def test_a_word_longer_than_the_window_is_cut(colbert: Path) -> None:
    (legs,) = TextEncoder.load(str(colbert), device="cpu").encode_pages([page("x7q" * 33)])
    assert len(np.unique(legs[TOKENS].places.vectors)) >= 99  # one a letter; 48 fit into a window


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_page_depends_on_its_company(encoder: TextEncoder, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISRAG_DTYPE", dtype)
    pages = [page(" ".join(f"word{i} of" for i in range(length)), length) for length in (1, 3, 40, 150, 400)]
    for one, found in zip(pages, encoder.encode_pages(pages), strict=True):
        (alone,) = encoder.encode_pages([one])
        for leg in (TOKENS, WINDOWS):
            np.testing.assert_allclose(alone[leg].vectors, found[leg].vectors, atol=1e-5)


@pytest.mark.parametrize("model", ["default", "colbert"])
def test_pages_in_bfloat16_are_near_those_in_float32(
    encoder: TextEncoder, colbert: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = encoder if model == "default" else TextEncoder.load(str(colbert), device="cpu")
    pages = [page(text, number) for number, text in enumerate(TEXTS, 1)]
    found = {}
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setenv("VISRAG_DTYPE", dtype)
        found[dtype] = used.encode_pages(pages)
    for leg in used.legs:
        before, after = (np.concatenate([each[leg.name].vectors for each in found[d]]) for d in found)
        cosines = (before * after).sum(axis=1)
        assert 0.9999 < cosines.mean() < 1 - 1e-7  # it was in bfloat16
        np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)


def test_questions_are_in_float32(colbert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder.load(str(colbert), device="cpu")
    before = encoder.encode_query(QUESTION)[TOKENS].vectors
    monkeypatch.setenv("VISRAG_DTYPE", "bfloat16")
    np.testing.assert_array_equal(encoder.encode_query(QUESTION)[TOKENS].vectors, before)


def test_bfloat16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("VISRAG_DTYPE", raising=False)
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert page_dtype("cpu") == dtype
        assert page_dtype("cuda") == torch.bfloat16
    monkeypatch.setenv("VISRAG_DTYPE", "int8")
    with pytest.raises(UsageError, match="must be float32 or bfloat16"):
        page_dtype("cpu")


def test_torch_keeps_its_threads(encoder: TextEncoder) -> None:
    import torch

    before, seen = torch.get_num_threads(), []
    encoder.encode_pages([page(" ".join(f"n{i}" for i in range(400)))])
    other = Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert [torch.get_num_threads(), *seen] == [before, before]


def test_a_blank_page_has_no_legs(encoder: TextEncoder) -> None:
    assert encoder.encode_pages([Page(1, 600, 800, " \n ")]) == [{}]


def test_colbert_is_the_librarys(colbert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISRAG_DTYPE", "float32")
    from sentence_transformers import MultiVectorEncoder

    library = MultiVectorEncoder(str(colbert), device="cpu")
    encoder = TextEncoder.load(str(colbert), device="cpu")
    text = "the cost of maintenance, in full"
    (legs,) = encoder.encode_pages([page(text)])
    assert set(legs) == {TOKENS}
    np.testing.assert_allclose(legs[TOKENS].vectors, library.encode_document(text, convert_to_numpy=True), atol=1e-5)
    query = encoder.encode_query(QUESTION)[TOKENS]
    np.testing.assert_allclose(query.vectors, library.encode_query(QUESTION, convert_to_numpy=True), atol=1e-5)
    assert len(query.tokens) == len(query.vectors)
    assert set(query.weights.tolist()) == {1.0}
    own = encoder.encode_query("in full")[TOKENS]
    assert own.own is not None  # behind [CLS] and [Q], before [SEP] and the expansion
    assert "".join(own.tokens[i].removeprefix("##") for i in own.own) == "infull"
    assert encoder.legs[0].dim == query.vectors.shape[1]


def test_colbert_markers_have_no_place_and_words_have_theirs(colbert: Path) -> None:
    (legs,) = TextEncoder.load(str(colbert), device="cpu").encode_pages([page("the cost of maintenance")])
    places = legs[TOKENS].places
    first = places.vectors.min()
    assert first >= 1  # [CLS] and [D] come before
    tops = np.rint(places.boxes()[:, 1] * 1000).astype(int)
    assert set(tops.tolist()) == {0, 1, 2, 3}


def test_colbert_long_page_loses_no_word(colbert: Path) -> None:
    (legs,) = TextEncoder.load(str(colbert), device="cpu").encode_pages([page(" ".join(["cost", "full"] * 100))])
    tops = np.rint(legs[TOKENS].places.boxes()[:, 1] * 1000).astype(int)
    assert set(tops.tolist()) == set(range(200))


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(EncoderError, match="give a folder that holds one, or a hub id"):
        TextEncoder.load("./no/such/folder")
    with pytest.raises(EncoderError, match="neither in the local cache"):
        TextEncoder.load("nobody/no-such-model")


def test_fingerprint_changes_with_the_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert fingerprint(tmp_path) != before
    assert fingerprint(tmp_path, overlap=1) != fingerprint(tmp_path, overlap=2)


def test_only_known_berts_are_computed_in_numpy(colbert: Path) -> None:
    assert BertQuestions.supports(find_checkpoint("all-MiniLM-L6-v2"))
    assert not BertQuestions.supports(colbert / "nothing")


def test_a_question_needs_no_torch() -> None:
    use = "from visrag.encode.text import TextEncoder; TextEncoder.load().encode_query('why')"
    code = f"import sys; {use}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_weights_that_would_be_random_are_an_error(tmp_path: Path) -> None:
    folder = make_checkpoint("ColBERT", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file({name: value for name, value in weights.items() if "pooler" not in name}, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=r"1 of 39 weights are not in the checkpoint \(encoder.layer.0.output.dense"):
        TextEncoder.load(str(folder), "cpu").encode_query("revenue")
