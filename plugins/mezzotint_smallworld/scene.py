"""Scenes of the small world: one or two coloured shapes on a ground, all drawn from one seed.

Coordinates are pixels of a 64x64 frame, x to the right and y down. This module holds the vocabulary
of the world and decides what is in a picture; draw.py turns it into pixels, captions.py into words.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Rgb = tuple[int, int, int]
Split = Literal["train", "test"]

FRAME: Final = 64
MARGIN: Final = 0.75  # pixels kept free at the frame's edge, so that outlines stay whole
GAP: Final = 2.5  # pixels kept free between the boxes of two objects

COLOURS: Final[dict[str, Rgb]] = {
    "red": (222, 42, 42),
    "green": (40, 168, 72),
    "blue": (44, 84, 222),
    "yellow": (247, 217, 52),
    "orange": (246, 138, 30),
    "purple": (142, 58, 182),
    "white": (246, 246, 246),
    "black": (24, 24, 24),
}
SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "ring", "diamond", "cross")
UNNAMED_COLOURS: Final[dict[str, Rgb]] = {"teal": (20, 160, 160), "pink": (240, 120, 180)}
UNNAMED_SHAPES: Final = ("crescent", "hexagon")
SIZES: Final = ("small", "plain", "large")
PLACES: Final = ("centre", "left", "right", "top", "bottom")
RELATIONS: Final = ("left of", "right of", "above", "below", "and")
GROUNDS: Final = ("plain", "gradient", "stripes")

ALONE_RADII: Final = {"small": (9.5, 11.0), "plain": (14.0, 16.0), "large": (20.0, 22.0)}
PAIR_RADII: Final = {"small": (7.5, 8.5), "plain": (10.0, 11.5), "large": (13.5, 15.0)}

# Half width and half height of each outline for a nominal radius of 1. Pointed shapes reach
# further than a circle, so that the shapes of one size look alike in area.
HALF_EXTENTS: Final[dict[str, tuple[float, float]]] = {
    "circle": (1.0, 1.0),
    "square": (0.82, 0.82),
    "triangle": (1.04, 0.9),
    "star": (1.094, 1.04),
    "heart": (1.0, 0.92),
    "ring": (1.0, 1.0),
    "diamond": (1.1, 1.1),
    "cross": (1.0, 1.0),
    "crescent": (0.85, 1.0),
    "hexagon": (1.0, 0.866),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One object.

    shape, colour, size: names of this module, also the unnamed ones.
    place: one of PLACES for an object alone; None in a pair, and for one that lies anywhere.
    centre: (x, y) of the middle of the outline's box, pixels.
    radius: nominal radius, pixels: that of a circle of this size; HALF_EXTENTS has the others.
    rgb: the jittered colour, 0 to 255.
    angle: degrees by which it is turned clockwise; what `half_extents` says is of the unturned outline.
    """

    shape: str
    colour: str
    size: str
    place: str | None
    centre: tuple[float, float]
    radius: float
    rgb: Rgb
    angle: float = 0.0

    @property
    def half_extents(self) -> tuple[float, float]:
        """Half width and half height of the outline's box, pixels."""
        width, height = HALF_EXTENTS[self.shape]
        return width * self.radius, height * self.radius


