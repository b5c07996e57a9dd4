"""The report: a tram company that does not exist, and its year. Eight pages, A4."""

from __future__ import annotations

from pathlib import Path

from drawing import (
    AMBER,
    BODY,
    GREY,
    HEAD,
    NOTE,
    PALE,
    TEAL,
    TITLE,
    bar_chart,
    flow,
    line_chart,
    new_canvas,
    table,
    text,
)
from drawing import paragraph as p
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

LEFT, TOP, WIDTH = 62.0, 770.0, A4[0] - 124.0
NAME = "Harrowmere Tramways · Annual report 2024"

YEARS = ("2022", "2023", "2024")
INCOME = {
    "Fares": (24.3, 27.9, 31.2),
    "City contribution": (19.0, 18.5, 18.0),
    "Advertising and leases": (2.1, 2.4, 2.6),
}
EXPENDITURE = {
    "Staff": (22.6, 23.9, 25.4),
    "Traction current": (5.8, 6.9, 5.2),
    "Maintenance": (9.7, 10.3, 11.0),
    "Depreciation": (5.1, 5.3, 5.6),
    "Other": (1.6, 1.7, 1.9),
}
PASSENGERS = (("Line 1", 6.4), ("Line 2", 5.1), ("Line 3", 4.2), ("Line 4", 2.9))
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
ON_TIME_2023 = (88.2, 87.5, 89.4, 90.6, 91.0, 90.2, 92.1, 92.8, 89.0, 87.9, 86.4, 87.1)
ON_TIME_2024 = (89.1, 79.3, 90.8, 92.4, 93.0, 92.6, 94.7, 94.1, 91.5, 90.9, 89.6, 90.2)
INVESTED = (("2018", 4.2), ("2019", 6.8), ("2020", 3.1), ("2021", 5.7), ("2022", 9.4), ("2023", 12.6), ("2024", 14.9))
WORKS = (("Eastfield extension", 7.8), ("Solar roof of the depot", 2.3), ("Mill Lane crossover", 1.9))
WORKS += (("Displays at stops", 1.2), ("Other works", 1.7))


def write(path: Path) -> None:
    canvas = new_canvas(path, NAME, A4)
    for draw in (cover, letter, passengers, punctuality, finances, fleet, investment, outlook):
        draw(canvas)
        if draw is not cover:
            text(canvas, LEFT, 30, NAME, 8.5, color=GREY)
            text(canvas, LEFT + WIDTH, 30, str(canvas.getPageNumber()), 8.5, color=GREY, align="right")
        canvas.showPage()
    canvas.save()


def tram(canvas: Canvas, x: float, y: float) -> None:
    """A tram of two cars, 300 points long."""
    for car in (0, 152):
        canvas.setFillColor(colors.white)
        canvas.roundRect(x + car, y, 148, 62, 10, stroke=0, fill=1)
        canvas.setFillColor(AMBER)
        canvas.rect(x + car, y + 14, 148, 8, stroke=0, fill=1)
        canvas.setFillColor(TEAL)
        for window in range(4):
            canvas.roundRect(x + car + 10 + 33 * window, y + 30, 27, 21, 3, stroke=0, fill=1)
        canvas.setFillColor(colors.HexColor("#083f49"))
        for wheel in (34, 114):
            canvas.circle(x + car + wheel, y - 2, 9, stroke=0, fill=1)
    canvas.setStrokeColor(colors.white)
    canvas.setLineWidth(1.5)
    canvas.lines([(x + 60, y + 62, x + 84, y + 84), (x + 84, y + 84, x + 66, y + 104)])
    canvas.lines([(x - 62, y + 104, x + 410, y + 104), (x - 62, y - 12, x + 410, y - 12)])


