"""What a user may choose. Read at the edges (CLI, Python API, workers) and passed in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from .errors import UsageError

Rank: TypeAlias = Literal["fusion", "maxsim", "fulltext"]
Route: TypeAlias = Literal["auto", "vision", "text", "both"]
Ocr: TypeAlias = Literal["auto", "off", "always"]
RendererName: TypeAlias = Literal["pdfium", "poppler"]

MOST_SECONDS = 86_400
MEMORY = 2048  # MiB of one rendering process
LEAST_TOKENS = 16  # of a page's picture


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How documents become pages.

    ``route``: which encoder a page goes to where the index has a vision model. ``link``: keep the path of a
    file, not a copy. ``passwords``: tried in turn on an encrypted PDF; they are kept nowhere.

    Limits: ``jobs``: rendering processes. ``page_timeout``: seconds for one page, OCR included, and once more where
    poppler tries it too. ``memory``: bytes of one rendering process (0: any). ``max_pixels``: of a page of an image
    file. ``max_words``: of a page, and ten times as many characters; encoding 100,000 words takes half a minute.
    ``max_pages``: of a document.

    Raises UsageError for a limit that is none, and a password that is no Unicode.
    """

    ocr: Ocr = "auto"
    renderer: RendererName = "pdfium"
    route: Route = "auto"
    link: bool = False
    passwords: tuple[str, ...] = field(default=(), repr=False)
    jobs: int = field(default_factory=lambda: max(1, min(8, os.cpu_count() or 1)))
    page_timeout: float = 60.0
    memory: int = MEMORY << 20
    max_pixels: int = 180_000_000
    max_words: int = 100_000
    max_pages: int = 50_000

    def __post_init__(self) -> None:
        if not 0 < self.page_timeout <= MOST_SECONDS:
            raise UsageError(f"page_timeout={self.page_timeout}: must be above 0, and at most {MOST_SECONDS} (a day)")
        for name, least in (("jobs", 1), ("memory", 0), ("max_pixels", 1), ("max_words", 1), ("max_pages", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}={getattr(self, name)}: must be at least {least}")
        if any("\ud800" <= character <= "\udfff" for character in "".join(self.passwords)):  # bytes that were no UTF-8
            raise UsageError("a password is not UTF-8: write it so, into a file for --password-file")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which models an index has, and how their vectors are made and kept. None: as the index has it; a new one: the
    default text model, no vision model, and every vector as its model gives it.

    ``text``, ``vision``: a hub id or a folder. ``device``: "cpu", "cuda", or None for the best. ``pool``: of the
    vectors of a page's tokens or patches one in so many is kept, each the mean of some. ``dim``: dimensions of tokens.
    ``float16``: the vectors are kept as float16, too. ``visual_tokens``: image tokens of a page, at most, for vision
    models that have as many as the picture is large. Raises UsageError for what cannot be.
    """

    text: str | None = None
    vision: str | None = None
    device: str | None = None
    pool: int | None = None
    dim: int | None = None
    float16: bool = False
    visual_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.pool is not None and self.pool < 1:
            raise UsageError(f"pool={self.pool}: must be at least 1, which is no pooling")
        if self.dim is not None and (self.dim < 8 or self.dim % 8):
            raise UsageError(f"dim={self.dim}: must be a multiple of 8")
        if self.visual_tokens is not None and self.visual_tokens < LEAST_TOKENS:
            raise UsageError(f"visual_tokens={self.visual_tokens}: must be at least {LEAST_TOKENS}")


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """How a process takes part in the queue. Each is taken from the environment: VISRAG_INDEX, VISRAG_BROKER, …

    ``index``: a folder or a qdrant:// URL. ``broker``: Redis; a database of its own for each index. ``text``,
    ``vision``, ``device``, ``pool``, ``dim``, ``float16``, ``visual_tokens``: as of ``ModelSettings``, "" and 0 for
    none. ``passwords``: to open documents with, one a line. ``memory``: MiB of one rendering process (0: any).
    ``inbox``: a folder that ingest workers watch. ``waiting_pages``: rendered pages that may wait for the encoders.
    ``metrics_port``: for Prometheus, 0 for none, at ``metrics_host``.

    In seconds: ``lease``, for which a piece of work is a worker's unless it says that it goes on; ``piece_limit``,
    after which a worker that still has it is ended; ``sweep``, between two looks for what was lost; ``visibility``,
    after which Redis gives a message that was not acknowledged to another worker.
    """

    index: str = "index"
    broker: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    text: str = ""
    vision: str = ""
    device: str = ""
    pool: int = 0
    dim: int = 0
    float16: int = 0
    visual_tokens: int = 0
    passwords: tuple[str, ...] = field(default=(), repr=False)
    memory: int = MEMORY
    inbox: str = ""
    lease: float = 60.0
    piece_limit: float = 3600.0
    sweep: float = 15.0
    visibility: float = 3600.0
    waiting_pages: int = 512
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        _ = self.own  # raises UsageError for what cannot be

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **given: Any) -> Self:
        """The settings of the environment, but for those that are given and not None. Raises UsageError."""
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        for setting in fields(cls):
            name = f"VISRAG_{setting.name.upper()}"
            text = environment.get(name, "")
            if text and setting.name not in values:
                values[setting.name] = _parsed(name, text, setting.default)
        return cls(**values)

    @property
    def own(self) -> IngestSettings:
        """What no order says, since it is this machine's: passwords and memory."""
        return IngestSettings(passwords=self.passwords, memory=self.memory << 20)

    @property
    def wanted(self) -> ModelSettings:
        """The models that this process is told to use."""
        return ModelSettings(
            text=self.text or None,
            vision=self.vision or None,
            device=self.device or None,
            pool=self.pool or None,
            dim=self.dim or None,
            float16=bool(self.float16),
            visual_tokens=self.visual_tokens or None,
        )

    @property
    def models(self) -> tuple[str, ...]:
        """The kinds of models that the index must have."""
        return ("text", "vision") if self.vision else ("text",)


def read_passwords(path: Path) -> tuple[str, ...]:
    """The passwords in a file, one a line, UTF-8; empty lines do not count. Raises UsageError."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8: save it so, one password a line") from None
    return tuple(line for line in (line.removesuffix("\r") for line in lines) if line)


def read_tags(tags: Sequence[str], shown: str) -> dict[str, str]:
    """K=V texts as a dictionary. ``shown``: what stands before one where it is given. Raises UsageError."""
    pairs = {}
    for tag in tags:
        key, sign, value = tag.partition("=")
        if not key or not sign:
            raise UsageError(f"{shown}{tag}: give it as K=V")
        pairs[key] = value
    return pairs


def _parsed(name: str, text: str, default: object) -> object:
    """A variable of the environment as a value of its default's type."""
    if isinstance(default, tuple):
        return tuple(text.splitlines())
    if isinstance(default, str):
        return text
    least = _LEAST.get(name, 0)
    try:
        number = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        number = -1
    if not least <= number < float("inf"):
        raise UsageError(f"{name}={text}: must be a number, and at least {least}")
    return number


_LEAST = {
    "VISRAG_LEASE": 1, "VISRAG_PIECE_LIMIT": 10, "VISRAG_SWEEP": 1, "VISRAG_VISIBILITY": 1, "VISRAG_WAITING_PAGES": 64,
}  # fmt: skip
