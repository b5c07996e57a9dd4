"""An index → another, in a folder or on Qdrant."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import IndexMismatch, NotFound, Reason, UsageError
from .ingest import Progress, Silent, Summary
from .records import Document, EncodedPage, PageRef
from .sources import Source
from .store import Generation, Store
from .store.opening import open_store

BATCH = 32  # pages that are written together


def copy_index(source: str | Path, target: str | Path, progress: Progress | None = None) -> Summary:
    """Copy the documents of an index, a folder or a qdrant:// URL, into another, which is made if it is not there.

    Vectors come over as they are stored, so nothing is encoded again. Documents that are the same already are passed
    over; others of the same name are replaced. What reviewers said comes over, too, in the place of what is older. In
    the summary are the pages that failed in the copy alone. Raises UsageError, StoreError, and IndexMismatch where the
    target was made with other models.
    """
    if str(source).rstrip("/") == str(target).rstrip("/"):
        raise UsageError(f"{source}: cannot be copied into itself")
    here = open_store(source)
    try:
        there = open_store(target, create=True)
        try:
            return _copy(here, there, progress or Silent())
        finally:
            there.close()
    finally:
        here.close()


def _copy(here: Store, there: Store, progress: Progress) -> Summary:
    begun = time.monotonic()
    _copy_settings(here, there)
    documents = [document for document in here.documents() if document.state != "ingesting"]
    todo = [document for document in documents if not _same(here, there, document)]
    summary = Summary(unchanged=len(documents) - len(todo))
    progress.start(sum(document.pages for document in todo))
    for document in todo:
        source = Source(Path(), document.name, document.pages)
        generation = there.begin(document)
        try:
            _copy_pages(here, there, document, generation, source, progress)
            _copy_original(here, there, document)
            _copy_failures(here, there, document, generation)
        except BaseException:
            there.abandon(generation)
            raise
        summary.pages += there.commit(generation, document.pages).indexed
        failed = {failure.page for failure in here.failures(document.name)}
        summary.failures += [failure for failure in there.failures(document.name) if failure.page not in failed]
        summary.documents += 1
        progress.finish(source)
    _copy_feedback(here, there)
    summary.seconds = time.monotonic() - begun
    return summary


def _copy_settings(here: Store, there: Store) -> None:
    """Raises IndexMismatch where the target's legs are others."""
    wanted, known = here.settings(), there.settings()
    if not known:
        there.write_settings(wanted)
    elif _legs(wanted) != _legs(known):
        raise IndexMismatch("the target was made with other models than the source: copy into a new index")


def _legs(settings: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((leg["name"], leg["fingerprint"]) for leg in settings.get("legs", []))


def _same(here: Store, there: Store, document: Document) -> bool:
    """Whether the target has a document as it is, but for pages that are too large for it."""
    copy = there.document(document.name)
    if copy is None or copy.state == "ingesting" or _identity(copy) != _identity(document):
        return False
    failed = {failure.page for failure in here.failures(document.name)}
    too_large = {failure.page for failure in there.failures(document.name) if failure.reason == Reason.TOO_LARGE}
    return copy.indexed + len(too_large - failed) == document.indexed


def _identity(document: Document) -> tuple[object, ...]:
    tags = sorted(document.tags.items())
    return document.content, document.settings, tags, document.pages, document.path, document.renderer


def _copy_pages(
    here: Store, there: Store, document: Document, generation: Generation, source: Source, progress: Progress
) -> None:
    for count, pages in read_pages(here, document):
        there.add_pages(generation, pages)
        for page in pages:
            ref = PageRef(document.name, page.page.number)
            if (picture := here.image_path(ref)) is not None:
                _copy_image(there, generation, ref.page, picture)
        for _ in range(count):
            progress.page(source, document.pages)


def read_pages(here: Store, document: Document) -> Iterator[tuple[int, list[EncodedPage]]]:
    """A document's pages, some at a time: how many, and those of them that there are."""
    legs = [leg["name"] for leg in here.settings().get("legs", [])]
    for start in range(1, document.pages + 1, BATCH):
        refs = [PageRef(document.name, n) for n in range(start, min(start + BATCH, document.pages + 1))]
        yield len(refs), _read(here, refs, legs)


def _read(here: Store, refs: Sequence[PageRef], legs: Sequence[str]) -> list[EncodedPage]:
    """The pages of these that there are."""
    levels = {leg: here.chance(leg, refs) for leg in legs}
    pages = []
    for i, ref in enumerate(refs):
        try:
            page = here.page(ref)
        except NotFound:  # it failed
            continue
        vectors = {leg: found for leg in legs if (found := here.vectors(leg, ref)) is not None}
        chance = {leg: float(levels[leg][i]) for leg in vectors if not np.isnan(levels[leg][i])}
        pages.append(EncodedPage(page, vectors, chance))
    return pages


def _copy_image(there: Store, generation: Generation, page: int, picture: Path) -> None:
    from PIL import Image

    with Image.open(picture) as image:
        there.put_image(generation, page, image)


def _copy_original(here: Store, there: Store, document: Document) -> None:
    try:
        path = here.original(document.name)
    except NotFound:  # there is none, or it was linked and has gone
        return
    if document.content:
        there.put_original(path, document.content, link=path == Path(document.path))


def _copy_failures(here: Store, there: Store, document: Document, generation: Generation) -> None:
    for failure in here.failures(document.name):
        there.fail(generation, failure.page, failure.reason, failure.message)


def _copy_feedback(here: Store, there: Store) -> None:
    known = {feedback.key: feedback.time for feedback in there.feedback()}
    for feedback in here.feedback():
        if feedback.key not in known or known[feedback.key] < feedback.time:
            there.judge(feedback)
