"""What a file is, by its content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .errors import DocumentError, Reason

SUFFIXES = frozenset(
    {".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".txt", ".md", ".markdown", ".html", ".htm"}
)
"""The suffixes, in lower case, of the files that a walk through a folder takes."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
)
_TEXT_SUFFIXES = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
}
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def media_type(path: Path, document: str | None = None) -> str:
    """What a file is by its content; only kinds of text are told apart by their names.

    Raises DocumentError: missing, corrupt (not what its name says), or unsupported.
    """
    name = path.name if document is None else document
    try:
        with path.open("rb") as file:
            head = file.read(8192)
    except OSError as error:
        why = f"cannot be read ({error.strerror}): check the path and its rights"
        why = "is a folder" if isinstance(error, IsADirectoryError) else why
        raise DocumentError(name, None, Reason.MISSING, why) from error
    if b"%PDF" in head[:1024]:
        return "application/pdf"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    suffix = path.suffix.lower()
    is_html = b"<html" in head.lower() or head.lstrip().lower().startswith(b"<!doctype html")
    if suffix in SUFFIXES and suffix not in _TEXT_SUFFIXES:
        raise DocumentError(name, None, Reason.CORRUPT, _not_what_it_says(suffix, head, is_html))
    if b"\x00" in head and not head.startswith(_BOMS):
        why = "is of a kind that visrag does not read: save it as PDF, or as an image or text"
        raise DocumentError(name, None, Reason.UNSUPPORTED, why)
    return _TEXT_SUFFIXES.get(suffix, "text/html" if is_html else "text/plain")


def _not_what_it_says(suffix: str, head: bytes, is_html: bool) -> str:
    if not head:
        return "is empty (0 bytes): fetch or save it again"
    if is_html:
        return f"is an HTML page named {suffix}: fetch the file itself, or name the page .html"
    return f"does not begin as a {suffix} file does: fetch or save it again"


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
