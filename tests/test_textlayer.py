"""Text layers that lie are found out, and those that don't are believed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pdfs import A4, image, pdf_bytes, stream, text, write
from PIL import Image, ImageDraw, ImageFont

from visrag.pdf import PdfiumDocument
from visrag.records import Page
from visrag.render import Renderer, RenderOptions
from visrag.textlayer import is_in_doubt, odd_words, tells_the_page
from visrag.words import is_usable

LINES = (
    "The harbour office opens at seven",
    "and closes when the last ferry leaves.",
    "Tickets for bicycles cost two crowns,",
    "children travel without paying.",
    "Dogs stay on the lower deck and",
    "passengers must carry their luggage",
    "through the eastern gate before sunset.",
)
ENGLISH = " ".join(LINES)

HONEST = {
    "english": ENGLISH,
    "german": """Die Geschäftsführung berichtet über das abgelaufene Wirtschaftsjahr. Angstschweiß und Strumpfhosen sind
        Wörter mit vielen Mitlauten, Rechtsschutzversicherungsgesellschaften ein langes; Vor- und Nachteile stehen
        unten. Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.""",
    "czech": """Příliš žluťoučký kůň úpěl ďábelské ódy. Zpráva popisuje hospodaření města, výstavbu
        nových čtvrtí a opravy silnic po povodních. Vichřice zničila střechy několika domů.""",
    "polish": """Zażółć gęślą jaźń. W Szczebrzeszynie chrząszcz brzmi w trzcinie. Sprawozdanie opisuje wyniki finansowe
        przedsiębiorstwa oraz plany na następny rok obrotowy, wraz z opinią biegłego rewidenta.""",
    "french": """L'été dernier, l'âge moyen des élèves a été relevé: où êtes-vous nés? Dès Noël, où un zéphyr haï me vêt
        de glaçons würmiens, je dîne d'exquis rôtis de bœuf au kir à l'aÿ d'âge mûr. Créée en société privée.""",
    "finnish": "Hääyöaie riiuuyöaikeet. Kaupunginvaltuusto hyväksyi talousarvion ja päätti veroprosentista. " * 3,
    "vietnamese": """Báo cáo tài chính của công ty được trình bày theo chuẩn mực kế toán. Doanh thu tăng mạnh so với năm
        trước nhờ thị trường trong nước phục hồi và xuất khẩu ổn định, chi phí vận chuyển giảm đáng kể.""",
    "welsh": "Mae'r cwmni wedi cyhoeddi adroddiad blynyddol. Bydd y cyfarfod nesaf yng Nghaerdydd ym mis Tachwedd. "
    * 2,
    "turkish": "Yönetim kurulu yıllık faaliyet raporunu yayımladı; şirketin gelirleri geçen yıla göre arttı. " * 2,
    "russian": """Съешь же ещё этих мягких французских булок да выпей чаю. Годовой отчёт общества за прошлый год
        описывает финансовые результаты, планы расширения, состав совета
        директоров и важнейшие события после отчётной даты.
        Выручка выросла благодаря спросу на внутреннем рынке.""",
    "greek": "Η εταιρεία δημοσίευσε την ετήσια έκθεση με τα οικονομικά αποτελέσματα της χρήσης. " * 3,
    "arabic": "نشرت الشركة تقريرها السنوي مع النتائج المالية للسنة الماضية وخطط التوسع المقبلة " * 3,
    "hebrew": "החברה פרסמה את הדוח השנתי עם תוצאות הכספים לשנה שעברה ותוכניות ההרחבה הבאות " * 3,
    "hindi": "कंपनी ने पिछले वर्ष के वित्तीय परिणामों के साथ वार्षिक रिपोर्ट प्रकाशित की " * 3,
    "korean": "회사는 지난해 재무 결과와 함께 연례 보고서를 발표하였다 내년에는 사업을 확장할 계획이다 " * 3,
    "thai": "บริษัทได้เผยแพร่รายงานประจำปีพร้อมผลประกอบการทางการเงินของปีที่ผ่านมา " * 3,
    "chinese": "公司发布了年度报告，其中包括去年的财务业绩以及明年的扩张计划。董事会建议每股派发股息二角五分。" * 2,
    "taiwan": "公司發布了年度報告，其中包括去年的財務業績以及明年的擴張計畫。董事會建議每股派發股利二角五分。" * 2,
    "japanese": "会社は昨年の業績と来年の拡大計画を含む年次報告書を発表した。取締役会は一株当たり配当を提案している。"
    * 2,
    "numbers": "\n".join(f"{n} 1,{n:03} (2.{n})% ${n}.5m {n}-Q{n % 4} [{n}] – {n * 7919}" for n in range(100, 160)),
    "chemistry": " ".join(["C6H12O6 H2SO4 NaHCO3 CH3CH2OH 2-methylpropane Ca(OH)2 KMnO4 Fe2O3 pH 7.4 μmol α-helix"] * 5)
    + ENGLISH,
    "contents": "\n".join(f"{n}.{n} Chapter {'.' * 60} {n}" for n in range(40)),
    "addresses": f"https://www.example.org/a/b?q=x_y#z jane@example.org C:\\Users\\x 10.1145/3292500.3330701 {ENGLISH}",
    "acronyms": "The NYSE, HMRC and the NHS signed an MoU with NASDAQ. " * 5 + ENGLISH,
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("scan", [False, True])
def test_no_language_and_no_table_is_in_doubt(name: str, scan: bool) -> None:
    assert not is_in_doubt(HONEST[name], scan)


