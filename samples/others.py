"""The small documents: slides, a scanned letter, a rotated page, a guide in Japanese."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from drawing import AMBER, GREY, INK, NOTE, PALE, TEAL, TITLE, TYPEWRITER, arrow, flow, new_canvas, table, text
from drawing import paragraph as p
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

WIDE = (960.0, 540.0)
RIVER = colors.HexColor("#7fb7d6")


def slides(path: Path) -> None:
    canvas = new_canvas(path, "Heat from the river", WIDE)
    for draw in (first_slide, reasons, costs, how_it_works, plan, request):
        draw(canvas)
        if draw is not first_slide:
            text(canvas, 60, 26, "Brightwell Heat · Heat from the river", 12, color=GREY)
            text(canvas, 900, 26, str(canvas.getPageNumber()), 12, color=GREY, align="right")
        canvas.showPage()
    canvas.save()


def slide_title(canvas: Canvas, words: str) -> None:
    text(canvas, 60, 462, words, 34, font="Lato-Bold", color=TEAL)


def first_slide(canvas: Canvas) -> None:
    canvas.setFillColor(TEAL)
    canvas.rect(0, 0, *WIDE, stroke=0, fill=1)
    for i, shade in enumerate(("#0f7384", "#14808f", "#1a8f9c")):
        wave = canvas.beginPath()
        wave.moveTo(0, 150 - 45 * i)
        for k in range(4):
            x, y = 240 * k, 150 - 45 * i
            wave.curveTo(x + 80, y + 45, x + 160, y - 45, x + 240, y)
        wave.lineTo(960, 0)
        wave.lineTo(0, 0)
        wave.close()
        canvas.setFillColor(colors.HexColor(shade))
        canvas.drawPath(wave, stroke=0, fill=1)
    text(canvas, 60, 340, "Heat from the river", 58, font="Lato-Bold", color=colors.white)
    text(canvas, 60, 290, "A heat pump for the old town of Brightwell", 26, color=colors.white)
    text(canvas, 60, 40, "Brightwell Heat · Board meeting, 6 May 2025", 17, color=colors.white)


def reasons(canvas: Canvas) -> None:
    slide_title(canvas, "Why now")
    points = (
        ("1", "The gas boilers are from 1987", "Spare parts have not been made since 2019."),
        ("2", "640 houses have asked to join", "The pipes in the old town are being renewed anyway."),
        ("3", "The river never falls below 4 °C", "Measured at the mill weir, 2004 to 2024."),
    )
    for i, (number, what, why) in enumerate(points):
        y = 370 - 115 * i
        canvas.setFillColor(AMBER)
        canvas.circle(90, y + 5, 28, stroke=0, fill=1)
        text(canvas, 90, y - 5, number, 28, font="Lato-Bold", color=colors.white, align="middle")
        text(canvas, 145, y + 10, what, 26, font="Lato-Bold")
        text(canvas, 145, y - 20, why, 19, color=GREY)


def costs(canvas: Canvas) -> None:
    slide_title(canvas, "What a megawatt-hour of heat costs")
    bars = (("Waste incineration", 54), ("River heat pump", 61), ("Wood pellets", 88), ("Gas boilers (today)", 97))
    for i, (name, cost) in enumerate(bars):
        y = 355 - 78 * i
        canvas.setFillColor(AMBER if name == "River heat pump" else TEAL)
        canvas.rect(270, y, 5.4 * cost, 46, stroke=0, fill=1)
        text(canvas, 255, y + 16, name, 20, align="right")
        text(canvas, 270 + 5.4 * cost + 12, y + 14, f"€{cost}", 24, font="Lato-Bold")
    canvas.setStrokeColor(INK)
    canvas.setLineWidth(1.2)
    canvas.line(270, 105, 270, 415)
    text(canvas, 270, 70, "Over 20 years, with taxes, at 2025 prices. Source: our own reckoning.", 15, color=GREY)


def box(canvas: Canvas, x: float, y: float, words: tuple[str, ...], fill: colors.Color) -> None:
    canvas.setFillColor(fill)
    canvas.roundRect(x, y, 150, 110, 12, stroke=0, fill=1)
    for i, line in enumerate(words):
        text(canvas, x + 75, y + 62 - 26 * i, line, 20, font="Lato-Bold", color=colors.white, align="middle")


def how_it_works(canvas: Canvas) -> None:
    slide_title(canvas, "How it works")
    canvas.setFillColor(RIVER)
    canvas.rect(0, 90, 175, 320, stroke=0, fill=1)
    text(canvas, 88, 245, "River", 26, font="Lato-Bold", color=colors.white, align="middle")
    box(canvas, 265, 195, ("Heat", "exchanger"), TEAL)
    box(canvas, 505, 195, ("Heat", "pump"), AMBER)
    canvas.setFillColor(INK)
    for i in range(3):
        x, y = 760 + 58 * i, 215 + 24 * (i % 2)
        canvas.rect(x, y, 46, 44, stroke=0, fill=1)
        roof = canvas.beginPath()
        roof.moveTo(x - 6, y + 44)
        roof.lineTo(x + 23, y + 76)
        roof.lineTo(x + 52, y + 44)
        roof.close()
        canvas.drawPath(roof, stroke=0, fill=1)
    text(canvas, 842, 170, "Houses", 20, font="Lato-Bold", align="middle")
    flows = ((175, 265, "9 °C", "5 °C", TEAL), (415, 505, "7 °C", "3 °C", TEAL), (655, 750, "72 °C", "41 °C", AMBER))
    for start, end, there, back, color in flows:
        arrow(canvas, start + 4, 280, end - 4, color)
        arrow(canvas, end - 4, 222, start + 4, GREY)
        text(canvas, (start + end) / 2, 292, there, 18, font="Lato-Bold", align="middle")
        text(canvas, (start + end) / 2, 198, back, 18, color=GREY, align="middle")
    arrow(canvas, 470, 120, 500, AMBER)
    text(canvas, 510, 113, "1 kWh of current gives 3.1 kWh of heat", 20)


def plan(canvas: Canvas) -> None:
    slide_title(canvas, "The plan")
    canvas.setStrokeColor(TEAL)
    canvas.setLineWidth(5)
    canvas.line(90, 270, 870, 270)
    steps = (
        ("October 2025", "Water permit"),
        ("March 2026", "Wells and intake dug"),
        ("November 2026", "Heat pump delivered"),
        ("September 2027", "First heat"),
    )
    for i, (when, what) in enumerate(steps):
        x = 135 + 230 * i
        canvas.setFillColor(AMBER if i == 3 else TEAL)
        canvas.circle(x, 270, 15, stroke=0, fill=1)
        text(canvas, x, 310, when, 21, font="Lato-Bold", align="middle")
        text(canvas, x, 222, what, 19, color=GREY, align="middle")


def request(canvas: Canvas) -> None:
    slide_title(canvas, "What we ask of the board")
    text(canvas, 60, 330, "€3.4 million", 76, font="Lato-Bold", color=AMBER)
    text(canvas, 60, 280, "for the intake and the heat exchanger, out of the reserve", 24)
    text(canvas, 60, 190, "The heat pump itself is paid by a loan over 15 years.", 22, color=GREY)
    text(canvas, 60, 150, "Vote: 20 May 2025. Questions to Tobias Wren, planning.", 22, color=GREY)


LETTER = """Ashdown & Daughters
Point heaters and track drainage
Forge Road 17, Lower Penfold

                                        3 December 2024

