"""Text without pages → virtual pages: .txt, .md and .html laid out on A4, with words, boxes and a picture.

Where a word stands does not depend on the fonts of the machine: widths are those of Pillow's embedded font, and
1 em for wide characters. Only the picture takes other fonts, for characters that the embedded one lacks.
"""

from __future__ import annotations

import codecs
import re
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import DocumentError, Reason
from .records import Box, Page
from .words import WORD, compose

if TYPE_CHECKING:
    from bs4.element import PageElement, Tag
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

FINER = 3  # text is drawn this many times as large, then reduced: at small sizes hinting moves letters
PAGE_WIDTH, PAGE_HEIGHT, MARGIN = 595.0, 842.0, 56.0  # points: A4, upright
BODY_SIZE = 11.0  # points
LEADING = 1.35  # line height in sizes
HEADING_SIZES = {"h1": 20.0, "h2": 16.0, "h3": 13.0, "title": 20.0}
MAX_BYTES = 64 << 20

_SPACES = re.compile(r"\s+")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
_HIDDEN = frozenset({"script", "style", "noscript", "template", "head"})
# fmt: off
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "li", "main", "nav", "ol",
    "p", "pre", "section", "summary", "table", "tbody", "thead", "title", "tr", "ul", "[document]",
})
# fmt: on


class Block(NamedTuple):
    """A paragraph, heading or line of a text; ``size`` in points. A form feed alone starts a new page."""

    text: str
    size: float


@dataclass(frozen=True, slots=True)
class Line:
    """A laid-out line: its text, size, and the top left corner (points)."""

    text: str
    size: float
    x: float
    y: float


