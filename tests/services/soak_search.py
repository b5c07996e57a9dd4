"""One process replaces, removes and compacts while another searches without pause: every answer is of one state.

By itself: python tests/services/soak_search.py --minutes 5

All documents are of one page and as many terms, so that the BM25 of a word of the kept ones depends on how many pages
there are, and on nothing else. By MaxSim and by fusion (where the best page's share of full text is 1, and only
the kept ones have the word) their scores are those that they have alone.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from checkpoints import make_checkpoint

from visrag import Hit, Index
from visrag.settings import Rank

KEPT, MOVING = 6, 6  # documents that stay, and that come and go
WORD = "harbour"  # on the kept pages only
WORDS = ["timber", "steel", "glass", "river", "bridge", "station", "ticket", "weather", "orchard", "telescope"]
DIGITS = "bcdfghjklm"
QUESTIONS: Sequence[tuple[Rank, str]] = (("fusion", WORD), ("maxsim", f"{WORD} bridge"), ("fulltext", WORD))
NEAR = 1e-4  # how far a score may be from that which it has alone


@dataclass(slots=True)
class Soak:
    """What was done, and what went wrong. ``states``: numbers of pages by which full text reckoned."""

    searches: int = 0
    slowest: float = 0.0
    added: int = 0
    removed: int = 0
    compacted: int = 0
    states: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


class Told:
    """What the writer has told, by document: ``oldest`` version that may be found, as it is there or those before
    are gone; ``newest`` that may be, as it is being added."""

    def __init__(self, pipe: Connection, soak: Soak) -> None:
        self._pipe, self._soak = pipe, soak
        self.oldest: dict[str, int] = {}
        self.newest: dict[str, int] = {}

    def read(self) -> None:
        try:
            while self._pipe.poll():
                what, name, version = self._pipe.recv()
                if what == "adding":
                    self.newest[name] = version
                elif what == "added":
                    self.oldest[name] = version
                    self._soak.added += 1
                elif what == "removed":
                    self.oldest[name] = version + 1
                    self._soak.removed += 1
                else:
                    self._soak.compacted += 1
        except EOFError:  # the writer has ended
            pass


def text_of(name: str, version: int) -> str:
    """Nine terms: a word that tells the version, and others by the name."""
    told = "q" + "".join(DIGITS[int(digit)] for digit in str(version))
    words = random.Random(name).sample(WORDS, 8)
    return " ".join([told, *words] if version else [WORD, *words])


def version_of(hit: Hit) -> int:
    return int("".join(str(DIGITS.index(letter)) for letter in hit.text.split()[0][1:]))


def write(path: Path, seed: int, steps: int, seconds: float, pipe: Connection) -> None:
    """Replace and remove documents at random, and compact: so many steps, and until the time is over."""
    chance, end = random.Random(seed), time.monotonic() + seconds
    there: dict[str, int] = {}
    step = 0
    with Index(path, device="cpu") as index:
        while step < steps or time.monotonic() < end:
            step += 1
            name = f"moving {chance.randrange(MOVING)}"
            if name in there and chance.random() < 0.5:
                index.remove(name)
                pipe.send(("removed", name, there.pop(name)))
            else:
                pipe.send(("adding", name, step))
                index.ingest_texts({name: text_of(name, step)})
                pipe.send(("added", name, step))
                there[name] = step
            if step % 5 == 0:
                index.compact()
                pipe.send(("compacted", "", step))


def wrong(hits: Sequence[Hit], alone: dict[str, list[float]], oldest: dict[str, int], newest: dict[str, int]) -> str:
    """What is wrong with an answer. ``alone``: the scores that each of the kept documents may have, in the order of the
    states that they are of; ``oldest``, ``newest``: versions of the others."""
    scores = {hit.document: hit.score for hit in hits if hit.document in alone}
    if scores.keys() != alone.keys():
        return f"of the kept only {sorted(scores)} were found"
    if not set.intersection(*(states_of(score, alone[name]) for name, score in scores.items())):
        return f"the kept have the scores {scores}, alone {alone}"
    for hit in hits:
        if hit.document not in alone and not oldest.get(hit.document, 0) <= version_of(hit) <= newest[hit.document]:
            return f"{hit.document} was found in version {version_of(hit)}"
    return ""


def states_of(score: float, scores: Sequence[float]) -> set[int]:
    return {state for state, each in enumerate(scores) if abs(score - each) < NEAR}


def soak_search(folder: Path, steps: int, seconds: float = 0.0, seed: int = 0) -> Soak:
    """Search an index while another process writes it, and once more when that is done."""
    done = Soak()
    with Index(folder / "index", text=str(make_checkpoint("ColBERT", folder / "model")), device="cpu") as index:
        index.ingest_texts({name: text_of(name, 0) for name in (f"kept {i}" for i in range(KEPT))})
        alone = {}
        for rank, question in QUESTIONS:
            alone[rank] = {hit.document: [hit.score] for hit in index.search(question, 20, rank=rank)}
        bm25 = [math.log(1 + (pages - KEPT + 0.5) / (KEPT + 0.5)) for pages in range(KEPT, KEPT + MOVING + 1)]
        alone["fulltext"] = dict.fromkeys(alone["maxsim"], bm25)
        ours, theirs = multiprocessing.Pipe()
        arguments = (folder / "index", seed, steps, seconds, theirs)
        writer = multiprocessing.get_context("spawn").Process(target=write, args=arguments)
        writer.start()
        theirs.close()
        told = Told(ours, done)
        try:
            working = True
            while working and not done.problems:
                working = writer.is_alive()
                for rank, question in QUESTIONS:
                    told.read()
                    oldest, begun = dict(told.oldest), time.monotonic()
                    try:
                        hits = index.search(question, 20, rank=rank)
                    except Exception as error:
                        done.problems.append(f"{rank}: {type(error).__name__}: {error}")
                        continue
                    done.slowest = max(done.slowest, time.monotonic() - begun)
                    done.searches += 1
                    told.read()
                    if found := wrong(hits, alone[rank], oldest, told.newest):
                        done.problems.append(f"{rank}: {found}")
                    if rank == "fulltext" and hits:
                        done.states |= {KEPT + state for state in states_of(hits[0].score, bm25)}
        finally:
            if working:  # something is wrong
                writer.kill()
            writer.join()
    if writer.exitcode and not done.problems:
        done.problems.append(f"the writer ended with {writer.exitcode}")
    return done


def main() -> None:
    """Print what was done and found as one line of JSON; exit with 1 if something went wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = soak_search(Path(folder), 0, 60 * options.minutes, options.seed)
    sys.stdout.write(json.dumps(asdict(done), default=sorted, ensure_ascii=False) + "\n")
    sys.exit(1 if done.problems else 0)


if __name__ == "__main__":
    main()
