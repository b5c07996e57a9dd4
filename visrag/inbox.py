"""An inbox folder of the queue: what is dropped into it is ingested, then moved to done/ or failed/ in it.

Nothing is remembered from one look to the next: what has become of a file is asked of the store.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from .records import Document, Failure, Order
from .settings import IngestSettings
from .sources import Source, find_sources
from .steps import is_current, options_of
from .store import Store

SETTLED = 2.0  # seconds for which a file must not have changed to count as complete
DONE, FAILED = "done", "failed"

log = logging.getLogger("visrag")


def look(store: Store, inbox: Path) -> None:
    """Put the files that are complete into the queue; move those that have been through it.

    The reasons why a file, or pages of it, failed are written beside it: NAME.txt. Raises UsageError where the folder
    is not there.
    """
    jobs = {job.order.name: job for job in store.jobs()}
    orders = []
    for source in find_sources([inbox]):
        if Path(source.name).parts[0] in (DONE, FAILED) or (changed := _changed(source.path)) is None:
            continue
        job = jobs.get(source.name)
        if time.time() - changed < SETTLED or (job is not None and changed < job.queued):
            continue
        document = store.document(source.name)
        if job is None and document is not None and is_current(store, document, _hash(source.path), IngestSettings()):
            _move(inbox, source, document, store.failures(source.name))
        else:
            orders.append(Order(source.name, str(source.path.resolve()), options_of(IngestSettings())))
    if orders:
        store.enqueue(orders)


def _move(inbox: Path, source: Source, document: Document, failures: Sequence[Failure]) -> None:
    """Move a file to where it belongs; one of the same name that is there is kept."""
    folder = inbox / (FAILED if document.state == "failed" else DONE)
    target = _free(folder / source.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if failures:
        reasons = [
            f"{'document' if failure.page is None else f'page {failure.page}'}: {failure.reason}: {failure.message}"
            for failure in failures
        ]
        target.with_name(target.name + ".txt").write_text("\n".join(reasons) + "\n", encoding="utf-8")
    try:
        shutil.move(source.path, target)
    except FileNotFoundError:
        return  # another worker was faster
    log.info("%s: moved to %s", source.name, folder.name)
    for parent in Path(source.name).parents:  # folders that are empty now
        if parent != Path() and not any((inbox / parent).iterdir()):
            (inbox / parent).rmdir()


def _free(path: Path) -> Path:
    """The path, or with a number if there is a file."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return found


def _changed(path: Path) -> float | None:
    """When a file was last written or given its name, in seconds since 1970; None where it has gone."""
    try:
        return os.stat(path).st_ctime
    except OSError:
        return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
