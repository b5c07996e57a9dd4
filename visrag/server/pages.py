"""Routes: a page's text and picture, and the evidence on it as numbers, boxes and pictures."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Query
from starlette.responses import JSONResponse, Response

from ..account import token_words
from ..errors import UsageError
from ..fulltext import word_spans
from ..heatmap import GAMMA, Scale, TokenMaps
from ..hits import page_regions
from ..ids import document_id
from ..index import Index
from ..records import Box
from .depends import DocumentName, Held, PageNumber, Readable, checked_question
from .pictures import Pictures, jpeg, key_of, png
from .schemas import Heat, PageInfo, RegionPart, Regions
from .served import Collection

router = APIRouter(prefix="/v1/collections/{collection}/documents/{id}/pages/{page}", tags=["pages"])

VERSION = 1  # of pictures; raised when the same page gives others
FRESH = "private, no-cache"  # a browser asks each time whether it has changed
MOST_PIXELS = 6000  # of the longer side of a page of which a part is cut out

Side = Annotated[int, Query(ge=64, le=3000, description="pixels of the longer side")]
Question = Annotated[str, Query(min_length=1)]
Token = Annotated[str | None, Query(min_length=1, max_length=200)]

PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The picture."}}
JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "The picture."},
    304: {"description": "The picture is as it was."},
}


@router.get("")
async def page(name: DocumentName, page: PageNumber, collection: Readable, held: Held) -> PageInfo:
    """A page's text and size."""

    def find() -> PageInfo:
        document, found = collection.index.document(name), collection.index.page(name, page)
        return PageInfo(
            document=name,
            id=document_id(name),
            page=page,
            pages=document.pages,
            width=found.width,
            height=found.height,
            text=found.text,
            text_source=found.text_source,
        )

    return await held.work.run(find)


