"""Hit, Answer, Account, Highlight: what a search gives, from an Index or a Client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .account import Share, matched, shares
from .evidence import regions, term_regions
from .fulltext import query_terms
from .heatmap import TokenMaps
from .records import LegScore, Page, Region

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SIDE = 1600  # pixels of a page image's longer side, where none is given
SNIPPET = 240  # characters


class Pages(Protocol):
    """What a Hit asks for its pictures: the Index or the Client that it comes from."""

    def page_image(self, document: str, page: int, side: int = IMAGE_SIDE) -> Image: ...
    def highlight(
        self, question: str, document: str, page: int, token: str | None = None, side: int = IMAGE_SIDE
    ) -> Highlight: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A page that was found, and the account of its score: the legs' weighted scores add up to ``score``."""

    rank: int
    document: str
    page: int
    score: float
    text: str = field(repr=False)
    snippet: str
    regions: tuple[Region, ...] = field(repr=False)
    legs: tuple[LegScore, ...] = field(repr=False)
    _question: str = field(repr=False, compare=False)
    _index: Pages = field(repr=False, compare=False)

    @property
    def shares(self) -> tuple[Share, ...]:
        """What each word of the question gave to the score, the most first; they add up to it."""
        return shares(self._question, self.legs)

    @property
    def marks(self) -> list[tuple[int, int]]:
        """Where words of the snippet stand that the question's words match, as (start, end) in characters."""
        return matched(self._question, self.snippet)

    def image(self, side: int = IMAGE_SIDE) -> Image:
        """The page's picture (RGB), its longer side ``side`` pixels."""
        return self._index.page_image(self.document, self.page, side)

    def heatmap(self, token: str | None = None, side: int = IMAGE_SIDE) -> Image:
        """The page's picture with the evidence highlighted: of the whole question, or of one of its tokens."""
        return self._index.highlight(self._question, self.document, self.page, token, side).image

    def as_dict(self) -> dict[str, Any]:
        """The hit as ``visrag search --json`` prints it."""
        return {
            "rank": self.rank,
            "document": self.document,
            "page": self.page,
            "score": self.score,
            "snippet": self.snippet,
            "legs": [_printed(leg) for leg in self.legs],
            "regions": [asdict(region) for region in self.regions],
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of a question, and where the time went, in seconds by step."""

    question: str
    hits: list[Hit]
    timings: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The answer as ``visrag search --json`` prints it."""
        took = round(sum(self.timings.values()) * 1000, 1)
        return {"query": self.question, "took_ms": took, "hits": [hit.as_dict() for hit in self.hits]}


@dataclass(frozen=True, slots=True)
class Highlight:
    """A page with the evidence for a question drawn on it."""

    image: Image
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """The score of a page for a question, and what it is made of: the legs' weighted scores, and the shares of the
    question's words, each add up to it."""

    score: float
    legs: tuple[LegScore, ...]
    shares: tuple[Share, ...]


def page_regions(question: str, page: Page, maps: TokenMaps | None, token: str | None = None) -> tuple[Region, ...]:
    """The regions that the vectors and full text point to, of the question or one of its tokens; those of full text
    where a page has no maps. Raises UsageError for a token that is not the question's."""
    terms = dict.fromkeys(query_terms(token or question))
    if maps is None:
        return term_regions(page, terms)
    return regions(page, maps.places, maps.values, maps.content if token is None else maps.only(token), terms)


def snippet_of(regions: Sequence[Region], text: str) -> str:
    """The text of the best regions, or else the page's beginning, on one line."""
    found = " … ".join(dict.fromkeys(region.text for region in regions[:3] if region.text))
    line = " ".join((found or text).split())
    return (
        line
        if len(line) <= SNIPPET
        else line[: line.rfind(" ", 0, SNIPPET) if " " in line[:SNIPPET] else SNIPPET] + " …"
    )


def _printed(leg: LegScore) -> dict[str, Any]:
    """A leg as ``visrag search --json`` prints it."""
    found = asdict(leg)
    for token in found["token_scores"]:
        del token["own"]
    return found
