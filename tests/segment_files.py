"""The segments of an index, in files."""

from __future__ import annotations

from pathlib import Path

INT8, BITS = 1, 2


def the_segment(index: Path, kind: int = INT8) -> Path:
    """The one segment of an index that is of a kind, which stands at the bytes 10 and 11 of its header."""
    (path,) = (path for path in (index / "vectors").iterdir() if path.read_bytes()[10:12] == bytes([kind, 0]))
    return path