@dataclass(frozen=True, slots=True)
class Background:
    """The ground.

    kind: one of GROUNDS.
    colours: one name for plain; top and bottom for gradient; first and second stripe for stripes.
    rgbs: the jittered colours, in the same order.
    """

    kind: str
    colours: tuple[str, ...]
    rgbs: tuple[Rgb, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture's whole truth.

    things: one or two, in depth order, first drawn first.
    relation: of the first thing to the second, one of RELATIONS; None for one thing.
    """

    things: tuple[Thing, ...]
    relation: str | None
    background: Background
    seed: int
    split: str


def rgb_of(colour: str) -> Rgb:
    """The unjittered value of a named or unnamed colour. Raises KeyError for another word."""
    return COLOURS[colour] if colour in COLOURS else UNNAMED_COLOURS[colour]


def sample_scene(
    seed: int,
    *,
    things: int | None = None,
    unnamed: float = 0.08,
    split: Split = "train",
    anywhere: float = 0.0,
) -> Scene:
    """Draw a scene; the same arguments give the same scene on every machine.

    things: 1 or 2 objects; None takes one in 60% of the scenes.
    unnamed: share of scenes with a colour or shape that captions never name, 0 to 1.
    split: "train" has no held-out combination, "test" has only those.
    anywhere: share of scenes whose things lie anywhere in the frame, which no word says, 0 to 1.
    Raises: ValueError: things, unnamed, split or anywhere out of range.
    """
    if things not in (None, 1, 2):
        raise ValueError(f"sample_scene: things must be 1, 2 or None, got {things}")
    if not 0.0 <= unnamed <= 1.0:
        raise ValueError(f"sample_scene: unnamed must be 0 to 1, got {unnamed}")
    if split not in ("train", "test"):
        raise ValueError(f"sample_scene: split must be 'train' or 'test', got {split!r}")
    if not 0.0 <= anywhere <= 1.0:
        raise ValueError(f"sample_scene: anywhere must be 0 to 1, got {anywhere}")
    rng = random.Random(f"{split}/{seed}")
    single = rng.random() < 0.6 if things is None else things == 1
    odd = rng.random() < unnamed
    # A draw of its own only where it is asked for: the other scenes stay what they were.
    scattered = anywhere > 0 and rng.random() < anywhere
    looks, arrangement = _sample_looks(rng, single, odd, split, ("and",) if scattered else RELATIONS)
    background = sample_background(rng, [colour for colour, _ in looks])
    if scattered:
        return Scene(_scatter(rng, looks), None if single else "and", background, seed, split)
    if single:
        placed: tuple[Thing, ...] = (_place_alone(rng, looks[0], arrangement),)
        return Scene(placed, None, background, seed, split)
    return Scene(_place_pair(rng, looks, arrangement), arrangement, background, seed, split)


def is_held_out(looks: Sequence[tuple[str, str]], arrangement: str) -> bool:
    """Whether a combination belongs to the test split: a fixed tenth of all.

    looks: (colour, shape) of each thing. arrangement: the place of one thing, the relation of two.
    Mirrored wordings of one pair ("a left of b", "b right of a") count as one combination.
    """
    ordered = list(looks)
    if arrangement in ("right of", "below"):
        ordered.reverse()
        arrangement = "left of" if arrangement == "right of" else "above"
    elif arrangement == "and":
        ordered.sort()
    key = "/".join([arrangement, *(f"{colour} {shape}" for colour, shape in ordered)])
    digest = hashlib.blake2b(key.encode(), key=b"mezzotint smallworld 1", digest_size=8).digest()
    return int.from_bytes(digest, "big") % 10 == 0


def _sample_looks(
    rng: random.Random, single: bool, odd: bool, split: str, relations: Sequence[str]
) -> tuple[list[tuple[str, str]], str]:
    while True:
        if single:
            looks = [(rng.choice(tuple(COLOURS)), rng.choice(SHAPES))]
            arrangement = rng.choice(PLACES)
        else:
            looks = _sample_two_looks(rng)
            arrangement = rng.choice(relations)
        if odd:
            looks[rng.randrange(len(looks))] = _unnamed_look(rng)
        if is_held_out(looks, arrangement) == (split == "test"):
            return looks, arrangement


def _sample_two_looks(rng: random.Random) -> list[tuple[str, str]]:
    names = tuple(COLOURS)
    first = (rng.choice(names), rng.choice(SHAPES))
    while True:
        same_colour = rng.random() < 0.1
        second = (first[0] if same_colour else rng.choice(names), rng.choice(SHAPES))
        if second != first and (same_colour or second[0] != first[0]):
            return [first, second]


def _unnamed_look(rng: random.Random) -> tuple[str, str]:
    which = rng.random()
    colour = rng.choice(tuple(UNNAMED_COLOURS) if which < 0.6 else tuple(COLOURS))
    shape = rng.choice(UNNAMED_SHAPES if which > 0.4 else SHAPES)
    return colour, shape


def jittered(rng: random.Random, rgb: Rgb) -> Rgb:
    """A colour of six steps more or less in each channel."""
    red, green, blue = (min(255, max(0, value + rng.randint(-6, 6))) for value in rgb)
    return red, green, blue


def sample_background(rng: random.Random, taken: Sequence[str]) -> Background:
    """A ground without the colours `taken`, and, of a gradient, without any that it would pass through."""
    draw = rng.random()
    kind = "plain" if draw < 0.66 else "gradient" if draw < 0.83 else "stripes"
    while True:
        colours = tuple(rng.sample(tuple(COLOURS), 1 if kind == "plain" else 2))
        if any(colour in taken for colour in colours):
            continue
        if kind != "gradient" or all(_clear_of(colour, colours) for colour in taken):
            break
    return Background(kind, colours, tuple(jittered(rng, COLOURS[name]) for name in colours))


def _clear_of(colour: str, ends: Sequence[str]) -> bool:
    # Red to yellow passes through orange: an orange object would vanish half way down.
    point = rgb_of(colour)
    start, end = rgb_of(ends[0]), rgb_of(ends[1])
    for step in range(17):
        mixed = [a + (b - a) * step / 16 for a, b in zip(start, end, strict=True)]
        if sum((p - m) ** 2 for p, m in zip(point, mixed, strict=True)) < 70**2:
            return False
    return True


def _place_alone(rng: random.Random, look: tuple[str, str], place: str) -> Thing:
    colour, shape = look
    size = rng.choice(SIZES)
    radius = rng.uniform(*ALONE_RADII[size])
    half_width, half_height = (part * radius for part in HALF_EXTENTS[shape])
    middle = FRAME / 2
    x = middle + rng.uniform(-1.5, 1.5)
    y = middle + rng.uniform(-1.5, 1.5)
    # Centres lie within 1.5 pixels of the middle, the other places at least 6 away from it.
    if place in ("left", "right"):
        shift = _shift(rng, middle - MARGIN - half_width)
        x = middle + (shift if place == "right" else -shift)
    elif place in ("top", "bottom"):
        shift = _shift(rng, middle - MARGIN - half_height)
        y = middle + (shift if place == "bottom" else -shift)
    return Thing(shape, colour, size, place, (x, y), radius, jittered(rng, rgb_of(colour)))


def _scatter(rng: random.Random, looks: Sequence[tuple[str, str]]) -> tuple[Thing, ...]:
    """Things in any place where they fit whole, their boxes `GAP` apart; each place is as likely as another."""
    ranges = ALONE_RADII if len(looks) == 1 else PAIR_RADII
    while True:
        found = []
        for colour, shape in looks:
            size = rng.choice(SIZES)
            radius = rng.uniform(*ranges[size])
            halves = [part * radius for part in HALF_EXTENTS[shape]]
            x, y = (rng.uniform(MARGIN + half, FRAME - MARGIN - half) for half in halves)
            found.append(Thing(shape, colour, size, None, (x, y), radius, jittered(rng, rgb_of(colour))))
        if len(found) == 1 or _apart(*found):
            return tuple(found)


def _apart(first: Thing, second: Thing) -> bool:
    reach = [a + b + GAP for a, b in zip(first.half_extents, second.half_extents, strict=True)]
    return any(abs(a - b) >= far for a, b, far in zip(first.centre, second.centre, reach, strict=True))


def _shift(rng: random.Random, room: float) -> float:
    far = min(room, 17.0)
    return rng.uniform(max(6.0, far - 4.0), far)


def _place_pair(rng: random.Random, looks: Sequence[tuple[str, str]], relation: str) -> tuple[Thing, Thing]:
    diagonal = relation == "and" and rng.random() < 0.3
    facing = rng.choice(RELATIONS[:4]) if relation == "and" else relation
    along = 0 if facing in ("left of", "right of") else 1
    while True:
        sizes = [rng.choice(SIZES) for _ in looks]
        radii = [rng.uniform(*PAIR_RADII[size]) for size in sizes]
        halves = [
            tuple(part * radius for part in HALF_EXTENTS[shape])
            for (_, shape), radius in zip(looks, radii, strict=True)
        ]
        if 2 * (halves[0][along] + halves[1][along]) + GAP + 2 * MARGIN <= FRAME:
            break
    first_low = facing in ("left of", "above")
    low, high = (0, 1) if first_low else (1, 0)
    centres = [[0.0, 0.0], [0.0, 0.0]]
    room = FRAME - 2 * MARGIN - GAP - 2 * (halves[0][along] + halves[1][along])
    # The free room is shared between both edges and the gap: a fair share keeps objects apart.
    before, after = room * rng.uniform(0.1, 0.4), room * rng.uniform(0.1, 0.4)
    centres[low][along] = MARGIN + before + halves[low][along]
    centres[high][along] = FRAME - MARGIN - after - halves[high][along]
    across = 1 - along
    tilt = rng.choice((-1, 1)) * 12.0 if diagonal else 0.0
    for index, sign in ((low, -1), (high, 1)):
        reach = FRAME / 2 - MARGIN - halves[index][across]
        off = sign * tilt + rng.uniform(-2.0, 2.0)
        centres[index][across] = FRAME / 2 + max(-reach, min(reach, off))
    first, second = (
        Thing(
            shape,
            colour,
            sizes[index],
            None,
            (centres[index][0], centres[index][1]),
            radii[index],
            jittered(rng, rgb_of(colour)),
        )
        for index, (colour, shape) in enumerate(looks)
    )
    return first, second
