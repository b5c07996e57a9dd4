"""What the vision encoders share: which places patches have, batches without padding, checks of what comes out.

A page goes through the model's own processor, alone; pages whose features have the same shapes then go
through the model together. So nothing is ever padded, and a page's vectors do not depend on its company.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ..errors import EncoderError
from ..records import Floats, Ints, Leg, Page, PatchVectors, Places, QueryVectors

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

PATCHES = "patches"
BATCH_SIZE = 8  # pages that go through the model at once
WAITING = 4  # batches' worth of prepared pages that may wait for others of their shape

Features: TypeAlias = dict[str, Any]
Task: TypeAlias = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Grid:
    """How a processor cut a page: the cells' rows and columns, and the order of their tokens.

    ``order`` (rows × cols,) int32: for each cell, row-major, which of the page's image tokens is its patch.
    ``tokens``: how many image tokens there are, those of a global tile, which are no cells, included.
    """

    rows: int
    cols: int
    order: Ints
    tokens: int


def row_major(rows: int, cols: int) -> Grid:
    """A page whose image tokens are its patches, row after row."""
    return Grid(rows, cols, np.arange(rows * cols, dtype=np.int32), rows * cols)


def tiled(rows: int, cols: int, side: int) -> Grid:
    """A page split into rows × cols tiles of side × side patches, tile after tile; a global tile comes last.

    0 × 0 tiles: the page was not split, and the one tile is the whole page.
    """
    if not rows * cols:
        return row_major(side, side)
    tokens = np.arange(rows * cols * side * side, dtype=np.int32)
    order = tokens.reshape(rows, cols, side, side).transpose(0, 2, 1, 3).reshape(-1)
    return Grid(rows * side, cols * side, order, len(order) + side * side)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One page as the processor made it: a batch of one, and the grid its image tokens lie on."""

    features: Features
    grid: Grid

    @property
    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return tuple((name, tuple(value.shape)) for name, value in sorted(self.features.items()))


