"""Moving scenes of the small world: what is in a clip, and how it moves, all drawn from one seed.

A clip is one second long, however many frames show it: time runs from 0 at the first frame to 1 at the last.
Coordinates are those of scene.py. Two things keep to a lane each, so that they never meet.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from mezzotint_smallworld.scene import (
    ALONE_RADII,
    COLOURS,
    FRAME,
    HALF_EXTENTS,
    MARGIN,
    PAIR_RADII,
    SHAPES,
    SIZES,
    Background,
    Rgb,
    Scene,
    Split,
    Thing,
    jittered,
    rgb_of,
    sample_background,
)

__all__ = [
    "DIRECTIONS",
    "MOTIONS",
    "NEAREST",
    "SPEEDS",
    "MovingScene",
    "MovingThing",
    "frames_of",
    "sample_moving_scene",
]

DIRECTIONS: Final = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOTIONS: Final = (
    "still", "left", "right", "up", "down", "clockwise", "anticlockwise", "growing", "shrinking", "bouncing",
    "changing",
)  # fmt: skip
SPEEDS: Final = {"slowly": (9.0, 12.0), "plain": (17.0, 21.0), "quickly": (27.0, 31.0)}
"""Pixels that a moving thing goes in the clip's second."""

TURN: Final = (75.0, 95.0)  # degrees in the second
SMALLEST: Final = 0.5  # radius of a growing thing at first, as a share of the last
BOUNCE: Final = (9.0, 12.0)  # pixels, twice up and down in the second
ROUND: Final = ("circle", "ring")  # which look the same however they are turned
CLEAR: Final = 80.0  # RGB distance that a changing colour keeps from the ground
NEAREST: Final = ALONE_RADII["large"][1]  # pixels: the radius of the nearest thing there is, whose depth is 1


@dataclass(frozen=True, slots=True)
class MovingThing:
    """One object and what it does.

    thing: as the clip's first frame has it, but for `radius` and `centre`, which are those of time 0 too.
    motion: one of MOTIONS. speed: one of SPEEDS for the four directions, else None.
    amount: pixels, degrees or share of the radius that it moves by; see `at`.
    becomes, becomes_rgb: the colour at the end, of a changing thing.
    """

    thing: Thing
    motion: str
    speed: str | None = None
    amount: float = 0.0
    becomes: str | None = None
    becomes_rgb: Rgb | None = None

    def at(self, time: float) -> Thing:
        """The object at a time in 0..1."""
        thing, (x, y) = self.thing, self.thing.centre
        if self.motion in DIRECTIONS:
            dx, dy = DIRECTIONS[self.motion]
            return replace(thing, centre=(x + dx * self.amount * time, y + dy * self.amount * time))
        match self.motion:
            case "bouncing":
                return replace(thing, centre=(x, y - self.amount * abs(math.sin(2 * math.pi * time))))
            case "clockwise":
                return replace(thing, angle=self.amount * time)
            case "anticlockwise":
                return replace(thing, angle=-self.amount * time)
            case "growing" | "shrinking":
                return replace(thing, radius=thing.radius * (1 + (self.amount - 1) * time))
            case "changing":
                assert self.becomes_rgb is not None
                mixed = [round(a + (b - a) * time) for a, b in zip(thing.rgb, self.becomes_rgb, strict=True)]
                return replace(thing, rgb=(mixed[0], mixed[1], mixed[2]))
        return thing


@dataclass(frozen=True, slots=True)
class MovingScene:
    """A clip's whole truth. relation: of the first thing to the second, at all times; None for one thing."""

    things: tuple[MovingThing, ...]
    relation: str | None
    background: Background
    seed: int
    split: str


def frames_of(scene: MovingScene, count: int, seconds: float = 1.0) -> list[Scene]:
    """The scene as `count` still ones, evenly spread over the second, both ends among them.

    seconds: how much of it is shown, from its start; 1 at most, since things would leave the frame.
    Raises: ValueError: no frames, seconds out of range.
    """
    if count < 1:
        raise ValueError(f"frames_of: a clip has at least one frame, got {count}")
    if not 0 < seconds <= 1:
        raise ValueError(f"frames_of: a scene lasts one second, got {seconds}")
    times = [seconds * index / (count - 1) if count > 1 else 0.0 for index in range(count)]
    return [
        Scene(
            tuple(one.at(time) for one in scene.things), scene.relation, scene.background, scene.seed, scene.split
        )
        for time in times
    ]


def sample_moving_scene(
    seed: int, *, things: int | None = None, motions: Sequence[str] = MOTIONS, split: Split = "train"
) -> MovingScene:
    """Draw a moving scene; the same arguments give the same scene on every machine.

    things: 1 or 2; None takes one in 70% of the scenes. motions: which of MOTIONS there are.
    split: "train" has no held-out combination of colour, shape and motion, "test" has only those.
    Raises: ValueError: things, motions or split out of range.
    """
    unknown = [name for name in motions if name not in MOTIONS]
    if things not in (None, 1, 2) or unknown or not motions or split not in ("train", "test"):
        raise ValueError(f"sample_moving_scene: got things {things}, motions {list(motions)}, split {split!r}")
    rng = random.Random(f"moving/{split}/{seed}")
    single = rng.random() < 0.7 if things is None else things == 1
    while True:
        relation = None if single else rng.choice(("left of", "right of", "above", "below"))
        found = [_thing(rng, motions, relation, first) for first in ((True,) if single else (True, False))]
        if None in found:
            continue
        moving = [one for one in found if one is not None]
        looks = {(one.thing.colour, one.thing.shape) for one in moving}
        held_out = any(is_held_out(one) for one in moving)
        if len(looks) == len(moving) and held_out == (split == "test"):
            break
    background = _background(rng, moving)
    return MovingScene(tuple(moving), relation, background, seed, split)


