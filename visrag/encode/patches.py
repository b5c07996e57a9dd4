"""What the vision encoders share: which places patches have, batches without padding, checks of what comes out.

A page goes through the model's own processor, alone, in threads ahead of the model; pages whose features have the
same shapes then go through the model together. So nothing is ever padded, and a page's vectors do not depend on its
company. On a GPU a batch's vectors are on their way back while the next batch is computed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import EncoderError
from ..memory import out_of_memory
from ..records import Floats, Ints, Leg, Page, PatchVectors, Places, QueryVectors
from .checkpoint import page_dtype
from .preparing import Fetched, Preparing, fetch, finish
from .sizing import BatchSize

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

PATCHES = "patches"
WAITING = 32  # prepared pages that may wait for others of their shape

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

    0 × 0 tiles, or 1 × 1 (transformers 5.0): the page was not split, and the one tile is the whole page.
    """
    if rows * cols < 2:
        return row_major(side, side)
    tokens = np.arange(rows * cols * side * side, dtype=np.int32)
    order = tokens.reshape(rows, cols, side, side).transpose(0, 2, 1, 3).reshape(-1)
    return Grid(rows * side, cols * side, order, len(order) + side * side)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One page as the processor made it, on the model's device: a batch of one, and the grid its image tokens lie on.

    ``is_patch`` (t,) bool: which of its tokens are image tokens. ``shapes``: of its features; pages of the same ones
    go through the model together.
    """

    features: Features
    grid: Grid
    is_patch: NDArray[np.bool_]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


_Batch: TypeAlias = list[tuple[int, _Prepared]]  # with the places of the pages in what was asked for


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch that the device computes, or has: its vectors (b, t, dim), and which of them count (b, t)."""

    batch: _Batch
    vectors: Fetched
    mask: Fetched