def cover(canvas: Canvas) -> None:
    canvas.setFillColor(TEAL)
    canvas.rect(0, 330, A4[0], A4[1] - 330, stroke=0, fill=1)
    text(canvas, LEFT, 730, "Harrowmere Tramways", 18, color=colors.white)
    text(canvas, LEFT, 660, "Annual report", 46, font="Lato-Bold", color=colors.white)
    text(canvas, LEFT, 605, "2024", 46, font="Lato-Bold", color=colors.HexColor("#f3c489"))
    tram(canvas, LEFT + 80, 400)
    facts = (("18.6", "million passengers"), ("43 km", "of track"), ("61", "trams"), ("412", "colleagues"))
    for i, (number, what) in enumerate(facts):
        x = LEFT + i * WIDTH / 4
        text(canvas, x, 240, number, 28, font="Lato-Bold", color=TEAL)
        text(canvas, x, 220, what, 11, color=GREY)
    text(
        canvas,
        LEFT,
        60,
        "Published by Harrowmere Tramways, 3 Viaduct Square, Harrowmere, in March 2025",
        9.5,
        color=GREY,
    )


def letter(canvas: Canvas) -> None:
    items = [
        p("A year of ice and of openings", TITLE),
        p(
            "Dear reader, the year began badly. On 6 February freezing rain coated the overhead wires of the Harbour "
            "Bridge with three centimetres of ice. The bridge stayed closed for six days, and for two of them no "
            "tram ran anywhere in Harrowmere. Our crews scraped wires by hand at night, and the bus companies of the "
            "county lent us forty vehicles. We thank them again here."
        ),
        p(
            "It ended well. On 14 September we opened the Eastfield extension: 3.2 kilometres of new track, five new "
            "stops, and for 11,000 people a tram within ten minutes’ walk. It was finished seven weeks early and "
            "within its budget. Since the opening day Line 3 runs every eight minutes instead of every twelve."
        ),
        p("What we promised, and what became of it", HEAD),
        p(
            "In our last report we made four promises. We promised to carry eighteen million passengers: you made "
            "more journeys than that. We promised a solar roof for the depot: it has fed our wires since May. We "
            "promised a step-free entrance at every stop: two stops, Castle Steps and Old Mint, are still missing, "
            "and will follow in 2025. And we promised that nobody would wait for an answer to a complaint for longer "
            "than ten days: the mean was eight, but one letter in nine still took longer."
        ),
        p("Who we are", HEAD),
        p(
            "Harrowmere Tramways belongs to the city. It runs four lines with 74 stops. At the end of the year 412 "
            "people worked here, 31 of them apprentices; 38 per cent of our drivers are women. The supervisory board "
            "has nine members, of whom the staff elects three."
        ),
        p(
            "This report shows where the money came from and where it went. Where we fell short, it says so. If a "
            "figure puzzles you, write to us: the address is on the last page, and somebody will answer."
        ),
        p("<i>Odile Marrick</i><br/>Director"),
    ]
    flow(canvas, items, LEFT, TOP, WIDTH)


def passengers(canvas: Canvas) -> None:
    y = flow(
        canvas,
        [
            p("Passengers", TITLE),
            p(
                "Passengers made 18.6 million journeys in 2024, against 17.2 million in 2023 and 15.8 million in "
                "2022. Every line grew, Line 3 the most, thanks to its extension. The busiest day was Saturday 14 "
                "September, when 98,400 people came to see the new stops; the quietest was 7 February, when no tram "
                "ran at all."
            ),
            p("Journeys by line in 2024", HEAD),
        ],
        LEFT,
        TOP,
        WIDTH,
    )
    bar_chart(canvas, (LEFT + 24, y - 225, WIDTH - 24, 200), PASSENGERS, (0, 2, 4, 6, 8), "million journeys")
    routes = ("Station – Hospital", "Harbour – University", "Market – Eastfield", "Ring")
    for i, route in enumerate(routes):
        text(canvas, LEFT + 24 + (WIDTH - 24) * (i + 0.5) / 4, y - 251, route, 8.5, color=GREY, align="middle")
    rows = [["Ticket", "Price in 2024", "Share of journeys"]]
    rows += [["Single", "€2.40", "21 %"], ["Day ticket", "€5.20", "9 %"], ["Monthly pass", "€46.00", "48 %"]]
    rows += [["Year pass", "€429.00", "15 %"], ["Concession", "€1.10", "7 %"]]
    items = [p("Tickets", HEAD), table(rows, (150, 110, 120))]
    items.append(
        p("Journeys are counted by the sensors over the doors; tickets by a survey in May and in November.", NOTE)
    )
    flow(canvas, items, LEFT, y - 282, WIDTH)


