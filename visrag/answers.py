"""A server's answers (JSON) → the records that ``visrag.Index`` gives. What is not as it should be raises KeyError,
TypeError or ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from .account import Share
from .heatmap import TokenMaps
from .hits import Account, Hit, Pages
from .records import Document, DocumentState, Failure, Feedback, LegScore, Page, Places, Region, TokenScore

Json = Mapping[str, Any]

WAITING = ("queued", "working")


def document_of(found: Json) -> Document:
    """A document; one in the queue is "ingesting"."""
    state: DocumentState = "ingesting" if found["state"] in WAITING else found["state"]
    return Document(
        name=found["document"],
        content=found["content"],
        settings=found["settings"],
        media_type=found["media_type"],
        tags=dict(found["tags"]),
        pages=found["pages"],
        indexed=found["indexed"],
        failed=found["failed"],
        state=state,
        renderer=found["renderer"],
    )


def failures_of(found: Json) -> list[Failure]:
    """What failed of a document."""
    return [failure_of({**failure, "document": found["document"]}) for failure in found["failures"]]


def failure_of(found: Json) -> Failure:
    return Failure(found["document"], found["page"], found["reason"], found["message"])


def hit_of(found: Json, question: str, pages: Pages) -> Hit:
    """A hit with its text, whose pictures come from ``pages``."""
    regions, legs = tuple(map(region_of, found["regions"])), tuple(map(_leg_of, found["legs"]))
    where = found["rank"], found["document"], found["page"], float(found["score"])
    return Hit(*where, found["text"], found["snippet"], regions, legs, question, pages)


def account_of(found: Json) -> Account:
    shares = (Share(share["word"], share["start"], share["end"], float(share["score"])) for share in found["shares"])
    return Account(float(found["score"]), tuple(map(_leg_of, found["legs"])), tuple(shares))


def region_of(found: Json) -> Region:
    x0, y0, x1, y1 = found["box"]
    return Region((x0, y0, x1, y1), float(found["score"]), found["text"])


def page_of(found: Json) -> Page:
    """A page without its words' boxes."""
    return Page(found["page"], found["width"], found["height"], found["text"], (), found["text_source"])


def maps_of(found: Json) -> TokenMaps | None:
    """The token maps of a heatmap; None where the page has no vectors."""
    if found["leg"] is None:
        return None
    tokens = found["tokens"]
    content = np.array([token["counts"] for token in tokens], np.float32)
    weights = np.array([token.get("weight", token["counts"]) for token in tokens], np.float32)
    values = np.array([token["values"] for token in tokens], np.float32)  # None becomes NaN
    held = np.flatnonzero(~np.isnan(values).all(axis=0))
    vectors = np.full(values.shape[1], -1, np.int32)
    vectors[held] = held
    if found["grid"]:
        rows, cols = found["grid"]
        places = Places.on_grid(rows, cols, vectors)
    else:
        places = Places.of_boxes(found["boxes"], vectors)
    own = [i for i, token in enumerate(tokens) if token["own"]]
    names = tuple(token["token"] for token in tokens)
    return TokenMaps(names, places, values, weights, content, range(own[0], own[-1] + 1) if own else range(0))


def feedback_of(found: Json) -> Feedback:
    return Feedback(
        question=found["question"],
        document=found["document"],
        page=found["page"],
        verdict=found["verdict"],
        note=found["note"],
        review=found["review"],
        reviewer=found["reviewer"],
        time=datetime.fromisoformat(found["time"]).timestamp(),
    )


def _leg_of(found: Json) -> LegScore:
    tokens = tuple(
        TokenScore(
            token["token"], float(token["score"]), None if token["box"] is None else tuple(token["box"]), token["own"]
        )
        for token in found["token_scores"]
    )
    return LegScore(found["leg"], found["encoder"], found["weight"], found["score"], tokens)
