"""What a caption says, as class numbers: the targets on which the text encoder starts.

Class 0 is "unsaid" everywhere (for a second thing also: there is none).
"""

from __future__ import annotations

from typing import Final

from mezzotint_smallworld import captions, scene

CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "shape": (*scene.SHAPES, "shape"),
    "colour": tuple(scene.COLOURS),
    "size": scene.SIZES,
    "place": scene.PLACES,
    "relation": scene.RELATIONS,
    "ground": scene.GROUNDS,
}
ATTRIBUTES: Final = (
    *("shape", "colour", "size", "place", "relation"),
    *("shape", "colour", "size", "ground", "colour", "colour"),
)
NOUN_ATTRIBUTES: Final = ("shape", "colour", "size")


def attributes(caption: str) -> list[int]:
    """Class numbers of a caption, in the order of ATTRIBUTES.

    Raises: CaptionError: words outside the grammar.
    """
    wanted = captions.parse(caption)
    first = wanted.things[0]
    second = wanted.things[1] if len(wanted.things) > 1 else None
    ground = wanted.background
    colours = (*ground.colours, None)[:2] if ground else (None, None)
    return [
        *_thing(first),
        _class("place", first.place),
        _class("relation", _relation(wanted)),
        *(_thing(second) if second else (0, 0, 0)),
        _class("ground", ground.kind if ground else None),
        *(_class("colour", name) for name in colours),
    ]


def _thing(thing: captions.WantedThing) -> tuple[int, int, int]:
    return (
        _class("shape", thing.shape or "shape"),
        _class("colour", thing.colour),
        _class("size", thing.size),
    )


def _relation(wanted: captions.Wanted) -> str | None:
    return None if len(wanted.things) == 1 else wanted.relation or "and"


def _class(attribute: str, value: str | None) -> int:
    return 0 if value is None else 1 + CLASSES[attribute].index(value)
