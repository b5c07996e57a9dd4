"""Pictures as documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .boxes import WHOLE_PAGE
from .errors import DocumentError, Reason
from .records import Box, Page

if TYPE_CHECKING:
    from PIL.Image import Image

DPI = 150  # of an image that does not say


class ImageDocument:
    """A PNG, JPEG, TIFF or WebP file: one page, of a TIFF as many as it has frames.

    Raises DocumentError: corrupt, or too_large for more than ``max_pixels`` pixels.
    """

    renderer = "pillow"
    locked = False

    def __init__(self, path: Path, document: str, max_pixels: int) -> None:
        import PIL.Image

        PIL.Image.MAX_IMAGE_PIXELS = None  # the limit here is max_pixels, for each frame
        self._name, self._max_pixels = document, max_pixels
        try:
            self._image = PIL.Image.open(path, formats=("PNG", "JPEG", "TIFF", "WEBP"))
            self.pages = getattr(self._image, "n_frames", 1) if self._image.format == "TIFF" else 1
        except (OSError, ValueError, SyntaxError) as error:
            raise DocumentError(document, None, Reason.CORRUPT, f"is no image that can be read: {error}") from error

    def content(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Page ``number`` (from 1), all of it drawn, and the box of the whole page."""
        width, height = self._frame(number).size
        if self._image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # turned by 90°
            width, height = height, width
        dpi = self._image.info.get("dpi", (0, 0))[0]
        points = 72 / (float(dpi) if 50 <= dpi <= 2400 else DPI)
        return Page(number, width * points, height * points, drawn=1.0), (WHOLE_PAGE,)

    def picture(self, number: int, side: int) -> Image:
        """The image upright, RGB, transparent parts white, its longer side ``side`` pixels. Raises DocumentError."""
        from PIL import Image, ImageOps

        frame = self._frame(number)
        try:
            upright = ImageOps.exif_transpose(frame)
        except (OSError, ValueError, SyntaxError) as error:
            raise DocumentError(self._name, number, Reason.CORRUPT, f"the image is damaged: {error}") from error
        if upright.mode.startswith(("I", "F")):
            shades = np.asarray(upright, np.float64)
            span = max(1e-9, float(shades.max() - shades.min()))
            upright = Image.fromarray(((shades - shades.min()) / span * 255).astype(np.uint8))
        if upright.has_transparency_data:
            ground = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(ground, upright.convert("RGBA"))
        scale = side / max(upright.size)
        size = max(1, round(upright.width * scale)), max(1, round(upright.height * scale))
        return upright.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)

    def close(self) -> None:
        """Close the file."""
        self._image.close()

    def _frame(self, number: int) -> Any:
        """The image at one of its frames, which is within the limit of pixels."""
        try:
            self._image.seek(number - 1)
        except (OSError, ValueError, EOFError) as error:
            raise DocumentError(self._name, number, Reason.CORRUPT, f"the frame cannot be read: {error}") from error
        width, height = self._image.size
        if width * height > self._max_pixels:
            why = f"has {width} × {height} pixels, more than {self._max_pixels}: save it smaller"
            raise DocumentError(self._name, number, Reason.TOO_LARGE, why)
        return self._image
