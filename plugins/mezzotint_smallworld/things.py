"""`smallworld.check_things`: whether pictures hold the objects that were asked for, each in its box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

from mezzotint import Image, Report, UserError, node
from mezzotint_smallworld.scene import COLOURS, FRAME, HALF_EXTENTS, SHAPES

if TYPE_CHECKING:
    from mezzotint_smallworld.checker import Reading, SeenThing

__all__ = ["check_things"]

Box = tuple[float, float, float, float]
_MOST_SEEN = 5  # objects of a picture that are looked at, the largest


@dataclass(frozen=True)
class Asked:
    """One object. colour, shape: None is any. box: in 0..1, None is anywhere."""

    colour: str | None
    shape: str | None
    box: Box | None


@node("smallworld.check_things")
def check_things(image: Image, *, things: list[Any]) -> Report:
    """Read pictures of the small world and look for objects, by name and place.

    image: [B, 64, 64, 3].
    things: [{"what": "red circle", "box": [left, top, right, bottom]}, ...]: a colour, a shape or both, and a box
    in 0..1 that may be left out; the same for every picture.

    returns: "score", per cent of the objects that are there by name ("named"), whose centre lies in the box of
    theirs too ("placed"), and of the pictures with all of them placed and no other object ("all"); "iou", the mean
    overlap of the boxes seen with those asked; and for each picture what was seen.
    Raises: UserError: pictures of another size, a colour or shape that there is none of, a box that is none.
    """
    from mezzotint_smallworld.checker import read

    shape = tuple(image.data.shape)
    if shape[1:] != (64, 64, 3):
        raise UserError(f"smallworld.check_things: reads pictures [B, 64, 64, 3], got {list(shape)}")
    asked = [_asked(each, f"/things/{i}") for i, each in enumerate(things)]
    if not asked:
        raise UserError("smallworld.check_things: wanted at least one thing to look for, got an empty list")
    pixels = image.data.float().mul(255).round().clamp(0, 255).byte().cpu().numpy()
    rows = [_judged(read(picture), asked) for picture in pixels]
    overlaps = [value for row in rows for value in row["iou"] if value is not None]
    score = {
        "named": _per_cent([right for row in rows for right in row["named"]]),
        "placed": _per_cent([right for row in rows for right in row["placed"]]),
        "all": _per_cent([row["all"] for row in rows]),
    }
    return Report({"score": score, "iou": sum(overlaps) / len(overlaps) if overlaps else None, "pictures": rows})


def _asked(given: Any, at: str) -> Asked:
    if not isinstance(given, Mapping) or not isinstance(given.get("what"), str):
        raise UserError(f'{at}: wanted {{"what": name, "box": [left, top, right, bottom]}}, got {given!r}')
    words = given["what"].split()
    colour = next((word for word in words if word in COLOURS), None)
    shape = next((word for word in words if word in SHAPES), None)
    if not words or {*words} - {colour, shape}:
        known = f"a colour ({', '.join(COLOURS)}), a shape ({', '.join(SHAPES)}) or both"
        raise UserError(f"{at}/what: wanted {known}, got {given['what']!r}")
    box = given.get("box")
    if box is None:
        return Asked(colour, shape, None)
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(n, int | float) for n in box):
        raise UserError(f"{at}/box: wanted [left, top, right, bottom] in 0..1, got {box!r}")
    return Asked(colour, shape, (float(box[0]), float(box[1]), float(box[2]), float(box[3])))


def _judged(reading: Reading, asked: Sequence[Asked]) -> dict[str, Any]:
    """The best assignment of what was seen to what was asked: most placed, then most named."""
    seen: list[SeenThing | None] = [*reading.things[:_MOST_SEEN], *[None] * len(asked)]
    best: tuple[tuple[int, int], tuple[SeenThing | None, ...]] | None = None
    for chosen in permutations(seen, len(asked)):
        named = [_is_named(thing, goal) for thing, goal in zip(chosen, asked, strict=True)]
        placed = [_is_placed(thing, goal) for thing, goal in zip(chosen, asked, strict=True)]
        merit = (sum(placed), sum(named))
        if best is None or merit > best[0]:
            best = merit, chosen
    assert best is not None
    chosen = best[1]
    pairs = list(zip(chosen, asked, strict=True))
    placed = [_is_placed(thing, goal) for thing, goal in pairs]
    return {
        "named": [_is_named(thing, goal) for thing, goal in pairs],
        "placed": placed,
        "iou": [_overlap(thing, goal.box) if goal.box is not None else None for thing, goal in pairs],
        "all": all(placed) and len(reading.things) == len(asked),
        "seen": [
            {"what": f"{thing.colour or '?'} {thing.shape or '?'}", "centre": [x / FRAME for x in thing.centre]}
            for thing in reading.things
        ],
    }


def _is_named(thing: SeenThing | None, goal: Asked) -> bool:
    return thing is not None and goal.colour in (None, thing.colour) and goal.shape in (None, thing.shape)


def _is_placed(thing: SeenThing | None, goal: Asked) -> bool:
    if thing is None or not _is_named(thing, goal):
        return False
    x, y = (place / FRAME for place in thing.centre)
    return goal.box is None or (goal.box[0] <= x <= goal.box[2] and goal.box[1] <= y <= goal.box[3])


def _overlap(thing: SeenThing | None, box: Box | None) -> float:
    """Intersection over union of the box that was seen and the one asked; 0 if nothing was seen."""
    if thing is None or box is None:
        return 0.0
    width, height = HALF_EXTENTS.get(thing.shape or "", (1.0, 1.0))
    half = (width * thing.radius / FRAME, height * thing.radius / FRAME)
    x, y = (place / FRAME for place in thing.centre)
    seen = (x - half[0], y - half[1], x + half[0], y + half[1])
    sides = [min(seen[i + 2], box[i + 2]) - max(seen[i], box[i]) for i in (0, 1)]
    common = max(sides[0], 0.0) * max(sides[1], 0.0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (seen, box)]
    return common / (sum(areas) - common)


def _per_cent(found: Sequence[bool]) -> float:
    return round(100 * sum(found) / len(found), 1)
