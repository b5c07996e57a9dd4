"""The JSON of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from ..settings import Ocr, Rank, RendererName, Route
from .settings import Role

State: TypeAlias = Literal["queued", "working", "indexed", "partial", "failed"]
Include: TypeAlias = Literal["image", "heatmap", "text"]
Box: TypeAlias = Annotated[list[float], Field(min_length=4, max_length=4)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=1000)]
Tags: TypeAlias = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=200)], Annotated[str, Field(max_length=1000)]],
    Field(max_length=100),
]


class Given(BaseModel):
    """What a caller sends; a name that is not known is an error."""

    model_config = ConfigDict(extra="forbid")


class Options(Given):
    """How a document is read."""

    ocr: Ocr = "auto"
    renderer: RendererName = "pdfium"
    route: Route = "auto"
    page_timeout: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False, strict=True)] = 60.0


class FromUri(Given):
    uri: str = Field(min_length=1, max_length=4000)
    tags: Tags | None = None
    options: Options = Options()


class Ask(Given):
    question: str = Field(min_length=1)
    k: int = Field(5, ge=1, strict=True)
    offset: int = Field(0, ge=0, strict=True)
    documents: list[Name] | None = Field(None, max_length=1000)
    tags: Tags = {}
    rank: Rank = "fusion"
    include: list[Include] = Field([], max_length=10)


class PageOf(Given):
    document: Name
    page: int = Field(ge=1, le=10**9, strict=True)


class Export(Given):
    question: str = Field(min_length=1)
    pages: list[PageOf] = Field(min_length=1, max_length=200)


class Judgement(PageOf):
    question: str = Field(min_length=1)
    verdict: Literal["relevant", "not_relevant"] | None
    note: str = Field("", max_length=10_000)
    review: str = Field("", max_length=200)
    reviewer: str = Field("", max_length=200, description="Where the server asks for no keys; else the key's name.")


class SignIn(Given):
    key: str = Field(min_length=1, max_length=200)


class Health(BaseModel):
    status: Literal["ok", "ready"]


class CollectionInfo(BaseModel):
    """``ingest``: whether this caller may bring documents into it."""

    name: str
    documents: int
    pages: int
    ingest: bool


class Collections(BaseModel):
    collections: list[CollectionInfo]


class Limits(BaseModel):
    k: int
    question: int
    upload_bytes: int


class Session(Collections):
    access: Literal["open", "keys"]
    name: str
    role: Role
    limits: Limits


class FailureInfo(BaseModel):
    page: int | None
    reason: str
    message: str


class DocumentInfo(BaseModel):
    """While it is "queued" or "working", the counts are of what is being made.

    ``content``: the sha256 of the file; ``settings``: of what else decides what its pages become.
    """

    id: str
    document: str
    state: State
    pages: int
    indexed: int
    failed: int
    tags: dict[str, str]
    media_type: str
    content: str
    settings: str
    renderer: str
    failures: list[FailureInfo]


class Documents(BaseModel):
    total: int
    documents: list[DocumentInfo]


class Queued(BaseModel):
    documents: list[DocumentInfo]


class Changes(Queued):
    removed: list[str]


class NamedFailure(FailureInfo):
    document: str
    id: str


class Failures(BaseModel):
    failures: list[NamedFailure]


class TokenPart(BaseModel):
    token: str
    score: float
    box: Box | None
    own: bool


class LegPart(BaseModel):
    leg: str
    encoder: str
    weight: float
    score: float
    token_scores: list[TokenPart]


class SharePart(BaseModel):
    word: str
    start: int | None
    end: int | None
    score: float


class RegionPart(BaseModel):
    box: Box
    score: float
    text: str


class Regions(BaseModel):
    regions: list[RegionPart]


class AccountOf(BaseModel):
    score: float
    legs: list[LegPart]
    shares: list[SharePart]


class ScaleOf(BaseModel):
    low: float
    high: float
    gamma: float


class HeatToken(BaseModel):
    token: str
    weight: float
    own: bool
    counts: bool
    word: int | None
    values: list[float | None]


class HeatWord(BaseModel):
    word: str
    start: int
    end: int


class Heat(BaseModel):
    """The similarity of each token of the question to each place of a page: cells of a grid, row-major, or boxes."""

    document: str
    id: str
    page: int
    leg: str | None
    grid: list[int] | None
    boxes: list[Box] | None
    scale: ScaleOf
    tokens: list[HeatToken]
    words: list[HeatWord]
    regions: list[RegionPart]


class HitOf(AccountOf):
    rank: int
    document: str
    id: str
    page: int
    snippet: str
    marks: list[list[int]]
    regions: list[RegionPart]
    text: str | None = None
    image: str | None = None
    heatmap: Heat | None = None


class AnswerOf(BaseModel):
    question: str
    took_ms: float
    timings: dict[str, float]
    offset: int
    k: int
    hits: list[HitOf]


class PageInfo(BaseModel):
    """``width``, ``height``: in points, as displayed."""

    document: str
    id: str
    page: int
    pages: int
    width: float
    height: float
    text: str
    text_source: str


class Verdict(BaseModel):
    question: str
    document: str
    id: str
    page: int
    verdict: Literal["relevant", "not_relevant"] | None
    note: str
    review: str
    reviewer: str
    time: str


class Verdicts(BaseModel):
    feedback: list[Verdict]


OPENAPI_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "The document."},
                        "name": {
                            "type": "string",
                            "maxLength": 1000,
                            "description": "Its name in the index, which may hold '/'; the file's own unless given.",
                        },
                        "tags": {"type": "string", "description": 'A JSON object of texts: {"year": "2024"}.'},
                        "options": {
                            "type": "string",
                            "description": 'JSON: {"ocr", "renderer", "route", "page_timeout"}, each optional.',
                        },
                    },
                }
            }
        },
    }
}
