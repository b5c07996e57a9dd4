"""The steps of a document's way through the queue. Each does one piece of work and says what follows from it.

    open_document   the file → its content's hash, its number of pages, the kept original    follow: "render"
    render_pages    some pages → a parcel in the store                                       follow: "text", "encode"
    encode_pages    a parcel → vectors in the store                                          follow: nothing
    end             all pieces done → the document is visible

What is done twice, by a worker that was thought dead, changes nothing. A page or document that cannot be read is
recorded with its reason. Errors of the store and the file system are raised: the piece is then done again later.
So is a file that changes while it is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .encoders import encoders_of, render_options, settings_hash
from .errors import DocumentError, EncoderError, FileChanged, NotFound, PageRefused, Reason, StoreError
from .kinds import sha256_of
from .parcel import ParcelDamaged, pack_parcel, unpack_parcel
from .records import Document, EncodedPage, Failure, Job, Leg, Page, Piece, QueueName
from .render import Renderer, RenderOptions
from .settings import IngestSettings, Route
from .store import Store
from .store.remote import Downloads, local_path

PIECE_PAGES = 8  # pages of a piece
AGAIN = "again"  # an order's option: read it even if it is in the index as it is now
HANDED_IN = "handed_in"  # another: its file goes when it has come through (``visrag.uploads``)
ATTEMPTS = 4  # times that a piece may cost its worker's life, or time, before it is cut into pages; a page: is given up

Encode = Callable[[Sequence[Page], Route], list[EncodedPage | EncoderError]]

log = logging.getLogger("visrag")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did: pages done, what failed, and the document if it was the last step of it."""

    pages: int = 0
    failures: tuple[Failure, ...] = ()
    document: Document | None = None


def options_of(settings: IngestSettings) -> dict[str, Any]:
    """The settings as an order keeps them: without what is a worker's own affair, passwords, processes and memory."""
    options = asdict(settings)
    return {name: value for name, value in options.items() if name not in ("passwords", "jobs", "memory")}


def settings_of(job: Job, own: IngestSettings | None = None) -> IngestSettings:
    """The settings of an order, with what is a worker's ``own``."""
    options = {name: value for name, value in job.order.options.items() if name not in (AGAIN, HANDED_IN)}
    return replace(own or IngestSettings(), **options)


def open_document(store: Store, piece: Piece, renderer: Renderer, own: IngestSettings, downloads: Downloads) -> Outcome:
    """The step "ingest": find out what a document is, keep its file, and cut its pages into pieces."""
    job = store.job(piece.generation)
    if job is None:
        return Outcome()
    settings = settings_of(job, own)
    document = Document(job.order.name, "", "", "", job.order.tags or {}, path=_path_of(job))
    try:
        with downloads.file(job.order.uri) as path:
            before = _stamp(path)
            document = _identify(store, job, path, settings)
            known = store.document(job.order.name)
            if not job.order.options.get(AGAIN) and _unchanged(known, document, bool(own.passwords)):
                store.abandon(piece.generation)
                log.info("%s: unchanged", document.name)
                return Outcome()
            store.describe(piece.generation, document)
            store.put_original(path, document.content, settings.link)
            opened = renderer.pages(path, document.name, _options(store, settings))
            document = replace(document, pages=opened.pages, media_type=opened.media_type, renderer=opened.renderer)
            store.describe(piece.generation, document)
            if _stamp(path) != before:
                raise FileChanged(f"{document.name}: was changed while it was read")
    except DocumentError as error:
        return _refuse(store, piece, document, error)
    numbers = range(1, opened.pages + 1)
    starts = range(0, opened.pages, PIECE_PAGES)
    follow = [
        Piece(piece.generation, "render", tuple(numbers[start : start + PIECE_PAGES]), float(turn))
        for turn, start in enumerate(starts)
    ]
    return _finish(store, piece, Outcome(), follow)


