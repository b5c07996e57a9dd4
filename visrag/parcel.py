"""Rendered pages as bytes: what the step "render" hands to the encoders. A zip of pages.json and lossless pictures."""

from __future__ import annotations

import functools
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .records import Page, Word

if TYPE_CHECKING:
    from PIL.Image import Image

_FIELDS = ("number", "width", "height", "text", "text_source", "drawn")


class ParcelDamaged(Exception):
    """Raised when bytes are not a whole parcel. Its pages are then rendered again."""


def pack_parcel(pages: Sequence[Page], pictures: bool) -> bytes:
    """Pages as bytes. ``pictures``: with those that they have."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as parcel:
        rows = []
        for page in pages:
            image = page.image() if pictures and page.image is not None else None
            words = [(word.text, word.start, word.boxes) for word in page.words]
            rows.append({**{name: getattr(page, name) for name in _FIELDS}, "words": words, "picture": bool(image)})
            if image is not None:
                png = io.BytesIO()
                image.save(png, "PNG", compress_level=1)
                parcel.writestr(f"{page.number}.png", png.getvalue(), zipfile.ZIP_STORED)
        parcel.writestr("pages.json", json.dumps(rows))
    return data.getvalue()


def unpack_parcel(data: bytes) -> list[Page]:
    """The inverse of ``pack_parcel``. Raises ParcelDamaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parcel:
            pages = []
            for row in json.loads(parcel.read("pages.json")):
                words = tuple(Word(text, at, tuple(map(tuple, boxes))) for text, at, boxes in row.pop("words"))
                png = parcel.read(f"{row['number']}.png") if row.pop("picture") else None
                image = None if png is None else functools.partial(_picture, png)
                pages.append(Page(**row, words=words, image=image))
            return pages
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, EOFError) as error:
        raise ParcelDamaged(f"a parcel of rendered pages is damaged ({error})") from error


def _picture(png: bytes) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(png)).convert("RGB")
