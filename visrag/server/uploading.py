"""An upload (multipart/form-data), streamed to the disk as it comes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ..errors import UsageError
from ..store.database import mapped
from .problems import Refusal
from .schemas import Options, Tags

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELDS = ("name", "tags", "options")
FIELD_BYTES = 65_536
CHUNK = 1 << 20  # bytes gathered before they are written

_TAGS: TypeAdapter[dict[str, str]] = TypeAdapter(Tags)


@dataclass(slots=True)
class Form:
    """What came with a file. ``tags``: None where none were given."""

    name: str = ""
    tags: Mapping[str, str] | None = None
    options: Options = field(default_factory=Options)


async def receive(request: Request, path: Path) -> Form:
    """Write the file of an upload to ``path``; what came with it. Raises Refusal, UsageError."""
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not parameters.get(b"boundary"):
        raise Refusal(415, "an upload is multipart/form-data, with the document as its part 'file'")
    with mapped(path), path.open("wb") as target:
        parts = _Parts(target)
        try:
            parser = MultipartParser(parameters[b"boundary"], parts.callbacks(), max_header_size=8192)
            async for chunk in request.stream():
                parser.write(chunk)
                if parts.gathered >= CHUNK:
                    await run_in_threadpool(parts.flush)
            parser.finalize()
        except FormParserError as error:
            raise Refusal(400, f"the upload cannot be read: {error}") from error
        await run_in_threadpool(parts.flush)
    if not parts.complete or not parts.files:
        raise UsageError("the upload has no part 'file', or ends before it does: send it again")
    return _form(parts)


def _form(parts: _Parts) -> Form:
    given = {name: value.decode("utf-8", "replace") for name, value in parts.values.items()}
    try:
        tags = _TAGS.validate_json(given["tags"]) if given.get("tags") else None
        options = Options.model_validate_json(given.get("options") or "{}")
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise UsageError(f"the upload's tags or options: {problems}") from error
    return Form(document_name(given.get("name") or _base(parts.filename)), tags, options)


def document_name(name: str) -> str:
    """A document's name as it was given, checked: it may hold "/", as a path under a folder does. Raises UsageError."""
    parts = name.split("/")
    if len(name) > 1000 or any(part in ("", ".", "..") for part in parts):
        raise UsageError(f"{name[:100]!r}: is no name for a document: give a relative path of up to 1000 characters")
    if not all(character.isprintable() for character in name) or "\\" in name:
        raise UsageError(f"{name[:100]!r}: a document's name has no control characters and no backslash")
    return name


def _base(filename: str) -> str:
    """A file's own name, of what a browser or program calls it. Some send a whole path."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    return "".join(character if character.isprintable() else "_" for character in name)


class _Parts:
    """The parts of an upload: the file goes to ``target``, the others are kept."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._chunks: list[bytes] = []
        self._header = self._value = b""
        self._part = ""
        self.gathered = 0
        self.files = 0
        self.filename = ""
        self.values: dict[str, bytearray] = {}
        self.complete = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_end": self._on_end,
        }

    def flush(self) -> None:
        """Write what was gathered."""
        self._target.writelines(self._chunks)
        self._chunks, self.gathered = [], 0
        if self.complete:
            self._target.flush()
            os.fsync(self._target.fileno())

    def _begin(self) -> None:
        self._part = ""
        self._header = self._value = b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._part = options.get(b"name", b"").decode("utf-8", "replace")
            if self._part == "file":
                self.files += 1
                self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
            elif self._part in FIELDS:
                self.values[self._part] = bytearray()
            if self.files > 1 or self._part not in ("file", *FIELDS):
                raise UsageError(f"an upload has one part 'file', and perhaps {', '.join(FIELDS)}: one file a request")
        self._header = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self._chunks.append(bytes(data[start:end]))
            self.gathered += end - start
        elif self._part:
            self.values[self._part] += data[start:end]
            if len(self.values[self._part]) > FIELD_BYTES:
                raise UsageError(f"the upload's {self._part} is longer than {FIELD_BYTES} bytes")
        else:
            raise UsageError("a part of the upload has no name")

    def _on_end(self) -> None:
        self.complete = True
