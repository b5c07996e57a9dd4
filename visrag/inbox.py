"""An inbox folder of the queue: what is dropped into it is ingested, then moved to done/ or failed/ in it.

What has become of a file is asked of the store. That it was put into the queue is noted in .visrag/ in the inbox, so
that one which was revoked, or could not be read, is not put into it for ever.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .errors import Reason
from .kinds import SUFFIXES, sha256_of
from .records import Document, Job, Order
from .settings import IngestSettings
from .sources import Source, find_sources
from .steps import is_current, options_of
from .store import Store

SETTLED = 2.0  # seconds for which a file must not have changed to count as complete
DONE, FAILED, NOTES = "done", "failed", ".visrag"

log = logging.getLogger("visrag")


def look(store: Store, inbox: Path) -> None:
    """Put the files that are complete into the queue; move those that have been through it.

    The reasons why a file, or pages of it, failed are written beside it: NAME.txt. What is of no kind that is read
    goes to failed/, too. A file that cannot be read or moved is logged, and costs no other. Raises UsageError where the
    folder is not there.
    """
    jobs = {job.order.name: job for job in store.jobs()}
    for source in [*find_sources([inbox]), *_unsupported(inbox)]:
        if Path(source.name).parts[0] not in (DONE, FAILED):
            try:
                _look_at(store, inbox, source, jobs)
            except OSError as error:
                log.error("%s: %s", source.path, error)


def _look_at(store: Store, inbox: Path, source: Source, jobs: Mapping[str, Job]) -> None:
    changed = os.stat(source.path).st_ctime
    if time.time() - changed < SETTLED:
        return
    if source.path.suffix.lower() not in SUFFIXES:
        _move(inbox, source, FAILED, f"document: {Reason.UNSUPPORTED}: visrag does not read files of this kind\n")
        return
    note = inbox / NOTES / hashlib.sha256(source.name.encode()).hexdigest()
    noted = note.exists() and note.stat().st_mtime > changed
    job = jobs.get(source.name)
    if job is not None and (noted or changed < job.queued):
        return
    document = store.document(source.name)
    current = document is not None and is_current(store, document, sha256_of(source.path), IngestSettings())
    if os.stat(source.path).st_ctime != changed:
        return
    if document is not None and current:
        failed = document.state == "failed"
        _move(inbox, source, FAILED if failed else DONE, _reasons(store, document))
        note.unlink(missing_ok=True)
    elif noted:
        _move(inbox, source, FAILED, _reasons(store, document) or "it was taken out of the queue\n")
        note.unlink(missing_ok=True)
    else:
        store.enqueue([Order(source.name, source.uri, options_of(IngestSettings()))])
        note.parent.mkdir(exist_ok=True)
        note.touch()


def _unsupported(inbox: Path) -> list[Source]:
    """Files of no kind that is read; those whose names begin with a dot are not looked at."""
    found = []
    for where, folders, names in os.walk(inbox):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(where, name)
            if not name.startswith(".") and path.suffix.lower() not in SUFFIXES:
                found.append(Source(path, path.relative_to(inbox).as_posix(), 0))
    return found


def _reasons(store: Store, document: Document | None) -> str:
    """Why a document, or pages of it, failed: a line each."""
    failures = [] if document is None else store.failures(document.name)
    return "".join(
        f"{'document' if failure.page is None else f'page {failure.page}'}: {failure.reason}: {failure.message}\n"
        for failure in failures
    )


def _move(inbox: Path, source: Source, where: str, reasons: str) -> None:
    """Move a file to done/ or failed/; one of the same name that is there is kept."""
    target = _free(inbox / where / source.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if reasons:
        target.with_name(target.name + ".txt").write_text(reasons, encoding="utf-8")
    shutil.move(source.path, target)
    log.info("%s: moved to %s", source.name, where)
    for parent in source.path.parents:  # folders that are empty now
        if parent == inbox:
            break
        with suppress(OSError):
            parent.rmdir()


def _free(path: Path) -> Path:
    """The path, or with a number if there is a file."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return found
