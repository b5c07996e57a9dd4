"""An index's encoders: which of them a page goes to, and what pages become."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from . import canary
from .calibration import Level, chance_level
from .encode import Encoder
from .errors import EncoderError
from .memory import out_of_memory
from .records import EncodedPage, Leg, Page, PatchVectors
from .render import DRAWN_THRESHOLD, RenderOptions
from .settings import IngestSettings, Route

PAGES_VERSION = 2  # raised when the same file gives other pages than before
BATCH = 32  # pages encoded together
GROW_AFTER = 20  # batches that fit in memory before a batch that was halved is doubled again
LONG = 10.0  # seconds; a batch that takes longer is halved, so that progress shows and a kill costs little


@dataclass(slots=True)
class Encoders:
    """An index's encoders (``vision`` is None where it has none) and the chance levels of their legs.

    ``batch``: pages encoded together. It is halved when memory runs out or they take too long, and grows back.
    ``encode`` is for any number of threads: the text model has its pages one after the other, the vision model sees to
    that itself.
    """

    text: Encoder
    vision: Encoder | None
    levels: Mapping[str, Level]
    batch: int = BATCH
    _fitted: int = field(default=0, init=False)
    _reading: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __iter__(self) -> Iterator[Encoder]:
        return iter([self.text] if self.vision is None else [self.text, self.vision])

    def chance(self, legs: Mapping[str, PatchVectors]) -> dict[str, float]:
        """A page's chance level in each of its legs."""
        return {name: chance_level(self.levels[name], len(found.vectors)) for name, found in legs.items()}

    def encode(self, pages: Sequence[Page], route: Route) -> list[EncodedPage | EncoderError]:
        """Each page through the encoders that it is routed to. A page that fails costs no other.

        Raises EncoderError where not the page is at fault but the model, which fails on the canary's page, too.
        """
        results: list[dict[str, PatchVectors] | EncoderError] = [{} for _ in pages]
        routes = [encoders_of(page, route, self.vision is not None) for page in pages]
        for name, encoder in (("text", self.text), ("vision", self.vision)):
            chosen = [i for i in range(len(pages)) if name in routes[i]]
            if encoder is None or not chosen:
                continue
            with self._reading if name == "text" else nullcontext():
                found = self._run(encoder, [pages[i] for i in chosen])
            for index, legs in zip(chosen, found, strict=True):
                result = results[index]
                if isinstance(legs, EncoderError):
                    results[index] = legs
                elif isinstance(result, dict):
                    result.update(legs)
        return [
            legs if isinstance(legs, EncoderError) else EncodedPage(page, legs, self.chance(legs))
            for page, legs in zip(pages, results, strict=True)
        ]

    def _run(self, encoder: Encoder, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors] | EncoderError]:
        results: list[Mapping[str, PatchVectors] | EncoderError] = []
        while len(results) < len(pages):
            some = pages[len(results) : len(results) + self.batch]
            begun = time.monotonic()
            try:
                results += _encode_each(encoder, some)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._fitted, self.batch = 0, max(1, len(some) // 2)
                if len(some) == 1:
                    results.append(EncoderError(f"the memory is too small for this page ({error})"))
                continue
            seconds = time.monotonic() - begun
            if seconds > LONG:
                self._fitted, self.batch = 0, max(1, len(some) // 2)
            elif seconds < LONG / 2:
                self._fitted += 1
            if self._fitted >= GROW_AFTER and self.batch < BATCH:
                self._fitted, self.batch = 0, min(BATCH, 2 * self.batch)
        return results


def encoders_of(page: Page, route: Route, vision: bool) -> tuple[str, ...]:
    """The encoders of a page, of "text" and "vision": text for pages on which nothing but text was drawn, vision for
    the rest. ``vision``: whether the index has a vision model."""
    if not vision or page.image is None or route == "text":
        return ("text",)
    if route == "both":
        return ("text", "vision")
    drawn = page.drawn > DRAWN_THRESHOLD  # a page of a locked document has its picture in any case
    return ("vision",) if drawn or route == "vision" else ("text",)


def render_options(settings: IngestSettings, vision: bool) -> RenderOptions:
    """How pages are read for an index with or without a vision model."""
    pictures = vision and settings.route != "text"
    return RenderOptions(
        renderer=settings.renderer,
        ocr=settings.ocr,
        passwords=settings.passwords,
        page_timeout=settings.page_timeout,
        memory=settings.memory,
        max_pixels=settings.max_pixels,
        max_words=settings.max_words,
        max_pages=settings.max_pages,
        image=("drawn" if settings.route == "auto" else "all") if pictures else "none",
    )


def settings_hash(legs: Sequence[Leg], settings: IngestSettings) -> str:
    """What decides, beside its content, what a document's pages become. ``legs``: of the index's encoders."""
    parts = [PAGES_VERSION, [leg.fingerprint for leg in legs], settings.ocr, settings.renderer, settings.route]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _encode_each(encoder: Encoder, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors] | EncoderError]:
    """All pages at once; if that fails, one by one, to find the page that it fails on."""
    try:
        return list(encoder.encode_pages(pages))
    except BaseException as error:  # a panic of tokenizers is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit) or out_of_memory(error):
            raise
        if len(pages) > 1:
            return [result for page in pages for result in _encode_each(encoder, [page])]
        if isinstance(error, EncoderError):
            return [error]
        _try_canary(encoder)
        return [EncoderError(f"{type(error).__name__}: {error}")]


def _try_canary(encoder: Encoder) -> None:
    """Raises EncoderError where a model fails on the canary's page."""
    try:
        encoder.encode_pages([canary.page(1)])
    except Exception as error:
        what = f"{encoder.legs[0].encoder} fails on every page now ({type(error).__name__}: {error})"
        raise EncoderError(f"{what}: start again, or use another device") from error
