"""The models of an index: which it was made with, and that those in use are the same."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from typing import Any

from .calibration import calibrate, principal_components
from .canary import COSINE, least_cosine, page_vectors, question_vectors, same_page, same_question
from .encode import Encoder
from .encode.checkpoint import DEFAULT_MODEL, with_commit
from .encode.families import base_of
from .encode.patches import PatchEncoder
from .encode.reduced import ReducedEncoder, Reduction
from .encode.text import TextEncoder
from .encode.vision import load_vision
from .encoders import Encoders
from .errors import IndexMismatch, UsageError
from .records import FULLTEXT, Leg, QueryVectors
from .settings import ModelSettings
from .store import Store

FORMAT = 1  # of the settings that an index keeps
KEPT = 256  # questions whose vectors are kept


class Models:
    """The encoders of one index, loaded when they are first needed.

    The settings of the index keep their names, legs, chance levels, how their vectors are kept, and what they make of
    a fixed question and page, the canary. ``encode`` is for any number of threads.
    """

    def __init__(self, wanted: ModelSettings | None = None) -> None:
        self._wanted = wanted or ModelSettings()
        self._reduction = Reduction()
        self._encoders: dict[str, Encoder] = {}
        self._vision: PatchEncoder | None = None  # as it is without reduction
        self._encoding = threading.Lock()
        self._questions: OrderedDict[tuple[str, ...], dict[str, QueryVectors]] = OrderedDict()

    def for_ingest(self, store: Store, vision: bool = True) -> Encoders:
        """The encoders; what is new of them is written into the settings. Without ``vision`` only that for text.
        Raises IndexMismatch, EncoderError, and UsageError for what the models cannot do."""
        new: dict[str, Any] = {"format": FORMAT, "models": {}, "legs": [], "levels": {}, "canaries": {}}
        settings = deepcopy(store.settings() or new | {"float16": self._wanted.float16})
        if self._wanted.float16 and not settings.get("float16"):
            raise IndexMismatch("the index was made without float16: leave it out, or ingest into a new index")
        kinds = ["text"]
        if vision and (self._wanted.vision or "vision" in settings["models"]):
            kinds.append("vision")
        elif vision and self._wanted.visual_tokens:
            raise UsageError(f"visual_tokens={self._wanted.visual_tokens}: is for a vision model, so name one")
        for kind in kinds:
            encoder, page = self._encoder(kind, settings), self._page(kind)
            if kind not in settings["models"]:
                levels, canaries = calibrate(encoder), question_vectors(encoder)
                settings = deepcopy(store.settings()) or settings
                if kind in settings["models"]:  # by another process, meanwhile
                    del self._encoders[kind]
                    encoder, page = self._encoder(kind, settings), self._page(kind)
            if kind in settings["models"]:
                _check_page(page, settings)
                continue
            settings["models"][kind] = with_commit(self._wanted_of(kind) or DEFAULT_MODEL)
            settings["reduction"] = self._reduction.to_settings()
            settings["legs"] += [asdict(leg) for leg in encoder.legs]
            settings["levels"].update(levels)
            settings["canaries"].update(canaries)
            if kind == "vision":
                settings["visual_tokens"] = self._wanted.visual_tokens
                settings["base"] = base_of(settings["models"][kind])
                settings["canary_page"] = page
            store.write_settings(settings)
        return Encoders(self._encoders["text"], self._encoders.get("vision"), settings["levels"])

    def encode(self, question: str, store: Store) -> dict[str, QueryVectors]:
        """The question's vectors by leg; those of the last questions are kept. Raises IndexMismatch, EncoderError."""
        settings = store.settings()
        kinds = tuple(settings.get("models", {}))
        key = (question, *kinds)
        with self._encoding:  # tokenizers are not thread-safe
            if key not in self._questions:
                queries: dict[str, QueryVectors] = {}
                for kind in kinds:
                    queries.update(self._encoder(kind, settings).encode_query(question))
                self._questions[key] = queries
            self._questions.move_to_end(key)
            while len(self._questions) > KEPT:
                self._questions.popitem(last=False)
            return self._questions[key]

    def _encoder(self, kind: str, settings: Mapping[str, Any]) -> Encoder:
        if kind not in self._encoders:
            with _uncollected():
                whole = self._load(kind, settings)
            self._reduction = self._reduction_of(settings, whole)
            encoder = ReducedEncoder(whole, self._reduction) if self._reduction else whole
            if kind in settings["models"]:
                arithmetic = self._vision.arithmetic if kind == "vision" and self._vision is not None else None
                _check(encoder, arithmetic, settings, kind)
            self._encoders[kind] = encoder
        return self._encoders[kind]

    def _load(self, kind: str, settings: Mapping[str, Any]) -> Encoder:
        kept = settings["models"].get(kind)
        model, device = self._wanted_of(kind) or kept or DEFAULT_MODEL, self._wanted.device
        if kept is not None and kept.partition("@")[0] == model:
            model = kept  # of a hub id the commit that the index keeps
        if kind == "text":
            return TextEncoder.load(model, device)
        tokens = self._wanted.visual_tokens
        if kept is not None:
            known = settings.get("visual_tokens")
            if tokens not in (None, known):
                raise _unlike("visual_tokens", known, tokens)
            tokens = known
        self._vision = load_vision(model, device, tokens, settings.get("base"))
        return self._vision

    def _page(self, kind: str) -> dict[str, Any] | None:
        """What the vision model makes of the canary's page; None for text."""
        return page_vectors(self._vision) if kind == "vision" and self._vision is not None else None

    def _wanted_of(self, kind: str) -> str | None:
        return self._wanted.text if kind == "text" else self._wanted.vision

    def _reduction_of(self, settings: Mapping[str, Any], encoder: Encoder) -> Reduction:
        """What reduces the vectors of the index; of a new one, whose text encoder this is, it is made."""
        pool, dim = self._wanted.pool, self._wanted.dim
        if not settings["models"]:
            return Reduction(pool or 1, None if dim is None else principal_components(encoder, dim))
        kept = Reduction.from_settings(settings.get("reduction", {}))
        for name, wanted, known in (("pool", pool, kept.pool), ("dim", dim, kept.dim)):
            if wanted not in (None, known):
                raise _unlike(name, known, wanted)
        return kept


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: what the libraries of models make when they are imported stays, and to look
    through it again and again as it grows would take a fifth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def legs(store: Store) -> list[Leg]:
    """The legs of an index, full text last."""
    return [*(Leg(**leg) for leg in store.settings().get("legs", [])), FULLTEXT]


