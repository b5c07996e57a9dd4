"""A page ↔ what is stored of it: compressed words and places, int8 codes, bits."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compress import to_bits, to_float16, to_int8, words_of
from ..errors import PageRefused
from ..fulltext import phrases, terms
from ..records import BOX_UNITS, EncodedPage, Places, Word
from .segments import BITS, FLOAT16, INT8

BITS_SUFFIX = ".bits"
FLOAT16_SUFFIX = ".float16"


class PackedLeg(NamedTuple):
    """A page's vectors in a leg: ``codes`` (n, dim) int8, their scale, their compressed places, the chance level, and
    the vectors themselves (n, dim) float16 where those are kept."""

    codes: NDArray[np.int8]
    scale: float
    places: bytes
    chance: float | None
    halves: NDArray[np.float16] | None = None


class PackedPage(NamedTuple):
    """A page as the tables of a local index hold it."""

    number: int
    size: tuple[float, float]
    text_source: str
    drawn: float
    text: str
    words: bytes
    terms: list[str]
    phrases: list[str]
    legs: Mapping[str, PackedLeg]


class Block(NamedTuple):
    """What of a page lies in a segment of a ``kind``, and its row: ``data`` (n, width) int8."""

    leg: str
    kind: int
    data: NDArray[np.int8]
    scale: float = 1.0
    places: bytes | None = None
    chance: float | None = None


def pack(document: str, encoded: EncodedPage, halves: bool = False) -> PackedPage:
    """Make a page ready to be stored; ``halves``: with its vectors as float16. Raises PageRefused for what cannot be
    stored."""
    page = encoded.page
    try:
        words = pack_words(page.text, page.words)
        legs = {}
        for name, found in encoded.legs.items():
            codes, scale = to_int8(found.vectors)
            if (found.places.vectors >= len(codes)).any():
                raise ValueError(f"a place belongs to a vector that is not there, of {len(codes)} in {name}")
            if len(codes):
                places = zlib.compress(found.places.to_bytes(), 1)
                exact = to_float16(found.vectors) if halves else None
                legs[name] = PackedLeg(codes, scale, places, encoded.chance.get(name), exact)
        page.text.encode()
    except ValueError as error:  # UnicodeEncodeError is one, too
        raise PageRefused(document, page.number, f"cannot be stored: {error}") from error
    size = (page.width, page.height)
    matched = terms(page.text), phrases(page.text)
    return PackedPage(page.number, size, page.text_source, page.drawn, page.text, words, *matched, legs)


def blocks(page: PackedPage) -> list[Block]:
    """What of a page goes into segments: of each leg the codes, and their bits as a leg of their own."""
    found = []
    for name, leg in page.legs.items():
        found.append(Block(name, INT8, leg.codes, leg.scale, leg.places, leg.chance))
        bits = to_bits(leg.codes).reshape(-1, 8 * words_of(leg.codes.shape[1]))
        found.append(Block(bits_of(name), BITS, bits))
        if leg.halves is not None:
            found.append(Block(halves_of(name), FLOAT16, leg.halves.view(np.int8)))
    return found


def bits_of(leg: str) -> str:
    """The leg that holds the bits of a leg: its vectors are the fillers' too, its dimensions the bytes of one."""
    return leg + BITS_SUFFIX


def halves_of(leg: str) -> str:
    """The leg that holds the vectors of a leg as float16: its dimensions are the bytes of one."""
    return leg + FLOAT16_SUFFIX


def kind_of(leg: str) -> int:
    """The kind of the segments in which a leg lies."""
    if leg.endswith(FLOAT16_SUFFIX):
        return FLOAT16
    return BITS if leg.endswith(BITS_SUFFIX) else INT8


def pack_words(text: str, words: tuple[Word, ...]) -> bytes:
    """Compressed: count; starts, lengths and numbers of boxes int32; boxes uint16, as in Places. Raises ValueError for
    a word that isn't the text at its place."""
    for word in words:
        if not text.startswith(word.text, word.start):
            raise ValueError(f"its text has no word {word.text!r} at {word.start}")
    heads = np.array([(word.start, len(word.text), len(word.boxes)) for word in words], "<i4").reshape(-1, 3)
    boxes = np.array([box for word in words for box in word.boxes], np.float64).reshape(-1, 4)
    packed = np.rint(np.clip(boxes, 0, 1) * BOX_UNITS).astype("<u2")
    return zlib.compress(np.int32(len(words)).tobytes() + heads.T.tobytes() + packed.tobytes(), 1)


def unpack_words(text: str, data: bytes) -> tuple[Word, ...]:
    """The inverse of ``pack_words``: boxes come back to within 1/131070 of the page."""
    raw = zlib.decompress(data)
    count = int(np.frombuffer(raw, "<i4", 1)[0])
    starts, lengths, parts = np.frombuffer(raw, "<i4", 3 * count, 4).reshape(3, count).tolist()
    packed = np.frombuffer(raw, "<u2", -1, 4 + 12 * count).reshape(-1, 4)
    boxes = iter(map(tuple, (packed / BOX_UNITS).tolist()))
    return tuple(
        Word(text[start : start + length], start, tuple(next(boxes) for _ in range(part)))
        for start, length, part in zip(starts, lengths, parts, strict=True)
    )


def unpack_places(data: bytes) -> Places:
    """The inverse of what ``pack`` does to places."""
    return Places.from_bytes(zlib.decompress(data))
