"""Drawing of small-world scenes: 64x64 RGB, outlines drawn at four times the size and reduced.

A thing's `radius` is nominal. Its outline fills a box of HALF_EXTENTS[shape] * radius around the
thing's centre; for circle, ring and cross that is the circumscribed square of the nominal circle,
and pointed shapes reach up to a tenth further so that one size looks alike in area.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mezzotint_smallworld.scene import FRAME, HALF_EXTENTS, Background, Scene, Thing

OVERSAMPLE: Final = 4
STRIPE: Final = 8  # width of one stripe, pixels
RING_HOLE: Final = 0.52  # inner radius of a ring, as a share of the outer one

Point = tuple[float, float]


def draw(scene: Scene) -> Image.Image:
    """Draw a scene: an RGB Pillow image of 64x64 pixels."""
    picture = Image.fromarray(ground(scene.background))
    for thing in scene.things:
        mask, corner = coverage(thing)
        picture.paste(thing.rgb, (*corner, corner[0] + mask.width, corner[1] + mask.height), mask)
    return picture


def masks(scene: Scene) -> list[NDArray[np.float32]]:
    """One mask per thing, in the scene's order: [64, 64] float32, share of each pixel covered."""
    result = []
    for thing in scene.things:
        mask, corner = coverage(thing)
        whole = Image.new("L", (FRAME, FRAME))
        whole.paste(mask, corner)
        result.append(np.asarray(whole, dtype=np.float32) / np.float32(255))
    return result


def boxes(scene: Scene) -> list[tuple[float, float, float, float]]:
    """One box per thing, in the scene's order: (left, top, right, bottom), pixels."""
    result = []
    for thing in scene.things:
        (x, y), (half_width, half_height) = thing.centre, thing.half_extents
        result.append((x - half_width, y - half_height, x + half_width, y + half_height))
    return result


def ground(background: Background) -> NDArray[np.uint8]:
    """The picture without its things: [64, 64, 3] uint8."""
    pixels = np.empty((FRAME, FRAME, 3), dtype=np.uint8)
    first = np.asarray(background.rgbs[0], dtype=np.float32)
    second = np.asarray(background.rgbs[-1], dtype=np.float32)
    if background.kind == "plain":
        pixels[:] = first
    elif background.kind == "gradient":
        share = np.linspace(0, 1, FRAME, dtype=np.float32)[:, None]
        pixels[:] = np.rint(first + share * (second - first))[:, None, :]
    else:
        odd = (np.arange(FRAME) // STRIPE % 2)[:, None]
        pixels[:] = np.where(odd, second, first)
    return pixels


def coverage(thing: Thing) -> tuple[Image.Image, tuple[int, int]]:
    """The outline as an "L" mask that covers the thing's box, and that box's corner."""
    (x, y), (half_width, half_height) = thing.centre, thing.half_extents
    outline = OUTLINES[thing.shape]
    if thing.angle:
        outline = _turned(outline, thing.angle)
        half_width, half_height = (thing.radius * max(abs(point[axis]) for point in outline) for axis in (0, 1))
    left, top = max(0, math.floor(x - half_width)), max(0, math.floor(y - half_height))
    right = min(FRAME, math.ceil(x + half_width) + 1)
    bottom = min(FRAME, math.ceil(y + half_height) + 1)
    canvas = Image.new("L", ((right - left) * OVERSAMPLE, (bottom - top) * OVERSAMPLE))
    # Pillow fills the pixels whose centres lie on integers: half a pixel back centres the outline.
    points = [
        (
            (x + thing.radius * u - left) * OVERSAMPLE - 0.5,
            (y + thing.radius * v - top) * OVERSAMPLE - 0.5,
        )
        for u, v in outline
    ]
    pen = ImageDraw.Draw(canvas)
    pen.polygon(points, fill=255)
    if thing.shape == "ring":
        hole = thing.radius * RING_HOLE
        middle = ((x - left) * OVERSAMPLE - 0.5, (y - top) * OVERSAMPLE - 0.5)
        reach = hole * OVERSAMPLE
        pen.ellipse((middle[0] - reach, middle[1] - reach, middle[0] + reach, middle[1] + reach), fill=0)
    return canvas.reduce(OVERSAMPLE), (left, top)


def _fitted(shape: str, points: list[Point]) -> list[Point]:
    """Move and stretch an outline into the box of half extents around the origin."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    half_width, half_height = HALF_EXTENTS[shape]
    middle_x, middle_y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    scale_x = 2 * half_width / (max(xs) - min(xs))
    scale_y = 2 * half_height / (max(ys) - min(ys))
    return [((x - middle_x) * scale_x, (y - middle_y) * scale_y) for x, y in points]


def _turned(points: list[Point], angle: float) -> list[Point]:
    """An outline turned clockwise by degrees around the middle of its box."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return [(u * cosine - v * sine, u * sine + v * cosine) for u, v in points]


def _turn(angle: float, radius: float = 1.0) -> Point:
    """The point at an angle in degrees, clockwise from the top."""
    return radius * math.sin(math.radians(angle)), -radius * math.cos(math.radians(angle))


def _heart(count: int = 60) -> list[Point]:
    points = []
    for index in range(count):
        t = 2 * math.pi * index / count
        height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3, -height))
    return points


def _crescent(count: int = 40) -> list[Point]:
    """A disc less a disc of 0.8 that is moved 0.45 to the right; the horns point right."""
    horn, inner_horn = math.degrees(math.asin(0.625)), math.degrees(math.asin(0.175 / 0.8))
    steps = [index / count for index in range(count + 1)]
    outer = [_turn(horn - share * (180 + 2 * horn)) for share in steps]
    inner = (_turn(180 - inner_horn + share * (180 + 2 * inner_horn), 0.8) for share in steps)
    return outer + [(0.45 + x, y) for x, y in inner]


def _outlines() -> dict[str, list[Point]]:
    disc = [_turn(angle) for angle in range(0, 360, 5)]
    arm = 0.36
    cross = [(arm, -1.0), (arm, -arm), (1.0, -arm), (1.0, arm), (arm, arm), (arm, 1.0)]
    cross += [(-x, -y) for x, y in cross]
    raw = {
        "circle": disc,
        "ring": disc,
        "square": [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
        "triangle": [(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
        "star": [_turn(36 * index, 0.46 if index % 2 else 1.0) for index in range(10)],
        "heart": _heart(),
        "diamond": [(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)],
        "cross": cross,
        "crescent": _crescent(),
        "hexagon": [_turn(30 + 60 * index) for index in range(6)],
    }
    return {shape: _fitted(shape, points) for shape, points in raw.items()}


OUTLINES: Final = _outlines()
