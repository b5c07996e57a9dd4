"""What reviewers say of pages, in an index on Qdrant: records of the sidecar."""

from __future__ import annotations

import json

from qdrant_client import models

from ..records import Feedback
from .qdrant_forms import check_text
from .qdrant_points import has_id, is_value, point_id
from .qdrant_records import Records

_FIELDS = ("question", "document", "page", "verdict", "note", "review", "reviewer", "time")


class QdrantFeedback:
    """The part of QdrantStore that keeps what reviewers say. As the protocol says."""

    _records: Records

    def judge(self, feedback: Feedback) -> None:
        """As the protocol says. Raises StoreError for what Qdrant cannot keep as text."""
        check_text(feedback.question, feedback.document, feedback.note, feedback.review, feedback.reviewer)
        key = point_id("feedback", json.dumps(feedback.key))
        if feedback.verdict is None and not feedback.note:
            self._records.delete(has_id([key]))
        else:
            payload = {"kind": "feedback", **{name: getattr(feedback, name) for name in _FIELDS}}
            self._records.put([(key, payload)])

    def feedback(self, review: str | None = None, question: str | None = None) -> list[Feedback]:
        where: list[models.Condition] = [is_value("kind", "feedback")]
        if review is not None:
            where.append(is_value("review", review))
        if question is not None:
            where.append(is_value("question", question))
        found = self._records.scroll(models.Filter(must=where))
        said = [Feedback(**{name: payload[name] for name in _FIELDS}) for payload in found]
        return sorted(said, key=lambda feedback: (feedback.time, feedback.key))