class PatchEncoder:
    """The encoder protocol over a late-interaction vision model; a subclass runs the model (``_forward``)."""

    needs_image = True

    def __init__(self, processor: Any, config: Any, leg: Leg, batch_size: int = BATCH_SIZE) -> None:
        self._processor = processor
        # the token that the model itself puts patches in place of: processors mean other things by theirs (Gemma 3)
        self._image_token = getattr(getattr(config, "vlm_config", config), "image_token_id", None)
        self._leg = leg
        self._batch_size = batch_size
        self._tiles: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The one leg, "patches"."""
        return (self._leg,)

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        """Each page's vectors as the model's authors score them: patches on a grid, prompt tokens and a global
        tile without a place, no padding.

        Raises EncoderError where a page has no picture, or the model gives NaN or infinity.
        """
        encoded: list[Mapping[str, PatchVectors]] = [{} for _ in pages]
        waiting: dict[Any, list[tuple[int, _Prepared]]] = {}

        def encode(batch: list[tuple[int, _Prepared]]) -> None:
            results = self._encode([prepared for _, prepared in batch])
            for (index, _), vectors in zip(batch, results, strict=True):
                self._check(vectors.vectors, f"page {pages[index].number}")
                encoded[index] = {PATCHES: vectors}

        for index, page in enumerate(pages):
            prepared = self._prepare(page)
            shapes = prepared.shapes
            waiting.setdefault(shapes, []).append((index, prepared))
            if len(waiting[shapes]) == self._batch_size:
                encode(waiting.pop(shapes))
            elif sum(map(len, waiting.values())) >= WAITING * self._batch_size:
                encode(waiting.pop(max(waiting, key=lambda key: len(waiting[key]))))
        for batch in waiting.values():
            encode(batch)
        return encoded

    def encode_query(self, question: str) -> Mapping[str, QueryVectors]:
        """The question's vectors: its prompt and its augmentation tokens count, as the model was trained.

        Raises EncoderError where the model gives NaN or infinity.
        """
        features = self._features(question, "query")
        embeddings, mask = self._forward(features, "query")
        vectors = _to_numpy(embeddings[0][mask[0]])
        self._check(vectors, "the question")
        tokens = tuple(self._token(i) for i in features["input_ids"][0][mask[0].cpu()].tolist())
        weights = np.full(len(tokens), self._weight(len(tokens)), np.float32)
        return {PATCHES: QueryVectors(vectors, tokens, weights, self._own(question))}

    def _own(self, question: str) -> range:
        """Which of ``encode_query``'s tokens are the question's own; the others are prompt and augmentation."""
        empty = self._features("", "query")["input_ids"][0].tolist()
        full = self._features(question, "query")["input_ids"][0].tolist()
        room = min(len(empty), len(full))
        start = next((i for i in range(room) if empty[i] != full[i]), room)
        end = next((i for i in range(room - start) if empty[-1 - i] != full[-1 - i]), room - start)
        return range(start, len(full) - end)

    # What a subclass may say otherwise

    def _features(self, what: Image | str, task: Task) -> Features:
        """What the processor makes of one picture or question: tensors whose first axis is the batch, of one."""
        if task == "document":
            return dict(self._processor.process_images([what]))
        return dict(self._processor.process_queries([what]))

    def _forward(self, features: Features, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
        """The token vectors (b, t, dim) of a batch and which of them count (b, t), bool."""
        raise NotImplementedError

    def _weight(self, tokens: int) -> float:
        """What each of a question's tokens counts."""
        return 1.0

    # Steps

    def _prepare(self, page: Page) -> _Prepared:
        if page.image is None:
            raise EncoderError(f"page {page.number} has no picture for {self._leg.encoder}: render it with one")
        image = page.image()
        features = self._features(image, "document")
        return _Prepared(features, self._grid(image.size, features))

    def _encode(self, batch: list[_Prepared]) -> list[PatchVectors]:
        import torch

        names = batch[0].features
        features = {name: torch.cat([prepared.features[name] for prepared in batch]) for name in names}
        image_tokens = features["input_ids"].numpy() == self._image_token
        embeddings, mask = self._forward(features, "document")
        return [
            _on_grid(prepared.grid, _to_numpy(vectors[keep]), is_patch, keep.cpu().numpy())
            for prepared, vectors, is_patch, keep in zip(batch, embeddings, image_tokens, mask, strict=True)
        ]

    def _grid(self, size: tuple[int, int], features: Features) -> Grid:
        """The grid that the processor cut a picture of this size, (width, height) in pixels, into.

        Raises EncoderError where the processor says no grid, or one that the image tokens don't fill.
        """
        images = self._processor.image_processor
        if "image_grid_thw" in features:
            _, height, width = features["image_grid_thw"][0].tolist()
            grid = row_major(height // images.merge_size, width // images.merge_size)
        elif hasattr(images, "do_image_splitting"):
            grid = tiled(*self._split(size), math.isqrt(self._processor.image_seq_len))
        else:
            side = math.isqrt(getattr(self._processor, "image_seq_length", 0))
            grid = row_major(side, side)
        found = int((features["input_ids"].numpy() == self._image_token).sum())
        if not found or found != grid.tokens:
            raise EncoderError(
                f"{self._leg.encoder}: {type(self._processor).__name__} made {found} patches where its grid of "
                f"{grid.rows} rows × {grid.cols} cols has {grid.tokens}: visrag cannot place the patches of this model"
            )
        return grid

    def _split(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (rows, cols) of tiles that a picture of this size is split into: asked of a blank one, once a size."""
        if size not in self._tiles:
            from PIL import Image

            blank = self._processor.image_processor(images=[[Image.new("RGB", size)]], return_row_col_info=True)
            self._tiles[size] = int(blank["rows"][0][0]), int(blank["cols"][0][0])
        return self._tiles[size]

    def _token(self, token_id: int) -> str:
        text = str(self._processor.tokenizer.decode([token_id]))
        return text.strip() or repr(text)

    def _check(self, vectors: Floats, what: str) -> None:
        if not np.isfinite(vectors).all():
            raise EncoderError(
                f"{self._leg.encoder} gave NaN or infinity for {what}: its weights are damaged, or overflow on this "
                "device. Download the model again, or encode on another device"
            )


def _to_numpy(vectors: torch.Tensor) -> Floats:
    array: Floats = vectors.float().cpu().numpy()
    return array


def _on_grid(grid: Grid, vectors: Floats, is_patch: np.ndarray[Any, Any], keep: np.ndarray[Any, Any]) -> PatchVectors:
    """Vectors (n, dim), the rows of a sequence of t tokens that count, with the places of those that are patches.

    ``is_patch`` and ``keep`` (t,) bool. A patch that does not count leaves its cell without a vector.
    """
    row_of = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
    cells = row_of[np.flatnonzero(is_patch)[grid.order]]
    return PatchVectors(vectors, Places.on_grid(grid.rows, grid.cols, cells))