def punctuality(canvas: Canvas) -> None:
    y = flow(
        canvas,
        [
            p("Punctuality", TITLE),
            p(
                "A tram is on time if it leaves a stop no more than one minute early and no more than two minutes "
                "late. We measure every departure from every stop. July was the best month since measurements began "
                "in 2009. February shows what six days of ice do to a timetable."
            ),
            p("Share of departures on time, by month", HEAD),
        ],
        LEFT,
        TOP,
        WIDTH,
    )
    line_chart(
        canvas,
        (LEFT + 24, y - 240, WIDTH - 24, 215),
        MONTHS,
        (("2023", ON_TIME_2023, AMBER), ("2024", ON_TIME_2024, TEAL)),
        (75, 80, 85, 90, 95, 100),
        "per cent",
        ((1, 1, -15), (1, 6, 8), (0, 10, -15), (1, 11, 8)),
    )
    rows = [["Cause of delay in 2024", "Minutes lost", "Share"]]
    rows += [["Cars and lorries on the track", "21,730", "41 %"], ["Ice and snow", "13,250", "25 %"]]
    rows += [["Faults of vehicles", "8,480", "16 %"], ["Faults of signals and points", "5,300", "10 %"]]
    rows += [["Passengers taken ill", "4,240", "8 %"], ["Total", "53,000", "100 %"]]
    flow(canvas, [p("Why trams were late", HEAD), table(rows, (210, 90, 80), bold_rows=[6])], LEFT, y - 285, WIDTH)


def finances(canvas: Canvas) -> None:
    def lines(group: dict[str, tuple[float, ...]]) -> list[list[str]]:
        return [[name, *(f"{value:.1f}" for value in values)] for name, values in group.items()]

    income = [sum(column) for column in zip(*INCOME.values(), strict=True)]
    spent = [sum(column) for column in zip(*EXPENDITURE.values(), strict=True)]
    rows = [["€ million", *YEARS], *lines(INCOME), ["Total income", *(f"{v:.1f}" for v in income)], *lines(EXPENDITURE)]
    rows.append(["Total expenditure", *(f"{v:.1f}" for v in spent)])
    rows.append(["Result of the year", *(f"{i - s:.1f}" for i, s in zip(income, spent, strict=True))])
    items = [
        p("Income and expenditure", TITLE),
        p(
            "Fares paid for three fifths of what the trams cost, more than ever before. The city’s contribution fell "
            "for the third year in a row, as agreed in the contract of service of 2021. Energy became cheaper again: "
            "the depot’s own roof supplied part of it, and the contract with the power station was renewed in "
            "January at a lower price."
        ),
        p("Statement of income and expenditure", HEAD),
        table(rows, (200, 80, 80, 80), bold_rows=[4, 10, 11]),
        p("Years end on 31 December. Figures are rounded to €0.1 million.", NOTE),
        p("What became of the surplus", HEAD),
        p(
            "The supervisory board resolved to put two thirds of the surplus aside for the renewal of the Harbour "
            "Bridge and to carry the rest forward. Loans stood at €38.5 million at the end of the year, all of them "
            "with the savings bank of the county, at a mean rate of interest of 2.9 per cent. No loan falls due "
            "before 2031."
        ),
        p(
            "The accounts were audited by Penhallow & Grieve of Harrowmere, who gave them an unqualified opinion on "
            "28 February 2025. The full accounts may be read at our office on working days from nine to four."
        ),
    ]
    flow(canvas, items, LEFT, TOP, WIDTH)


