"""The models of an index: which it was made with, and that those in use are the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import numpy as np

from .calibration import calibrate, principal_components
from .encode import Encoder
from .encode.checkpoint import DEFAULT_MODEL
from .encode.reduced import ReducedEncoder, Reduction
from .encode.text import TextEncoder
from .encode.vision import load_vision
from .encoders import Encoders
from .errors import IndexMismatch, UsageError
from .records import FULLTEXT, Leg, QueryVectors
from .settings import QueueSettings
from .store import Store

FORMAT = 1  # of the settings that an index keeps
CANARY = "How many visitors did the museum have in 2019, compared with 1987?"
KEPT = 256  # questions whose vectors are kept
CANARY_COSINE = 0.999  # a canary's vectors must be at least this near to those of the index


class Models:
    """The encoders of one index, loaded when they are first needed.

    ``text``, ``vision``: the models that are asked for; None for those that the index was made with (a new one: the
    default text model, and no vision model). ``pool``, ``dim``, ``float16``: as of ``visrag.Index``. The settings of
    the index keep their names, legs, chance levels, how their vectors are kept, and the vectors of a fixed question,
    the canary. ``encode`` is for any number of threads. Raises UsageError for a ``pool`` or ``dim`` that cannot be.
    """

    def __init__(
        self,
        text: str | None,
        vision: str | None,
        device: str | None,
        pool: int | None = None,
        dim: int | None = None,
        float16: bool = False,
    ) -> None:
        if pool is not None and pool < 1:
            raise UsageError(f"pool={pool}: must be at least 1, which is no pooling")
        if dim is not None and (dim < 8 or dim % 8):
            raise UsageError(f"dim={dim}: must be a multiple of 8")
        self._wanted = {"text": text, "vision": vision}
        self._device = device
        self._pool = pool
        self._dim = dim
        self._float16 = float16
        self._reduction = Reduction()
        self._encoders: dict[str, Encoder] = {}
        self._encoding = threading.Lock()
        self._questions: OrderedDict[tuple[str, ...], dict[str, QueryVectors]] = OrderedDict()

    @classmethod
    def of(cls, settings: QueueSettings) -> Models:
        """Those that a process of the queue is told to use."""
        named = settings.text or None, settings.vision or None, settings.device or None
        return cls(*named, settings.pool or None, settings.dim or None, bool(settings.float16))

    def for_ingest(self, store: Store, vision: bool = True) -> Encoders:
        """The encoders; what is new of them is written into the settings. Without ``vision`` only that for text.
        Raises IndexMismatch, EncoderError."""
        new: dict[str, Any] = {"format": FORMAT, "models": {}, "legs": [], "levels": {}, "canaries": {}}
        settings = deepcopy(store.settings() or new | {"float16": self._float16})
        if self._float16 and not settings.get("float16"):
            raise IndexMismatch("the index was made without float16: leave it out, or ingest into a new index")
        kinds = ["text"]
        if vision and (self._wanted["vision"] or "vision" in settings["models"]):
            kinds.append("vision")
        for kind in kinds:
            encoder = self._encoder(kind, settings)
            if kind in settings["models"]:
                continue
            levels, canaries = calibrate(encoder), _canaries(encoder)
            settings = deepcopy(store.settings()) or settings
            if kind in settings["models"]:  # by another process, meanwhile
                del self._encoders[kind]
                self._encoder(kind, settings)
                continue
            settings["models"][kind] = self._wanted[kind] or DEFAULT_MODEL
            settings["reduction"] = self._reduction.to_settings()
            settings["legs"] += [asdict(leg) for leg in encoder.legs]
            settings["levels"].update(levels)
            settings["canaries"].update(canaries)
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
            kept = settings["models"].get(kind)
            model = self._wanted[kind] or kept or DEFAULT_MODEL
            whole = TextEncoder.load(model, self._device) if kind == "text" else load_vision(model, self._device)
            self._reduction = self._reduction_of(settings, whole)
            encoder = ReducedEncoder(whole, self._reduction) if self._reduction else whole
            if kept is not None:
                _check(encoder, settings, kept)
            self._encoders[kind] = encoder
        return self._encoders[kind]

    def _reduction_of(self, settings: Mapping[str, Any], encoder: Encoder) -> Reduction:
        """What reduces the vectors of the index; of a new one, whose text encoder this is, it is made."""
        if not settings["models"]:
            projection = None if self._dim is None else principal_components(encoder, self._dim)
            return Reduction(self._pool or 1, projection)
        kept = Reduction.from_settings(settings.get("reduction", {}))
        for name, wanted, known in (("pool", self._pool, kept.pool), ("dim", self._dim, kept.dim)):
            if wanted not in (None, known):
                made = f"was made with {name} {known}, not {wanted}" if known else f"was made without {name}"
                raise IndexMismatch(f"the index {made}: leave it out, or ingest into a new index")
        return kept


def legs(store: Store) -> list[Leg]:
    """The legs of an index, full text last."""
    return [*(Leg(**leg) for leg in store.settings().get("legs", [])), FULLTEXT]


def _canaries(encoder: Encoder) -> dict[str, Any]:
    """The canary's vectors by leg, as lists."""
    query = encoder.encode_query(CANARY)
    return {leg.name: np.round(query[leg.name].vectors, 6).tolist() for leg in encoder.legs}


def _check(encoder: Encoder, settings: Mapping[str, Any], model: str) -> None:
    """Raises IndexMismatch where an encoder is not the one that the index was made with."""
    known = {leg["name"]: leg["fingerprint"] for leg in settings["legs"]}
    cure = f"use the model that it was made with ({model}), or ingest into a new index"
    for leg in encoder.legs:
        if known.get(leg.name) != leg.fingerprint:
            raise IndexMismatch(f"the index was made with other weights or settings than {leg.encoder}'s: {cure}")
    for name, vectors in _canaries(encoder).items():
        before, now = np.array(settings["canaries"][name]), np.array(vectors)
        cosine = -1.0
        if before.shape == now.shape:
            cosine = float((before * now).sum() / (np.linalg.norm(before) * np.linalg.norm(now)))
        if cosine < CANARY_COSINE:
            raise IndexMismatch(f"{model} gives other vectors here than when the index was made: {cure}")