@router.get("/image", response_class=Response, responses=JPEG)
async def image(
    name: DocumentName,
    page: PageNumber,
    collection: Readable,
    held: Held,
    side: Side = 1200,
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """A page's picture."""
    key = await held.work.run(partial(_key, collection, name, page, side))
    headers = {"ETag": f'"{key}"', "Cache-Control": FRESH}
    if key in if_none_match:
        return Response(status_code=304, headers=headers)
    make = partial(_jpeg, collection, name, page, side)
    data = await held.views.run(partial(held.pictures.get, key, make))
    return Response(data, media_type="image/jpeg", headers=headers)


@router.get("/heatmap", response_model=Heat)
async def heatmap(name: DocumentName, page: PageNumber, collection: Readable, held: Held, q: Question) -> Response:
    """How similar each token of a question is to each place of a page, from the stored vectors.

    The heat of a value v is (v − low) / (high − low), cut to 0 … 1, to the power of gamma. A token ``counts`` where it
    says what is asked for; the question's map is the maximum over those that do, a word's that over its tokens."""
    question = checked_question(q, held)
    return await held.views.run(lambda: JSONResponse(heat(collection.index, question, name, page)))


@router.get("/heatmap.png", response_class=Response, responses=PNG)
async def heatmap_png(
    name: DocumentName,
    page: PageNumber,
    collection: Readable,
    held: Held,
    q: Question,
    word: Annotated[int | None, Query(ge=0, le=10_000, description="of the words of the heatmap, by number")] = None,
    token: Token = None,
    side: Annotated[int, Query(ge=64, le=2000, description="pixels of the longer side")] = 1600,
) -> Response:
    """A page's picture with the evidence highlighted: of the whole question, or of one of its words or tokens."""
    question = checked_question(q, held)

    def draw() -> bytes:
        chosen = token if word is None else _word(collection.index, question, name, page, word)
        return png(collection.index.highlight(question, name, page, chosen, side).image)

    return Response(await held.large.run(draw), media_type="image/png")


@router.get("/regions")
async def regions(
    name: DocumentName, page: PageNumber, collection: Readable, held: Held, q: Question, token: Token = None
) -> Regions:
    """The boxes that hold the evidence for a question, or for one token of it, best first."""
    question = checked_question(q, held)
    found = await held.views.run(partial(collection.index.regions, question, name, page, token))
    return Regions(regions=[RegionPart.model_validate(asdict(region)) for region in found])


@router.get("/crop", response_class=Response, responses=PNG)
async def crop(
    name: DocumentName,
    page: PageNumber,
    collection: Readable,
    held: Held,
    box: Annotated[str, Query(description="x0,y0,x1,y1 in fractions of the page", max_length=100)],
    side: Side = 1200,
) -> Response:
    """A part of a page, its longer side so many pixels, as far as the page's picture goes."""
    part = _box(box)
    return Response(await held.large.run(partial(_crop, collection, name, page, part, side)), media_type="image/png")


def picture(pictures: Pictures, collection: Collection, name: str, page: int, side: int) -> bytes:
    """A page's picture as JPEG. Raises NotFound, DocumentError."""
    return pictures.get(_key(collection, name, page, side), partial(_jpeg, collection, name, page, side))


def heat(index: Index, question: str, document: str, page: int) -> dict[str, Any]:
    """The heatmap of a page as numbers. Raises NotFound, UsageError."""
    here = index.page(document, page)
    maps = index.token_maps(question, document, page)
    found: dict[str, Any] = {
        "document": document, "id": document_id(document), "page": page, "leg": None, "grid": None, "boxes": None,
        "scale": {"low": 0.0, "high": 1.0, "gamma": GAMMA}, "tokens": [], "words": [],
        "regions": [asdict(region) for region in page_regions(question, here, maps)],
    }  # fmt: skip
    if maps is None:
        return found
    spans = word_spans(question)
    counted, words = _words(question, maps)
    scale = Scale.of(maps.values, maps.content)
    values = np.round(maps.values.astype(np.float64), 5)
    rows: list[list[float | None]] = values.tolist()
    if np.isnan(values).any():
        rows = [[None if value != value else value for value in row] for row in rows]
    found["leg"] = "patches" if maps.places.grid else "tokens"
    found["grid"] = maps.places.grid
    if maps.places.grid is None:
        found["boxes"] = np.round(maps.places.boxes().astype(np.float64), 5).tolist()
    found["scale"] = {"low": scale.low, "high": scale.high, "gamma": GAMMA}
    found["words"] = [
        {"word": question[start:end], "start": start, "end": end} for start, end in (spans[i] for i in words)
    ]
    found["tokens"] = [
        {
            "token": maps.tokens[i],
            "weight": float(maps.weights[i]),
            "own": i in maps.own,
            "counts": bool(maps.content[i]),
            "word": None if (owner := counted[i]) is None else words.index(owner),
            "values": rows[i],
        }
        for i in range(len(maps.tokens))
    ]
    return found


def _word(index: Index, question: str, document: str, page: int, number: int) -> str:
    """A word of the heatmap by its number. Raises UsageError."""
    maps = index.token_maps(question, document, page)
    words = [] if maps is None else _words(question, maps)[1]
    if number >= len(words):
        raise UsageError(f"word={number}: the heatmap has {len(words)} words, from 0")
    start, end = word_spans(question)[words[number]]
    return question[start:end]


def _words(question: str, maps: TokenMaps) -> tuple[list[int | None], list[int]]:
    """For each token that counts its word of the question, None for the others; and the words that have one."""
    owners = token_words(question, maps.tokens, [i in maps.own for i in range(len(maps.tokens))])
    counted = [owner if weight else None for owner, weight in zip(owners, maps.content.tolist(), strict=True)]
    return counted, sorted({owner for owner in counted if owner is not None})


def _jpeg(collection: Collection, name: str, page: int, side: int) -> bytes:
    return jpeg(collection.index.page_image(name, page, side))


def _key(collection: Collection, name: str, page: int, side: int) -> str:
    """Raises NotFound."""
    document = collection.index.document(name)
    return key_of(VERSION, document.content, document.settings, document.renderer, page, side, suffix=".jpg")


def _box(text: str) -> Box:
    """Raises UsageError."""
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError:
        x0 = y0 = x1 = y1 = 0.0
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UsageError(f"box={text}: give x0,y0,x1,y1 as fractions of the page, from its top left")
    return x0, y0, x1, y1


def _crop(collection: Collection, name: str, page: int, box: Box, side: int) -> bytes:
    found = collection.index.page(name, page)
    longest = max(found.width, found.height)
    share = max((box[2] - box[0]) * found.width, (box[3] - box[1]) * found.height) / longest
    whole = collection.index.page_image(name, page, max(64, round(side / max(share, side / MOST_PIXELS))))
    edges = (box[0] * whole.width, box[1] * whole.height, box[2] * whole.width, box[3] * whole.height)
    left, top, right, bottom = (round(edge) for edge in edges)
    return png(whole.crop((left, top, max(right, left + 1), max(bottom, top + 1))))
