"""Documents in URLs: a name's UTF-8 in base64url without padding, so that no character of it means anything there."""

from __future__ import annotations

import base64
import binascii

from .errors import NotFound


def document_id(name: str) -> str:
    """A document's name → its id, of the characters A–Z a–z 0–9 - _."""
    data = name.encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def document_name(id: str) -> str:
    """A document's id → its name. Raises NotFound for what is no id: each name has exactly one."""
    try:
        name = base64.b64decode(id + "=" * (-len(id) % 4), altchars=b"-_", validate=True).decode("utf-8")
    except (ValueError, binascii.Error):
        name = ""
    if not name or document_id(name) != id:
        raise NotFound(f"{id[:80]!r} is no document's id: ids are given with the documents")
    return name
