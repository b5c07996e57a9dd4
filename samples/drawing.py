"""What the samples are drawn with: fonts, running text, tables and charts on a reportlab canvas.

Lengths are in points, the origin is the bottom left of the page as displayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from reportlab.lib import colors
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, Table

INK = colors.HexColor("#1f2a33")
GREY = colors.HexColor("#6b7782")
PALE = colors.HexColor("#e9eff1")
TEAL = colors.HexColor("#0b6472")
AMBER = colors.HexColor("#d98324")

# All under the SIL Open Font License 1.1, from Debian's packages of the same names.
FONTS = {
    "Lato": "/usr/share/fonts/truetype/lato/Lato-Regular.ttf",
    "Lato-Bold": "/usr/share/fonts/truetype/lato/Lato-Bold.ttf",
    "Lato-Italic": "/usr/share/fonts/truetype/lato/Lato-Italic.ttf",
    "BIZUD": "/usr/share/fonts/truetype/bizud-gothic/BIZUDPGothic-Regular.ttf",
    "BIZUD-Bold": "/usr/share/fonts/truetype/bizud-gothic/BIZUDPGothic-Bold.ttf",
}
TYPEWRITER = "/usr/share/fonts/opentype/courier-prime/Courier Prime.otf"
DEBIAN_PACKAGES = ("fonts-lato", "fonts-morisawa-bizud-gothic", "fonts-courier-prime")

BODY = ParagraphStyle("body", fontName="Lato", fontSize=11.5, leading=17.5, textColor=INK, spaceAfter=10)
TITLE = ParagraphStyle("title", fontName="Lato-Bold", fontSize=24, leading=30, textColor=TEAL, spaceAfter=12)
HEAD = ParagraphStyle(
    "head", fontName="Lato-Bold", fontSize=14, leading=18, textColor=INK, spaceBefore=10, spaceAfter=8
)
NOTE = ParagraphStyle("note", fontName="Lato-Italic", fontSize=9.5, leading=13, textColor=GREY, spaceAfter=8)


def register_fonts() -> None:
    """Raises FileNotFoundError, naming the packages, where a font is not installed."""
    missing = [path for path in (*FONTS.values(), TYPEWRITER) if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: apt-get install {' '.join(DEBIAN_PACKAGES)}")
    for name, path in FONTS.items():
        pdfmetrics.registerFont(TTFont(name, path))


def new_canvas(path: Path, title: str, size: tuple[float, float]) -> Canvas:
    """A canvas whose file has no date and no random id."""
    canvas = Canvas(str(path), pagesize=size, invariant=1, pageCompression=1)
    canvas.setTitle(title)
    return canvas


def paragraph(text: str, style: ParagraphStyle = BODY) -> Paragraph:
    return Paragraph(text, style)


def flow(canvas: Canvas, items: Sequence[Flowable], x: float, top: float, width: float, bottom: float = 50) -> float:
    """Draw one under the other from ``top`` down; the y under the last. Raises ValueError below ``bottom``."""
    y = top
    for item in items:
        y -= item.getSpaceBefore() if y != top else 0
        height = item.wrap(width, y)[1]
        if y - height < bottom:
            raise ValueError(f"page {canvas.getPageNumber()} is over-full at {item!r:.80}")
        item.drawOn(canvas, x, y - height)
        y -= height + item.getSpaceAfter()
    return y


def table(
    rows: Sequence[Sequence[str]],
    widths: Sequence[float],
    *,
    bold_rows: Sequence[int] = (),
    left_columns: int = 1,
    font: str = "Lato",
    size: float = 10.5,
) -> Table:
    """A table with a coloured head; the first ``left_columns`` columns flush left, the others right."""
    drawn = Table([list(row) for row in rows], colWidths=list(widths), hAlign="LEFT", spaceAfter=12)
    commands: list[tuple[object, ...]] = [
        ("FONT", (0, 0), (-1, -1), font, size),
        ("FONT", (0, 0), (-1, 0), f"{font}-Bold", size),
        ("TEXTCOLOR", (0, 0), (-1, -1), INK),
        ("TEXTCOLOR", (0, 0), (-1, 0), colors.white),
        ("BACKGROUND", (0, 0), (-1, 0), TEAL),
        ("ROWBACKGROUNDS", (0, 1), (-1, -1), [colors.white, PALE]),
        ("LINEBELOW", (0, -1), (-1, -1), 0.8, TEAL),
        ("ALIGN", (left_columns, 0), (-1, -1), "RIGHT"),
        ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
        ("TOPPADDING", (0, 0), (-1, -1), 4),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
    ]
    for row in bold_rows:
        commands += [("FONT", (0, row), (-1, row), f"{font}-Bold", size), ("LINEABOVE", (0, row), (-1, row), 0.6, TEAL)]
    drawn.setStyle(commands)
    return drawn


def text(canvas: Canvas, x: float, y: float, words: str, size: float, *, font="Lato", color=INK, align="left") -> None:
    canvas.setFont(font, size)
    canvas.setFillColor(color)
    draw = {"left": canvas.drawString, "right": canvas.drawRightString, "middle": canvas.drawCentredString}[align]
    draw(x, y, words)


def axes(canvas: Canvas, x: float, y: float, width: float, height: float, ticks: Sequence[float], unit: str) -> None:
    """Grid lines with their values at the left, the unit above them."""
    span = ticks[-1] - ticks[0]
    for tick in ticks:
        level = y + height * (tick - ticks[0]) / span
        canvas.setStrokeColor(GREY if tick == ticks[0] else PALE)
        canvas.setLineWidth(0.8)
        canvas.line(x, level, x + width, level)
        text(canvas, x - 6, level - 3, f"{tick:g}", 8.5, color=GREY, align="right")
    text(canvas, x - 22, y + height + 10, unit, 8.5, color=GREY)


def bar_chart(
    canvas: Canvas,
    frame: tuple[float, float, float, float],
    bars: Sequence[tuple[str, float]],
    ticks: Sequence[float],
    unit: str,
    *,
    marked: int | None = None,
) -> None:
    """Upright bars in ``frame`` (x, y, width, height), each with its value above and its name below."""
    x, y, width, height = frame
    axes(canvas, x, y, width, height, ticks, unit)
    step = width / len(bars)
    for i, (name, value) in enumerate(bars):
        tall = height * (value - ticks[0]) / (ticks[-1] - ticks[0])
        canvas.setFillColor(AMBER if i == marked else TEAL)
        canvas.rect(x + step * (i + 0.2), y, step * 0.6, tall, stroke=0, fill=1)
        middle = x + step * (i + 0.5)
        text(canvas, middle, y + tall + 4, f"{value:g}", 9.5, font="Lato-Bold", align="middle")
        for line, part in enumerate(name.split("\n")):
            text(canvas, middle, y - 14 - 11 * line, part, 9, align="middle")


def line_chart(
    canvas: Canvas,
    frame: tuple[float, float, float, float],
    names: Sequence[str],
    series: Sequence[tuple[str, Sequence[float], colors.Color]],
    ticks: Sequence[float],
    unit: str,
    labelled: Sequence[tuple[int, int, float]],
) -> None:
    """Lines in ``frame``; ``labelled``: (series, point, distance above it) of the values that are written."""
    x, y, width, height = frame
    axes(canvas, x, y, width, height, ticks, unit)
    step = width / len(names)

    def at(point: int, value: float) -> tuple[float, float]:
        return x + step * (point + 0.5), y + height * (value - ticks[0]) / (ticks[-1] - ticks[0])

    for point, name in enumerate(names):
        text(canvas, at(point, ticks[0])[0], y - 14, name, 9, align="middle")
    for i, (title, values, color) in enumerate(series):
        canvas.setStrokeColor(color)
        canvas.setFillColor(color)
        canvas.setLineWidth(2)
        spots = [at(point, value) for point, value in enumerate(values)]
        for (x0, y0), (x1, y1) in pairwise(spots):
            canvas.line(x0, y0, x1, y1)
        for spot in spots:
            canvas.circle(*spot, 2.6, stroke=0, fill=1)
        canvas.rect(x + width - 110 + 60 * i, y + height + 9, 10, 8, stroke=0, fill=1)
        text(canvas, x + width - 96 + 60 * i, y + height + 9, title, 9)
    for i, point, above in labelled:
        where = at(point, series[i][1][point])
        text(canvas, where[0], where[1] + above, f"{series[i][1][point]:g}", 9.5, font="Lato-Bold", align="middle")


def arrow(canvas: Canvas, x0: float, y0: float, x1: float, color: colors.Color, width: float = 3) -> None:
    """A level arrow from (x0, y0) to x1."""
    head = 10 if x1 > x0 else -10
    canvas.setStrokeColor(color)
    canvas.setFillColor(color)
    canvas.setLineWidth(width)
    canvas.line(x0, y0, x1 - head, y0)
    path = canvas.beginPath()
    path.moveTo(x1, y0)
    path.lineTo(x1 - head, y0 + 6)
    path.lineTo(x1 - head, y0 - 6)
    path.close()
    canvas.drawPath(path, stroke=0, fill=1)
