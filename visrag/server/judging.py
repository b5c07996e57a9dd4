"""Routes: verdicts on pages, and what reviewers take away."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from ..errors import AccessError
from ..ids import document_id
from ..records import Feedback
from ..verdicts import as_csv, as_json
from .depends import Held, Readable, Who, checked_question
from .schemas import Export, Judgement, Verdict, Verdicts

router = APIRouter(prefix="/v1/collections/{collection}", tags=["verdicts"])

Review = Annotated[str | None, Query(max_length=200, description='Only of this review; "": of none.')]

FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {}, "application/json": {}}, "description": "The verdicts."}
}
PDF: dict[int | str, dict[str, Any]] = {200: {"content": {"application/pdf": {}}, "description": "The pages."}}


@router.post("/feedback", status_code=201)
async def judge(given: Judgement, collection: Readable, held: Held, caller: Who) -> Verdict:
    """Keep a verdict on a page. The reviewer's last for the same review, question and page counts; null without a note
    takes it back. When this is answered it is on the disk."""
    question = checked_question(given.question, held)
    if given.reviewer and caller.name and given.reviewer != caller.name and not caller.may("admin"):
        raise AccessError("only an admin's key judges in the name of another")
    reviewer = given.reviewer or caller.name
    act = partial(
        collection.index.judge,
        question, given.document, given.page, given.verdict, given.note, given.review, reviewer,
    )  # fmt: skip
    return _verdict(await held.work.run(act))


@router.get("/feedback")
async def feedback(
    collection: Readable, held: Held, review: Review = None, question: Annotated[str | None, Query()] = None
) -> Verdicts:
    """The verdicts, the oldest first."""
    found = await held.work.run(partial(collection.index.feedback, review, question))
    return Verdicts(feedback=[_verdict(item) for item in found])


@router.get("/feedback/export", response_class=Response, responses=FILE)
async def export_feedback(
    collection: Readable, held: Held, review: Review = None, format: Literal["csv", "json"] = "csv"
) -> Response:
    """The verdicts as a file, which `visrag evaluate` takes as its questions."""
    found = await held.work.run(partial(collection.index.feedback, review))
    text, kind = (as_csv(found), "text/csv") if format == "csv" else (as_json(found), "application/json")
    name = f'attachment; filename="verdicts.{format}"'
    return Response(text.encode(), media_type=f"{kind}; charset=utf-8", headers={"Content-Disposition": name})


@router.post("/export", response_class=Response, responses=PDF)
async def export_pages(given: Export, collection: Readable, held: Held) -> Response:
    """Pages as a PDF, with the evidence for a question as highlight annotations."""
    question = checked_question(given.question, held)
    pages = [(page.document, page.page) for page in given.pages]
    data = await held.large.run(partial(collection.index.export, question, pages))
    name = 'attachment; filename="pages.pdf"'
    return Response(data, media_type="application/pdf", headers={"Content-Disposition": name})


def _verdict(found: Feedback) -> Verdict:
    time = datetime.fromtimestamp(found.time, UTC).isoformat(timespec="milliseconds")
    return Verdict(
        question=found.question,
        document=found.document,
        id=document_id(found.document),
        page=found.page,
        verdict=found.verdict,
        note=found.note,
        review=found.review,
        reviewer=found.reviewer,
        time=time,
    )