To Harrowmere Tramways
Attention: Ms. Bettina Crowe, Track department

Our offer No. 7741: point heaters for Mill Lane depot


Dear Ms. Crowe,

thank you for your visit to our workshop. As agreed, we
offer you twelve gas-free point heaters, type PH-30, at
a price of 1,850 euros each, fitted and tested. This
makes 22,200 euros in all, before tax.

We need four nights between midnight and five o'clock.
Current must be off in the yard during these hours. The
heaters keep the points free of ice down to minus 24
degrees and switch themselves on when snow falls.

We grant a warranty of six years. The offer is valid
until 31 January 2025.

One request: last winter somebody parked a snow plough
over our inspection cover. Please keep it clear.

Yours sincerely,



Imogen Ashdown
"""


def scanned_letter(path: Path) -> None:
    """A page that is nothing but a picture: typed, a little askew, grey, with the scanner's noise."""
    width, height = 1240, 1754  # A4 at 150 dpi
    page = Image.new("L", (width, height), 246)
    draw = ImageDraw.Draw(page)
    draw.multiline_text((150, 150), LETTER, font=ImageFont.truetype(TYPEWRITER, 28), fill=40, spacing=14)
    signature = [(160, 1455), (190, 1405), (205, 1460), (235, 1420), (250, 1455), (300, 1430), (330, 1458), (430, 1425)]
    draw.line(signature, fill=70, width=4, joint="curve")
    for y in (590, 1180):
        draw.ellipse((38, y, 66, y + 28), fill=205)  # holes of a file
    page = page.rotate(0.6, Image.Resampling.BICUBIC, fillcolor=246).filter(ImageFilter.GaussianBlur(0.7))
    rng = np.random.default_rng(7741)
    grain = rng.normal(0, 5, (height, width)) - np.linspace(0, 10, width)  # darker to the right
    spots = rng.random((height, width)) > 0.9999
    grey = np.clip(np.asarray(page, np.float64) + grain, 0, 255)
    grey[spots] = 90
    jpeg = BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(jpeg, "JPEG", quality=58)
    jpeg.seek(0)
    canvas = new_canvas(path, "", A4)
    canvas.drawImage(ImageReader(jpeg), 0, 0, *A4)
    canvas.save()


