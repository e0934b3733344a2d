"""The words of instructions: what each means, how sentences come apart, and what to say of a word nobody knows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from mezzotint import UserError
from mezzotint_smallworld import COLOURS, SHAPES

__all__ = [
    "DIRECTIONS", "FILLERS", "HELP", "KNOWN", "PLACES", "RELATIONS", "SIZES", "VERBS", "clauses", "nearest",
    "no_such", "not_understood", "read_ground",
]  # fmt: skip

FILLERS: Final = (
    "please", "can you", "could you", "would you", "now", "just", "ok", "okay", "instead", "i want you to",
    "let us", "a bit", "a little", "much",
)  # fmt: skip
VERBS: Final = {
    "make": ("make", "turn", "change", "colour", "color", "recolour"),
    "move": ("move", "put", "place", "set", "bring", "shift", "push"),
    "add": ("add", "draw", "insert"),
    "remove": ("remove", "delete", "erase", "drop", "take away", "get rid of"),
    "replace": ("replace", "swap", "exchange"),
}
SIZES: Final = {
    "small": "small", "little": "small", "tiny": "small", "large": "large", "big": "large", "huge": "large",
    "larger": "up", "bigger": "up", "smaller": "down", "medium": "plain", "normal": "plain", "plain": "plain",
}  # fmt: skip
DIRECTIONS: Final = {
    "left": "left", "right": "right", "up": "top", "down": "bottom", "top": "top", "bottom": "bottom",
    "centre": "centre", "center": "centre", "middle": "centre",
}  # fmt: skip
PLACES: Final = re.compile(
    r"(?:(?:to|in|on|at|near|into|towards?) )?(the )?"
    r"(left|right|up|down|top|bottom|cent(?:re|er)|middle)(?: side)?"
)
RELATIONS: Final = {
    "to the left of": "left of", "on the left of": "left of", "left of": "left of", "to the right of": "right of",
    "on the right of": "right of", "right of": "right of", "above": "above", "over": "above", "on top of": "above",
    "below": "below", "under": "below", "underneath": "below", "beneath": "below", "next to": "and",
    "beside": "and",
    "to the left": "left of", "to the right": "right of", "on the left": "left of", "on the right": "right of",
    "left": "left of", "right": "right of",
}  # fmt: skip
KNOWN: Final = frozenset(
    word
    for phrase in (
        *COLOURS, *SHAPES, *SIZES, *DIRECTIONS, *RELATIONS, *(verb for verbs in VERBS.values() for verb in verbs),
        "a", "an", "the", "it", "that", "them", "on", "to", "in", "at", "of", "and", "with", "into", "by", "shape",
        "other", "background", "striped", "stripes", "gradient", "undo", "redo", "seed", "another", "again",
        "what", "can", "i", "say",
        "first", "second", "one", "side", "near", "colour", "color", "this", ",",
    )
    for word in phrase.split()
)  # fmt: skip
_GROUND: Final = re.compile(
    r"(?:on )?(?:an? |the )?"
    r"(?:(\w+) (to|and) (\w+) (gradient|striped) background|(\w+) background|background (?:of )?(\w+))"
)
_STARTS: Final = tuple(verb for verbs in VERBS.values() for verb in verbs)

HELP: Final = f"""\
make it blue, turn the ring into a star, make the star larger, make it small and red
move it left, put it at the top, move the star above the circle
add a blue star above (or below, left of, right of) it, remove the ring, replace it with a heart, swap them
put it on a black background, make the background red and white striped (or red to blue gradient)
draw a small green ring on the left, yellow background
undo, redo, again with another seed, seed 7, steps 30
colours: {", ".join(COLOURS)}; shapes: {", ".join(SHAPES)}; one or two things"""


def clauses(text: str) -> list[str]:
    """The parts of a sentence that each ask for one thing: cut where a verb follows "and", "then" or a comma.

    >>> clauses("make it blue and larger, then add a star above it")
    ['make it blue and larger', 'add a star above it']
    """
    starts = "|".join(re.escape(word) for word in (*_STARTS, "undo", "on"))
    cut = re.split(rf" (?:, and then|, then|, and|and then|then|,|and) (?=(?:{starts})(?: |$))", text)
    return [part.strip(" ,") for part in cut if part.strip(" ,")]


def read_ground(text: str) -> tuple[str, tuple[str, ...]] | None:
    """A background's kind and colours, or None where the words are of something else.

    Raises: UserError: a colour that the small world does not have.
    """
    found = _GROUND.fullmatch(text)
    if found is None:
        return None
    first, joined, second, kind, plain, after = found.groups()
    colours = tuple(word for word in (first, second, plain, after) if word)
    for word in colours:
        if word not in COLOURS:
            raise UserError(no_such("colour", word, COLOURS))
    if not kind:
        return "plain", colours
    if kind == "striped" and joined == "to":
        raise UserError("stripes are of one colour `and` another; `to` is for a gradient")
    return ("stripes" if kind == "striped" else kind), colours


def no_such(what: str, word: str, there: Iterable[str]) -> str:
    """A word that is none of a list, and the nearest that is."""
    words = list(there)
    near = nearest(word, words)
    hint = f"; did you mean {near!r}?" if near else f"; it has {', '.join(words)}"
    return f"the small world has no {what} {word!r}{hint}"


def nearest(word: str, words: Iterable[str] = KNOWN) -> str:
    """The nearest known word, or nothing."""
    found = get_close_matches(word, sorted(words), 1, 0.6)
    return found[0] if found else ""


def not_understood(clause: str) -> UserError:
    """What to say of a clause that no rule fits: the first word nobody knows, or the clause as a whole."""
    hint = "`what can I say` lists what there is"
    for word in clause.split():
        if word not in KNOWN:
            near = nearest(word, DIRECTIONS if clause.split()[0] in VERBS["move"] else KNOWN)
            known = f"did you mean {near!r}?" if near else "I do not know that word."
            return UserError(f"I did not understand {word!r} in {clause!r}: {known} {hint}")
    return UserError(f"I know the words of {clause!r} but not what they ask for together; {hint}")
