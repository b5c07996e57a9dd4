"""What chance gives: the best match that a page has for a question that has nothing to do with it.

The more vectors a page has, the better is its best match by chance: about a + b·ln(n) for n vectors. (On 2,374
real pages and the questions of another collection, the default model's page means correlate 0.87 with ln n, with
b = 0.040.) The two numbers of each leg are measured when an index is made, on the texts and questions below,
which have nothing to do with each other. Taking chance off a match makes pages of any length comparable, and the
vectors of one encoder with those of another.
"""

from __future__ import annotations

import math
import textwrap
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .encode import Encoder
from .errors import UsageError
from .records import Floats, Page, Word
from .words import WORD

if TYPE_CHECKING:
    from PIL.Image import Image

Level: TypeAlias = tuple[float, float]  # a, b
_SIZE = (612, 792)  # points
_SHUFFLES = 12

_TEXTS = """\
The wooden ferry left the northern pier a little after six, when the fog had lifted from the strait. Two men coiled
the mooring ropes while the skipper checked the oil and wrote the time into a stained logbook. Gulls followed the wake
as far as the lighthouse, then turned back towards the harbour and its nets.

To make the dough, mix the flour with the salt, add the water a little at a time and knead until it no longer sticks
to the bowl. Leave it under a damp cloth for an hour. Shape it into twelve balls, roll each into a thin disc and bake
them on a hot stone until brown spots appear. Serve warm with yoghurt and mint.

Beech trees cast a deep shade in which few plants grow. In spring, before the leaves unfold, the forest floor is
covered with anemones and wild garlic. Woodpeckers nest in the older trunks; the holes that they leave are taken over
by owls, bats and dormice. A fallen trunk feeds beetles and fungi for decades.

The string quartet opens with a slow introduction in a minor key. The cello states the theme alone, and the other
instruments enter one by one, each a fifth higher. In the second movement the violins play without vibrato, which
gives the melody a glassy sound. The finale is a dance in seven beats to the bar.

Before climbing, check that the buckle of the harness is doubled back and that the knot has been tied through both
loops. The partner on the ground takes in the slack and never lets go of the brake rope. On the ridge the wind is
strong; place protection early and keep the rope clear of loose rock.

The potter centres the clay on the wheel with both hands, opens it with her thumbs and draws up the wall in three
pulls. After a day of drying she trims the foot. The first firing makes the pot hard but porous; then it is dipped
into a glaze of ash and feldspar and fired again, this time at a much higher heat.

Snow had closed the pass, so the mail went round by the valley on a sledge drawn by two horses. The postman knew each
farm by its dog. At the last house he was given soup and a bed, and in the morning he carried back a letter, a parcel
of cheese and the news that a child had been born.

A goalkeeper watches the hips of the player who takes the kick, not the ball. Most players shoot to their strong side
under pressure. The coach films each training session, counts the passes that break a line, and asks the defenders to
speak louder. On wet grass the studs are changed at half time.

The old clock in the square strikes the hours on a cracked bell. Its pendulum is as long as a man is tall, and a
weight of river stones drives the wheels. Every Friday the baker's daughter climbs the ladder and winds it with an
iron crank, forty turns to the left, and sets the hands by the radio.

Camels can go without water for many days because they let their body warm up in the sun and cool down at night. Their
blood cells swell without bursting when they drink again. The wide feet do not sink into the sand, and the nostrils
close against the dust. Herders shear the wool in early summer."""
TEXTS = _TEXTS.split("\n\n")

QUESTIONS = (
    "Which enzyme unwinds the double helix before replication?",
    "What share of voters supported the amendment in the second referendum?",
    "How do I reset the password of the router's administration page?",
    "What was the interest expense on long-term debt in the third quarter?",
    "Who proved that there are infinitely many prime numbers?",
    "How many satellites are needed to compute a position on the ground?",
    "What is the maximum dose of the vaccine for infants under six months?",
    "Which court decided the appeal against the patent, and in what year?",
    "How is the thermal conductivity of copper affected by impurities?",
    "What are the eligibility criteria for the tuition scholarship?",
    "Which transistor replaced the vacuum tube in early computers?",
    "How much did the unemployment rate fall after the tax reform?",
)