def shifted(words: str, by: int) -> str:
    return "".join(chr(ord(character) + by) if character > " " else character for character in words)


def test_letters_that_are_others_are_in_doubt() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    other = str.maketrans(letters, "qwertyuiopasdfghjklzxcvbnm")  # vowels become q, t, o, g, x
    for wrong in (shifted(ENGLISH, -29), shifted(ENGLISH, 1), ENGLISH.lower().translate(other)):
        assert is_in_doubt(wrong, scan=False)


def test_bytes_of_another_encoding_are_in_doubt() -> None:
    assert is_in_doubt(HONEST["russian"].encode("cp1251").decode("latin-1"), scan=False)


def test_random_han_characters_are_in_doubt() -> None:
    rng = random.Random(1)
    assert is_in_doubt("".join(chr(rng.randrange(0x4E00, 0x9FA6)) for _ in range(200)), scan=False)


def test_a_poor_reading_is_in_doubt_where_it_lies_over_a_scan() -> None:
    poor = "Tbe harb0ur offlce op~ens at sevcn and ciosee wben tbe last fcrry lea^ves. " + ENGLISH
    assert odd_words(poor)[0] == 3  # harb0ur, op~ens, lea^ves
    assert is_in_doubt(poor, scan=True)


def test_few_words_are_never_in_doubt() -> None:
    assert not is_in_doubt(shifted("The quick brown fox jumps", -29), scan=True)


def test_a_layer_is_believed_when_ocr_agrees_or_cannot_tell() -> None:
    wrong = shifted(ENGLISH, -29)
    assert not tells_the_page(wrong, ENGLISH)
    assert tells_the_page(wrong, wrong)
    assert tells_the_page(wrong, "harbour office")
    assert tells_the_page(ENGLISH, wrong)


def test_bullets_do_not_make_a_layer_unusable() -> None:
    assert is_usable("\uf0b7 Yes\n\uf0b7 No\n\uf0a7 Rarely")
    assert not is_usable("\uf054\uf068\uf065 \uf071\uf075\uf069 of")
    assert not is_usable("Th\ufffd qu\ufffdck br\ufffdwn fox")
    assert not is_usable("\x03\x14\x15 \x16\x17")


# Whole pages.


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer() as renderer:
        yield renderer


def one_page(renderer: Renderer, path: Path, options: RenderOptions | None = None) -> Page:
    (page,) = renderer.pages(path, path.name, options or RenderOptions())
    assert isinstance(page, Page)
    return page


def pdf_with_map(path: Path, content: str, characters: dict[int, str]) -> Path:
    """A PDF whose font shows each code as it should, and says that it means something else."""
    pairs = "".join(f"<{code:02X}> <{text.encode('utf-16-be').hex()}>\n" for code, text in characters.items())
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        f"1 begincodespacerange <00> <FF> endcodespacerange\n{len(characters)} beginbfchar\n{pairs}endbfchar\n"
        "endcmap end end"
    )
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding /ToUnicode 10 0 R >>"
    data = pdf_bytes([content], objects=[stream(cmap.encode()), font])
    return write(path, data.replace(b"/F1 3 0 R", b"/F1 11 0 R"))


def lines(words: Sequence[str]) -> str:
    return "".join(text(72, 760 - 24 * row, line, 14) for row, line in enumerate(words))


PRINTABLE = range(0x21, 0x7F)


@pytest.mark.parametrize(
    "meaning",
    [
        {code: chr(code - 29) for code in range(0x41, 0x7B)},
        {code: chr(0xE000 + code) for code in PRINTABLE},
        dict.fromkeys(PRINTABLE, "\ufffd"),
        {code: chr(code % 26 + 1) for code in PRINTABLE},
        {code: chr(0x4E00 + 97 * code) for code in PRINTABLE},
    ],
    ids=["shifted", "private", "replacement", "control", "han"],
)
def test_a_page_whose_map_to_unicode_is_broken_is_read_by_ocr(
    meaning: dict[int, str], renderer: Renderer, tmp_path: Path
) -> None:
    page = one_page(renderer, pdf_with_map(tmp_path / "a.pdf", lines(LINES), meaning))
    assert page.text_source == "ocr"
    assert page.text.split() == ENGLISH.split()