def is_held_out(moving: MovingThing) -> bool:
    """Whether a combination of colour, shape and motion belongs to the test split: a fixed tenth of all."""
    key = f"{moving.thing.colour} {moving.thing.shape} {moving.motion}"
    digest = hashlib.blake2b(key.encode(), key=b"mezzotint moving world", digest_size=8).digest()
    return int.from_bytes(digest, "big") % 10 == 0


def _thing(rng: random.Random, motions: Sequence[str], relation: str | None, first: bool) -> MovingThing | None:
    """One object in its lane, or None where the drawn motion does not fit there or its shape."""
    motion, shape, colour = rng.choice(tuple(motions)), rng.choice(SHAPES), rng.choice(tuple(COLOURS))
    if motion in ("clockwise", "anticlockwise") and shape in ROUND:
        return None
    # Lanes lie across the relation's direction: things above each other move sideways.
    across = {"above": ("up", "down", "bouncing"), "left of": ("left", "right")}
    along = "above" if relation in ("above", "below") else "left of"
    if relation is not None and motion in across[along]:
        return None
    size = rng.choice(SIZES)
    radius = rng.uniform(*(ALONE_RADII if relation is None else PAIR_RADII)[size])
    speed = rng.choice(tuple(SPEEDS)) if motion in DIRECTIONS else None
    amount, reach, becomes = _course(rng, motion, speed, colour, radius)
    if motion in ("growing", "shrinking"):
        # Nothing is said of the size of what changes it: it is a large one at its largest.
        size, largest = "plain", rng.uniform(*(ALONE_RADII if relation is None else PAIR_RADII)["large"])
        radius = largest * (SMALLEST if motion == "growing" else 1.0)
        amount, reach = (1 / SMALLEST, largest) if motion == "growing" else (SMALLEST, largest)
    low, high = _room(relation, first)
    half = [part * reach for part in HALF_EXTENTS[shape]]
    if motion in ("clockwise", "anticlockwise"):
        half = [1.45 * max(half)] * 2 if shape == "square" else [1.2 * max(half)] * 2
    path = [abs(part) * amount for part in DIRECTIONS.get(motion, (0, 0))]
    if motion == "bouncing":
        path = [0.0, amount]
    centre = []
    for axis in (0, 1):
        span = high[axis] - low[axis] - 2 * half[axis] - path[axis]
        if span < 0:
            return None
        centre.append(low[axis] + half[axis] + rng.uniform(0.25, 0.75) * span)
    forwards = DIRECTIONS.get(motion, (0, -1 if motion == "bouncing" else 0))
    start = tuple(c + (path[axis] if forwards[axis] < 0 else 0.0) for axis, c in enumerate(centre))
    thing = Thing(shape, colour, size, None, (start[0], start[1]), radius, jittered(rng, rgb_of(colour)))
    end = jittered(rng, rgb_of(becomes)) if becomes else None
    return MovingThing(thing, motion, speed, amount, becomes, end)


def _course(
    rng: random.Random, motion: str, speed: str | None, colour: str, radius: float
) -> tuple[float, float, str | None]:
    """(amount, the largest radius on the way, the colour at the end)."""
    if speed is not None:
        return rng.uniform(*SPEEDS[speed]), radius, None
    if motion in ("clockwise", "anticlockwise"):
        return rng.uniform(*TURN), radius, None
    if motion == "bouncing":
        return rng.uniform(*BOUNCE), radius, None
    if motion == "changing":
        return 0.0, radius, rng.choice([name for name in COLOURS if name != colour])
    return 0.0, radius, None


def _room(relation: str | None, first: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """The lane's corners: the whole frame, or its half."""
    low, high = [MARGIN, MARGIN], [FRAME - MARGIN, FRAME - MARGIN]
    if relation is not None:
        axis = 1 if relation in ("above", "below") else 0
        lower = (relation in ("above", "left of")) == first
        (high if lower else low)[axis] = FRAME / 2 + (-1.25 if lower else 1.25)
    return (low[0], low[1]), (high[0], high[1])


def _background(rng: random.Random, moving: Sequence[MovingThing]) -> Background:
    taken = [name for one in moving for name in (one.thing.colour, one.becomes) if name]
    while True:
        found = sample_background(rng, taken)
        on_the_way = [one.at(step / 8).rgb for one in moving if one.becomes for step in range(9)]
        grounds = [
            [a + (b - a) * share / 8 for a, b in zip(found.rgbs[0], found.rgbs[-1], strict=True)]
            for share in (range(9) if found.kind == "gradient" else (0, 8))
        ]
        if all(math.dist(ground, rgb) >= CLEAR for ground in grounds for rgb in on_the_way):
            return found
