"""Indexes that are damaged on purpose: bytes flipped, files cut, and what must then hold.

By itself: python tests/flips.py --flips 500 --seed 1
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from checkpoints import make_checkpoint
from pdfs import pdf_bytes, rectangle, text, write

from visrag import Index, IngestSettings, VisragError

sys.path.append(str(Path(__file__).parent / "services"))
from checks import compare, left_behind  # the folder is not on the path of tests outside it
from documents import locked, paper

__all__ = ["Outcome", "compare", "damage", "left_behind", "make_documents", "make_index", "outcome"]

PASSWORD = "s3same-0pen"
SETTINGS = IngestSettings(ocr="off", jobs=1, passwords=(PASSWORD,))
QUESTION = "Which trams were measured in the northern region?"


@dataclass(slots=True)
class Outcome:
    """What became of an index that was damaged: of what ``kinds`` the damage was that a check found, none for a byte
    that says nothing. ``refused``: that a search raised an error of ours."""

    where: str
    kinds: tuple[str, ...] = ()
    refused: bool = False
    problems: list[str] = field(default_factory=list)


def make_documents(folder: Path) -> Path:
    """Documents of several kinds, 16 pages."""
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        paper(folder / f"paper-{number}.pdf", 4, seed=number)
    locked(folder / "locked.pdf", PASSWORD)
    chart = text(72, 700, "a chart of fares") + rectangle(100, 100, 300, 300, "0.2 0.4 0.6")
    write(folder / "chart.pdf", pdf_bytes([chart]))
    (folder / "notes.md").write_text("# Trams\n\nThe depots of the northern region close at night.\n")
    return folder


def make_index(index: Path, documents: Path, model: Path) -> Path:
    """An index of them, closed. No document is where it came from any more, so that a repair needs the originals."""
    with Index(index, text=str(model), device="cpu") as opened:
        assert opened.ingest(documents, settings=SETTINGS, tags={"year": "2024"}).failures == []
        assert opened.ingest(documents / "notes.md", settings=SETTINGS, tags={"kind": "notes"}).failures == []
    return index


def files(index: Path) -> list[Path]:
    """The files of an index, by their paths under it, but for locks."""
    found = [path.relative_to(index) for path in sorted(index.rglob("*")) if path.is_file()]
    return [path for path in found if path.name != "index.lock"]


def damage(index: Path, chance: random.Random) -> str:
    """Flip a bit of one byte of an index, each as likely; where."""
    every = files(index)
    (file,) = chance.choices(every, [(index / path).stat().st_size for path in every])
    data = bytearray((index / file).read_bytes())
    offset, bit = chance.randrange(len(data)), chance.randrange(8)
    data[offset] ^= 1 << bit
    (index / file).write_bytes(data)
    return f"{file.as_posix()} at {offset}, bit {bit}"


def outcome(index: Path, reference: Path, documents: Path, where: str) -> Outcome:
    """Use an index that was damaged, then check and repair it, and compare it with what it was.

    ``documents``: where they came from; they lie beside it, and are put back only where an original is damaged.
    """
    found = Outcome(where)
    found.refused = _use(index)
    with Index(index, device="cpu") as opened:
        first = opened.check()
        found.kinds = tuple(sorted({each.kind for each in first.damage}))
        if first.damage:
            repaired = opened.check(repair=True, settings=SETTINGS)
            if "original" in found.kinds:
                assert [each.kind for each in repaired.left] == ["original"]
                assert "put the file back" in repaired.notes[-1]
                away = documents.with_name("away")
                away.rename(documents)
                repaired = opened.check(repair=True, settings=SETTINGS)
                documents.rename(away)
            found.problems += [f"left: {each}" for each in repaired.left]
            if repaired.left:
                found.problems += repaired.notes
            again = opened.check()
            found.problems += [f"after the repair: {each}" for each in (*again.damage, *again.orphans)]
    if not found.problems:
        found.problems += compare(index, reference).problems
        kept = {path: (reference / path).read_bytes() for path in files(reference) if path.parts[0] == "originals"}
        now = {path: (index / path).read_bytes() for path in files(index) if path.parts[0] == "originals"}
        if kept != now:
            found.problems.append("other originals")
    return found


def _use(index: Path) -> bool:
    """Search an index and read all of it. Whether that raised an error of ours; all others are raised."""
    try:
        with Index(index, device="cpu") as opened:
            for document in opened.documents():
                for page in range(1, document.pages + 1):
                    opened.page(document.name, page)
            for rank in ("fulltext", "fusion", "maxsim"):
                opened.search(QUESTION, rank=rank)  # type: ignore[arg-type]
    except VisragError:
        return True
    return False


def main() -> None:
    """Print one line of JSON: how many flips were found, harmless, repaired, and what went wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.monotonic()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = make_checkpoint("ColBERT", work / "model")
        reference = make_index(work / "reference", make_documents(work / "in"), model)
        (work / "in").rename(work / "away")
        chance = random.Random(options.seed)
        for number in range(options.flips):
            copy = Path(shutil.copytree(reference, work / "copy"))
            where = damage(copy, chance)
            try:
                outcomes.append(outcome(copy, reference, work / "in", where))
            except Exception as error:  # a fault: told beside the others
                outcomes.append(Outcome(where, problems=["".join(traceback.format_exception(error))]))
            if outcomes[-1].problems:
                sys.stderr.write(f"{number} {outcomes[-1]}\n")
            shutil.rmtree(copy)
    kinds = Counter(kind for each in outcomes for kind in each.kinds)
    found = {
        "flips": len(outcomes),
        "harmless": sum(not each.kinds for each in outcomes),
        "found": dict(kinds.most_common()),
        "refused by a search": sum(each.refused for each in outcomes),
        "not as before after the repair": sum(bool(each.problems) for each in outcomes),
        "seconds": round(time.monotonic() - begun),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