def test_odd_words_that_stand_on_the_page_are_believed(renderer: Renderer, tmp_path: Path) -> None:
    symbols = ("TLLPL TCLCL TLHLL TRLRH TWLWH", "TQVWX TWHQX TXLXL TQVXH TXHDV", "TDVGL TGHDX TSHGL TGHSL TGLGH") * 2
    path = write(tmp_path / "a.pdf", pdf_bytes([lines([*LINES, *symbols])]))
    words = " ".join([ENGLISH, *symbols])
    assert is_in_doubt(words, scan=False)
    page = one_page(renderer, path)
    assert (page.text_source, page.text.split()) == ("text_layer", words.split())


def scan_under(hidden: Sequence[str], path: Path) -> Path:
    """A scan of ``LINES`` over the whole page, and a text layer in mode 3 (not shown)."""
    picture = Image.new("RGB", (1240, 1754), "white")
    for row, line in enumerate(LINES):
        ImageDraw.Draw(picture).text((150, 150 + 50 * row), line, "black", ImageFont.load_default(30))
    layer = "".join(f"BT 3 Tr /F1 20 Tf 72 {755 - 24 * row} Td ({line}) Tj ET\n" for row, line in enumerate(hidden))
    content = f"q {A4[0]} 0 0 {A4[1]} 0 0 cm /I0 Do Q {layer}"
    resources = "/XObject << /I0 10 0 R >>"
    return write(path, pdf_bytes([content], objects=[image(picture.tobytes(), *picture.size)], resources=resources))


def test_a_poor_hidden_layer_is_replaced(renderer: Renderer, tmp_path: Path) -> None:
    confused = str.maketrans({"o": "0", "l": "1", "e": "c", "h": "b"})
    path = scan_under([line.translate(confused) for line in LINES], tmp_path / "a.pdf")
    page = one_page(renderer, path)
    assert (page.text_source, page.text.split()) == ("ocr", ENGLISH.split())
    assert one_page(renderer, path, RenderOptions(ocr="off")).text.startswith("Tbc barb0ur 0fficc")


def test_a_good_hidden_layer_is_kept(renderer: Renderer, tmp_path: Path) -> None:
    page = one_page(renderer, scan_under(LINES, tmp_path / "a.pdf"))
    assert (page.text_source, page.text.split()) == ("text_layer", ENGLISH.split())


# What is true of a text layer, but not plain.


def content(path: Path) -> Page:
    page, _ = PdfiumDocument(path, path.name, ()).content(1)
    assert all(page.text[word.start : word.start + len(word.text)] == word.text for word in page.words)
    return page


def test_ligatures_become_letters(tmp_path: Path) -> None:
    path = pdf_with_map(tmp_path / "a.pdf", text(72, 700, "a b c"), {97: "\ufb01le", 98: "o\ufb03ce", 99: "\ufb02"})
    assert content(path).text == "file office fl"


@pytest.mark.parametrize("hyphen", ["-", "\xad", "\u2010"])
def test_a_word_divided_by_any_hyphen_is_one(hyphen: str, tmp_path: Path) -> None:
    letters = {ord(letter): letter for letter in "inforato"} | {ord("#"): hyphen}
    path = pdf_with_map(tmp_path / "a.pdf", text(72, 700, "infor#") + text(72, 684, "ation"), letters)
    page = content(path)
    assert page.text == "inforation"
    assert [len(word.boxes) for word in page.words] == [2]


def test_hebrew_comes_in_the_order_of_reading(tmp_path: Path) -> None:
    words = "שלום עולם"
    codes = {letter: 97 + at for at, letter in enumerate(sorted(set(words) - {" "}))}
    shown = "".join(chr(codes[letter]) if letter in codes else " " for letter in reversed(words))  # left to right
    page = content(
        pdf_with_map(tmp_path / "a.pdf", text(72, 700, shown), {code: letter for letter, code in codes.items()})
    )
    assert page.text == words
    assert page.words[0].boxes[0][0] > page.words[1].boxes[0][2]


def test_arabic_forms_become_letters(tmp_path: Path) -> None:
    path = pdf_with_map(tmp_path / "a.pdf", text(72, 700, "cba"), {97: "\ufeb3", 98: "\ufefc", 99: "\ufee1"})
    assert content(path).text == "سلام"


def test_columns_of_writing_from_top_to_bottom_are_lines(tmp_path: Path) -> None:
    columns = ["図書館は", "休みです"]
    codes = {character: 97 + at for at, character in enumerate("".join(columns))}
    drawn = "".join(
        text(500 - 24 * column, 700 - 16 * row, chr(codes[character]), 14)
        for column, characters in enumerate(columns)
        for row, character in enumerate(characters)
    )
    page = content(pdf_with_map(tmp_path / "a.pdf", drawn, {code: character for character, code in codes.items()}))
    assert page.text.split() == columns
    assert len(page.words) == 8