def fleet(canvas: Canvas) -> None:
    rows = [
        ["Class", "Built", "Trams", "Seats", "Places to stand", "Length (m)", "Top speed (km/h)"],
        ["A “Heron”", "1994–1996", "14", "62", "96", "26.5", "65"],
        ["B “Kestrel”", "2007–2010", "22", "70", "118", "30.0", "70"],
        ["C “Swift”", "2019–2023", "25", "84", "152", "37.2", "80"],
    ]
    y = flow(
        canvas,
        [
            p("Trams and energy", TITLE),
            p(
                "Sixty-one trams of three classes ran 3.9 million kilometres. The Herons have reached the age of "
                "thirty and will leave us between 2026 and 2028; one of them goes to the museum at the old depot. "
                "All Kestrels were fitted with new heating in the summer."
            ),
            table(rows, (76, 66, 44, 44, 84, 66, 91), left_columns=2, size=9.5),
            p("Current used for each kilometre, by class", HEAD),
        ],
        LEFT,
        TOP,
        WIDTH,
    )
    bars = (("Heron", 4.6), ("Kestrel", 3.7), ("Swift", 2.8))
    bar_chart(canvas, (LEFT + 24, y - 200, WIDTH - 24, 175), bars, (0, 1, 2, 3, 4, 5), "kWh per km")
    items = [
        p("Where the current comes from", HEAD),
        p(
            "The wires took 14.1 gigawatt-hours in 2024. Brakes that feed current back saved another 2.6 "
            "gigawatt-hours. The solar roof of the depot covers 9,300 square metres and has supplied a twelfth of "
            "our need since May. The rest is bought from the power station at Thornweir, which has burned no coal "
            "since 2022."
        ),
    ]
    flow(canvas, items, LEFT, y - 240, WIDTH)


def investment(canvas: Canvas) -> None:
    y = flow(
        canvas,
        [
            p("Capital expenditure", TITLE),
            p(
                "We have never built as much as in 2024. The dip of 2020 had a simple cause: the works on the ring "
                "stood still for seven months. Since then expenditure has risen every year, above all for the "
                "extension to Eastfield, for which the first sleepers were laid in 2022."
            ),
            p("Capital expenditure by year", HEAD),
        ],
        LEFT,
        TOP,
        WIDTH,
    )
    bar_chart(canvas, (LEFT + 24, y - 220, WIDTH - 24, 195), INVESTED, (0, 4, 8, 12, 16), "€ million", marked=6)
    finished = ("September", "May", "August", "November", "–")
    rows = [["Works in 2024", "€ million", "Finished in"]]
    rows += [[name, f"{cost:.1f}", when] for (name, cost), when in zip(WORKS, finished, strict=True)]
    rows.append(["Total", f"{sum(cost for _, cost in WORKS):.1f}", ""])
    items = [
        p("The works of 2024", HEAD),
        table(rows, (200, 80, 100), bold_rows=[6]),
        p(
            "The state paid a grant of 45 per cent towards the Eastfield extension; the table shows the cost before "
            "grants. The Mill Lane crossover lets trams turn short when the bridge is closed: a lesson of February."
        ),
    ]
    flow(canvas, items, LEFT, y - 258, WIDTH)


def outlook(canvas: Canvas) -> None:
    canvas.setFillColor(PALE)
    canvas.roundRect(LEFT - 12, 86, WIDTH + 24, 150, 8, stroke=0, fill=1)
    items = [
        p("What comes next", TITLE),
        p("2025", HEAD),
        p(
            "Castle Steps and Old Mint get their lifts, and with them every stop is step-free. From June, tickets "
            "may be paid with any bank card at the door. We hire and train 24 drivers, because in 2026 as many will "
            "retire."
        ),
        p("2026 and after", HEAD),
        p(
            "The first of sixteen new trams arrives in the spring of 2026. They have been ordered from a builder in "
            "the next county, for €58 million, half of it paid by the state. Their name was chosen by the pupils of "
            "Harrowmere from 1,300 proposals: Wagtail. The Harbour Bridge is to be renewed between 2027 and 2029. "
            "While it is closed, Line 2 will be cut in two, and a ferry will cross the harbour every ten minutes."
        ),
        p("What may go wrong", HEAD),
        p(
            "Three things worry us. The price of steel may make the bridge dearer than planned. Drivers are hard to "
            "find. And a second winter like the last would meet wires that are still, for the most part, from 1988; "
            "heating for those of the bridge alone would cost €0.9 million, and the board decides on it in April."
        ),
    ]
    flow(canvas, items, LEFT, TOP, WIDTH, bottom=246)
    contact = [
        p("Write to us", HEAD),
        p(
            "Harrowmere Tramways, Customer office, 3 Viaduct Square, Harrowmere<br/>Telephone 0555 01 24 00, "
            "weekdays 7 to 19"
        ),
        p("Lost property: Depot Lane 8, Tuesdays and Thursdays 14 to 18. Found things are kept for ninety days.", BODY),
    ]
    flow(canvas, contact, LEFT, 226, WIDTH)
