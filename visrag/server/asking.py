"""Routes: questions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from ..errors import UsageError
from ..hits import Hit
from ..ids import document_id
from ..settings import Rank, read_tags
from . import metrics
from .depends import DocumentName, Held, PageNumber, Readable, State, checked_question
from .pages import heat, picture
from .schemas import AccountOf, AnswerOf, Ask, Include, Name
from .served import Collection

router = APIRouter(prefix="/v1/collections/{collection}", tags=["search"])

SIDE = 1200  # pixels of an included picture
INCLUDED = 20  # hits at most in an answer with pictures or heatmaps

Tagged = Annotated[list[Annotated[str, Query(max_length=1200)]], Query(description="K=V; repeatable", max_length=100)]
Named = Annotated[list[Name], Query(description="only in this document; repeatable", max_length=1000)]


@router.get("/search", response_model=AnswerOf)
async def search(
    collection: Readable,
    held: Held,
    q: Annotated[str, Query(min_length=1)],
    k: Annotated[int, Query(ge=1)] = 5,
    offset: Annotated[int, Query(ge=0)] = 0,
    document: Named = [],  # noqa: B006
    tag: Tagged = [],  # noqa: B006
    rank: Rank = "fusion",
    include: Annotated[str, Query(description="of image, heatmap, text; joined by commas", max_length=50)] = "",
) -> Response:
    """The pages that answer a question best, with the account of their scores."""
    wanted = [part for part in include.split(",") if part]
    if unknown := set(wanted) - {"image", "heatmap", "text"}:
        raise UsageError(f"include={','.join(sorted(unknown))}: there are image, heatmap and text")
    asked = Ask.model_construct(
        question=q,
        k=k,
        offset=offset,
        documents=document or None,
        tags=read_tags(tag, "tag="),
        rank=rank,
        include=wanted,
    )
    return await _answer(asked, collection, held)


@router.post("/search", response_model=AnswerOf)
async def ask(asked: Ask, collection: Readable, held: Held) -> Response:
    """As GET, for long questions and many filters."""
    return await _answer(asked, collection, held)


@router.get("/documents/{id}/pages/{page}/account")
async def account(
    name: DocumentName,
    page: PageNumber,
    collection: Readable,
    held: Held,
    q: Annotated[str, Query(min_length=1)],
    document: Named = [],  # noqa: B006
    tag: Tagged = [],  # noqa: B006
    rank: Rank = "fusion",
) -> AccountOf:
    """The score of any page, as a search with the same filters gives it, and what it is made of."""
    question = checked_question(q, held)
    work = partial(collection.index.account, question, name, page, document or None, read_tags(tag, "tag="), rank)
    return AccountOf.model_validate(asdict(await held.searches.run(work)))


async def _answer(asked: Ask, collection: Collection, held: State) -> Response:
    question = checked_question(asked.question, held)
    if asked.offset + asked.k > held.settings.hits:
        raise UsageError(f"offset and k together are more than {held.settings.hits}: ask for fewer pages")
    if asked.k > INCLUDED and {"image", "heatmap"} & set(asked.include):
        raise UsageError(f"k={asked.k}: with image or heatmap there are at most {INCLUDED}: page by offset")
    work = partial(collection.index.answer, question, asked.k, asked.documents, asked.tags, asked.rank, asked.offset)
    answer = await held.searches.run(work)
    metrics.observe_search(collection.name, dict(answer.timings))

    def render() -> JSONResponse:
        took = round(sum(answer.timings.values()) * 1000, 1)
        head = {"question": answer.question, "took_ms": took, "timings": dict(answer.timings)}
        hits = _hits(collection, held, question, answer.hits, asked.include)
        return JSONResponse({**head, "offset": asked.offset, "k": asked.k, "hits": hits})

    return await held.views.run(render)


def _hits(
    collection: Collection, held: State, question: str, hits: Sequence[Hit], include: Sequence[Include]
) -> list[dict[str, object]]:
    found = []
    for hit in hits:
        record = _hit(hit)
        if "text" in include:
            record["text"] = hit.text
        if "image" in include:
            data = picture(held.pictures, collection, hit.document, hit.page, SIDE)
            record["image"] = base64.b64encode(data).decode()
        if "heatmap" in include:
            record["heatmap"] = heat(collection.index, question, hit.document, hit.page)
        found.append(record)
    return found


def _hit(hit: Hit) -> dict[str, object]:
    return {
        **hit.as_dict(),
        "legs": [asdict(leg) for leg in hit.legs],
        "id": document_id(hit.document),
        "marks": hit.marks,
        "shares": [asdict(share) for share in hit.shares],
    }
