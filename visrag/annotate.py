"""Pages and their evidence as one PDF: the pages taken over from their files, the evidence as highlight annotations.

The files may be hostile: each is opened in a process of its own, which writes a PDF that holds the wanted pages and
nothing that could act or call out (no scripts, actions, forms, embedded or outside files, links). What the annotations
of a file draw becomes part of its pages; those that viewers draw themselves stay, without what they would do. A file
that cannot be taken over so, is damaged, needs a password or forbids it, gives the pictures of its pages.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn

from .boxes import same_line, union
from .errors import DocumentError, MissingExtra, Reason, UsageError, VisragError
from .records import Box, Page, Region
from .takeover import layers_of, show_layers, shown_box, take_over

if TYPE_CHECKING:
    from PIL.Image import Image

YELLOW = (1.0, 0.8, 0.0)
OPACITY = 0.5
GAP = 2.0  # line heights: words of a line that are farther apart are marked on their own
ACROSS = 2  # files taken over at the same time
MEMORY = 1 << 30  # bytes of address space for the process that takes one over
WRITTEN = 1 << 30  # bytes that it may write
LONGEST = 14400.0  # points: the longest side that viewers accept


@dataclass(frozen=True, slots=True)
class Mark:
    """A highlight: its ``boxes``, in fractions of the page as displayed, one a run of words; what it says if opened."""

    boxes: tuple[Box, ...]
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class MarkedPage:
    """A page of a document, and the marks on it, best first.

    ``path``: the PDF that it is taken from. ``image``: its picture, or what makes it when called; used where ``path``
    is None or the page cannot be taken over. ``width`` and ``height`` in points, as displayed.
    """

    document: str
    page: int
    path: Path | None
    image: Image | Callable[[], Image] | None
    width: float
    height: float
    marks: Sequence[Mark]


def marks_of(page: Page, regions: Sequence[Region]) -> list[Mark]:
    """A mark for each region: around the words with their centre in it, line by line; its box where it has none."""
    placed = [(box, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for word in page.words for box in word.boxes]
    marks = []
    for region in regions:
        x0, y0, x1, y1 = region.box
        lines: list[Box] = []
        for box, x, y in placed:
            if not (x0 <= x <= x1 and y0 <= y <= y1):
                continue
            lines.append(union(lines.pop(), box) if lines and _joined(lines[-1], box, page) else box)
        marks.append(Mark(tuple(lines) or (region.box,), region.text, region.score))
    return marks


def _joined(one: Box, other: Box, page: Page) -> bool:
    """Whether two boxes lie on one line without a gap in it (cells of a table, labels) wider than twice its height."""
    gap = max(one[0], other[0]) - min(one[2], other[2])
    height = max(one[3], other[3]) - min(one[1], other[1])
    return same_line(one, other) and gap * page.width <= GAP * height * page.height


def annotated_pdf(title: str, pages: Sequence[MarkedPage], timeout: float = 60) -> bytes:
    """A PDF of pages with their marks, and a bookmark for each.

    ``timeout``: seconds for the whole, without the making of pictures; a file gets a quarter of them at most.
    A page that has neither file nor picture says so. Raises UsageError without pages, MissingExtra, DocumentError where
    no PDF comes of it.
    """
    if not pages:
        raise UsageError("there is nothing to export: name at least one page")
    if importlib.util.find_spec("pikepdf") is None:
        raise MissingExtra("Exporting a PDF", "server")
    with TemporaryDirectory(prefix="visrag-export-") as name:
        folder = Path(name)
        sources = _take_over(pages, folder, timeout)
        for known in (sources, {}):  # without what was taken over, should that be what it fails on
            request = {"title": _sound(title), "pages": _described(pages, known, folder), "to": str(folder / "all.pdf")}
            if _in_a_process("join", request, timeout / 4):
                return (folder / "all.pdf").read_bytes()
    why = "the pages could not be put together within the limits of time and memory: export fewer at a time"
    raise DocumentError("the export", None, Reason.TOO_LARGE, why)


def _take_over(pages: Sequence[MarkedPage], folder: Path, timeout: float) -> dict[Path, tuple[str, list[int]]]:
    """The files that could be taken over: the PDF made of each, and the numbers of the pages in it."""
    deadline = time.monotonic() + timeout * 3 / 4
    wanted: dict[Path, dict[int, tuple[float, float]]] = {}
    for page in pages:
        if page.path is not None:
            wanted.setdefault(page.path, {})[page.page] = page.width, page.height

    def take(index: int, path: Path) -> bool:
        sizes = [(number, *size) for number, size in wanted[path].items()]
        request = {"path": str(path), "pages": sizes, "to": str(folder / f"{index}.pdf")}
        return _in_a_process("take", request, min(timeout / 4, deadline - time.monotonic()))

    with ThreadPoolExecutor(ACROSS) as pool:
        done = list(pool.map(take, range(len(wanted)), wanted))
    return {
        path: (str(folder / f"{index}.pdf"), list(wanted[path]))
        for index, (path, taken) in enumerate(zip(wanted, done, strict=True))
        if taken
    }


def _described(
    pages: Sequence[MarkedPage], sources: dict[Path, tuple[str, list[int]]], folder: Path
) -> list[dict[str, Any]]:
    """Each page as JSON takes it; the pictures that are needed are written to the folder."""
    described = []
    for index, page in enumerate(pages):
        values: dict[str, Any] = {"label": _sound(f"{page.document}, page {page.page}")}
        values["size"] = page.width, page.height
        values["marks"] = [{**asdict(mark), "text": _sound(mark.text)} for mark in page.marks]
        if page.path in sources:
            file, numbers = sources[page.path]
            values["taken"] = file, numbers.index(page.page)
        elif (picture := _picture(page)) is not None:
            file = str(folder / f"{index}.jpg")
            picture.convert("RGB").save(file, "JPEG", quality=88)
            values["picture"] = file, *picture.size
        described.append(values)
    return described


def _picture(page: MarkedPage) -> Image | None:
    try:
        return page.image() if callable(page.image) else page.image
    except VisragError:  # the page says that it is missing
        return None


def _sound(text: str) -> str:
    """A text without halves of characters, which no file takes."""
    return text.encode("utf-8", "replace").decode()


_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from visrag.annotate import serve; serve(sys.argv[2])"
)


def _in_a_process(do: str, request: dict[str, Any], timeout: float) -> bool:
    """Whether "take" or "join" came to its end in a process of its own."""
    if timeout <= 0:
        return False
    command = [sys.executable, "-c", _START, json.dumps(sys.path), do]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            process.communicate(json.dumps({**request, "timeout": timeout}).encode(), timeout)
        except subprocess.TimeoutExpired:
            return False
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
        return process.returncode == 0


# What runs in the process.


def serve(do: str) -> NoReturn:
    """Do what the request on standard input asks; the exit status says whether it was done."""
    request = json.load(sys.stdin)
    signal.alarm(math.ceil(request["timeout"]) + 1)  # should nobody be left to end this process
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, WRITTEN)]
    for kind, limit in [*limits, (resource.RLIMIT_AS, MEMORY)]:
        with contextlib.suppress(OSError, ValueError):  # not every system has each of them
            resource.setrlimit(kind, (limit, limit))
    try:
        take_over(request) if do == "take" else join(request)
    except Exception:  # whatever a hostile file brings up: it is not taken over
        os._exit(1)
    os._exit(0)


def join(request: dict[str, Any]) -> None:
    """Write one PDF of what was taken over and of pictures, with the marks as annotations."""
    import pikepdf

    pdf = pikepdf.new()
    opened: dict[str, Any] = {}
    for described in request["pages"]:
        if "taken" not in described:
            _picture_page(pdf, described)
            continue
        path, index = described["taken"]
        if path not in opened:
            opened[path] = pikepdf.open(path)
            show_layers(pdf, *layers_of(opened[path]))
        pdf.pages.append(opened[path].pages[index])
    for page, described in zip(pdf.pages, request["pages"], strict=True):
        _annotate(pdf, page, described)
    with pdf.open_outline() as outline:
        outline.root.extend(pikepdf.OutlineItem(page["label"], i) for i, page in enumerate(request["pages"]))
    pdf.docinfo["/Title"] = request["title"]
    pdf.docinfo["/Creator"] = "visrag"
    pdf.Root.ViewerPreferences = pikepdf.Dictionary(DisplayDocTitle=True)
    pdf.Root.PageMode = pikepdf.Name.UseOutlines
    pdf.save(request["to"], stream_decode_level=pikepdf.StreamDecodeLevel.none, deterministic_id=True)


def _picture_page(pdf: Any, described: dict[str, Any]) -> None:
    """Add a page with its picture, or with a line that says that there is none."""
    from pikepdf import Dictionary, Name

    width, height = described["size"]
    scale = min(1.0, LONGEST / max(width, height))
    width, height = width * scale, height * scale
    if "picture" in described:
        path, columns, rows = described["picture"]
        picture = pdf.make_stream(Path(path).read_bytes(), Type=Name.XObject, Subtype=Name.Image, Width=columns)
        picture.Height, picture.BitsPerComponent = rows, 8
        picture.ColorSpace, picture.Filter = Name.DeviceRGB, Name.DCTDecode
        resources, content = Dictionary(XObject=Dictionary(Picture=picture)), f"{width} 0 0 {height} 0 0 cm /Picture Do"
    else:
        font = Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica, Encoding=Name.WinAnsiEncoding)
        says = f"{described['label']} could not be read for this export.".encode("latin-1", "replace").hex()
        resources = Dictionary(Font=Dictionary(F=font))
        content = f"BT /F 10 Tf 36 {height - 48} Td <{says}> Tj ET"
    page = pdf.add_blank_page()
    page.MediaBox, page.Resources, page.Contents = [0, 0, width, height], resources, pdf.make_stream(content.encode())


def _annotate(pdf: Any, page: Any, described: dict[str, Any]) -> None:
    """Add a highlight annotation for each mark."""
    from pikepdf import Array, Dictionary, Name, String

    box, turned = shown_box(page)
    red, green, blue = YELLOW
    state = Dictionary(Type=Name.ExtGState, BM=Name.Multiply, ca=OPACITY, AIS=False)
    annotations = list(page.get("/Annots", []))
    for rank, mark in enumerate(described["marks"], start=1):
        quads = [[round(value, 3) for value in quad(each, box, turned)] for each in mark["boxes"]]
        points = [value for each in quads for value in each]
        around = [min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])]
        paths = (f"{a} {b} m {c} {d} l {g} {h} l {e} {f} l h" for a, b, c, d, e, f, g, h in quads)
        drawing = pdf.make_stream(f"/G gs {red} {green} {blue} rg {' '.join(paths)} f".encode())
        drawing.Type, drawing.Subtype, drawing.BBox = Name.XObject, Name.Form, around
        drawing.Resources = Dictionary(ExtGState=Dictionary(G=state))
        highlight = Dictionary(Type=Name.Annot, Subtype=Name.Highlight, Rect=around, QuadPoints=points)
        highlight.C, highlight.CA, highlight.F, highlight.T = list(YELLOW), OPACITY, 4, String("visrag")
        says = f"evidence {rank} of {len(described['marks'])}, score {mark['score']:.3f}"
        highlight.Contents = String(f"{mark['text']}\n{says}" if mark["text"] else says)
        highlight.NM, highlight.P = String(f"visrag-{page.index + 1}-{rank}"), page.obj
        highlight.AP = Dictionary(N=drawing)
        annotations.append(pdf.make_indirect(highlight))
    page.Annots = Array(annotations)


def quad(box: Box, shown: Box, turned: int) -> tuple[float, ...]:
    """The corners of a box of the page as displayed, in user space: top left, top right, bottom left, bottom right.

    ``shown``: left, bottom, right, top of what is displayed. ``turned``: 0, 90, 180 or 270, clockwise.
    """
    left, bottom, right, top = shown
    width, height = right - left, top - bottom
    x0, y0, x1, y1 = box
    corners = ((x0, y0), (x1, y0), (x0, y1), (x1, y1))
    if turned == 90:
        points = [(left + y * width, bottom + x * height) for x, y in corners]
    elif turned == 180:
        points = [(right - x * width, bottom + y * height) for x, y in corners]
    elif turned == 270:
        points = [(right - y * width, top - x * height) for x, y in corners]
    else:
        points = [(left + x * width, top - y * height) for x, y in corners]
    return tuple(value for point in points for value in point)
