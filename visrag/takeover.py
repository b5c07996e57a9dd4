"""Pages of a PDF that may be hostile, taken over into a new PDF that holds nothing which could act or call out.

What the annotations of a page draw becomes part of it; those that viewers draw themselves stay, without what they would
do. Scripts, actions, forms, embedded and outside files, and the targets of links are left behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .records import Box

# What stays of a page, and of an annotation that viewers draw themselves.
PAGE_KEYS = {
    "/Type", "/Parent", "/MediaBox", "/CropBox", "/Rotate", "/UserUnit", "/Resources", "/Contents", "/Group", "/Annots",
}  # fmt: skip
DRAWN = {
    "/Highlight", "/Underline", "/StrikeOut", "/Squiggly", "/Square", "/Circle", "/Line", "/Ink", "/Polygon",
    "/PolyLine", "/FreeText", "/Text", "/Link",
}  # fmt: skip
ANNOTATION_KEYS = {
    "/Type", "/Subtype", "/Rect", "/QuadPoints", "/C", "/CA", "/IC", "/Border", "/BS", "/BE", "/F", "/InkList",
    "/Vertices", "/L", "/LE", "/LL", "/RD", "/DA", "/Q", "/Contents", "/Name",
}  # fmt: skip
# What goes wherever it lies: actions, by their /S, and what a stream says of files outside.
ACTIONS = {
    "/JavaScript", "/URI", "/Launch", "/GoTo", "/GoToR", "/GoToE", "/GoToDp", "/Thread", "/Sound", "/Movie", "/Hide",
    "/Named", "/SubmitForm", "/ResetForm", "/ImportData", "/SetOCGState", "/Rendition", "/Trans", "/GoTo3DView",
    "/RichMediaExecute",
}  # fmt: skip
STREAM_KEYS = {"/F", "/FFilter", "/FDecodeParms", "/Ref", "/OPI", "/Metadata", "/PieceInfo", "/Alternates", "/AF"}


def take_over(request: dict[str, Any]) -> None:
    """Write the pages of a PDF, as they look and with nothing else of it, to a new one.

    Raises ValueError where they are not to be taken over, and whatever pikepdf raises.
    """
    import pikepdf

    with open(request["path"], "rb") as file:
        if b"%PDF-" not in file.read(1024):
            raise ValueError("no PDF")
    with pikepdf.open(request["path"]) as source, pikepdf.new() as target:
        if not source.allow.extract:
            raise ValueError("its owner does not allow what is in it to be taken out")
        layers, hidden = layers_of(source)
        _flatten(source, {number for number, *_ in request["pages"]}, hidden)
        for number, width, height in request["pages"]:
            target.pages.append(source.pages[number - 1])
            page = target.pages[-1]
            _bare(page, target)
            box, turned = shown_box(page)
            shown = box[2] - box[0], box[3] - box[1]
            if turned % 180:
                shown = shown[1], shown[0]
            if not math.isclose(shown[0] * height, shown[1] * width, rel_tol=0.01):
                raise ValueError("not the page that was indexed")
        show_layers(target, layers, hidden)
        target.remove_unreferenced_resources()
        _disarm(target)
        target.save(request["to"], stream_decode_level=pikepdf.StreamDecodeLevel.none)
        if source.get_warnings() or target.get_warnings():
            raise ValueError("damaged: what was made of it may not be what was indexed")


def layers_of(pdf: Any) -> tuple[list[Any], list[Any]]:
    """The layers of a PDF (its optional content groups), and those of them that are hidden when it is opened."""
    properties = pdf.Root.get("/OCProperties", {})
    layers = [layer for layer in properties.get("/OCGs", []) if layer.is_indirect]
    state = properties.get("/D", {})
    shown, hidden = ({layer.objgen for layer in state.get(key, [])} for key in ("/ON", "/OFF"))
    if state.get("/BaseState") == "/OFF":
        hidden |= {layer.objgen for layer in layers} - shown
    return layers, [layer for layer in layers if layer.objgen in hidden]


def show_layers(pdf: Any, layers: Sequence[Any], hidden: Sequence[Any]) -> None:
    """Add the layers of another PDF, and which of them are hidden, to one that has pages of it."""
    import pikepdf

    if layers:
        if "/OCProperties" not in pdf.Root:
            pdf.Root.OCProperties = pikepdf.Dictionary(OCGs=[], D=pikepdf.Dictionary(OFF=[]))
        pdf.Root.OCProperties.OCGs.extend(map(pdf.copy_foreign, layers))
        pdf.Root.OCProperties.D.OFF.extend(map(pdf.copy_foreign, hidden))


def _flatten(pdf: Any, numbers: set[int], hidden: Sequence[Any]) -> None:
    """Make what the annotations of the pages draw on the screen part of the pages; leave those that have no drawing."""
    import pikepdf

    if pdf.Root.get("/AcroForm", {}).get("/NeedAppearances", False):
        pdf.generate_appearance_streams()
        pdf.Root.AcroForm.NeedAppearances = False
    gone = {layer.objgen for layer in hidden}
    for number, page in enumerate(pdf.pages, start=1):
        if "/Annots" not in page:
            continue
        kept = [
            annotation
            for annotation in (page.Annots if number in numbers else [])
            if isinstance(annotation, pikepdf.Dictionary) and annotation.get("/Subtype") != "/Popup"
            if "/OC" not in annotation or annotation.OC.objgen not in gone
        ]
        page.Annots = pikepdf.Array(kept)
    pdf.flatten_annotations("screen")


def _bare(page: Any, pdf: Any) -> None:
    """Take from a page whatever is not needed to draw it; write its boxes and rotation in their plain form."""
    import pikepdf

    box, turned = shown_box(page)
    for key in set(page.keys()) - PAGE_KEYS:
        del page[key]
    page.MediaBox = page.CropBox = pikepdf.Array([round(value, 6) for value in box])
    page.Rotate = turned
    kept = []
    for annotation in page.get("/Annots", []):
        subtype = str(annotation.get("/Subtype"))
        if subtype == "/Widget" and "/AP" not in annotation and ("/MK" in annotation or "/V" in annotation):
            raise ValueError("a field whose drawing is left to viewers")
        if subtype in DRAWN:
            values = {key: value for key, value in annotation.items() if key in ANNOTATION_KEYS}
            kept.append(pdf.make_indirect(pikepdf.Dictionary(values)))
    page.Annots = pikepdf.Array(kept)


def shown_box(page: Any) -> tuple[Box, int]:
    """What of a page is displayed: left, bottom, right, top in user space; and by how much it is turned, clockwise.

    As pdfium has it: an empty box is as none, and rotation goes by quarters. Raises ValueError where nothing is shown.
    """
    left, bottom, right, top = _rectangle(page.get("/MediaBox")) or (0.0, 0.0, 612.0, 792.0)
    if (crop := _rectangle(page.get("/CropBox"))) is not None:
        left, bottom, right, top = max(left, crop[0]), max(bottom, crop[1]), min(right, crop[2]), min(top, crop[3])
    if left >= right or bottom >= top:
        raise ValueError("nothing of the page is shown")
    return (left, bottom, right, top), int(int(page.get("/Rotate", 0)) / 90) % 4 * 90


def _rectangle(values: Any) -> Box | None:
    """The box of two opposite corners, None for none or an empty one."""
    if values is None or len(values) != 4:
        return None
    x0, y0, x1, y1 = map(float, values)
    return None if x0 == x1 or y0 == y1 else (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def _disarm(pdf: Any) -> None:
    """Empty every action and every reference to a file, wherever it lies."""
    import pikepdf

    stack = list(pdf.objects)
    while stack:
        one = stack.pop()
        if isinstance(one, pikepdf.Stream):
            for key in STREAM_KEYS:
                if key in one:
                    del one[key]
        elif isinstance(one, pikepdf.Dictionary) and (
            str(one.get("/S")) in ACTIONS or str(one.get("/Type")) in ("/Action", "/Filespec")
        ):
            for key in list(one.keys()):
                del one[key]
        elif not isinstance(one, (pikepdf.Dictionary, pikepdf.Array)):
            continue
        held = one if isinstance(one, pikepdf.Array) else [value for _, value in one.items()]
        stack += [each for each in held if isinstance(each, pikepdf.Object) and not each.is_indirect]
