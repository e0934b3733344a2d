"""From what a prompt of the small world asks for, back to its words, and how things are named in speech."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from mezzotint import UserError
from mezzotint_smallworld import (
    GRADIENT_WORDS,
    PLACE_WORDS,
    RELATION_WORDS,
    STRIPE_WORDS,
    CaptionError,
    Wanted,
    WantedBackground,
    WantedThing,
    parse,
)

__all__ = ["article", "asked", "ground_words", "named", "opposite", "phrase", "worded"]

OPPOSITES: Final = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def asked(prompt: str) -> Wanted:
    """What a prompt asks for. Raises: UserError: a prompt that is not in the small world's words."""
    try:
        return parse(prompt)
    except CaptionError as error:
        raise UserError(f"that is not in the small world's words: {error}") from error


def worded(wanted: Wanted, like: str = "") -> str:
    """A prompt that asks for this, its background at the place where the prompt `like` has it.

    >>> worded(asked("a red circle on a white background"), "a star on a blue background")
    'a red circle on a white background'
    """
    first, *others = wanted.things
    subject = named(first)
    if others:
        subject += f" {RELATION_WORDS[wanted.relation or 'and'][0]} {named(others[0])}"
    elif first.place:
        subject += f" {PLACE_WORDS[first.place][0]}"
    if wanted.background is None:
        return subject
    ground = ground_words(wanted.background)
    words = like.lower().split()
    pairs = list(pairwise(words))
    on_a = ("on", "a") in pairs or ("on", "an") in pairs
    return f"{subject} on {article(ground)} {ground}" if on_a else f"{subject}, {ground}"


def phrase(thing: WantedThing) -> str:
    """A thing without its article: "small red circle"."""
    return " ".join(word for word in (thing.size, thing.colour, thing.shape or "shape") if word)


def named(thing: WantedThing) -> str:
    """A thing with its article: "a small red circle"."""
    return f"{article(phrase(thing))} {phrase(thing)}"


def ground_words(ground: WantedBackground) -> str:
    """A background: "red to blue gradient background"."""
    if ground.kind == "plain":
        return f"{ground.colours[0]} background"
    wording = (GRADIENT_WORDS if ground.kind == "gradient" else STRIPE_WORDS)[0]
    return f"{wording.format(*ground.colours)} background"


def article(words: str) -> str:
    """ "a" or "an", as the small world's captions have it."""
    return "an" if words.startswith("orange") else "a"


def opposite(relation: str) -> str:
    """The same relation, said of the other thing."""
    return OPPOSITES[relation]
