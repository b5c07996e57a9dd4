"""The records that go through the system: Page → PatchVectors → index → Hit.

A *box* is (x0, y0, x1, y1) in fractions of the page as displayed (after rotation and crop),
origin top left. A *place* is a box that belongs to a vector.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Box: TypeAlias = tuple[float, float, float, float]
Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int32]

BOX_UNITS = 65535  # packed boxes are uint16: this many units to the side of a page


class PageRef(NamedTuple):
    """The name of a page: the document's name in the index, and the page's number from 1."""

    document: str
    page: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a page's text and where it stands.

    ``page.text[start:start + len(text)] == text``. A word broken over two lines has two boxes.
    In scripts without spaces each character is a word.
    """

    text: str
    start: int
    boxes: tuple[Box, ...]


TextSource: TypeAlias = Literal["text_layer", "ocr", "both", "layout", "none"]


@dataclass(frozen=True, slots=True)
class Page:
    """One page as displayed: its text with boxes and, where it was asked for, its picture.

    ``width`` and ``height`` are in points (1/72 inch), after rotation and crop. ``drawn`` is the share
    of the page's area, 0 to 1, that is drawn with something other than text (see ``visrag.render``).
    ``image`` gives the picture (RGB) when called; it is None where no picture was asked for.
    """

    number: int
    width: float
    height: float
    text: str = ""
    words: tuple[Word, ...] = ()
    text_source: TextSource = "none"
    drawn: float = 0.0
    image: Callable[[], Image] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Places:
    """Where on a page each of a set of vectors lies: m places, each of one vector.

    ``vectors`` (m,) int32: the row of the vector that lies at place i, −1 for none. A vector may have
    no place ([CLS], prompt tokens, a global tile), one, or several (a word on two lines, pooled patches).
    The places are either the cells of a ``grid`` (rows, cols), row-major, over the whole page, or
    ``packed`` (m, 4) uint16 boxes in 1/65535 of the page.
    """

    vectors: Ints
    grid: tuple[int, int] | None = None
    packed: NDArray[np.uint16] | None = None

    @classmethod
    def on_grid(cls, rows: int, cols: int, vectors: Ints) -> Places:
        """Cells of a grid, row-major. Raises ValueError where the count is not rows × cols."""
        if vectors.shape != (rows * cols,):
            raise ValueError(f"a grid of {rows} rows × {cols} cols has {rows * cols} cells, not {vectors.shape}")
        return cls(vectors.astype(np.int32), grid=(rows, cols))

    @classmethod
    def of_boxes(cls, boxes: Sequence[Box] | Floats, vectors: Sequence[int] | Ints) -> Places:
        """Boxes in fractions of the page; values outside 0 to 1 are cut to it."""
        array = np.asarray(boxes, np.float64).reshape(-1, 4)
        if len(array) != len(vectors):
            raise ValueError(f"{len(array)} boxes for {len(vectors)} places")
        packed = np.rint(np.clip(array, 0.0, 1.0) * BOX_UNITS).astype(np.uint16)
        return cls(np.asarray(vectors, np.int32), packed=packed)

    def boxes(self) -> Floats:
        """The places' boxes, (m, 4) float32, in fractions of the page."""
        if self.grid is None:
            assert self.packed is not None
            return (self.packed / np.float32(BOX_UNITS)).astype(np.float32)
        rows, cols = self.grid
        row, col = np.divmod(np.arange(rows * cols), cols)
        edges = np.stack([col / cols, row / rows, (col + 1) / cols, (row + 1) / rows], axis=1)
        return edges.astype(np.float32)

    def to_bytes(self) -> bytes:
        """Little-endian: rows, cols (0, 0 for boxes), m as uint32; vectors int32; boxes uint16."""
        rows, cols = self.grid or (0, 0)
        head = struct.pack("<3I", rows, cols, len(self.vectors))
        tail = b"" if self.packed is None else self.packed.astype("<u2").tobytes()
        return head + self.vectors.astype("<i4").tobytes() + tail

    @classmethod
    def from_bytes(cls, data: bytes) -> Places:
        """The inverse of ``to_bytes``. Raises ValueError where the length is wrong."""
        rows, cols, count = struct.unpack_from("<3I", data)
        if len(data) != 12 + count * (4 if rows else 12):
            raise ValueError(f"{len(data)} bytes are not {count} places")
        vectors = np.frombuffer(data, "<i4", count, 12).astype(np.int32)
        if rows:
            return cls(vectors, grid=(rows, cols))
        packed = np.frombuffer(data, "<u2", count * 4, 12 + 4 * count).reshape(count, 4)
        return cls(vectors, packed=packed.astype(np.uint16))


@dataclass(frozen=True, slots=True)
class PatchVectors:
    """The vectors of one page in one leg: ``vectors`` (n, dim) float32 and their ``places``."""

    vectors: Floats
    places: Places


