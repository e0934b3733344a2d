"""Captions of moving scenes, and the parser that reads them back.

    caption = caption of the first frame's picture , motion
    motion  = motion [speed] | the thing's motion , the other's motion

The picture comes first, so that a causal text encoder says the same of it as before. Two things are told apart by
their shapes, or by their colours if they have one shape. Unsaid is open, as in captions.py: no speed word asks for
no pace, and no motion for nothing. Every caption fits the bundled tokenizer's 32 tokens; of two things, whose
captions are long, the wording is the longest that fits.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from mezzotint_smallworld.captions import CaptionError, Wanted, WantedThing, caption, full_caption, parse
from mezzotint_smallworld.moving import DIRECTIONS, MovingScene, MovingThing, frames_of, sample_moving_scene
from mezzotint_smallworld.scene import COLOURS, FRAME, SHAPES, Scene, Split, Thing
from mezzotint_smallworld.tokens import LENGTH, length

__all__ = [
    "MOTION_WORDS", "SPEED_WORDS", "WantedClip", "WantedMotion", "first_picture", "full_motion_caption",
    "motion_caption", "motion_prompts", "parse_motion", "wanted_of_clip",
]  # fmt: skip

# The first wording of each is the usual one, the last the shortest in tokens.
MOTION_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "still": ("still",),
    **{name: (f"moving {name}",) for name in DIRECTIONS},
    "clockwise": ("turning right", "turn right"),
    "anticlockwise": ("turning left", "turn left"),
    "growing": ("growing", "small to large"),
    "shrinking": ("shrinking", "large to small"),
    "bouncing": ("bouncing", "moving up and down"),
    "changing": ("changing to {1}", "{0} to {1}"),
}
SPEED_WORDS: Final = {"slowly": "slowly", "plain": "", "quickly": "quickly"}

_FAR: Final = 6.0  # pixels from the middle from which a place has a name; true pictures keep them too
_NEAR: Final = 3.0  # pixels from the middle up to which a thing is in the centre
_ASIDE: Final = 0.5  # how far a place may lie aside, as a share of how far it lies out


@dataclass(frozen=True, slots=True)
class WantedMotion:
    """What the words ask of one thing's motion.

    motion: one of moving.MOTIONS. speed: "slowly" or "quickly"; None is open. becomes: the colour at the end.
    """

    motion: str
    speed: str | None = None
    becomes: str | None = None


@dataclass(frozen=True, slots=True)
class WantedClip:
    """What a prompt asks for: of the first frame, and of each thing's motion in the order of `picture.things`."""

    picture: Wanted
    motions: tuple[WantedMotion | None, ...]


def first_picture(scene: MovingScene) -> Scene:
    """The first frame as a picture to be told of: a thing alone has a place where words have one for it.

    Two things that lie more aside than apart are told with "and".
    """
    first = frames_of(scene, 1)[0]
    if len(first.things) == 1:
        only = first.things[0]
        return replace(first, things=(replace(only, place=_place(only)),))
    (x, y), (other_x, other_y) = (thing.centre for thing in first.things)
    across, along = abs(x - other_x), abs(y - other_y)
    if first.relation in ("left of", "right of"):
        across, along = along, across
    return replace(first, relation=first.relation if along > 1.2 * across else "and")


def motion_caption(scene: MovingScene, seed: int) -> str:
    """A caption with words dropped at random and varied: the picture's as in `caption`, speed 15%, motion 5%.

    The same scene and seed give the same words.
    """
    picture = first_picture(scene)
    rng = random.Random(f"motion caption/{seed}/{scene.split}/{scene.seed}")
    if rng.random() < 0.05:
        return caption(picture, seed)
    with_speed, usual, with_the = rng.random() >= 0.15, rng.random() < 0.75, rng.random() < 0.75
    while True:
        said = caption(picture, rng.randrange(2**31))
        for words in _wordings(scene.things, with_speed, usual, with_the):
            if _fits(f"{said}, {words}"):
                return f"{said}, {words}"


def full_motion_caption(scene: MovingScene) -> str:
    """The usual wording with nothing dropped: "a red circle on the left, white background, moving right slowly".

    Of two things the speed is left out where it does not fit the tokenizer's 32 tokens.
    """
    said = full_caption(first_picture(scene))
    wordings = _wordings(scene.things, True, True, True)
    return next(f"{said}, {words}" for words in wordings if _fits(f"{said}, {words}"))


def motion_prompts(
    count: int,
    seed: int,
    split: Split = "test",
    *,
    things: int | None = None,
    motions: Sequence[str] | None = None,
) -> list[tuple[str, MovingScene]]:
    """Full captions with their scenes. things, motions, split: as in `sample_moving_scene`."""
    chosen = {} if motions is None else {"motions": tuple(motions)}
    scenes = [
        sample_moving_scene(seed * 1_000_003 + index, things=things, split=split, **chosen)
        for index in range(count)
    ]
    return [(full_motion_caption(scene), scene) for scene in scenes]


def wanted_of_clip(scene: MovingScene) -> WantedClip:
    """What the full caption asks for."""
    return parse_motion(full_motion_caption(scene))


