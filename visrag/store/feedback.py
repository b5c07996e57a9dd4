"""What reviewers say of pages, in a local index."""

from __future__ import annotations

from ..records import Feedback
from .checksums import VERDICT
from .database import Database

KEY = "review = ? AND question = ? AND document = ? AND page = ? AND reviewer = ?"
SINCE = 3  # the form of an index that first has the table; an older one that cannot be written stays without


class LocalFeedback:
    """The part of LocalStore that keeps what reviewers say. As the protocol says."""

    _database: Database

    def judge(self, feedback: Feedback) -> None:
        with self._database.write() as connection:
            if feedback.verdict is None and not feedback.note:
                connection.execute(f"DELETE FROM feedback WHERE {KEY}", feedback.key)
            else:
                connection.execute(
                    "INSERT OR REPLACE INTO feedback (review, question, document, page, reviewer, verdict, note, time) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*feedback.key, feedback.verdict, feedback.note, feedback.time),
                )
                connection.execute(f"UPDATE feedback SET crc = {VERDICT} WHERE {KEY}", feedback.key)

    def feedback(self, review: str | None = None, question: str | None = None) -> list[Feedback]:
        with self._database.read() as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] < SINCE:
                return []
            rows = connection.execute(
                "SELECT question, document, page, verdict, note, review, reviewer, time FROM feedback "
                "WHERE ifnull(review = ?, TRUE) AND ifnull(question = ?, TRUE) "
                "ORDER BY time, review, question, document, page, reviewer",
                (review, question),
            ).fetchall()
        return [Feedback(*row) for row in rows]
