"""`visrag ingest` killed with SIGKILL at random moments, run again each time until it is done: nothing is lost or left.

By itself: python tests/services/kill_ingest.py --kills 50 --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).parents[1]))
from checks import compare, damaged, left_behind
from documents import broken, paper
from services import ROOT, VISRAG, lives

from visrag import Index

ENDED = 10.0  # seconds within which a killed ingest's children have ended
SCORE = 1e-3  # how far the score of a hit may be from the reference's


@dataclass(slots=True)
class Killing:
    """What was done: kills by moment (before anything was written, and after), and of what; how often an index was
    finished; the worst of all comparisons; what went wrong."""

    kills: int = 0
    early: int = 0
    groups: int = 0
    finished: int = 0
    documents_kept: int = 0
    slowest_child: float = 0.0
    cosine: float = 1.0
    steps: int = 0
    pages: int = 0
    problems: list[str] = field(default_factory=list)


class Ingest:
    """One kind of ingest: the files, the options, and how it ends undisturbed."""

    def __init__(self, work: Path, files: Path, options: Sequence[str], questions: Sequence[str]) -> None:
        self._files, self._options, self._questions = files, options, questions
        self.index = work / "index"
        self.reference = work / "reference"
        begun = time.monotonic()
        process = self.start(self.reference)
        while not _writing(self.reference) and process.poll() is None:
            time.sleep(0.01)
        self.writes = time.monotonic() - begun  # seconds after which the first document is begun
        process.wait()
        self.takes = time.monotonic() - begun
        with Index(self.reference, device="cpu") as index:
            assert len(index.documents()) == len(list(files.iterdir()))
            self._answers = self._search(index)

    def start(self, index: Path) -> subprocess.Popen[bytes]:
        command = [*VISRAG, "ingest", str(self._files), "--index", str(index), *self._options]
        return subprocess.Popen(
            command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _search(self, index: Index) -> list[list[tuple[str, int, float]]]:
        return [[(h.document, h.page, h.score) for h in index.search(question, 5)] for question in self._questions]

    def kill(self, chance: random.Random, done: Killing) -> bool:
        """Start it and kill it at a random moment; whether it was done before."""
        early = chance.random() < 0.2
        moment = chance.uniform(0, self.writes) if early else chance.uniform(self.writes, self.takes)
        process = self.start(self.index)
        try:
            process.wait(moment)
            return True
        except subprocess.TimeoutExpired:
            pass
        kept = visible(self.index)
        children = psutil.Process(process.pid).children(recursive=True)
        if chance.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
            done.groups += 1
        else:
            process.kill()
        process.wait()
        begun = time.monotonic()
        while (left := [child for child in children if lives(child)]) and time.monotonic() < begun + ENDED:
            time.sleep(0.05)
        done.slowest_child = max(done.slowest_child, time.monotonic() - begun)
        done.problems += [f"still runs: {' '.join(child.cmdline())[:120]}" for child in left]
        done.kills += 1
        done.early += early
        done.documents_kept += len(kept)
        if lost := kept - visible(self.index):
            done.problems.append(f"lost: {sorted(lost)}")
        return False

    def verify(self, done: Killing) -> None:
        """Compare an index that was finished with the one that was never disturbed."""
        done.problems += left_behind(self.index) + damaged(self.index)
        found = compare(self.index, self.reference)
        done.problems += found.problems
        done.finished += 1
        done.pages += found.pages
        done.cosine, done.steps = min(done.cosine, found.cosine), max(done.steps, found.steps)
        with Index(self.index, device="cpu") as index:
            done.problems += [f"check: {each}" for each in index.check().orphans]
            for answers, others in zip(self._search(index), self._answers, strict=True):
                pages, wanted = [hit[:2] for hit in answers], [hit[:2] for hit in others]
                near = all(abs(a[2] - b[2]) < SCORE for a, b in zip(answers, others, strict=False))
                if pages != wanted or not near:
                    done.problems.append(f"a search found {answers}, not {others}")


def kill_again_and_again(ingest: Ingest, kills: int, chance: random.Random) -> Killing:
    """Until so many kills are done, and the index of the last of them is finished."""
    done = Killing()
    while done.kills < kills or ingest.index.exists():
        if done.kills >= kills:
            ingest.start(ingest.index).wait()
        elif not ingest.kill(chance, done):
            continue
        ingest.verify(done)
        sys.stderr.write(f"{done}\n")
        shutil.rmtree(ingest.index)
    return done


def visible(index: Path) -> set[str]:
    """The documents that are in an index; nothing is written or swept."""
    if not (index / "index.db").exists():
        return set()
    with closing(sqlite3.connect(f"{(index / 'index.db').as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        try:
            return {name for (name,) in connection.execute("SELECT name FROM generations WHERE visible")}
        except sqlite3.OperationalError:  # killed before the tables were made
            return set()


def _writing(index: Path) -> bool:
    return (index / "writers").is_dir() and any((index / "writers").iterdir())


def make_files(folder: Path, samples: bool) -> Path:
    """PDFs made here: one, three, thirty pages, two of the same content, one that cannot be read; and the samples."""
    folder.mkdir()
    for name, pages in (("one", 1), ("three", 3), ("thirty", 30)):
        paper(folder / f"{name}.pdf", pages)
    shutil.copyfile(folder / "three.pdf", folder / "three again.pdf")
    broken(folder / "broken.pdf")
    if samples:
        for path in (*(ROOT / "samples").glob("*.pdf"), *(ROOT / "samples").glob("*.md")):
            shutil.copyfile(path, folder / path.name)
    return folder


def sample_questions() -> list[str]:
    lines = (ROOT / "samples" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def main() -> None:
    """Print what was done and found as one line of JSON; exit with 1 if something went wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder, "files"), samples=True)
        ingest = Ingest(Path(folder), files, (), sample_questions())
        done = kill_again_and_again(ingest, options.kills, random.Random(options.seed))
    found = {name: getattr(done, name) for name in Killing.__slots__}
    found |= {"one ingest": round(ingest.takes, 1), "seconds": round(time.monotonic() - begun)}
    sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    sys.exit(1 if done.problems else 0)


if __name__ == "__main__":
    main()
