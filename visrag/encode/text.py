"""The text encoder: ColBERT checkpoints, and dense models used as late interaction.

A page's text is cut into overlapping windows; every token vector gets the boxes of the words that its
characters belong to. A dense model fills a second leg, "windows": the one vector that its own pooling
makes of each window, matched against that of the whole question.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EncoderError
from ..records import Box, Floats, Leg, Page, PatchVectors, Places, QueryVectors, Word
from .bert import BertQuestions
from .checkpoint import DEFAULT_MODEL, check_weights, find_checkpoint, fingerprint, name_of, page_dtype, pick_device

if TYPE_CHECKING:
    import torch

TOKENS = "tokens"
WINDOWS = "windows"
WINDOW = 62  # tokens of a page that a dense model is given at once: of 30, 62, 94 and 254 the best on real PDFs
OVERLAP = 32  # tokens that two windows of a page share, at most a quarter of a window
BATCH_TOKENS = 1024  # tokens, padding included, that go through the model at once
PADDED = 8  # a window is padded to a multiple of so many tokens, whatever it is encoded with


@dataclass(frozen=True, slots=True)
class _Window:
    page: int  # index in the batch
    start: int  # character offset in the page's text
    text: str
    length: int  # tokens, special ones and padding included


@dataclass(slots=True)
class _Encoded:
    vectors: Floats  # (n, dim), length 1
    spans: list[tuple[int, int]]  # characters of the page's text; (0, 0) for a vector without a place
    pooled: Floats | None  # (dim,), length 1


class TextEncoder:
    """Late interaction over text. See the module's docstring; made by ``TextEncoder.load``."""

    needs_image = False

    def __init__(self, folder: Path, name: str, device: str | None = None, window: int = WINDOW) -> None:
        self._folder = folder
        self._device = device
        self._window = window
        self._dense = _is_dense(folder)
        self._model: Any = None
        self._in_numpy = self._dense and _mean_pooled(folder) and BertQuestions.supports(folder)
        self._bert: BertQuestions | None = None
        identity = fingerprint(folder, overlap=OVERLAP, **({"window": window} if self._dense else {}))
        dim = _dimension(folder) or self._loaded().get_embedding_dimension()
        self.legs: tuple[Leg, ...] = (Leg(TOKENS, name, dim, identity),)
        if self._dense:
            self.legs += (Leg(WINDOWS, name, dim, identity),)

    @classmethod
    def load(cls, model: str = DEFAULT_MODEL, device: str | None = None, window: int = WINDOW) -> TextEncoder:
        """A model by the default's name, a folder, or a hub id. ``device``: "cpu", "cuda", or None for the best.
        ``window``: how many tokens of a page a dense model is given at once, at most what it takes.

        The weights are read when they are first needed. Raises EncoderError.
        """
        return cls(find_checkpoint(model), name_of(model), device, window)

    # Questions

    def encode_query(self, question: str) -> Mapping[str, QueryVectors]:
        """The question's tokens; with a dense model also its one pooled vector, named by the whole question.

        A dense model's [CLS] and [SEP] have weight 0; the tokens of a ColBERT all count, as it was trained.
        """
        if self._in_numpy:
            if self._bert is None:
                self._bert = BertQuestions(self._folder)
            hidden, tokens, special = self._bert(question, _max_length(self._folder))
            pooled = hidden.mean(axis=0)
        else:
            hidden, tokens, special, pooled = self._torch_query(question)
        weights = np.array([0.0 if self._dense and flag else 1.0 for flag in special], np.float32)
        own = [i for i, flag in enumerate(special) if not flag]
        query = {TOKENS: QueryVectors(_unit(hidden), tokens, weights, range(own[0], own[-1] + 1) if own else range(0))}
        if pooled is not None:
            query[WINDOWS] = QueryVectors(_unit(pooled)[None], (question,), np.ones(1, np.float32))
        return query

    def _torch_query(self, question: str) -> tuple[Floats, tuple[str, ...], list[bool], Floats | None]:
        """The tokens' vectors, their strings, which are not the question's own, and a dense model's pooled vector."""
        model = self._loaded()
        features = self._forward(self._features([question], "query"), "query")
        mask = features["attention_mask"][0].bool()
        ids = features["input_ids"][0][mask].tolist()
        tokens = tuple(model.tokenizer.convert_ids_to_tokens(ids))
        prefix = len(self._prompt("query"))
        ends = features["offset_mapping"][0][mask][:, 1].tolist()
        pooled = features["pooled"][0].float().cpu().numpy() if self._dense else None
        hidden = features["token_embeddings"][0][mask].float().cpu().numpy()
        return hidden, tokens, [end <= prefix for end in ends], pooled

    # Pages

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        """Token vectors with the boxes of their words. Raises EncoderError for NaN or infinity, naming the page.

        Where the processor multiplies bfloat16, the model's products are in it, and all else in float32
        (``page_dtype``). A page's vectors do not depend on the pages that it is encoded with.
        """
        windows = [window for index, page in enumerate(pages) for window in self._windows(index, page.text)]
        batches = _batches(windows)
        encoded: dict[_Window, _Encoded] = {}
        for batch, features in zip(batches, self._forward_all(batches), strict=True):
            encoded.update(zip(batch, self._encoded(batch, features), strict=True))
        by_page: list[list[_Encoded]] = [[] for _ in pages]
        for window in windows:
            by_page[window.page].append(encoded[window])
        return [_legs(page, parts) for page, parts in zip(pages, by_page, strict=True)]

    def _windows(self, index: int, text: str) -> list[_Window]:
        """Windows of a page's text, cut between words, each within the model's length with its special tokens."""
        if not text.strip():
            return []
        tokenizer = self._loaded().tokenizer
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets, words = encoding["offset_mapping"], encoding.word_ids()
        limit, special = self._limits
        size = limit - special
        windows, first = [], 0
        while first < len(offsets):
            end = _cut(words, first, first + size)
            start = offsets[first][0]
            length = -(-(end - first + special) // self._multiple) * self._multiple
            windows.append(_Window(index, start, text[start : offsets[end - 1][1]], length))
            if end == len(offsets):
                break
            first = max(_cut(words, first, end - min(OVERLAP, size // 4)), first + 1)
        return windows

    @cached_property
    def _limits(self) -> tuple[int, int]:
        """A window's tokens at most, and how many of them are special."""
        transformer = self._loaded()[0]
        limit = transformer.document_length if getattr(transformer, "document_length", None) else None
        limit = limit or self._loaded().max_seq_length or 512
        special = len(self._features([""], "document")["input_ids"][0])
        limit = max(limit, special + 1)
        return (min(limit, self._window + special) if self._dense else limit), special

    @property
    def _multiple(self) -> int:
        """Windows are padded to a multiple of so many tokens."""
        return PADDED if self._limits[0] % PADDED == 0 else 1

    def _features(self, texts: list[str], task: str, multiple: int = 1) -> dict[str, Any]:
        extra = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "pad_to_multiple_of": multiple}
        features: dict[str, Any] = self._loaded().preprocess(
            texts, prompt=self._prompt(task) or None, task=task, processing_kwargs={"text": extra}
        )
        return features

    def _prompt(self, task: str) -> str:
        prompt = self._loaded().prompts.get(task)
        return prompt if prompt and not self._dense else ""

    def _forward(self, features: dict[str, Any], task: str) -> dict[str, Any]:
        """The model's features: ``token_embeddings`` (b, t, dim), ``attention_mask`` of what is scored,
        and of a dense model ``pooled`` (b, dim)."""
        import torch

        model = self._loaded()
        device = model.device
        features = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in features.items()}
        dtype = page_dtype(device.type) if task == "document" else torch.float32
        with torch.inference_mode():
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                if not self._dense:
                    return dict(model(features, task=task))
                hidden = model[0](features)
            pooled = {**hidden, "token_embeddings": hidden["token_embeddings"].float()}
            for module in list(model)[1:]:
                pooled = module(pooled)
            return {**hidden, "pooled": pooled["sentence_embedding"]}

    def _forward_all(self, batches: list[list[_Window]]) -> Iterator[dict[str, Any]]:
        """The model's features of every batch. On a CPU several go through the model at once, each on one thread: no
        thread waits for others within a batch, which costs much on a busy machine."""
        texts = ([window.text for window in batch] for batch in batches)
        features = (self._features(some, "document", self._multiple) for some in texts)
        run = map if self._pool is None else self._pool.map
        return iter(run(partial(self._forward, task="document"), features))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor | None:
        """Threads that each run torch alone, as many as torch would take; None on a GPU."""
        import torch

        threads = torch.get_num_threads()
        if self._loaded().device.type != "cpu" or threads == 1:
            return None
        begun = Barrier(threads + 1)

        def begin() -> None:
            torch.get_num_threads()  # at its first question a thread takes the number of all
            torch.set_num_threads(1)
            begun.wait()

        pool = ThreadPoolExecutor(threads, "encode", begin)
        for _ in range(threads):
            pool.submit(int)
        begun.wait()
        torch.set_num_threads(threads)  # for threads to come
        return pool

    def _encoded(self, windows: list[_Window], features: dict[str, Any]) -> list[_Encoded]:
        vectors: torch.Tensor = features["token_embeddings"].float().cpu()
        masks = features["attention_mask"].bool().cpu().numpy()
        offsets = features["offset_mapping"].cpu().numpy()
        special = features["special_tokens_mask"].bool().cpu().numpy()
        prefix = len(self._prompt("document"))
        encoded = []
        for row, window in enumerate(windows):
            mask = masks[row]
            spans = [
                (0, 0) if flag or end <= prefix else (window.start + start - prefix, window.start + end - prefix)
                for (start, end), flag in zip(offsets[row][mask].tolist(), special[row][mask], strict=True)
            ]
            pooled = _unit(features["pooled"][row].float().cpu().numpy()) if self._dense else None
            encoded.append(_Encoded(_unit(vectors[row].numpy()[mask]), spans, pooled))
        return encoded

    def _loaded(self) -> Any:
        if self._model is None:
            self._model = _load(self._folder, self._dense, self._device)
        return self._model


def _load(folder: Path, dense: bool, device: str | None) -> Any:
    import transformers
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if device is not None:
        pick_device(device)
    kind = SentenceTransformer if dense else MultiVectorEncoder
    try:
        model = kind(str(folder), device=device, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EncoderError(f"the model in {folder} could not be loaded: {error}") from error
    check_weights(model[0].model, folder.name, folder)
    model.eval()
    return model


def _is_dense(folder: Path) -> bool:
    """Whether a folder holds a sentence-transformers model that pools its tokens to one vector."""
    modules = folder / "modules.json"
    return modules.is_file() and any(m["type"].endswith(".Pooling") for m in json.loads(modules.read_text()))


def _mean_pooled(folder: Path) -> bool:
    """Whether a dense model is a transformer, the mean over its tokens, and nothing that changes a direction."""
    modules = json.loads((folder / "modules.json").read_text())
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    pooling = json.loads((folder / modules[1]["path"] / "config.json").read_text())
    mean = pooling.get("pooling_mode") == "mean" or pooling.get("pooling_mode_mean_tokens") is True
    return kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) <= {"Normalize"} and mean


def _dimension(folder: Path) -> int | None:
    """A dense model's dimension, from its configuration."""
    if not _is_dense(folder):
        return None
    config = json.loads((folder / "config.json").read_text())
    return int(config["hidden_size"]) if "hidden_size" in config else None


def _max_length(folder: Path) -> int:
    path = folder / "sentence_bert_config.json"
    return int(json.loads(path.read_text()).get("max_seq_length") or 512) if path.is_file() else 512


def _cut(words: Sequence[int | None], first: int, end: int) -> int:
    """The last index up to ``end`` at which a word begins, after ``first``; ``end`` itself if there is none."""
    if end >= len(words):
        return len(words)
    cut = end
    while cut > first and words[cut] == words[cut - 1]:
        cut -= 1
    return cut if cut > first else end


def _batches(windows: list[_Window]) -> list[list[_Window]]:
    """Windows in batches of one length each."""
    by_length: dict[int, list[_Window]] = {}
    for window in windows:
        by_length.setdefault(window.length, []).append(window)
    batches = []
    for length, alike in sorted(by_length.items(), reverse=True):
        size = max(1, BATCH_TOKENS // length)
        batches += [alike[start : start + size] for start in range(0, len(alike), size)]
    return batches


def _legs(page: Page, parts: list[_Encoded]) -> dict[str, PatchVectors]:
    if not parts:
        return {}
    vectors = np.concatenate([part.vectors for part in parts])
    if not np.isfinite(vectors).all():
        raise EncoderError(f"page {page.number}: the model gave NaN or infinity")
    spans = [span for part in parts for span in part.spans]
    legs = {TOKENS: PatchVectors(vectors, _word_places(page.words, spans))}
    if parts[0].pooled is not None:
        pooled = np.stack([part.pooled for part in parts if part.pooled is not None])
        legs[WINDOWS] = PatchVectors(pooled, _window_places(page.words, parts))
    return legs


def _word_places(words: Sequence[Word], spans: Sequence[tuple[int, int]]) -> Places:
    """The boxes of the words that each vector's characters touch."""
    starts = [word.start for word in words]
    boxes: list[Box] = []
    owners: list[int] = []
    for row, (start, end) in enumerate(spans):
        index = max(bisect_right(starts, start) - 1, 0)
        while start < end and index < len(words) and words[index].start < end:
            if words[index].start + len(words[index].text) > start:
                boxes.extend(words[index].boxes)
                owners.extend([row] * len(words[index].boxes))
            index += 1
    return Places.of_boxes(boxes, owners)


def _window_places(words: Sequence[Word], parts: Sequence[_Encoded]) -> Places:
    """One box a window: the smallest that holds its words."""
    boxes: list[Box] = []
    owners: list[int] = []
    for row, part in enumerate(parts):
        spans = [span for span in part.spans if span != (0, 0)]
        if not spans:
            continue
        first, last = spans[0][0], spans[-1][1]
        inside = [box for word in words if first <= word.start < last for box in word.boxes]
        if inside:
            x0, y0, x1, y1 = zip(*inside, strict=True)
            boxes.append((min(x0), min(y0), max(x1), max(y1)))
            owners.append(row)
    return Places.of_boxes(boxes, owners)


def _unit(vectors: Floats) -> Floats:
    """Vectors (…, dim) scaled to length 1."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: Floats = (vectors / np.maximum(norm, 1e-12)).astype(np.float32)
    return result
