"""Captions of small-world scenes, the prompts to test with, and the parser that reads them back.

    caption = object [place] | object relation object, before or after the background
    object  = a [small | large] [colour] (shape name | "shape")

Unsaid is open: no size word, place or background asks for nothing in particular.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from mezzotint_smallworld.scene import (
    COLOURS,
    SHAPES,
    Background,
    Scene,
    Split,
    Thing,
    sample_scene,
)

# The first wording of each is the usual one.
PLACE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "centre": ("in the centre", "in the middle"),
    "left": ("on the left", "at the left"),
    "right": ("on the right", "at the right"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
}
RELATION_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "and": ("and",),
}
GRADIENT_WORDS: Final = ("{} to {} gradient", "{} and {} gradient")
STRIPE_WORDS: Final = ("{} and {} striped",)


class CaptionError(ValueError):
    """A prompt outside the grammar; the message says where and what was expected."""


@dataclass(frozen=True, slots=True)
class WantedThing:
    """What the words ask of one object; None is open."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class WantedBackground:
    """The ground asked for: kind and colours as in scene.Background."""

    kind: str
    colours: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a prompt asks for.

    things: one or two. relation: of the first to the second; None for "and" and for one thing.
    background: None if unsaid.
    """

    things: tuple[WantedThing, ...]
    relation: str | None = None
    background: WantedBackground | None = None


def caption(scene: Scene, seed: int) -> str:
    """A caption with words dropped at random (size 15%, place 10%, background 10%) and varied.

    In a pair the relation is the place; dropped, it becomes "and". Never-named colours are left
    out and never-named shapes are "shape". The same scene and seed give the same words.
    """
    rng = random.Random(f"caption/{seed}/{scene.split}/{scene.seed}")
    objects = [_object_words(thing, rng.random() >= 0.15) for thing in scene.things]
    said = rng.random() >= 0.1
    if scene.relation is None:
        place = scene.things[0].place
        said = said and place is not None
        words = _varied(rng, PLACE_WORDS[place]) if said and place is not None else ""
        if said and rng.random() < 0.1:
            subject = f"{words}, {objects[0]}"
        else:
            subject = f"{objects[0]} {words}".strip()
    else:
        words = _varied(rng, RELATION_WORDS[scene.relation if said else "and"])
        subject = f"{objects[0]} {words} {objects[1]}"
    if rng.random() < 0.1:
        return subject
    ground = _background_words(scene.background, rng)
    order = rng.random()
    if order < 0.15:
        return f"{ground}, {subject}"
    simple = scene.relation is None and not said
    on_a = order < (0.9 if simple else 0.35)
    return f"{subject} on {_article(ground)} {ground}" if on_a else f"{subject}, {ground}"


def full_caption(scene: Scene) -> str:
    """The usual wording with nothing dropped: "a large red circle on the left, white background".

    A plain size has no word. Unnamed colours and shapes are left out as in `caption`.
    """
    objects = [_object_words(thing, True) for thing in scene.things]
    if scene.relation is None:
        place = scene.things[0].place
        subject = objects[0] if place is None else f"{objects[0]} {PLACE_WORDS[place][0]}"
    else:
        subject = f"{objects[0]} {RELATION_WORDS[scene.relation][0]} {objects[1]}"
    return f"{subject}, {_background_words(scene.background, None)}"


def prompts(count: int, seed: int, split: Split = "test", *, things: int | None = None) -> list[tuple[str, Scene]]:
    """Full captions with their scenes, named colours and shapes only.

    split, things: as in `sample_scene`; "test" has only combinations that training never sees.
    """
    scenes = (
        sample_scene(seed * 1_000_003 + index, things=things, unnamed=0.0, split=split) for index in range(count)
    )
    return [(full_caption(scene), scene) for scene in scenes]


def wanted_of(scene: Scene) -> Wanted:
    """Everything that words can say of a scene; a plain size and the unnamed stay open."""
    things = tuple(
        WantedThing(
            thing.shape if thing.shape in SHAPES else None,
            thing.colour if thing.colour in COLOURS else None,
            None if thing.size == "plain" else thing.size,
            thing.place,
        )
        for thing in scene.things
    )
    relation = None if scene.relation == "and" else scene.relation
    background = WantedBackground(scene.background.kind, scene.background.colours)
    return Wanted(things, relation, background)


def parse(prompt: str) -> Wanted:
    """Read a caption of this grammar back; case and repeated spaces do not matter.

    Raises: CaptionError: a word or order that the grammar lacks.
    """
    reader = _Reader(prompt)
    background = reader.background()
    if background is not None:
        reader.expect(",")
    place = reader.place()
    if place is not None:
        reader.expect(",")
    first = reader.thing()
    if place is None:
        place = reader.place()
    relation = None if place is not None else reader.relation()
    things = [WantedThing(*first, place)]
    if relation is not None:
        things.append(WantedThing(*reader.thing(), None))
    if background is None and not reader.done():
        background = reader.trailing_background()
    if not reader.done():
        raise reader.error("the end")
    return Wanted(tuple(things), None if relation == "and" else relation, background)


def _varied(rng: random.Random, wordings: tuple[str, ...]) -> str:
    return wordings[0] if rng.random() < 0.75 else rng.choice(wordings)


def _article(words: str) -> str:
    return "an" if words.startswith("orange") else "a"


def _object_words(thing: Thing, with_size: bool) -> str:
    parts = []
    if with_size and thing.size != "plain":
        parts.append(thing.size)
    if thing.colour in COLOURS:
        parts.append(thing.colour)
    parts.append(thing.shape if thing.shape in SHAPES else "shape")
    return f"{_article(parts[0])} {' '.join(parts)}"


def _background_words(background: Background, rng: random.Random | None) -> str:
    if background.kind == "plain":
        return f"{background.colours[0]} background"
    wordings = GRADIENT_WORDS if background.kind == "gradient" else STRIPE_WORDS
    wording = wordings[0] if rng is None else _varied(rng, wordings)
    return wording.format(*background.colours) + " background"


class _Reader:
    """A cursor over the words of a prompt; each method reads one part or leaves the cursor."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.words = prompt.lower().replace(",", " , ").split()
        self.at = 0

    def done(self) -> bool:
        return self.at == len(self.words)

    def peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.words[index] if index < len(self.words) else ""

    def error(self, expected: str) -> CaptionError:
        got = repr(self.peek()) if not self.done() else "the end"
        return CaptionError(f"{self.prompt!r}, word {self.at + 1}: expected {expected}, got {got}")

    def accept(self, phrase: str) -> bool:
        words = phrase.split()
        if self.words[self.at : self.at + len(words)] != words:
            return False
        self.at += len(words)
        return True

    def expect(self, phrase: str) -> None:
        if not self.accept(phrase):
            raise self.error(repr(phrase))

    def thing(self) -> tuple[str | None, str | None, str | None]:
        """Shape, colour and size of an object phrase."""
        if not (self.accept("a") or self.accept("an")):
            raise self.error("'a' and an object")
        size = next((word for word in ("small", "large") if self.accept(word)), None)
        colour = next((word for word in COLOURS if self.accept(word)), None)
        if self.accept("shape"):
            return None, colour, size
        shape = next((word for word in SHAPES if self.accept(word)), None)
        if shape is None:
            raise self.error("a shape")
        return shape, colour, size

    def place(self) -> str | None:
        return self._choice(PLACE_WORDS)

    def relation(self) -> str | None:
        return self._choice(RELATION_WORDS)

    def _choice(self, table: dict[str, tuple[str, ...]]) -> str | None:
        for meaning, wordings in table.items():
            if any(self.accept(wording) for wording in wordings):
                return meaning
        return None

    def trailing_background(self) -> WantedBackground:
        if not self.accept(","):
            self.expect("on")
            if not (self.accept("a") or self.accept("an")):
                raise self.error("'a' and a background")
        background = self.background()
        if background is None:
            raise self.error("a background's colour")
        return background

    def background(self) -> WantedBackground | None:
        """A background phrase, or None where no colour stands."""
        first = next((word for word in COLOURS if self.accept(word)), None)
        if first is None:
            return None
        if self.accept("background"):
            return WantedBackground("plain", (first,))
        joined = next((word for word in ("and", "to") if self.accept(word)), None)
        if joined is None:
            raise self.error("'background', 'and' or 'to'")
        second = next((word for word in COLOURS if self.accept(word)), None)
        if second is None:
            raise self.error("a second colour")
        kind = "gradient" if self.accept("gradient") else "stripes"
        if kind == "stripes":
            if joined == "to":
                raise self.error("'gradient'")
            self.expect("striped")
        self.expect("background")
        return WantedBackground(kind, (first, second))