def render_pages(
    store: Store, piece: Piece, renderer: Renderer, own: IngestSettings, stopping: Callable[[], bool]
) -> Outcome:
    """The step "render": read pages, and hand each to the encoders that it is routed to.

    When ``stopping``, what is not yet read becomes a piece of its own.
    """
    job = store.job(piece.generation)
    if job is None:
        return Outcome()
    settings = settings_of(job, own)
    name = job.order.name
    pages: list[Page] = []
    failures: list[Failure] = []
    try:
        path = store.original(name, piece.generation)
        options = _options(store, settings)
        if job.document.renderer == "poppler":  # it was opened with it
            options = replace(options, renderer="poppler")
        opened = renderer.pages(path, name, options, job.document.media_type)
        for result in opened.read(piece.pages):
            if isinstance(result, Page):
                pages.append(result)
                if opened.locked and result.image is not None:
                    store.put_image(piece.generation, result.number, result.image())
            else:
                failures.append(Failure(name, result.page, result.reason, result.message))
            if stopping():
                break
    except (DocumentError, NotFound) as error:
        reason = error.reason if isinstance(error, DocumentError) else Reason.MISSING
        message = error.message if isinstance(error, DocumentError) else str(error)
        failures += [Failure(name, number, reason, message) for number in piece.pages[len(pages) + len(failures) :]]
    follow = _hand_on(store, piece, pages, settings.route)
    rest = piece.pages[len(pages) + len(failures) :]
    if rest:
        follow.append(Piece(piece.generation, "render", rest))
    return _finish(store, piece, Outcome(len(pages), tuple(failures)), follow)


def encode_pages(store: Store, piece: Piece, encode: Encode) -> Outcome:
    """The steps "text" and "encode": the pages of a parcel → their vectors in the store."""
    job = store.job(piece.generation)
    if job is None:
        return Outcome()
    pages = _unpack(store, piece)
    if pages is None:
        if piece.attempts >= ATTEMPTS:
            return give_up(store, piece, "what was rendered of it is lost each time: do all workers share the files?")
        again = Piece(piece.generation, "render", piece.pages, attempts=piece.attempts)
        return _finish(store, piece, Outcome(), [again])
    route = settings_of(job).route if piece.queue == "encode" else "text"
    encoded, failures = [], []
    for page, result in zip(pages, encode(pages, route), strict=True):
        if isinstance(result, EncoderError):
            failures.append(Failure(job.order.name, page.number, Reason.ENCODER, str(result)))
        else:
            encoded.append(result)
    while True:
        try:
            return _finish(store, piece, Outcome(len(encoded), tuple(failures)), [], encoded)
        except PageRefused as error:
            failures.append(Failure(job.order.name, error.page, Reason.ENCODER, error.message))
            encoded = [found for found in encoded if found.page.number != error.page]


def end(store: Store, generation: int) -> Document | None:
    """Make a document visible, all of whose pieces are done. None where it left the queue meanwhile, and where its
    file, of which there is no copy, was changed: then it is put into the queue anew."""
    job = store.job(generation)
    if job is None:
        return None
    if settings_of(job).link and job.document.content and not _holds(job.document.path, job.document.content):
        log.warning("%s: its file was changed while it was read: it is read again", job.order.name)
        store.enqueue([job.order])
        return None
    try:
        return store.commit(generation, job.document.pages)
    except StoreError:
        if store.job(generation) is None:  # another worker was faster, or it was removed
            return None
        raise


def give_up(store: Store, piece: Piece, why: str = "") -> Outcome:
    """After too many attempts: cut a piece into pages; a single page, or a document that cannot be opened, is recorded
    as failed. ``why``: the last attempt's error; without one its worker died, or never came back."""
    job = store.job(piece.generation)
    if job is None:
        return Outcome()
    if len(piece.pages) > 1:  # a parcel is of the whole piece, so each page begins anew at "render"
        pages = [Piece(piece.generation, "render", (number,)) for number in piece.pages]
        return _finish(store, piece, Outcome(), pages)
    if piece.queue in ("text", "encode"):
        reason, doing = Reason.ENCODER, "encoding"
    else:
        reason, doing = Reason.RENDERER_CRASH, "reading"
    why = why or "the worker died of it, or did not come back"
    message = f"{doing} it failed {piece.attempts} times: {why}"
    failure = Failure(job.order.name, piece.pages[0] if piece.pages else None, reason, message)
    return _finish(store, piece, Outcome(0, (failure,)), [])


def wanted_legs(store: Store, models: Sequence[str]) -> list[Leg] | None:
    """The legs of the index's encoders; None while one of the ``models`` ("text", "vision") is not in it yet."""
    settings: Mapping[str, Any] = store.settings()
    if not set(models) <= set(settings.get("models", {})):
        return None
    return [Leg(**leg) for leg in settings["legs"]]