def _unlike(name: str, known: int | None, wanted: int | None) -> IndexMismatch:
    made = f"was made with {name} {known}, not {wanted}" if known else f"was made without {name}"
    return IndexMismatch(f"the index {made}: leave it out, or ingest into a new index")


def _check(encoder: Encoder, arithmetic: str | None, settings: Mapping[str, Any], kind: str) -> None:
    """Raises IndexMismatch where an encoder is not the one that the index was made with. ``arithmetic``: a vision
    model's."""
    known = {leg["name"]: leg["fingerprint"] for leg in settings["legs"]}
    for leg in encoder.legs:
        if known.get(leg.name) != leg.fingerprint:
            what = f"the index was made with other weights or settings than {leg.encoder}'s"
            raise IndexMismatch(f"{what}: {_cure(settings, kind)}")
    least = COSINE if arithmetic is None else least_cosine(arithmetic, settings["canary_page"])
    if not same_question(encoder, settings["canaries"], least):
        raise _other_vectors(settings, kind)


def _check_page(page: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> None:
    """Raises IndexMismatch where the vision model makes another ``page`` of the canary's, or prepares it otherwise."""
    if page is None:
        return
    kept, here = settings["canary_page"], page["image_processor"]
    if here != kept["image_processor"]:
        what = f"{kept['image_processor']} prepared the pictures of the index, here {here} would"
        cure = "install torchvision, or take it away, as it was when the index was made, or ingest into a new index"
        raise IndexMismatch(f"{what}: {cure}")
    if not same_page(page, kept):
        raise _other_vectors(settings, "vision")


def _other_vectors(settings: Mapping[str, Any], kind: str) -> IndexMismatch:
    model = settings["models"][kind]
    return IndexMismatch(f"{model} gives other vectors here than when the index was made: {_cure(settings, kind)}")


def _cure(settings: Mapping[str, Any], kind: str) -> str:
    return f"use the model that it was made with ({settings['models'][kind]}), or ingest into a new index"
