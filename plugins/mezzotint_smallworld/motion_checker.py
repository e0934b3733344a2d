"""Checker of clips: reads from pixels what is in a clip and how it moves, and compares that with the words.

Knows nothing of the drawing and nothing of the caption while it reads. A motion is the one whose measure stands
out, as a share of what that motion has in a true clip: a way gone, a rise and fall, a turn, a change of size or of
colour. What shows two motions at once has no name, which is never right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mezzotint_smallworld.checker import SeenGround, background_right, colour_name, judge
from mezzotint_smallworld.motion_captions import WantedClip, WantedMotion, parse_motion
from mezzotint_smallworld.motion_tracks import ReadFrames, Track, fitted, read_frames
from mezzotint_smallworld.moving import BOUNCE, DIRECTIONS, SMALLEST, SPEEDS, TURN

__all__ = [
    "CLIP_ASPECTS",
    "ClipReading",
    "ClipVerdict",
    "SeenMover",
    "judge_clip",
    "read_clip",
    "score_clips",
    "summary",
]

Floats = NDArray[np.float64]

CLIP_ASPECTS: Final = ("object", "background", "layout", "motion", "speed")
MOVES: Final = 0.5  # share of a motion's least true measure from which it is seen
MIXED: Final = 0.75  # share of the strongest motion from which a second one makes it no motion's
ASLANT: Final = 0.6  # share of the way aside from which a direction has no name
LEAST_CHANGE: Final = 82.0  # RGB distance of the two nearest colours
OFF_COURSE: Final = 2.5  # pixels from its course at which an object has jumped
OTHER_SIZE: Final = 0.15  # share of the radius by which an object has changed at once
OTHER_COLOUR: Final = 45.0  # RGB distance from its course at which a colour has changed at once


@dataclass(frozen=True, slots=True)
class SeenMover:
    """One object of a clip; a name is None where nothing known is near enough.

    shape: as most frames have it. colour, becomes: at the start and, of a changing one, at the end. motion: of
    moving.MOTIONS. speed: of moving.SPEEDS, for the four directions. velocity: (x, y) in pixels per second.
    turn: degrees clockwise over the clip. growth: of the radius over the clip, as a factor.
    """

    shape: str | None
    colour: str | None
    motion: str | None
    speed: str | None
    becomes: str | None
    velocity: tuple[float, float]
    turn: float
    growth: float


@dataclass(frozen=True, slots=True)
class ClipReading:
    """What a clip holds. things: largest first. consistency: share of the frames, 0..1, that go with the others:
    the same ground, as many objects, and each of its shape and on its course in place, size and colour."""

    background: SeenGround
    things: tuple[SeenMover, ...]
    consistency: float
    frames: ReadFrames


@dataclass(frozen=True, slots=True)
class ClipVerdict:
    """Right or wrong per aspect; None where the words ask nothing.

    object: as many as asked, and of each shape and colour, at the start. layout: size, place and relation in the
    first frame. motion: of every thing that has one, with the colour that it changes to. all: every aspect asked.
    """

    object: bool
    background: bool | None
    layout: bool | None
    motion: bool | None
    speed: bool | None
    all: bool


def read_clip(clip: ArrayLike, fps: float | None = None) -> ClipReading:
    """Read a clip. clip: [F, 64, 64, 3] uint8. fps: frames per second; if None, the clip lasts one second.

    Raises: ValueError: no frames, frames of another size or dtype, a rate that is not positive.
    """
    if fps is not None and not fps > 0:
        raise ValueError(f"read_clip: frames per second must be more than 0, got {fps}")
    seen = read_frames(clip)
    count = len(seen.counts)
    seconds = count / fps if fps else 1.0
    times = np.linspace(0.0, seconds, count)
    grounds = list(seen.grounds)
    background = max(grounds, key=grounds.count)
    things = tuple(_mover(track, times[track.frames], seconds) for track in seen.tracks)
    return ClipReading(background, things, _consistency(seen, times, background, things), seen)


def judge_clip(reading: ClipReading, wanted: WantedClip) -> ClipVerdict:
    """Compare what was read with what was asked; objects are matched so that most is right."""
    missing = [None] * max(0, len(wanted.picture.things) - len(reading.things))
    seen: list[SeenMover | None] = [*reading.things, *missing]
    still = judge(reading.frames.first, wanted.picture)
    parts = [mark for mark in (still.size, still.place, still.relation) if mark is not None]
    ground = background_right(reading.background, wanted.picture)

    def verdict_of(matched: Sequence[SeenMover | None]) -> ClipVerdict:
        pairs = list(zip(matched, wanted.motions, strict=True))
        motions = [_motion_right(thing, goal) for thing, goal in pairs if goal is not None]
        speeds = [thing is not None and thing.speed == goal.speed for thing, goal in pairs if goal and goal.speed]
        looks = [
            thing is not None and goal.shape in (None, thing.shape) and goal.colour in (None, thing.colour)
            for thing, goal in zip(matched, wanted.picture.things, strict=True)
        ]
        looked = all(looks) and len(reading.things) == len(wanted.picture.things)
        others = {
            "background": ground,
            "layout": all(parts) if parts else None,
            "motion": all(motions) if motions else None,
            "speed": all(speeds) if speeds else None,
        }
        return ClipVerdict(object=looked, **others, all=looked and False not in others.values())

    def agreement(matched: Sequence[SeenMover | None]) -> tuple[int, int]:
        alike = sum(
            getattr(thing, name, None) == getattr(goal, name)
            for thing, goal in zip(matched, wanted.picture.things, strict=True)
            for name in ("shape", "colour")
            if getattr(goal, name) is not None
        )
        verdict = verdict_of(matched)
        return alike, sum(getattr(verdict, name) is True for name in CLIP_ASPECTS)

    return verdict_of(max(permutations(seen, len(wanted.picture.things)), key=agreement))


def score_clips(
    clips: Sequence[ArrayLike], asked: Sequence[str | WantedClip], fps: float | None = None
) -> dict[str, float | int | None]:
    """Per cent right over clips and what was asked of each: prompts or parsed prompts.

    Keys: each of CLIP_ASPECTS, "all", "consistency" (the mean, in per cent) and "clips", their number; None where
    no prompt asks. Raises: ValueError: lengths differ. CaptionError: a prompt outside the grammar.
    """
    goals = [parse_motion(goal) if isinstance(goal, str) else goal for goal in asked]
    readings = [read_clip(clip, fps) for clip, _ in zip(clips, goals, strict=True)]
    return summary(readings, [judge_clip(*pair) for pair in zip(readings, goals, strict=True)])


def summary(readings: Sequence[ClipReading], verdicts: Sequence[ClipVerdict]) -> dict[str, float | int | None]:
    """`score_clips` for clips that have been read and judged."""
    result: dict[str, float | int | None] = {"clips": len(verdicts)}
    for aspect in (*CLIP_ASPECTS, "all"):
        said = [mark for verdict in verdicts if (mark := getattr(verdict, aspect)) is not None]
        result[aspect] = 100.0 * sum(said) / len(said) if said else None
    result["consistency"] = 100.0 * float(np.mean([reading.consistency for reading in readings]))
    return result


def _motion_right(seen: SeenMover | None, goal: WantedMotion) -> bool:
    return seen is not None and seen.motion == goal.motion and goal.becomes in (None, seen.becomes)


def _mover(track: Track, times: Floats, seconds: float) -> SeenMover:
    centres, radii, colours, angles = _courses(track, times)
    way, (height, rises) = centres[1] - centres[0], _bounce(track.centres[:, 1])
    growth = float(radii[1] / radii[0])
    turn = float(angles[1] - angles[0])
    changed = float(np.linalg.norm(colours[1] - colours[0]))
    lasting = min(seconds, 1.0)  # what happens is over after a second
    strengths = {
        # What rises and falls has no way up or down, but may wobble on its way to the side.
        "way": float(abs(way[0]) if rises else np.abs(way).max()) / (SPEEDS["slowly"][0] * lasting),
        "bouncing": height / BOUNCE[0] if rises else 0.0,
        "turn": abs(turn) / (TURN[0] * lasting),
        "size": abs(np.log(growth)) / (-np.log(SMALLEST) * lasting),
        "changing": changed / (LEAST_CHANGE * lasting),
    }
    motion = _named_motion(strengths, way, turn, growth)
    speed = _speed(float(np.abs(way).max()) / seconds) if motion in DIRECTIONS else None
    changing = motion == "changing"
    start, end = (colour_name(colour) for colour in (colours if changing else [colours.mean(0)] * 2))
    velocity = (float(way[0] / seconds), float(way[1] / seconds))
    return SeenMover(track.shape, start, motion, speed, end if changing else None, velocity, turn, growth)


def _named_motion(strengths: dict[str, float], way: Floats, turn: float, growth: float) -> str | None:
    first, second = sorted(strengths, key=lambda name: -strengths[name])[:2]
    if strengths[first] < MOVES:
        return "still"
    if strengths[second] > max(MIXED * min(strengths[first], 1.0), MOVES):
        return None
    if first == "way":
        axis = int(np.abs(way).argmax())
        aside = abs(way[1 - axis]) > ASLANT * abs(way[axis])
        compass = {(0, -1): "left", (0, 1): "right", (1, -1): "up", (1, 1): "down"}
        return None if aside else compass[axis, int(np.sign(way[axis]))]
    if first == "turn":
        return "clockwise" if turn > 0 else "anticlockwise"
    if first == "size":
        return "growing" if growth > 1 else "shrinking"
    return first


def _courses(track: Track, times: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Straight lines through places, radii, colours and angles: their values at the clip's two ends, [2, ...]."""
    return (
        _line(times, track.centres),
        np.maximum(_line(times, track.radii), 0.5),
        _line(times, track.colours),
        _line(times, track.angles),
    )