def is_current(store: Store, document: Document, content: str, settings: IngestSettings) -> bool:
    """Whether a document of the index was made from this content with these settings, or failed with them."""
    legs = wanted_legs(store, ["text"])
    made = document.state != "ingesting" and legs is not None and document.content == content
    return made and document.settings == settings_hash(legs or (), settings)


def _finish(
    store: Store, piece: Piece, outcome: Outcome, follow: Sequence[Piece], pages: Sequence[EncodedPage] = ()
) -> Outcome:
    left = store.finish(piece, pages, outcome.failures, follow)
    if left is None:
        return Outcome()
    return outcome if left else replace(outcome, document=end(store, piece.generation))


def _identify(store: Store, job: Job, path: Path, settings: IngestSettings) -> Document:
    """The document as far as it is known before it is opened. Raises DocumentError."""
    name = job.order.name
    try:
        content = sha256_of(path)
    except OSError as error:
        why = f"{path} cannot be read ({error.strerror}): put it back, or give the workers the right to read it"
        raise DocumentError(name, None, Reason.MISSING, why) from error
    legs = wanted_legs(store, ["text"])
    if legs is None:
        raise StoreError("the index has no models yet: start a text worker")
    known = store.document(name) if job.order.tags is None else None
    tags = known.tags if known is not None else job.order.tags or {}
    return Document(name, content, settings_hash(legs, settings), "", tags, path=_path_of(job))


def _path_of(job: Job) -> str:
    """Where the document's file stays, "" where it does not."""
    return "" if job.order.options.get(HANDED_IN) else job.order.uri


def _unchanged(known: Document | None, document: Document, passwords: bool) -> bool:
    """Whether a document is in the index as it is now."""
    if known is None or known.state == "ingesting" or (known.state == "failed" and passwords):
        return False
    return (known.content, known.settings, known.tags) == (document.content, document.settings, document.tags)


def _options(store: Store, settings: IngestSettings) -> RenderOptions:
    return render_options(settings, "vision" in store.settings()["models"])


def _refuse(store: Store, piece: Piece, document: Document, error: DocumentError) -> Outcome:
    """A document that cannot be opened. One that was there with the same content, or whose file has gone, stays."""
    if error.reason is Reason.MISSING:
        document = replace(document, content="")
    failure = Failure(document.name, None, error.reason, error.message)
    known = store.document(document.name)
    if known is not None and known.indexed and document.content in ("", known.content):
        log.error("%s stays as it was: %s", document.name, error.message)
        store.abandon(piece.generation)
        return Outcome(0, (failure,))
    store.describe(piece.generation, document)
    return _finish(store, piece, Outcome(0, (failure,)), [])


def _hand_on(store: Store, piece: Piece, pages: Sequence[Page], route: Route) -> list[Piece]:
    """Put pages into parcels for their encoders: the pieces that follow."""
    vision = "vision" in store.settings()["models"]
    groups: dict[QueueName, list[Page]] = {"text": [], "encode": []}
    for page in pages:
        groups["encode" if "vision" in encoders_of(page, route, vision) else "text"].append(page)
    follow = []
    for queue, group in groups.items():
        if group:
            lost = piece.attempts - 1  # attempts of the step that follows, which found its parcel lost
            next_piece = Piece(piece.generation, queue, tuple(page.number for page in group), attempts=max(0, lost))
            store.put_parcel(next_piece, pack_parcel(group, pictures=queue == "encode"))
            follow.append(next_piece)
    return follow


def _unpack(store: Store, piece: Piece) -> list[Page] | None:
    """The pages of a piece's parcel; None where it is lost, damaged, or another's of other pages."""
    try:
        pages = unpack_parcel(store.parcel(piece))
    except NotFound as error:
        log.warning("%s", error)
        return None
    except ParcelDamaged as error:
        log.warning("%s: %s", piece.id, error)
        return None
    return pages if tuple(page.number for page in pages) == piece.pages else None


def _holds(path: str, content: str) -> bool:
    """Whether a file is there with this content."""
    try:
        return sha256_of(local_path(path)) == content
    except OSError:
        return False


def _stamp(path: Path) -> tuple[int, int] | None:
    """A file's size and time of change, None where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