PLOTS = (
    "1  Bell Orange    M26   2016  42  4.0 × 1.5  6.4  2.9  drip  18.2  21.5  23.1  12.4  low",
    "2  Bell Orange    MM106 2016  36  5.0 × 2.5  6.4  2.8  none  15.9  14.1  19.7  12.9  low",
    "3  Corsey Russet  M26   2016  42  4.0 × 1.5  6.2  3.1  drip  16.0  19.8  20.4  14.6  none",
    "4  Corsey Russet  MM106 2016  36  5.0 × 2.5  6.1  3.0  none  13.3  12.7  16.8  15.2  none",
    "5  Dame Agatha    M9    2017  60  3.5 × 1.0  6.6  2.4  drip  11.8  14.9  15.5  13.1  high",
    "6  Dame Agatha    M26   2017  42  4.0 × 1.5  6.5  2.6  drip  14.7  17.2  18.0  13.0  high",
    "7  Grey Pippin    M9    2017  60  3.5 × 1.0  6.8  2.2  drip  12.6  15.3  17.9  11.8  low",
    "8  Grey Pippin    MM106 2017  36  5.0 × 2.5  6.7  2.3  none  10.9   9.4  14.2  12.2  low",
    "9  Lammas Red     M26   2018  42  4.0 × 1.5  6.0  3.4  drip   9.1  16.4  20.9  12.0  medium",
    "10  Lammas Red    MM106 2018  36  5.0 × 2.5  5.9  3.5  none   7.7  11.0  15.1  12.3  medium",
    "11  Winter Queen  M9    2018  60  3.5 × 1.0  6.3  2.7  drip   8.8  13.6  16.6  13.7  none",
    "12  Winter Queen  M26   2018  42  4.0 × 1.5  6.3  2.7  drip  10.2  15.8  19.3  13.8  none",
)


def rotated_appendix(path: Path) -> None:
    """A wide table drawn sideways on a portrait page, which /Rotate 90 turns upright."""
    canvas = new_canvas(path, "Penfold orchard trial: appendix B", (A4[1], A4[0]))
    canvas.setPageRotation(90)  # reportlab turns the media box too: it becomes portrait
    canvas.transform(0, 1, -1, 0, A4[0], 0)  # from the page as displayed (landscape) to the page as stored
    heads = ["Plot", "Variety", "Rootstock", "Planted", "Trees", "Spacing\n(m)", "Soil pH", "Humus\n(%)"]
    heads += [
        "Irrigation",
        "Yield 2022\n(kg/tree)",
        "Yield 2023\n(kg/tree)",
        "Yield 2024\n(kg/tree)",
        "Sugar\n(°Bx)",
        "Scab",
    ]
    rows = [heads]
    for line in PLOTS:
        plot, first, second, *rest = line.split()
        rows.append([plot, f"{first} {second}", rest[0], rest[1], rest[2], " ".join(rest[3:6]), *rest[6:]])
    widths = (32, 88, 60, 48, 38, 56, 46, 44, 56, 60, 60, 60, 42, 50)
    notes = (
        "Yields are means over all trees of a plot. Frost on 21 April 2023 damaged the plots without irrigation, "
        "which lie in the hollow. Sugar was measured on the day of picking, scab on 200 leaves a plot in August."
    )
    items = [
        p("Appendix B: The twelve plots of the Penfold orchard trial", TITLE),
        table(rows, widths, left_columns=3, size=9),
        p(notes, NOTE),
        p("Penfold Fruit Growers’ Cooperative, December 2024", NOTE),
    ]
    flow(canvas, items, 50, 545, 742)
    canvas.save()


JA = ParagraphStyle("ja", fontName="BIZUD", fontSize=12, leading=21, textColor=INK, spaceAfter=10, wordWrap="CJK")
JA_TITLE = ParagraphStyle("ja-title", JA, fontName="BIZUD-Bold", fontSize=22, leading=30, textColor=TEAL, spaceAfter=14)
JA_HEAD = ParagraphStyle("ja-head", JA, fontName="BIZUD-Bold", fontSize=13, leading=20, spaceBefore=12, spaceAfter=6)