def _line(times: Floats, values: Floats) -> Floats:
    """The least-squares line at the first and the last time, [2, ...]; a single value stays as it is."""
    if len(times) < 2:
        return np.stack([values[0], values[0]])
    course = fitted(times, values)
    return np.stack([course[0], course[-1]])


def _bounce(heights: Floats) -> tuple[float, bool]:
    """(range in pixels, whether most of it is up and down again rather than a way gone)."""
    span = float(np.ptp(heights))
    gone = float(abs(heights[-1] - heights[0]))
    return span, span > 0.5 * BOUNCE[0] and float(np.abs(np.diff(heights)).sum()) > 1.5 * gone + 0.5 * BOUNCE[0]


def _speed(pace: float) -> str:
    names = tuple(SPEEDS)
    limits = [(SPEEDS[a][1] + SPEEDS[b][0]) / 2 for a, b in pairwise(names)]
    return names[sum(pace > limit for limit in limits)]


def _consistency(seen: ReadFrames, times: Floats, background: SeenGround, things: Sequence[SeenMover]) -> float:
    """Share of frames that go with the others."""
    count = len(seen.counts)
    good = np.array(
        [
            ground == background and number == len(seen.tracks) > 0
            for ground, number in zip(seen.grounds, seen.counts, strict=True)
        ]
    )
    for track, thing in zip(seen.tracks, things, strict=True):
        fine = np.zeros(count, dtype=bool)
        fine[track.frames] = _on_course(track, times[track.frames], thing)
        good &= fine
    return float(good.mean())


def _on_course(track: Track, times: Floats, thing: SeenMover) -> NDArray[np.bool_]:
    """For each frame of a track whether its shape is the usual one, and place, size and colour are on a line.

    The place of what bounces lies on a line with two leaps a second.
    """
    bounce = np.abs(np.sin(2 * np.pi * times)) if thing.motion == "bouncing" else None
    places = fitted(times, track.centres, bounce)
    near = np.linalg.norm(track.centres - places, axis=1) <= OFF_COURSE
    radii = np.abs(track.radii / np.maximum(fitted(times, track.radii), 0.5) - 1) <= OTHER_SIZE
    colours = np.linalg.norm(track.colours - fitted(times, track.colours), axis=1) <= OTHER_COLOUR
    shapes = np.array([name is not None and name == track.shape for name in track.shapes])
    good: NDArray[np.bool_] = near & radii & colours & shapes
    return good
