"""The families of vision models: what config.json says of them, which library loads them, and loading with checks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import EncoderError, UsageError
from ..records import Leg
from .checkpoint import find_checkpoint, fingerprint, name_of, with_commit
from .patches import PATCHES


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of checkpoint, by the class named in config.json, and what loads it.

    ``processor``: colpali-engine's class; None where sentence-transformers loads the family. ``base``: the
    model type of the plain model that an adapter (PEFT) may stand on instead.
    """

    architecture: str
    processor: str | None = None
    base: str | None = None


FAMILIES = (
    Family("ColPaliForRetrieval"),
    Family("ColQwen2ForRetrieval"),
    Family("ColModernVBertForRetrieval"),
    Family("ColPali", "ColPaliProcessor", "paligemma"),
    Family("ColQwen2", "ColQwen2Processor", "qwen2_vl"),
    Family("ColQwen2_5", "ColQwen2_5_Processor", "qwen2_5_vl"),
    Family("ColQwen3", "ColQwen3Processor", "qwen3_vl"),
    Family("ColQwen3_5", "ColQwen3_5Processor", "qwen3_5"),
    Family("ColIdefics3", "ColIdefics3Processor", "idefics3"),
    Family("ColGemma3", "ColGemmaProcessor3", "gemma3"),
    Family("ColModernVBert", "ColModernVBertProcessor", "modernvbert"),
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's folder, the name it goes by, its family, and the folder of the model that it adapts, if it does.

    ``family`` is None for what sentence-transformers itself saved: modules.json says how to load it.
    ``visual_tokens``: image tokens of a page, at most, in place of what its processor says.
    """

    folder: Path
    name: str
    family: Family | None
    base: Path | None = None
    visual_tokens: int | None = None

    def leg(self, dim: int) -> Leg:
        """The leg that these weights fill. How many patches a page may have is part of the fingerprint."""
        settings: dict[str, Any] = {"dim": dim}
        if self.visual_tokens is not None:
            settings["visual_tokens"] = self.visual_tokens
        if self.base is not None:
            settings["base"] = fingerprint(self.base)
        return Leg(PATCHES, self.name, dim, fingerprint(self.folder, **settings))

    @contextmanager
    def to_load(self) -> Iterator[Path]:
        """The folder to load the model from. Of an adapter it is a copy that names the folder of its base: of a hub id
        libraries would take whatever commit is the newest."""
        if self.base is None:
            yield self.folder
            return
        with TemporaryDirectory(prefix="visrag-") as copy:
            for file in self.folder.iterdir():
                (Path(copy) / file.name).symlink_to(file.resolve())
            config = Path(copy) / "adapter_config.json"
            content = _json(config) | {"base_model_name_or_path": str(self.base)}
            config.unlink()
            config.write_text(json.dumps(content), encoding="utf-8")
            yield Path(copy)

    def limit(self, processor: Any) -> None:
        """Let a processor make ``visual_tokens`` image tokens of a page, at most. Raises UsageError where it makes the
        same number of all pages, or more of any."""
        if self.visual_tokens is None:
            return
        images = processor.image_processor
        if hasattr(images, "merge_size"):
            pixels = self.visual_tokens * (images.patch_size * images.merge_size) ** 2
            least = min(images.size["shortest_edge"], pixels)  # of this processor: pixels of the whole picture, both
            images.size = type(images.size)(shortest_edge=least, longest_edge=pixels)
        elif hasattr(images, "do_image_splitting"):
            tiles = self.visual_tokens // processor.image_seq_len  # of the whole page one; a square page has the most
            if not tiles:
                raise self._no_tokens(f"has at least {processor.image_seq_len} image tokens a page")
            edge = max(1, math.isqrt(tiles - 1)) * images.max_image_size["longest_edge"]
            images.size = type(images.size)(longest_edge=min(edge, images.size["longest_edge"]))
        else:
            raise self._no_tokens("has the same number of image tokens for all pages: leave visual_tokens out")

    def _no_tokens(self, why: str) -> UsageError:
        return UsageError(f"visual_tokens={self.visual_tokens}: {self.name} {why}")


def find_vision_checkpoint(model: str, visual_tokens: int | None = None, base: str | None = None) -> Checkpoint:
    """Where a vision model is and what it is, by what its configuration says. ``visual_tokens``: as of Checkpoint.
    ``base``: what an adapter stands on, as ``base_of`` found it; None for what the adapter says.

    Raises EncoderError where there is no such model, or it is of no family that visrag can load.
    """
    folder = find_checkpoint(model)
    name = name_of(model)
    if (folder / "modules.json").exists():
        return Checkpoint(folder, name, None, None, visual_tokens)
    named = _base_named(folder)
    below = find_checkpoint(base or named) if named else None
    config = _json((below or folder) / "config.json")
    architectures = config.get("architectures") or []
    for family in FAMILIES:
        if family.architecture in architectures or (below and family.base and family.base == config.get("model_type")):
            return Checkpoint(folder, name, family, below, visual_tokens)
    known = ", ".join(family.architecture for family in FAMILIES)
    raise EncoderError(f"{name} is {architectures or 'no model'}: a vision model of visrag is one of {known}")


def base_of(model: str) -> str | None:
    """The hub id of what an adapter stands on, with the commit that is loaded; None for other models, and a base in a
    folder."""
    named = _base_named(find_checkpoint(model))
    return with_commit(named) if named and not Path(named).is_dir() else None


def _base_named(folder: Path) -> str | None:
    """What an adapter says that it stands on; None for other models."""
    adapter = {} if _json(folder / "config.json") else _json(folder / "adapter_config.json")
    return str(adapter.get("base_model_name_or_path")) if adapter else None


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderError(f"{path} is not JSON ({error}): is the model's folder complete?") from error
    return content


@contextmanager
def loading(checkpoint: Checkpoint) -> Iterator[None]:
    """Whatever the libraries raise while they load the checkpoint, raised as EncoderError."""
    from safetensors import SafetensorError

    try:
        yield
    except (ImportError, OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise EncoderError(
            f"{checkpoint.name} ({checkpoint.folder}) could not be loaded: {type(error).__name__}: {error}"
        ) from error