class PatchEncoder:
    """The encoder protocol over a late-interaction vision model; a subclass runs the model (``_forward``).

    ``device``: the model's. ``encode_pages`` finds by itself how many pages go through the model at once, and is for
    any number of threads: while one has the model the others prepare their pages.
    """

    needs_image = True

    def __init__(self, processor: Any, config: Any, leg: Leg, device: str) -> None:
        self._processor = processor
        # the token that the model itself puts patches in place of: processors mean other things by theirs (Gemma 3)
        self._image_token = getattr(getattr(config, "vlm_config", config), "image_token_id", None)
        self._leg = leg
        self._device = device
        self._dtype = page_dtype(device)
        self._size = BatchSize()
        self._preparing = Preparing(processor, device, self._dtype)
        self._turn = threading.Lock()

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The one leg, "patches"."""
        return (self._leg,)

    @property
    def device(self) -> str:
        """Where the model is: cpu, cuda, …"""
        return self._device

    @property
    def arithmetic(self) -> str:
        """In what it computes pages, and where: two encoders with the same differ by nothing but their model."""
        return f"{self._dtype} {self._device.partition(':')[0]}".removeprefix("torch.")

    @property
    def image_processor(self) -> str:
        """The class that prepares pictures: transformers takes another one where torchvision is installed."""
        images = type(self._processor.image_processor)
        return f"{images.__module__}.{images.__name__}"

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        """Each page's vectors as the model's authors score them: patches on a grid, prompt tokens and a global
        tile without a place, no padding.

        Raises EncoderError where a page has no picture, or the model gives NaN or infinity.
        """
        return self._encode(pages, self._size)

    def encode_in(self, pages: Sequence[Page], batch_size: int) -> list[Mapping[str, PatchVectors]]:
        """As ``encode_pages``, so many pages at once."""
        return self._encode(pages, BatchSize(batch_size))

    def encode_query(self, question: str) -> Mapping[str, QueryVectors]:
        """The question's vectors: its prompt and its augmentation tokens count, as the model was trained.

        Raises EncoderError where the model gives NaN or infinity.
        """
        features = self._features(self._processor, question, "query")
        embeddings, mask = self._forward(features, "query")
        vectors: Floats = embeddings[0][mask[0]].float().cpu().numpy()
        self._check(vectors, "the question")
        tokens = tuple(self._token(i) for i in features["input_ids"][0][mask[0].cpu()].tolist())
        weights = np.full(len(tokens), self._weight(len(tokens)), np.float32)
        return {PATCHES: QueryVectors(vectors, tokens, weights, self._own(question))}

    def _own(self, question: str) -> range:
        """Which of ``encode_query``'s tokens are the question's own; the others are prompt and augmentation."""
        empty = self._features(self._processor, "", "query")["input_ids"][0].tolist()
        full = self._features(self._processor, question, "query")["input_ids"][0].tolist()
        room = min(len(empty), len(full))
        start = next((i for i in range(room) if empty[i] != full[i]), room)
        end = next((i for i in range(room - start) if empty[-1 - i] != full[-1 - i]), room - start)
        return range(start, len(full) - end)

    # What a subclass may say otherwise

    def _features(self, processor: Any, what: Image | str, task: Task) -> Features:
        """What a processor makes of one picture or question: tensors whose first axis is the batch, of one."""
        if task == "document":
            return dict(processor.process_images([what]))
        return dict(processor.process_queries([what]))

    def _forward(self, features: Features, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
        """The token vectors (b, t, dim) of a batch and which of them count (b, t), bool."""
        raise NotImplementedError

    def _precision(self, task: Task) -> torch.autocast:
        """The model computes questions in its own dtype, pages in bfloat16 where a CPU is the faster for it."""
        import torch

        cpu = self._device == "cpu" and task == "document"
        return torch.autocast("cpu", torch.bfloat16, enabled=cpu and self._dtype == torch.bfloat16)

    def _weight(self, tokens: int) -> float:
        """What each of a question's tokens counts."""
        return 1.0

    # Steps

    def _encode(self, pages: Sequence[Page], size: BatchSize) -> list[Mapping[str, PatchVectors]]:
        encoded: list[Mapping[str, PatchVectors]] = [{} for _ in pages]
        running: _Running | None = None
        try:
            for following in self._through(pages, size):
                before, running = running, following
                self._collect(before, pages, encoded)
            self._collect(running, pages, encoded)
        except BaseException:
            if running is not None:
                running.vectors.wait()  # until nothing reads the features any more
            raise
        return encoded

    def _through(self, pages: Sequence[Page], size: BatchSize) -> Iterator[_Running]:
        """Pages through the processor, into batches, and through the model."""
        waiting: dict[Any, _Batch] = {}
        for index, prepared in enumerate(self._preparing.each(self._prepare, pages)):
            waiting.setdefault(prepared.shapes, []).append((index, prepared))
            if len(waiting[prepared.shapes]) >= size.pages(len(prepared.is_patch)):
                yield from self._run(waiting.pop(prepared.shapes), size)
            elif sum(map(len, waiting.values())) >= WAITING:
                largest = max(waiting, key=lambda shapes: len(waiting[shapes]))
                yield from self._run(waiting.pop(largest), size)
        for batch in waiting.values():
            yield from self._run(batch, size)

    def _prepare(self, processor: Any, page: Page) -> _Prepared:
        if page.image is None:
            raise EncoderError(f"page {page.number} has no picture for {self._leg.encoder}: render it with one")
        image = page.image()
        features = self._features(processor, image, "document")
        is_patch = features["input_ids"][0].cpu().numpy() == self._image_token
        grid = self._grid(processor, image.size, features, int(is_patch.sum()))
        shapes = tuple((name, tuple(value.shape)) for name, value in sorted(features.items()))
        return _Prepared(self._preparing.to_device(features), grid, is_patch, shapes)

    def _run(self, batch: _Batch, size: BatchSize) -> Iterator[_Running]:
        """A batch through the model, in parts where it is larger than ``size``, or the memory too small for it."""
        tokens = len(batch[0][1].is_patch)
        running = None
        if len(batch) <= size.pages(tokens):
            try:
                running = self._compute(batch, size)
            except (MemoryError, RuntimeError) as error:
                if len(batch) == 1 or not out_of_memory(error):
                    raise
                with self._turn:
                    size.too_many(tokens, len(batch))
        if running is not None:
            yield running
            return
        half = -(-len(batch) // 2)
        yield from self._run(batch[:half], size)
        yield from self._run(batch[half:], size)

    def _compute(self, batch: _Batch, size: BatchSize) -> _Running:
        import torch

        tokens, pages = len(batch[0][1].is_patch), len(batch)
        with self._turn:
            timed = size.times(tokens, pages)
            if timed:
                finish(self._device)
            begun = time.perf_counter()
            names = batch[0][1].features
            of = [prepared.features for _, prepared in batch]
            features = {name: torch.cat([each[name].to(self._device) for each in of]) for name in names}
            vectors, mask = self._forward(features, "document")
            running = _Running(batch, fetch(vectors), fetch(mask))
            if timed:
                running.vectors.wait()
                size.took(tokens, pages, time.perf_counter() - begun)
        return running

    def _collect(
        self, running: _Running | None, pages: Sequence[Page], encoded: list[Mapping[str, PatchVectors]]
    ) -> None:
        """Put the vectors of a batch into ``encoded``. Raises EncoderError for NaN or infinity."""
        if running is None:
            return
        vectors, masks = running.vectors.numpy(), running.mask.numpy()
        for (index, prepared), found, keep in zip(running.batch, vectors, masks, strict=True):
            kept = found[keep]
            self._check(kept, f"page {pages[index].number}")
            encoded[index] = {PATCHES: _on_grid(prepared.grid, kept, prepared.is_patch, keep)}

    def _grid(self, processor: Any, size: tuple[int, int], features: Features, found: int) -> Grid:
        """The grid that the processor cut a picture of this size, (width, height) in pixels, into.

        Raises EncoderError where the processor says no grid, or one that the ``found`` image tokens don't fill.
        """
        images = processor.image_processor
        if "image_grid_thw" in features:
            _, height, width = features["image_grid_thw"][0].tolist()
            grid = row_major(height // images.merge_size, width // images.merge_size)
        elif hasattr(images, "do_image_splitting"):
            width, height = size
            _, rows, cols = images.get_number_of_image_patches(height, width, {})
            grid = tiled(rows, cols, math.isqrt(processor.image_seq_len))
        else:
            side = math.isqrt(getattr(processor, "image_seq_length", 0))
            grid = row_major(side, side)
        if not found or found != grid.tokens:
            raise EncoderError(
                f"{self._leg.encoder}: {type(processor).__name__} made {found} patches where its grid of "
                f"{grid.rows} rows × {grid.cols} cols has {grid.tokens}: visrag cannot place the patches of this model"
            )
        return grid

    def _token(self, token_id: int) -> str:
        text = str(self._processor.tokenizer.decode([token_id]))
        return text.strip() or repr(text)

    def _check(self, vectors: Floats, what: str) -> None:
        if not np.isfinite(vectors).all():
            raise EncoderError(
                f"{self._leg.encoder} gave NaN or infinity for {what}: its weights are damaged, or overflow on this "
                "device. Download the model again, or encode on another device"
            )


def _on_grid(grid: Grid, vectors: Floats, is_patch: np.ndarray[Any, Any], keep: np.ndarray[Any, Any]) -> PatchVectors:
    """Vectors (n, dim), the rows of a sequence of t tokens that count, with the places of those that are patches.

    ``is_patch`` and ``keep`` (t,) bool. A patch that does not count leaves its cell without a vector.
    """
    row_of = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
    cells = row_of[np.flatnonzero(is_patch)[grid.order]]
    return PatchVectors(vectors, Places.on_grid(grid.rows, grid.cols, cells))