def japanese_guide(path: Path) -> None:
    """The guide of a public library in a town that does not exist, in Japanese: two pages."""
    canvas = new_canvas(path, "柚木原町立図書館 利用案内", A4)
    for number, items in enumerate((lending(), reading_rooms()), 1):
        canvas.setFillColor(PALE)
        canvas.rect(0, 806, A4[0], 36, stroke=0, fill=1)
        text(canvas, 62, 819, "柚木原町立図書館", 10, font="BIZUD", color=TEAL)
        flow(canvas, items, 62, 775, A4[0] - 124)
        text(canvas, A4[0] / 2, 30, f"{number}", 9, font="BIZUD", color=GREY, align="middle")
        canvas.showPage()
    canvas.save()


def lending() -> list[object]:
    hours = [
        ["曜日", "開館時間", "備考"],
        ["月曜日", "休館", "祝日の場合は翌日休館"],
        ["火曜日〜金曜日", "9時30分〜19時", "児童室は17時まで"],
    ]
    hours += [
        ["土曜日", "9時30分〜18時", "午後におはなし会"],
        ["日曜日・祝日", "10時〜17時", "学習室は満席になりやすい日"],
    ]
    loans = [["資料", "貸出点数", "貸出期間"], ["図書", "10冊", "2週間"], ["雑誌", "5冊", "1週間"]]
    loans += [["紙芝居・大型絵本", "3点", "2週間"], ["CD・DVD", "4点", "1週間"]]
    widths = (120, 120, 190)
    return [
        p("図書館利用案内", JA_TITLE),
        p(
            "柚木原町立図書館は、町民のみなさまの学びとくつろぎの場です。蔵書は約八万六千冊で、郷土の歴史と柑橘栽培に"
            "関する資料を特に多くそろえています。どなたでも入館して閲覧できます。",
            JA,
        ),
        p("開館時間", JA_HEAD),
        table(hours, widths, left_columns=3, font="BIZUD", size=11.5),
        p("貸出について", JA_HEAD),
        p(
            "本を借りるには利用者カードが必要です。カードは、町内に住んでいる方、町内に通勤または通学している方にお作り"
            "します。住所のわかる証明書を受付にお持ちください。手数料はかかりませんが、再発行には二百円をいただきます。",
            JA,
        ),
        table(loans, widths, left_columns=3, font="BIZUD", size=11.5),
        p("延長と予約", JA_HEAD),
        p(
            "次の予約が入っていない場合に限り、貸出期間を一回だけ一週間延長できます。返却が遅れている資料が一点でもあると、"
            "新しい貸出はできません。予約は一人五点までで、用意ができましたら電話または電子メールでお知らせします。",
            JA,
        ),
    ]


def reading_rooms() -> list[object]:
    rooms = [
        ["施設", "場所", "定員", "申し込み"],
        ["学習室", "2階東側", "48名", "不要"],
        ["郷土資料室", "2階西側", "12名", "受付で記名"],
    ]
    rooms += [["会議室", "1階奥", "20名", "一か月前から"], ["録音室", "地下1階", "2名", "前日まで"]]
    return [
        p("館内の施設と行事", JA_TITLE),
        p("部屋の利用", JA_HEAD),
        table(rooms, (110, 110, 80, 130), left_columns=4, font="BIZUD", size=11.5),
        p(
            "飲み物は、ふたのついた容器に限り持ち込めます。食事は一階の談話コーナーでお願いします。電源は学習室の窓側の席で"
            "使えます。携帯電話での通話は玄関ホールでお願いします。",
            JA,
        ),
        p("行事", JA_HEAD),
        p(
            "おはなし会は毎週土曜日の午後二時から児童室で開きます。申し込みはいりません。古文書を読む会は第二水曜日の午後六時"
            "から郷土資料室で行い、江戸時代の庄屋の日記を少しずつ読み進めています。年に一度の古本市は十一月三日です。",
            JA,
        ),
        p("移動図書館", JA_HEAD),
        p(
            "移動図書館「ゆずのき号」は、約二千五百冊を積んで山あいの六つの集落を二週間に一度まわります。雪のために運休する"
            "ときは、町の防災無線でお知らせします。",
            JA,
        ),
        p("交通", JA_HEAD),
        p(
            "柚木原駅から歩いて八分です。町営バスは「図書館前」で降りてください。駐車場は三十二台分あり、利用者は二時間まで"
            "無料です。自転車は建物の北側に置いてください。",
            JA,
        ),
    ]
