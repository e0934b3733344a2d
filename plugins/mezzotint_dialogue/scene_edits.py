"""What one clause of an instruction does to the things and the background that a prompt asks for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from mezzotint import UserError
from mezzotint_dialogue.vocabulary import DIRECTIONS, KNOWN, PLACES, RELATIONS, SIZES, VERBS, no_such, read_ground
from mezzotint_dialogue.wording import named, opposite, phrase
from mezzotint_smallworld import COLOURS, SHAPES, Wanted, WantedBackground, WantedThing

__all__ = ["Picture", "change"]

LARGER: Final = {"small": None, None: "large"}
SMALLER: Final = {"large": None, None: "small"}
ROOM: Final = 2


@dataclass(frozen=True)
class Picture:
    """What the prompt asks for, and which of its things "it" is."""

    wanted: Wanted
    it: int = 0

    @classmethod
    def of(cls, wanted: Wanted, about: str) -> Picture:
        """about: the words of the thing that was spoken of last; the first thing, where none is called so."""
        calls = [phrase(thing) for thing in wanted.things]
        return cls(wanted, calls.index(about) if about in calls else 0)

    @property
    def things(self) -> tuple[WantedThing, ...]:
        return self.wanted.things

    def with_thing(self, at: int, thing: WantedThing) -> Picture:
        """One thing replaced, and spoken of."""
        things = tuple(thing if i == at else other for i, other in enumerate(self.things))
        return Picture(replace(self.wanted, things=things), at)

    def with_ground(self, kind: str, colours: tuple[str, ...]) -> Picture:
        return replace(self, wanted=replace(self.wanted, background=WantedBackground(kind, colours)))

    def find(self, words: str) -> int | None:
        """Which thing some words mean, or None where they are no name of a thing.

        Raises: UserError: a thing that is not there, or words that fit two.
        """
        text = re.sub(r"^(?:the|an?) ", "", words.strip())
        if text in ("it", "that", "this", "this one", "that one"):
            return self.it
        if text in ("other", "other one", "other thing"):
            if len(self.things) < ROOM:
                raise UserError(f"there is no other thing beside {named(self.things[0])}")
            return 1 - self.it
        if text in ("first", "first one", "second", "second one") and len(self.things) == ROOM:
            return int(text.startswith("second"))
        asked = _thing(text.removesuffix(" one"), partial=text.endswith(" one"))
        if asked is None:
            return None
        fits = [i for i, thing in enumerate(self.things) if _fits(thing, asked)]
        there = " and ".join(named(thing) for thing in self.things)
        if not fits:
            raise UserError(f"there is no {text} in the picture; there is {there}")
        if len(fits) > 1:
            if self.it in fits and asked == self.things[self.it]:
                return self.it
            raise UserError(f"{text!r} could be either: there is {there}; say which, or `the first one`")
        return fits[0]


def change(picture: Picture, clause: str) -> Picture | None:
    """The picture after a clause, or None where no rule fits it.

    Raises: UserError: what cannot be, and what can.
    """
    for verb, words in VERBS.items():
        for word in words:
            if clause == word or clause.startswith(f"{word} "):
                made = _RULES[verb](picture, clause[len(word) :].strip())
                if made is not None:
                    return made
    return _bare(picture, clause)


def _bare(picture: Picture, clause: str) -> Picture | None:
    """Without a verb: "on a black background", "bigger", "blue", "to the left"."""
    ground = read_ground(clause)
    if ground is not None:
        return picture.with_ground(*ground)
    moved = _moved(picture, picture.it, clause)
    if moved is not None:
        return moved
    return _dressed(picture, picture.it, clause) if clause.count(" ") < 2 or "and" in clause.split() else None


def _make(picture: Picture, words: str) -> Picture | None:
    if found := re.fullmatch(r"the background (?:to |into )?(.+)", words):
        ground = read_ground(f"{found[1].removesuffix(' background')} background")
        return picture.with_ground(*ground) if ground else None
    at, rest = _target(picture, words)
    if at is None:
        return None
    rest = re.sub(r"^(?:to|into) ", "", rest)
    return _dressed(picture, at, rest)


def _move(picture: Picture, words: str) -> Picture | None:
    at, rest = _target(picture, words)
    if at is None:
        return None
    ground = read_ground(rest) if rest.startswith("on ") else None
    return picture.with_ground(*ground) if ground else _moved(picture, at, rest)


def _add(picture: Picture, words: str) -> Picture | None:
    found = re.fullmatch(
        r"(an? .+?|another .+?)(?: (" + "|".join(sorted(RELATIONS, key=len, reverse=True)) + r")(?: (.+))?)?",
        words,
    )
    if found is None:
        return None
    new = _thing(re.sub(r"^(?:an?|another) ", "", found[1]))
    if new is None:
        return None
    if len(picture.things) == ROOM:
        there = " and ".join(named(thing) for thing in picture.things)
        raise UserError(f"the small world has room for two things, and there is {there}; remove one first")
    if found[3] and picture.find(found[3]) is None:
        return None
    relation = RELATIONS[found[2]] if found[2] else "and"
    things = (new, replace(picture.things[0], place=None))
    return Picture(replace(picture.wanted, things=things, relation=None if relation == "and" else relation), 0)


def _remove(picture: Picture, words: str) -> Picture | None:
    if words == "the background":
        return replace(picture, wanted=replace(picture.wanted, background=None))
    at = picture.find(words)
    if at is None:
        return None
    if len(picture.things) == 1:
        raise UserError(f"{named(picture.things[0])} is all there is; say `draw` and what to make in its place")
    left = (picture.things[1 - at],)
    return Picture(replace(picture.wanted, things=left, relation=None), 0)


def _replace(picture: Picture, words: str) -> Picture | None:
    if words in ("them", "the two", "places"):
        if len(picture.things) < ROOM or picture.wanted.relation is None:
            raise UserError("to swap them there must be two things, one beside or above the other")
        return replace(picture, wanted=replace(picture.wanted, relation=opposite(picture.wanted.relation)))
    found = re.fullmatch(r"(.+?) (?:with|by|for) (.+)", words)
    at = picture.find(found[1]) if found else None
    if found is None or at is None:
        return None
    return _dressed(picture, at, found[2])


_RULES: Final[dict[str, Callable[[Picture, str], Picture | None]]] = {
    "make": _make,
    "move": _move,
    "add": _add,
    "remove": _remove,
    "replace": _replace,
}


def _target(picture: Picture, words: str) -> tuple[int | None, str]:
    """The thing that words begin with, the longest name that fits, and the rest of the words."""
    parts = words.split()
    missing: UserError | None = None
    for end in range(min(len(parts), 5), 0, -1):
        if parts[0] not in ("it", "that", "this", "the") or (end > 1) != (parts[0] == "the"):
            continue
        try:
            at = picture.find(" ".join(parts[:end]))
        except UserError as error:
            missing = error  # that of the shortest name says most
            continue
        if at is not None:
            return at, " ".join(parts[end:])
    if missing is not None:
        raise missing
    return None, words


def _dressed(picture: Picture, at: int, words: str) -> Picture | None:
    """A thing with other attributes, in any order; None for words that are something else."""
    thing = picture.things[at]
    for word in words.replace(",", " ").split():
        if word in ("a", "an", "and", "shape"):
            continue
        if word in COLOURS:
            thing = replace(thing, colour=word)
        elif word in SHAPES:
            thing = replace(thing, shape=word)
        elif word in SIZES:
            thing = replace(thing, size=_sized(thing, SIZES[word]))
        elif word not in KNOWN and re.fullmatch(r"(?:an? )?(?:\w+ ){0,2}\w+", words):
            raise UserError(no_such("colour or shape", word, (*COLOURS, *SHAPES)))
        else:
            return None
    return picture.with_thing(at, thing) if words else None


def _sized(thing: WantedThing, size: str) -> str | None:
    """A size word, or the next one. Raises: UserError: there is none."""
    if size == "plain":
        return None
    if size in ("small", "large"):
        return size
    steps = LARGER if size == "up" else SMALLER
    if thing.size not in steps:
        raise UserError(f"{named(thing)} is as {thing.size} as things are here")
    return steps[thing.size]


def _moved(picture: Picture, at: int, words: str) -> Picture | None:
    """A thing at another place; of two, on another side of the other one."""
    for relation, meaning in RELATIONS.items():
        if words.startswith(f"{relation} ") and meaning != "and":
            beside = picture.find(words[len(relation) :])
            if beside is None:
                continue
            if beside == at:
                raise UserError(f"{named(picture.things[at])} cannot be {meaning} itself")
            return _related(picture, at, meaning)
    if len(picture.things) == 1:
        return _placed(picture, words)
    found = PLACES.fullmatch(words)
    if found is None:
        return None
    side = DIRECTIONS[found[2]]
    if side == "centre":
        raise UserError(
            "of two things, each lies left of, right of, above or below the other; move it to one of these"
        )
    sides = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}
    return _related(picture, at, sides[side])


def _related(picture: Picture, at: int, relation: str) -> Picture:
    said = relation if at == 0 else opposite(relation)
    if picture.wanted.relation == said:
        raise UserError(f"{named(picture.things[at])} is {relation} {named(picture.things[1 - at])} already")
    return Picture(replace(picture.wanted, relation=said), at)


def _placed(picture: Picture, words: str) -> Picture | None:
    """The only thing, somewhere: "left" is one place further, "to the left" all the way."""
    found = PLACES.fullmatch(words)
    if found is None:
        return None
    thing, place = picture.things[0], DIRECTIONS[found[2]]
    against = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}.get(place)
    if not found[1] and thing.place == against and against is not None:
        place = "centre"
    if thing.place == place:
        raise UserError(f"{named(thing)} is there already")
    return picture.with_thing(0, replace(thing, place=place))


def _thing(words: str, partial: bool = False) -> WantedThing | None:
    """A thing's attributes from its name; None where it is no name.

    partial: without a shape, as in "the red one". Raises: UserError: a colour or a shape that there is not.
    """
    size = colour = shape = None
    parts = words.split()
    if not parts or len(parts) > 3:
        return None
    for word in parts:
        if word in ("small", "large", "big", "little", "tiny", "huge") and size is None:
            size = SIZES[word]
        elif word in COLOURS and colour is None:
            colour = word
        elif word in SHAPES and shape is None:
            shape = word
        elif word == "shape" and shape is None:
            partial = True
        elif (
            word not in DIRECTIONS
            and word not in SIZES
            and word != "background"
            and (shape is None and word == parts[-1])
        ):
            raise UserError(no_such("shape", word, SHAPES))
        else:
            return None
    return WantedThing(shape, colour, size) if shape or partial else None


def _fits(thing: WantedThing, asked: WantedThing) -> bool:
    """Whether a thing is called so; what is not said is open."""
    return all(
        said is None or said == has
        for said, has in ((asked.shape, thing.shape), (asked.colour, thing.colour), (asked.size, thing.size))
    )
