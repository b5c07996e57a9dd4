"""What reviewers said of pages ↔ CSV and JSON; of several reviewers of a page, what the majority says.

A program for tables takes a cell that begins with = + - @ for a formula. In CSV such a cell gets an apostrophe before
it, as do those that begin with apostrophes and then one of these: so the same rule read backwards gives each cell back
as it was, and no other cell changes.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from .records import Feedback, PageRef, Verdict

COLUMNS = tuple(field.name for field in fields(Feedback))
NEEDED = ("question", "document", "page", "verdict")

_EPOCH = datetime.fromtimestamp(0, UTC)
_FORMULA = "[=+\\-@\t\r\n＝＋－＠]"  # tabs and line breaks are passed over, full-width signs taken for the others
_GUARD = re.compile(f"\\A(?='*{_FORMULA})")
_GUARDED = re.compile(f"\\A'(?='*{_FORMULA})")


def as_record(feedback: Feedback) -> dict[str, Any]:
    """Feedback for JSON; the time is ISO 8601 in UTC."""
    return {**asdict(feedback), "time": _told(feedback.time)}


def as_json(feedback: Iterable[Feedback]) -> str:
    """A list of objects, in the order given."""
    return json.dumps([as_record(each) for each in feedback], ensure_ascii=False, indent=2) + "\n"


def as_csv(feedback: Iterable[Feedback]) -> str:
    """RFC 4180 with a header, in the order given; the time is ISO 8601 in UTC, a verdict that is None is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for each in feedback:
        record = as_record(each)
        writer.writerow([_GUARD.sub("'", str(record[name] or "")) for name in COLUMNS])
    return text.getvalue()


def from_csv(text: str) -> list[Feedback]:
    """The inverse of ``as_csv``. Columns may stand in any order; only question, document, page and verdict must be
    there, and others are passed over. Raises ValueError, naming the line."""
    rows = _rows(text)
    _, header = next(rows, (1, []))
    if missing := [name for name in NEEDED if name not in header]:
        raise ValueError(f"line 1: no column {', '.join(missing)}: the header is {','.join(COLUMNS)}")
    found = []
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"line {line}: {len(row)} cells for {len(header)} columns")
        cells = {name: _GUARDED.sub("", cell) for name, cell in zip(header, row, strict=True)}
        found.append(_read(f"line {line}", cells))
    return found


def from_json(text: str) -> list[Feedback]:
    """The inverse of ``as_json``, or of {"feedback": such a list}. Raises ValueError, naming the item (from 1)."""
    told = json.loads(text)
    items = told.get("feedback") if isinstance(told, dict) else told
    if not isinstance(items, list):
        raise ValueError('neither a list of verdicts nor {"feedback": [...]}')
    return [_read(f"item {number}", item) for number, item in enumerate(items, 1)]


def relevant_pages(feedback: Sequence[Feedback]) -> dict[str, frozenset[PageRef]]:
    """The pages that answer each question, in the order in which the questions come; a question without such pages is
    not there.

    Every reviewer has one vote on a page: the last verdict, in whatever review. A page is relevant where at least as
    many say so as say that it is not.
    """
    votes: dict[tuple[str, PageRef], dict[str, Verdict]] = {}
    for each in feedback:
        if each.verdict is not None:
            votes.setdefault((each.question, PageRef(each.document, each.page)), {})[each.reviewer] = each.verdict
    found: dict[str, set[PageRef]] = {}
    for (question, page), verdicts in votes.items():
        counts = Counter(verdicts.values())
        if counts["relevant"] >= counts["not_relevant"]:
            found.setdefault(question, set()).add(page)
    return {question: frozenset(pages) for question, pages in found.items()}


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"line {line}: {error}") from error
        if row is None:
            return
        if row:
            yield line, row
        line = reader.line_num + 1


def _read(where: str, told: Any) -> Feedback:
    """Raises ValueError, naming where it is."""
    try:
        return _feedback(told)
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{where}: not a verdict ({reason})") from error


def _feedback(told: Any) -> Feedback:
    """Raises KeyError, TypeError, ValueError."""
    if not isinstance(told, dict):
        raise TypeError("not an object")
    page, verdict = told["page"], told["verdict"] or None
    if not re.fullmatch("[0-9]+", str(page)) or int(page) < 1:
        raise ValueError(f"page {page!r} is not a number from 1")
    if verdict not in ("relevant", "not_relevant", None):
        raise ValueError(f"verdict {verdict!r} is neither relevant, not_relevant nor empty")
    texts = {name: told.get(name) or "" for name in ("note", "review", "reviewer")}
    texts |= {name: told[name] for name in ("question", "document")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} {text!r} is not a text")
    time = datetime.fromisoformat(told["time"]) if told.get("time") else _EPOCH
    return Feedback(page=int(page), verdict=verdict, time=time.timestamp(), **texts)


def _told(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
