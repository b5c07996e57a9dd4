"""Encoders: pages and questions → vectors. One protocol, whatever the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..records import Leg, Page, PatchVectors, QueryVectors


class Encoder(Protocol):
    """A model that encodes pages and questions, in one or more legs.

    All vectors are float32. Where the model's measure is the cosine they have length 1.
    """

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The legs that this encoder fills, in a fixed order."""
        ...

    @property
    def needs_image(self) -> bool:
        """Whether ``encode_pages`` looks at ``page.image`` (else at ``page.text`` and ``page.words``)."""
        ...

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        """One mapping a page, from leg name to vectors; empty for a page with nothing to encode.

        Raises EncoderError if the model gives NaN or infinity.
        """
        ...

    def encode_query(self, question: str) -> Mapping[str, QueryVectors]:
        """From leg name to the question's vectors."""
        ...