@dataclass(frozen=True, slots=True)
class QueryVectors:
    """A question's vectors in one leg.

    ``vectors`` (t, dim) float32, ``tokens`` their t strings, ``weights`` (t,) float32: what each token's
    best match is multiplied by; 0 for what must not count (markers, padding). ``own``: which tokens are the
    question's own, and not a prompt's or an augmentation's, which may count but tell a reader nothing; None for all.
    """

    vectors: Floats
    tokens: tuple[str, ...]
    weights: Floats
    own: range | None = None


@dataclass(frozen=True, slots=True)
class Leg:
    """A way of scoring pages: the vectors of one encoder, or full text.

    ``name`` is unique in an index: "tokens", "windows", "patches" or "fulltext". ``encoder`` is the model's
    name. ``fingerprint`` tells one set of weights and settings from another. ``dim`` is 0 for full text.
    """

    name: str
    encoder: str
    dim: int
    fingerprint: str


FULLTEXT = Leg("fulltext", "bm25", 0, "bm25-1")


@dataclass(frozen=True, slots=True)
class EncodedPage:
    """What a store keeps of one page: the page, and for each leg that it has its vectors.

    ``chance`` has one number a leg: what the best match for an unrelated token is (see ``visrag.calibration``).
    A blank page has no legs.
    """

    page: Page
    legs: Mapping[str, PatchVectors]
    chance: Mapping[str, float]


DocumentState: TypeAlias = Literal["indexed", "partial", "failed", "ingesting"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document of an index, known by its ``name``.

    ``content`` is the sha256 of the file, ``settings`` that of whatever else decides what its pages
    become (encoders, renderer, OCR): the same pair again need not be ingested again.
    """

    name: str
    content: str
    settings: str
    media_type: str
    tags: Mapping[str, str] = field(default_factory=dict)
    pages: int = 0
    indexed: int = 0
    failed: int = 0
    state: DocumentState = "ingesting"
    path: str = ""
    renderer: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A document (``page`` is None) or a page that is not in the index, and why."""

    document: str
    page: int | None
    reason: str
    message: str


Verdict: TypeAlias = Literal["relevant", "not_relevant"]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a reviewer says of a page as an answer to a question: a ``verdict``, a ``note`` or both.

    ``document`` is a name, so that what is said of a document outlives its versions and its removal. ``review``: the
    name of a round of judging, "" for none. ``time``: when it was said, in seconds since 1970.
    """

    question: str
    document: str
    page: int
    verdict: Verdict | None
    note: str = ""
    review: str = ""
    reviewer: str = ""
    time: float = 0.0

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """Review, question, document, page and reviewer: of one key there is one in an index, the last."""
        return self.review, self.question, self.document, self.page, self.reviewer


QueueName: TypeAlias = Literal["ingest", "render", "text", "encode"]


@dataclass(frozen=True, slots=True)
class Order:
    """A document that is to go through the queue.

    ``uri``: where its file is, a path or an fsspec URL. ``options``: how it is read, as JSON (``visrag.steps``).
    ``tags``: None keeps those that the document has.
    """

    name: str
    uri: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A document that is in the queue, as far as it is. ``queued``: when it came, in seconds since 1970."""

    generation: int
    order: Order
    document: Document
    queued: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the work on a document in the queue: one step, for some of its pages.

    ``pages``: their numbers; empty for the step "ingest", which finds out how many there are. ``turn``: pieces of
    a step are handed out by ascending turn. ``attempts``: how often it was claimed and neither finished nor given
    back.
    """

    generation: int
    queue: QueueName
    pages: tuple[int, ...] = ()
    turn: float = 0.0
    attempts: int = 0

    @property
    def id(self) -> str:
        """The piece's name: the same step for the same pages has it again."""
        return f"{self.generation}.{self.queue}.{self.pages[0] if self.pages else 0}"


@dataclass(frozen=True, slots=True)
class Load:
    """Pieces of a step: how many wait, were handed out but not claimed, are held by workers; and the pages of all."""

    waiting: int = 0
    sent: int = 0
    held: int = 0
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which pages may be found: those of ``documents`` (None: of all) that have all the ``tags``."""

    documents: frozenset[str] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenScore:
    """What one token of the question (full text: one term) gave to a leg's score, and where it won.

    ``own``: whether it is the question's own, and not a prompt's or an augmentation's.
    """

    token: str
    score: float
    box: Box | None
    own: bool = True


@dataclass(frozen=True, slots=True)
class LegScore:
    """One leg's part of a hit: ``weight * score`` is what it adds; its token scores add up to ``score``."""

    leg: str
    encoder: str
    weight: float
    score: float
    token_scores: tuple[TokenScore, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A box of a page that holds evidence, its score, and the text in it."""

    box: Box
    score: float
    text: str
