"""Rendered pages as bytes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from visrag.parcel import ParcelDamaged, pack_parcel, unpack_parcel
from visrag.records import Page, Word


def page(number: int, pixels: np.ndarray | None = None) -> Page:
    words = (Word("naïve", 0, ((0.1, 0.2, 0.3, 0.4),)), Word("co-op", 6, ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0))))
    image = None if pixels is None else lambda: Image.fromarray(pixels)
    return Page(number, 612.5, 792.0, "naïve co-op 文", words, "both", 0.25, image)


def test_pages_come_back_as_they_were_and_pictures_to_the_bit() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    pages = [page(3, pixels), page(5)]
    found = unpack_parcel(pack_parcel(pages, pictures=True))
    assert found == pages
    assert found[0].image is not None
    np.testing.assert_array_equal(np.asarray(found[0].image()), pixels)
    assert found[1].image is None
    assert [found.image for found in unpack_parcel(pack_parcel(pages, pictures=False))] == [None, None]


def test_a_damaged_parcel_is_told() -> None:
    data = pack_parcel([page(1)], pictures=False)
    for broken in (b"", data[:-10], data[: len(data) // 2], b"PK" + b"\0" * 100):
        with pytest.raises(ParcelDamaged, match="damaged"):
            unpack_parcel(broken)
