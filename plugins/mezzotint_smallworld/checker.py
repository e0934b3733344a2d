"""Checker: reads what a picture holds from its pixels alone, and compares that with the words.

Ground first (three models fitted to the picture's rim), then the objects that stand out from it,
each with its coverage, colour, shape (nearest of the checker's own templates) and size. It shares
the world's words and measures with scene.py, and none of the drawing. Made to bear the blur and
noise of generated pictures; what is too far from every name reads as None, which is never right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from mezzotint_smallworld.captions import Wanted, WantedThing, parse
from mezzotint_smallworld.scene import (
    ALONE_RADII,
    COLOURS,
    FRAME,
    GROUNDS,
    HALF_EXTENTS,
    PAIR_RADII,
    SIZES,
    UNNAMED_COLOURS,
)

Floats = NDArray[np.float64]

ASPECTS: Final = ("background", "count", "colour", "shape", "size", "place", "relation")
_OF_THINGS: Final = ("colour", "shape", "size", "place")
STANDS_OUT: Final = 36.0  # RGB distance from the ground at which a pixel can be an object's
SAME_COLOUR: Final = 65.0  # RGB distance from its nearest name beyond which a colour has none
SPECK: Final = 20.0  # pixels; a smaller blob is noise, the smallest true object covers 90
SAME_SHAPE: Final = 0.15  # share of a template's energy by which an outline may miss it
OFF_CENTRE: Final = 3.75  # pixels; true centres lie within 1.5, other places from 6 on
SIMPLER: Final = 5.0  # RGB distance by which a two-coloured ground must fit better than a plain one
GRID: Final = 36  # templates are compared on a GRID x GRID raster

_NAMES: Final = (*COLOURS, *UNNAMED_COLOURS)
_PALETTE: Final = np.array([*COLOURS.values(), *UNNAMED_COLOURS.values()], dtype=float)
_ROWS, _COLUMNS = np.mgrid[0:FRAME, 0:FRAME]
_RIM: Final = (np.minimum(_ROWS, FRAME - 1 - _ROWS) < 2) | (np.minimum(_COLUMNS, FRAME - 1 - _COLUMNS) < 2)


@dataclass(frozen=True, slots=True)
class SeenGround:
    """kind: of scene.GROUNDS. colours: names from the top or the left; None is no known colour."""

    kind: str
    colours: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class SeenThing:
    """One object as seen; a name is None where nothing known is near enough.

    centre: (x, y) of its box, pixels. radius: nominal as in scene.Thing, from the area covered.
    place: where its centre lies in the frame; None between two places.
    """

    shape: str | None
    colour: str | None
    size: str | None
    place: str | None
    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture holds: its ground and its objects, largest first."""

    background: SeenGround
    things: tuple[SeenThing, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Right or wrong per aspect; None where the words ask nothing.

    count: as many objects as asked. In a pair an aspect is right when it is right for both.
    all: every aspect asked is right.
    """

    background: bool | None
    count: bool
    colour: bool | None
    shape: bool | None
    size: bool | None
    place: bool | None
    relation: bool | None
    all: bool


def read(pixels: ArrayLike) -> Reading:
    """Read a picture. pixels: [64, 64, 3] uint8. Raises: ValueError: another shape or dtype."""
    return describe(*objects(pixels))


def objects(pixels: ArrayLike) -> tuple[SeenGround, list[tuple[Floats, Floats]]]:
    """The ground, and (coverage [64, 64] in 0..1, colour [3] in 0..255) of each object, largest first.

    pixels, Raises: as `read`.
    """
    given = np.asarray(pixels)
    if given.shape != (FRAME, FRAME, 3) or given.dtype != np.uint8:
        raise ValueError(f"read: pixels must be [64, 64, 3] uint8, got {list(given.shape)} {given.dtype}")
    picture = given.astype(float)
    background, ground = _read_ground(picture)
    return background, sorted(_blobs(picture, ground), key=lambda blob: -blob[0].sum())


def describe(background: SeenGround, blobs: Sequence[tuple[Floats, Floats]]) -> Reading:
    """`read` for a picture whose objects have been found."""
    radii = ALONE_RADII if len(blobs) == 1 else PAIR_RADII
    return Reading(background, tuple(_describe(*blob, radii) for blob in blobs))


def check(pixels: ArrayLike, wanted: Wanted) -> Verdict:
    """Compare a picture with what was asked. pixels: [64, 64, 3] uint8.

    Objects seen are matched to those asked by shape and colour, then so that most is right.
    """
    return judge(read(pixels), wanted)


def judge(reading: Reading, wanted: Wanted) -> Verdict:
    """`check` for a picture that has been read."""
    count = len(reading.things) == len(wanted.things)
    missing = [None] * max(0, len(wanted.things) - len(reading.things))
    seen: list[SeenThing | None] = [*reading.things, *missing]
    ground = background_right(reading.background, wanted)

    def verdict_of(matched: Sequence[SeenThing | None]) -> Verdict:
        marks = {name: _aspect_right(name, matched, wanted.things) for name in _OF_THINGS}
        marks["relation"] = _relation_right(matched, wanted.relation)
        everything = count and ground is not False and False not in marks.values()
        return Verdict(background=ground, count=count, **marks, all=everything)

    def agreement(matched: Sequence[SeenThing | None]) -> tuple[int, int]:
        alike = sum(
            getattr(found, aspect, None) == getattr(thing, aspect)
            for found, thing in zip(matched, wanted.things, strict=True)
            for aspect in ("shape", "colour")
            if getattr(thing, aspect) is not None
        )
        verdict = verdict_of(matched)
        return alike, sum(getattr(verdict, aspect) is True for aspect in ASPECTS)

    return verdict_of(max(permutations(seen[:4], len(wanted.things)), key=agreement))


def score(pictures: Sequence[ArrayLike], asked: Sequence[str | Wanted]) -> dict[str, float | int | None]:
    """Per cent right over pictures and what was asked of each: prompts or parsed prompts.

    Keys: each of ASPECTS and "all"; "one object" and "two objects" ("all" among those prompts);
    None where no prompt asks. "pictures" is their number.
    Raises: ValueError: lengths differ. CaptionError: a prompt outside the grammar.
    """
    goals = [parse(goal) if isinstance(goal, str) else goal for goal in asked]
    verdicts = [check(picture, goal) for picture, goal in zip(pictures, goals, strict=True)]

    def percent(marks: Sequence[bool | None]) -> float | None:
        said = [mark for mark in marks if mark is not None]
        return 100.0 * sum(said) / len(said) if said else None

    result: dict[str, float | int | None] = {"pictures": len(verdicts)}
    for aspect in (*ASPECTS, "all"):
        result[aspect] = percent([getattr(verdict, aspect) for verdict in verdicts])
    for name, number in (("one object", 1), ("two objects", 2)):
        result[name] = percent(
            [v.all for v, goal in zip(verdicts, goals, strict=True) if len(goal.things) == number]
        )
    return result


def _aspect_right(aspect: str, matched: Sequence[SeenThing | None], things: Sequence[WantedThing]) -> bool | None:
    pairs = [
        (getattr(seen, aspect, None), getattr(thing, aspect)) for seen, thing in zip(matched, things, strict=True)
    ]
    asked = [(found, goal) for found, goal in pairs if goal is not None]
    return all(found == goal for found, goal in asked) if asked else None


def background_right(seen: SeenGround, wanted: Wanted) -> bool | None:
    """Whether a ground is the one asked for; None where the words ask for none."""
    goal = wanted.background
    if goal is None:
        return None
    if goal.kind == "stripes":  # "a and b striped" does not say which stripe comes first
        return seen.kind == goal.kind and set(seen.colours) == set(goal.colours)
    return (seen.kind, seen.colours) == (goal.kind, goal.colours)


def _relation_right(matched: Sequence[SeenThing | None], relation: str | None) -> bool | None:
    if relation is None:
        return None
    first, second = matched
    if first is None or second is None:
        return False
    dx, dy = (b - a for a, b in zip(first.centre, second.centre, strict=True))
    if abs(dx) > abs(dy):
        return relation == ("left of" if dx > 0 else "right of")
    return relation == ("above" if dy > 0 else "below")


def colour_name(rgb: Floats) -> str | None:
    """The name of the nearest colour, None if that is too far."""
    far = np.linalg.norm(_PALETTE - rgb, axis=1)
    return _NAMES[int(far.argmin())] if far.min() <= SAME_COLOUR else None


def _read_ground(picture: Floats) -> tuple[SeenGround, Floats]:
    """The ground's name and its colour under every pixel, [64, 64, 3]."""
    best: tuple[float, str, list[Floats], Floats] | None = None
    for kind, fit in zip(GROUNDS, (_fit_plain, _fit_gradient, _fit_stripes), strict=True):
        ends, model = fit(picture)
        misses = np.linalg.norm((picture - model)[_RIM], axis=1)
        # A plain ground also fits as two equal colours: the simplest wins unless clearly worse.
        cost = float(np.minimum(misses, 60).mean()) + (0.0 if kind == "plain" else SIMPLER)
        if best is None or cost < best[0]:
            best = (cost, kind, ends, model)
        if cost <= SIMPLER:
            break
    assert best is not None
    _, kind, ends, model = best
    return SeenGround(kind, tuple(colour_name(rgb) for rgb in ends)), model


def _fit_plain(picture: Floats) -> tuple[list[Floats], Floats]:
    rim = picture[_RIM]
    middle = np.median(rim, axis=0)
    near = np.linalg.norm(rim - middle, axis=1) < 40
    colour = rim[near].mean(axis=0) if near.any() else middle
    return [colour], np.broadcast_to(colour, picture.shape)


def _fit_gradient(picture: Floats) -> tuple[list[Floats], Floats]:
    """A line per channel down the rim, by least squares that forget outliers."""
    rim, heights = picture[_RIM], _ROWS[_RIM] / (FRAME - 1)
    design = np.stack([1 - heights, heights], axis=1)
    weights = np.ones(len(rim))
    for _ in range(8):
        scaled = design * weights[:, None]
        ends = np.linalg.solve(scaled.T @ design, scaled.T @ rim)
        weights = 1 / (1 + (np.linalg.norm(rim - design @ ends, axis=1) / 20) ** 2)
    share = np.linspace(0, 1, FRAME)[:, None]
    model = (1 - share) * ends[0] + share * ends[1]
    return [ends[0], ends[1]], np.broadcast_to(model[:, None], picture.shape)


def _fit_stripes(picture: Floats) -> tuple[list[Floats], Floats]:
    """Two colours in stripes of eight columns, at the best of eight phases."""
    shown = np.median(np.concatenate([picture[:2], picture[-2:]]), axis=0)
    fits = []
    for phase in range(8):
        odd = ((np.arange(FRAME) + phase) // 8 % 2 == 1)[:, None]
        ends = [np.median(shown[part[:, 0]], axis=0) for part in (~odd, odd)]
        misses = np.linalg.norm(shown - np.where(odd, ends[1], ends[0]), axis=1)
        fits.append((np.minimum(misses, 60).mean(), phase, ends, odd))
    _, _, ends, odd = min(fits, key=lambda fit: fit[:2])
    # Where stripes meet, a blurred picture has mixtures: take the share that the rim shows there.
    ahead = ends[1] - ends[0]
    share = np.clip((shown - ends[0]) @ ahead / max(float(ahead @ ahead), 1.0), 0, 1)[:, None]
    meets = (odd != np.roll(odd, 1)) | (odd != np.roll(odd, -1))
    share = np.where(meets & (np.abs(share - odd) < 0.6), share, odd)
    model = ends[0] + share * ahead
    first = int(odd[0, 0])
    return [ends[first], ends[1 - first]], np.broadcast_to(model, picture.shape)


def _blobs(picture: Floats, ground: Floats) -> list[tuple[Floats, Floats]]:
    """(coverage [64, 64] in 0..1, colour [3]) of each object."""
    contrast = np.linalg.norm(picture - ground, axis=2)
    cores = _flat_parts(picture, contrast)
    labels, count = ndimage.label(cores, structure=np.ones((3, 3)))
    if not count:
        return _smears(picture, contrast, [])
    colours = np.stack([np.median(picture[labels == n], axis=0) for n in range(1, count + 1)])
    # Each pixel is a mixture of the ground and the colour of the nearest core.
    _, (rows, columns) = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    nearest = labels[rows, columns]
    ahead = colours[nearest - 1] - ground
    coverage = ((picture - ground) * ahead).sum(2) / np.maximum((ahead**2).sum(2), 1.0)
    coverage = np.clip(coverage, 0, 1)
    names = np.array([_NAMES.index(name) if (name := colour_name(rgb)) else -1 for rgb in colours])
    blobs = []
    for name in np.unique(names):
        ours = np.where((names == name)[nearest - 1], coverage, 0.0)
        blobs += _split(picture, ours, cores)
    return blobs + _smears(picture, contrast, blobs)


def _smears(picture: Floats, contrast: Floats, blobs: list[tuple[Floats, Floats]]) -> list[tuple[Floats, Floats]]:
    """What else stands out and is too uneven to be an object; it still counts as one too many."""
    taken = np.zeros(contrast.shape, dtype=bool)
    for coverage, _ in blobs:
        taken |= ndimage.binary_dilation(coverage > 0.3, iterations=3)
    left = ndimage.binary_opening((contrast > STANDS_OUT) & ~taken, np.ones((3, 3)))
    labels, count = ndimage.label(left)
    parts = [labels == label for label in range(1, count + 1)]
    return [(part.astype(float), np.median(picture[part], axis=0)) for part in parts if part.sum() >= 2 * SPECK]


def _flat_parts(picture: Floats, contrast: Floats) -> NDArray[np.bool_]:
    """Pixels in a 2x2 block that stands out from the ground and is even: no edge runs through."""
    corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
    blocks = np.stack([picture[r : FRAME - 1 + r, c : FRAME - 1 + c] for r, c in corners])
    far = np.min([contrast[r : FRAME - 1 + r, c : FRAME - 1 + c] for r, c in corners], axis=0)
    even = np.ptp(blocks, axis=0).max(axis=2) < np.maximum(24, 0.2 * far)
    flat = np.zeros((FRAME, FRAME), dtype=bool)
    for r, c in corners:
        flat[r : FRAME - 1 + r, c : FRAME - 1 + c] |= even & (far > STANDS_OUT)
    return flat


def _split(picture: Floats, coverage: Floats, cores: NDArray[np.bool_]) -> list[tuple[Floats, Floats]]:
    labels, count = ndimage.label(coverage > 0.5, structure=np.ones((3, 3)))
    blobs = []
    for label in range(1, count + 1):
        inside = labels == label
        if inside.sum() < SPECK or not (inside & cores).any():
            continue
        around = ndimage.binary_dilation(inside, iterations=2) & ((labels == 0) | inside)
        colour = np.median(picture[inside & cores], axis=0)
        blobs.append((np.where(around, coverage, 0.0), colour))
    return blobs


def _describe(coverage: Floats, colour: Floats, radii: dict[str, tuple[float, float]]) -> SeenThing:
    shape, miss = nearest_shape(coverage)
    centre, radius = measure(coverage, shape)
    return SeenThing(
        shape=shape if miss <= SAME_SHAPE else None,
        colour=colour_name(colour),
        size=_size(radius, radii),
        place=_place(*centre),
        centre=centre,
        radius=radius,
    )


def nearest_shape(coverage: Floats, angle: float = 0.0) -> tuple[str, float]:
    """The shape whose template is nearest, and how far it is off, as a share of the template's energy.

    angle: degrees by which the object is turned clockwise.
    """
    bank, owners, _ = _templates()
    misses = ((bank - _normalised(coverage, angle)) ** 2).sum(1) / (bank**2).sum(1)
    nearest = int(misses.argmin())
    return owners[nearest], float(misses[nearest])


def measure(coverage: Floats, shape: str, angle: float = 0.0) -> tuple[tuple[float, float], float]:
    """((x, y) of the middle of an object's unturned box, its nominal radius), both in pixels.

    angle: degrees by which it is turned clockwise around that middle.
    """
    area, below, aside = _templates()[2][shape]
    radius = float(np.sqrt(coverage.sum() / area))
    y, x = (float(part) + 0.5 for part in ndimage.center_of_mass(coverage))
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    off_x, off_y = aside * cosine - below * sine, aside * sine + below * cosine
    return (x - float(off_x) * radius, y - float(off_y) * radius), radius


def _size(radius: float, radii: dict[str, tuple[float, float]]) -> str:
    limits = [(radii[a][1] + radii[b][0]) / 2 for a, b in (SIZES[:2], SIZES[1:])]
    return SIZES[sum(radius > limit for limit in limits)]


def _place(x: float, y: float) -> str | None:
    dx, dy = x - FRAME / 2, y - FRAME / 2
    if max(abs(dx), abs(dy)) < OFF_CENTRE:
        return "centre"
    if min(abs(dx), abs(dy)) > 0.6 * max(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "bottom" if dy > 0 else "top"


def _normalised(coverage: Floats, angle: float = 0.0) -> Floats:
    """An outline moved to its centroid, turned back and scaled by the root of its area: GRID * GRID numbers.

    Both come from sums over pixels, which blur and noise hardly change.
    """
    area = coverage.sum()
    y, x = (coverage * _ROWS).sum() / area, (coverage * _COLUMNS).sum() / area
    steps = np.linspace(-1.1, 1.1, GRID) * np.sqrt(area)
    down, along = np.meshgrid(steps, steps, indexing="ij")
    if angle:
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        down, along = along * sine + down * cosine, along * cosine - down * sine
    return ndimage.map_coordinates(coverage, np.stack([y + down, x + along]), order=1).ravel()


# Inside tests for points (u, v) of a box from -1 to 1, v down.
_INSIDE: Final[dict[str, Callable[[Floats, Floats], NDArray[np.bool_]]]] = {
    "circle": lambda u, v: u**2 + v**2 <= 1,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 1,
    "triangle": lambda u, v: (2 * abs(u) - 1 <= v) & (v <= 1),
    "star": lambda u, v: _inside_star(u, v),
    "heart": lambda u, v: _inside_heart(u, v),
    "ring": lambda u, v: (u**2 + v**2 <= 1) & (u**2 + v**2 >= 0.27),
    "diamond": lambda u, v: abs(u) + abs(v) <= 1,
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) <= 0.36) & (np.maximum(abs(u), abs(v)) <= 1),
    "crescent": lambda u, v: ((u - 0.23) ** 2 * 0.66 + v**2 <= 1) & ((u - 0.78) ** 2 * 0.66 + v**2 >= 0.64),
    "hexagon": lambda u, v: (abs(v) <= 1) & (abs(u) + abs(v) / 2 <= 1),
}


def _inside_star(u: Floats, v: Floats) -> NDArray[np.bool_]:
    """Between two tips the edge runs straight from radius 1 to radius 0.46."""
    x, y = u * 0.951, (v + 1) * 0.905 - 1
    turn = np.abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    along, aside = np.hypot(x, y) * np.cos(turn), np.hypot(x, y) * np.sin(turn)
    notch_along, notch_aside = 0.46 * np.cos(np.pi / 5), 0.46 * np.sin(np.pi / 5)
    return aside * (1 - notch_along) <= (1 - along) * notch_aside


def _inside_heart(u: Floats, v: Floats) -> NDArray[np.bool_]:
    """Between the lower and the upper branch of the curve x = sin(t)^3; its heights are -17..12."""
    x, y = np.minimum(abs(u), 1), -2.54 - v * 14.46
    cosine = np.sqrt(1 - np.cbrt(x) ** 2)

    def height(c: Floats) -> Floats:
        return 13 * c - 5 * (2 * c**2 - 1) - 2 * (4 * c**3 - 3 * c) - (8 * c**4 - 8 * c**2 + 1)

    return (abs(u) <= 1) & (height(-cosine) <= y) & (y <= height(cosine))


@lru_cache(maxsize=1)
def _templates() -> tuple[Floats, tuple[str, ...], dict[str, tuple[float, ...]]]:
    """Normalised outlines [templates, GRID * GRID], the shape of each, and each shape's measures.

    Measures at radius 1: area, and how far the centroid lies below and right of the box's middle.
    """
    bank, owners, measures = [], [], {}
    for shape in _INSIDE:
        for radius in (8.0, 11.0, 15.0, 21.0):
            sharp = _render(shape, radius)
            bank += [_normalised(sharp), _normalised(ndimage.gaussian_filter(sharp, 0.9))]
            owners += [shape, shape]
            middle = [float(part) + 0.5 - FRAME / 2 for part in ndimage.center_of_mass(sharp)]
            measures[shape] = (float(sharp.sum()) / radius**2, *(part / radius for part in middle))
    return np.stack(bank), tuple(owners), measures


def _render(shape: str, radius: float) -> Floats:
    """Coverage [64, 64] of an outline in the middle of the frame, from 4x4 points a pixel."""
    points = (np.arange(FRAME * 4) + 0.5) / 4 - FRAME / 2
    width, height = HALF_EXTENTS[shape]
    u, v = np.meshgrid(points / (radius * width), points / (radius * height))
    inside = _INSIDE[shape](u, v)
    return inside.reshape(FRAME, 4, FRAME, 4).mean(axis=(1, 3))