def parse_motion(prompt: str) -> WantedClip:
    """Read a clip's caption back; case and repeated spaces do not matter. One without motion asks for none.

    Raises: CaptionError: a word or order that the grammar lacks, or a motion of a thing that the picture lacks.
    """
    clauses = [" ".join(clause.split()) for clause in prompt.lower().split(",")]
    motions: list[tuple[str | None, WantedMotion, str | None]] = []
    while len(clauses) > 1 and (found := _read_clause(clauses[-1])):
        motions.insert(0, found)
        clauses.pop()
    try:
        picture = parse(", ".join(clauses))
    except CaptionError as error:
        if len(clauses) > 1 and _is_picture(", ".join(clauses[:-1])):
            known = ", ".join(wordings[0].format("red", "blue") for wordings in MOTION_WORDS.values())
            raise CaptionError(f"{prompt!r}: {clauses[-1]!r} is no motion; there are {known}") from None
        raise CaptionError(str(error)) from None
    return WantedClip(picture, _assigned(prompt, picture, motions))


def _place(thing: Thing) -> str | None:
    dx, dy = (part - FRAME / 2 for part in thing.centre)
    out, aside = max(abs(dx), abs(dy)), min(abs(dx), abs(dy))
    if out <= _NEAR:
        return "centre"
    if out < _FAR or aside > _ASIDE * out:
        return None
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "bottom" if dy > 0 else "top"


def _fits(words: str) -> bool:
    return length(words) <= LENGTH - 2


def _wordings(things: Sequence[MovingThing], with_speed: bool, usual: bool, with_the: bool) -> list[str]:
    """The motions in words, the wanted wording first and then shorter and shorter ones."""
    wanted = (with_speed, usual, with_the)
    shorter = [(False, usual, with_the), (False, False, with_the), (False, False, False)]
    return [_all_motions(things, *how) for how in (wanted, *shorter)]


def _all_motions(things: Sequence[MovingThing], with_speed: bool, usual: bool, with_the: bool) -> str:
    said = [_motion_words(one, with_speed, usual) for one in things]
    if len(said) == 1:
        return said[0]
    shapes, colours = [one.thing.shape for one in things], [one.thing.colour for one in things]
    names = shapes if shapes[0] != shapes[1] else colours
    the = "the " if with_the else ""
    return ", ".join(f"{the}{name} {words}" for name, words in zip(names, said, strict=True))


def _motion_words(one: MovingThing, with_speed: bool, usual: bool) -> str:
    wording = MOTION_WORDS[one.motion][0 if usual else -1].format(one.thing.colour, one.becomes)
    return f"{wording} {SPEED_WORDS[one.speed or 'plain'] if with_speed else ''}".rstrip()


def _is_picture(words: str) -> bool:
    try:
        parse(words)
    except CaptionError:
        return False
    return True


def _read_clause(clause: str) -> tuple[str | None, WantedMotion, str | None] | None:
    """(the thing's name or None, its motion, the colour that it is said to start from), or None: no motion."""
    words = clause.split()
    named = None
    rest = words[1:] if words[:1] == ["the"] else words
    motion = _read_motion(words)
    if motion is None and rest and rest[0] in (*SHAPES, *COLOURS):
        named, motion = rest[0], _read_motion(rest[1:])
    return None if motion is None else (named, *motion)


def _read_motion(words: Sequence[str]) -> tuple[WantedMotion, str | None] | None:
    for motion, wordings in MOTION_WORDS.items():
        for wording in wordings:
            parts = wording.split()
            colours = [word for word, part in zip(words, parts, strict=False) if part in ("{0}", "{1}")]
            if [part.format(*[None] * (2 - len(colours)), *colours) for part in parts] != list(
                words[: len(parts)]
            ):
                continue
            after = words[len(parts) :]
            if any(name not in COLOURS for name in colours) or (after and motion not in DIRECTIONS):
                continue
            if not after or (len(after) == 1 and after[0] in ("slowly", "quickly")):
                speed = after[0] if after else None
                becomes, was = (colours[-1], colours[0]) if colours else (None, None)
                return WantedMotion(motion, speed, becomes), was if len(colours) == 2 else None
    return None


def _assigned(
    prompt: str, picture: Wanted, motions: Sequence[tuple[str | None, WantedMotion, str | None]]
) -> tuple[WantedMotion | None, ...]:
    """The motions in the order of the picture's things, by name, or in their order where none is named."""
    found: list[WantedMotion | None] = [None] * len(picture.things)
    if len(motions) > len(found) or (len(found) == 2 and len(motions) == 1 and motions[0][0] is None):
        what = f"{len(motions)} motion{'s' if len(motions) > 1 else ''} for {len(found)} thing"
        raise CaptionError(f"{prompt!r}: {what}{'s, and no name' if len(found) == 2 else ''}; say whose each is")
    for order, (name, motion, was) in enumerate(motions):
        index = order if name is None else _index_of(prompt, picture.things, name)
        if found[index] is not None:
            raise CaptionError(f"{prompt!r}: two motions for one thing")
        if was is not None and picture.things[index].colour not in (None, was):
            raise CaptionError(
                f"{prompt!r}: the thing is {picture.things[index].colour} and cannot begin as {was}"
            )
        found[index] = motion
    return tuple(found)


def _index_of(prompt: str, things: Sequence[WantedThing], name: str) -> int:
    found = [index for index, thing in enumerate(things) if name in (thing.shape, thing.colour)]
    if len(found) != 1:
        many = "no thing is" if not found else "both things are"
        raise CaptionError(f"{prompt!r}: {many} called {name!r}")
    return found[0]