def chance_level(level: Level, count: int) -> float:
    """A page's chance level in a leg, for its number of vectors."""
    return level[0] + level[1] * math.log(max(1, count))


def calibrate(encoder: Encoder) -> dict[str, Level]:
    """The chance level of each of the encoder's legs, from the best matches of the questions' tokens.

    Text is given as pages of 1, 2, 5 and 10 of the texts, and a + b·ln(n) fitted to their means by least squares.
    Pictures of pages all have about as many patches, so that two of them do, and b is 0.
    """
    sizes = (5,) if encoder.needs_image else (1, 2, 5, 10)
    texts = ["\n\n".join(TEXTS[start : start + size]) for size in sizes for start in range(0, len(TEXTS), size)]
    encoded = encoder.encode_pages([_page(number, text) for number, text in enumerate(texts, 1)])
    queries = [encoder.encode_query(question) for question in QUESTIONS]
    levels = {}
    for leg in encoder.legs:
        vectors = [page[leg.name].vectors for page in encoded]
        noise = np.concatenate([query[leg.name].vectors[query[leg.name].weights > 0] for query in queries])
        means = np.array([(found @ noise.T).max(axis=0).mean() for found in vectors])
        levels[leg.name] = _fit(np.log([len(found) for found in vectors]), means, slope=len(sizes) > 1)
    return levels


def principal_components(encoder: Encoder, dim: int) -> Floats:
    """The projection (d, dim) onto the directions in which a text encoder's tokens have most of their length, so that
    what is cut off changes products of two of them least. Raises UsageError.

    They are tokens of the words of the texts and questions, shuffled some times: on the dev set as good as those of its
    own pages, and better than in the order in which they are written, which are too few. Centred they were no better.
    """
    known = encoder.legs[0].dim
    if dim >= known:
        raise UsageError(f"dim={dim}: the model {encoder.legs[0].encoder} has {known}: choose fewer")
    words = " ".join([*TEXTS, *QUESTIONS]).split()
    shuffle = np.random.default_rng(0)
    shuffled = [" ".join(shuffle.permutation(words)) for _ in range(_SHUFFLES)]
    encoded = encoder.encode_pages([_page(number, text) for number, text in enumerate(shuffled, 1)])
    vectors = np.concatenate([page[encoder.legs[0].name].vectors for page in encoded])
    _, directions = np.linalg.eigh(vectors.T @ vectors)  # by ascending length
    chosen: Floats = directions[:, ::-1][:, :dim].astype(np.float32)
    return chosen


def _page(number: int, text: str) -> Page:
    """A text as a page. Its words have a place, since what has none is not pooled; where it is doesn't matter."""
    words = tuple(Word(found.group(), found.start(), ((0, 0, 1, 1),)) for found in WORD.finditer(text))
    return Page(number, *_SIZE, text, words, "layout", image=partial(_draw, text))


def _fit(x: NDArray[np.float64], y: NDArray[np.float64], slope: bool) -> Level:
    """The line a + b·x through the points; a horizontal one where there is no slope to measure."""
    spread = float(((x - x.mean()) ** 2).sum())
    b = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if slope and spread > 0 else 0.0
    return float(y.mean()) - b * float(x.mean()), b


def _draw(text: str) -> Image:
    """A text as the picture of a page."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (2 * _SIZE[0], 2 * _SIZE[1]), "white")
    lines = textwrap.fill(text, 90, replace_whitespace=False)
    ImageDraw.Draw(picture).multiline_text((80, 80), lines, "black", ImageFont.load_default(24), spacing=8)
    return picture
