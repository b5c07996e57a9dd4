"""The models that visrag knows of: what they are, what loads them, and what is published of them (models.toml)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ..errors import EncoderError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model of models.toml, whose head says where its facts are from. None is what no source had.

    ``family``: the architecture of one of ``families.FAMILIES``; of a text model "ColBERT" or "dense". ``library``:
    what loads it, "sentence-transformers" or "colpali-engine"; visrag cannot load a model of "remote code" or "none".
    ``revision``: a commit of the hub repository. ``base``: the model that an adapter (PEFT) stands on.
    ``dim``: numbers of a vector. ``patch``: pixels along a side of a patch. ``merge``: patches along a side that become
    one vector. ``image_tokens``: vectors of a page's picture, at most. Figures: nDCG × 100.
    """

    id: str
    kind: Literal["vision", "text"]
    family: str | None = None
    library: str
    revision: str | None = None
    adapter: bool = False
    base: str | None = None
    base_revision: str | None = None
    dim: int
    patch: int | None = None
    merge: int | None = None
    image_tokens: int | None = None
    licence: str | None = None
    base_licence: str | None = None
    vidore_v1: float | None = None
    vidore_v2: float | None = None
    vidore_v3: float | None = None
    nano_vidore: float | None = None
    nano_beir: float | None = None
    scifact: float | None = None
    note: str | None = None
    sources: tuple[str, ...]


@cache
def known_models() -> tuple[KnownModel, ...]:
    """All models of models.toml, in its order: vision models, then text models, as its head says."""
    table = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))
    return tuple(_model(row, table["sources"]) for row in table["models"])


def _model(row: dict[str, Any], sources: dict[str, str]) -> KnownModel:
    return KnownModel(**{**row, "sources": tuple(sources[key] for key in row["sources"])})


def known_model(name: str) -> KnownModel:
    """The model with this hub id, with or without its owner, in any case. Raises UsageError where there is none."""
    for model in known_models():
        if name.lower() in (model.id.lower(), model.id.lower().partition("/")[2]):
            return model
    raise UsageError(f"no model {name} is in the table of models (visrag models). Others may be used all the same")


def pinned_revision(id: str) -> str | None:
    """The commit of a hub repository to download, of a model or of what an adapter stands on; None: the newest."""
    for model in known_models():
        if id == model.id:
            return model.revision
        if id == model.base:
            return model.base_revision
    return None


def refuse_unloadable(id: str) -> None:
    """Raises EncoderError for a model of the table that cannot be loaded: a library might make something else of it."""
    for model in known_models():
        if model.id == id and model.library in ("remote code", "none"):
            why = model.note or "its code comes from its own repository, and visrag runs none of that"
            raise EncoderError(f"{id} cannot be loaded: {why}")