class LaidOutDocument:
    """A text-only document on virtual pages. Only the text and the places of page breaks are kept.

    Raises DocumentError where the file is too large or cannot be decoded.
    """

    renderer = "layout"
    locked = False

    def __init__(self, path: Path, document: str, media_type: str) -> None:
        self._blocks = _blocks(_decode(path, document), media_type)
        self._starts = [(0, 0)]
        for lines in self._paginate():
            if lines is not None:
                self._starts.append(lines)
        self.pages = len(self._starts)

    def content(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Page ``number`` (from 1), and no boxes of images."""
        text, words = compose((line.text, _boxes(line)) for line in self._lines(number))
        return Page(number, PAGE_WIDTH, PAGE_HEIGHT, text, words, "layout" if words else "none"), ()

    def picture(self, number: int, side: int) -> Image:
        """The page drawn black on white (RGB), ``side`` pixels high."""
        from PIL import Image, ImageDraw

        scale = FINER * side / PAGE_HEIGHT
        picture = Image.new("L", (FINER * max(1, round(PAGE_WIDTH * side / PAGE_HEIGHT)), FINER * side), "white")
        draw = ImageDraw.Draw(picture)
        for line in self._lines(number):
            for match in WORD.finditer(line.text):
                x = line.x + width(line.text[: match.start()]) * line.size
                font = _font_for(match.group(), max(1, round(line.size * scale)))
                draw.text((x * scale, (line.y + 0.95 * line.size) * scale), match.group(), "black", font, anchor="ls")
        return picture.reduce(FINER).convert("RGB")

    def close(self) -> None:
        """Nothing is held open."""

    def _paginate(self) -> Iterator[tuple[int, int] | None]:
        """For each line None, or, where it is the first of a page after the first, its (block, offset)."""
        for _, start, new_page in self._flow((0, 0)):
            yield start if new_page else None

    def _lines(self, number: int) -> Iterator[Line]:
        for line, _, new_page in self._flow(self._starts[number - 1]):
            if new_page:
                return
            yield line

    def _flow(self, start: tuple[int, int]) -> Iterator[tuple[Line, tuple[int, int], bool]]:
        """(line, its (block, offset), whether it begins a page after the first) from a page's start on."""
        y, first, broken = MARGIN, True, False
        block, offset = start
        for index in range(block, len(self._blocks)):
            text, size = self._blocks[index]
            broken = broken or (text == "\f" and not first)
            for begin, end in _wrap(text, offset if index == block else 0, size):
                new_page = not first and (broken or y + size * LEADING > PAGE_HEIGHT - MARGIN)
                y = MARGIN if new_page else y
                if text[begin:end].strip("\f"):
                    yield Line(text[begin:end], size, MARGIN, y), (index, begin), new_page
                    first, broken = False, False
                y += size * LEADING


def _wrap(text: str, start: int, size: float) -> Iterator[tuple[int, int]]:
    """The lines of a block from offset ``start``: (begin, end) offsets. A word wider than the page is cut."""
    room = (PAGE_WIDTH - 2 * MARGIN) / size
    begin = end = start
    used = 0.0
    for match in WORD.finditer(text, start):
        gap, wide = width(text[end : match.start()]), width(match.group())
        if used and used + gap + wide > room:
            yield begin, end
            begin, used, gap = match.start(), 0.0, 0.0
        used += gap + wide
        end = match.end()
        while used > room and end - begin > 1:
            cut = begin + max(1, _fitting(text[begin : min(end, begin + 500)], room))
            yield begin, cut
            used -= width(text[begin:cut])
            begin = cut
    yield begin, end


def _fitting(text: str, room: float) -> int:
    """How many characters of ``text`` fit into ``room`` (em)."""
    used = 0.0
    for index, character in enumerate(text):
        used += _advance(character)
        if used > room:
            return index
    return len(text)


def _boxes(line: Line) -> Iterator[Box]:
    """The boxes of the words of a line, in fractions of the page."""
    top, bottom = line.y / PAGE_HEIGHT, (line.y + line.size * 1.2) / PAGE_HEIGHT
    x, end = line.x, 0
    for match in WORD.finditer(line.text):
        left = x + width(line.text[end : match.start()]) * line.size
        x, end = left + width(match.group()) * line.size, match.end()
        yield left / PAGE_WIDTH, top, x / PAGE_WIDTH, bottom


def width(text: str) -> float:
    """The width of a text in em, without kerning."""
    return _short_width(text) if len(text) < 40 else sum(map(_advance, text))


@lru_cache(65536)
def _short_width(text: str) -> float:
    return sum(map(_advance, text))


@lru_cache(65536)
def _advance(character: str) -> float:
    """The width of one character in em."""
    if character == " ":
        return 0.28  # a little wider than the font's
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Cf", "Cc"):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    return float(_embedded(1000).getlength(character)) / 1000


@lru_cache(64)
def _embedded(size: int) -> FreeTypeFont:
    """Pillow's embedded font at a size in pixels."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _font_for(text: str, size: int) -> FreeTypeFont:
    """A font for the picture that has the characters of ``text`` if the machine has one."""
    from PIL import ImageFont

    lacking = next((character for character in text if not _in_embedded(character)), None)
    path = None if lacking is None else _system_font(ord(lacking) >> 8)
    return _embedded(size) if path is None else _loaded(path, size, ImageFont.truetype)


@lru_cache(64)
def _loaded(path: str, size: int, load: Callable[[str, int], FreeTypeFont]) -> FreeTypeFont:
    return load(path, size)


@lru_cache(65536)
def _in_embedded(character: str) -> bool:
    font = _embedded(32)
    return bytes(font.getmask(character)) != bytes(font.getmask("\U0010fffd"))


@cache
def _system_font(block: int) -> str | None:
    """The file of a font of this machine for the 256 characters from ``block << 8``, by fontconfig."""
    wanted = f":charset={(block << 8) + 0x80:x}"
    try:
        command = ["fc-match", "-f", "%{file}", wanted]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 and Path(done.stdout).suffix in (".ttf", ".otf", ".ttc") else None


def _decode(path: Path, document: str) -> str:
    """The text of a file: by its BOM, as UTF-8, by charset-normalizer where it is installed, as Latin-1."""
    data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    if data is None:
        limit = f"is larger than {MAX_BYTES >> 20} MiB, the limit for text: split it into several files"
        raise DocumentError(document, None, Reason.TOO_LARGE, limit)
    for bom, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(bom):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _guess(data)


def _guess(data: bytes) -> str:
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return data.decode("latin-1")
    best = from_bytes(data[: 1 << 20]).best()
    return data.decode("latin-1" if best is None else best.encoding, "replace")


def _blocks(text: str, media_type: str) -> list[Block]:
    """The blocks of a text in order."""
    if media_type == "text/markdown":
        from markdown_it import MarkdownIt

        return _html_blocks(MarkdownIt("commonmark").enable("table").render(text))
    if media_type == "text/html":
        return _html_blocks(text)
    return list(_plain_blocks(text))


def _plain_blocks(text: str) -> Iterator[Block]:
    for line in text.replace("\f", "\n\f\n").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        yield Block(line if line == "\f" else _CONTROL.sub("", line).expandtabs(4).rstrip(), BODY_SIZE)


def _html_blocks(text: str) -> list[Block]:
    """The text of each block element; a table's row is a block, its cells three spaces apart."""
    from bs4 import BeautifulSoup
    from bs4.element import NavigableString, Tag

    blocks: list[Block] = []
    pieces: list[str] = []
    owner: Tag | None = None
    for node in BeautifulSoup(text, "html.parser").descendants:
        if isinstance(node, Tag):
            pieces.append({"br": "\n", "td": "\v", "th": "\v"}.get(node.name, ""))
        elif type(node) is NavigableString and (parent := _owner(node)) is not None:
            if parent is not owner:
                blocks.extend(_html_block("".join(pieces), owner))
                owner, pieces = parent, []
            pieces.append(node if parent.name == "pre" else _SPACES.sub(" ", node))
    return blocks + list(_html_block("".join(pieces), owner))


def _owner(node: PageElement) -> Tag | None:
    """The block that a string belongs to (a row, for whatever is in a table); None for what is not shown."""
    block: Tag | None = None
    for parent in node.parents:
        if parent.name in _HIDDEN:
            return block if block is not None and block.name == "title" else None
        if parent.name == "tr":
            return parent
        if block is None and parent.name in _BLOCKS:
            block = parent
    return block


def _html_block(text: str, owner: Tag | None) -> Iterator[Block]:
    """The lines of one block, and an empty one after it (none after rows and items)."""
    name = "" if owner is None else owner.name
    text = text.strip("\v\n" if name == "pre" else "\v\n ")
    if not text:
        return
    size = HEADING_SIZES.get(name, BODY_SIZE)
    for index, line in enumerate(text.split("\n")):
        shown = _CONTROL.sub("", re.sub(" *\v[ \v]*", "   ", line).expandtabs(4))
        mark = "• " if name == "li" and index == 0 else ""
        yield Block(mark + (shown if name == "pre" else shown.strip()), size)
    if name not in ("tr", "li"):
        yield Block("", BODY_SIZE * 0.6)
