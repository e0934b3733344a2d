"""Layouts: named boxes as a sequence of tokens, and back.

Per object three tokens: its name, the upper left corner, the lower right corner; a corner is the nearest point of
a grid of S x S points that reaches from edge to edge. After Rombach et al. 2022, section 4.3 and appendix E.2
(from Jahn et al. 2021). There objects come in random order; here they are sorted, so that order plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mezzotint import UserError

__all__ = ["Grid", "NamedBox", "read_boxes"]

_CORNERS = ("left", "top", "right", "bottom")


@dataclass(frozen=True, slots=True)
class NamedBox:
    """what: its name. box: (left, top, right, bottom) in 0..1 of the picture's sides, x to the right, y down."""

    what: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Grid:
    """The vocabulary: names first, then S * S corners row by row, then one token for an object that is not there.

    names: what objects can be. side: S. objects: how many there can be.
    """

    names: tuple[str, ...]
    side: int
    objects: int

    @property
    def padding(self) -> int:
        return len(self.names) + self.side**2

    @property
    def length(self) -> int:
        """Tokens of a layout."""
        return 3 * self.objects

    def corner(self, x: float, y: float) -> int:
        """The token of the grid's nearest point: at most half of 1 / (S - 1) away on either axis."""
        column, row = (math.floor(place * (self.side - 1) + 0.5) for place in (x, y))
        return len(self.names) + row * self.side + column

    def place(self, token: int) -> tuple[float, float]:
        """(x, y) of a corner's token."""
        row, column = divmod(token - len(self.names), self.side)
        return column / (self.side - 1), row / (self.side - 1)

    def tokens(self, boxes: Sequence[NamedBox]) -> list[int]:
        """`length` tokens, the same for every order of the boxes.

        Raises: UserError: too many boxes, or a name that is not in the vocabulary.
        """
        if len(boxes) > self.objects:
            raise UserError(f"wanted at most {self.objects} boxes, got {len(boxes)}")
        unknown = [each.what for each in boxes if each.what not in self.names]
        if unknown:
            raise UserError(f"{unknown[0]!r} is not known{_nearest(unknown[0], self.names)}")
        triples = sorted(
            (self.names.index(each.what), self.corner(*each.box[:2]), self.corner(*each.box[2:])) for each in boxes
        )
        said = [token for triple in triples for token in triple]
        return said + [self.padding] * (self.length - len(said))

    def boxes(self, tokens: Sequence[int]) -> list[NamedBox]:
        """The boxes of a layout's tokens, their corners on the grid."""
        triples = [tokens[i : i + 3] for i in range(0, len(tokens), 3)]
        return [
            NamedBox(self.names[what], (*self.place(first), *self.place(last)))
            for what, first, last in triples
            if what != self.padding
        ]


def read_boxes(given: Any, grid: Grid, pointer: str = "/boxes") -> list[NamedBox]:
    """Boxes out of JSON: [{"what": "red circle", "box": [left, top, right, bottom]}, ...].

    Raises: UserError: everything that is wrong, each with the place where it stands.
    """
    if not isinstance(given, list | tuple):
        raise UserError(f"{pointer}: wanted a list of boxes, got {given!r}")
    problems: list[str] = []
    if len(given) > grid.objects:
        problems.append(f"{pointer}: the model was made for at most {grid.objects} boxes, got {len(given)}")
    found = [_read_one(each, grid, f"{pointer}/{i}", problems) for i, each in enumerate(given)]
    if problems:
        raise UserError("\n".join(problems))
    return [each for each in found if each is not None]


def _read_one(given: Any, grid: Grid, at: str, problems: list[str]) -> NamedBox | None:
    if not isinstance(given, Mapping):
        problems.append(f'{at}: wanted {{"what": name, "box": [left, top, right, bottom]}}, got {given!r}')
        return None
    before = len(problems)
    problems += [f"{at}/{key}: unknown; a box has 'what' and 'box'" for key in given if key not in ("what", "box")]
    what, box = given.get("what"), given.get("box")
    if not isinstance(what, str):
        problems.append(f"{at}/what: wanted a name, got {what!r}")
    elif what not in grid.names:
        problems.append(f"{at}/what: {what!r} is not known{_nearest(what, grid.names)}")
    problems += _box_problems(box, f"{at}/box")
    if len(problems) > before:
        return None
    left, top, right, bottom = (float(place) for place in box)  # type: ignore[union-attr]
    return NamedBox(str(what), (left, top, right, bottom))


def _box_problems(box: Any, at: str) -> list[str]:
    if not isinstance(box, list | tuple) or len(box) != 4:
        return [f"{at}: wanted [left, top, right, bottom], got {box!r}"]
    problems = [
        f"{at}/{i}: wanted {name} in 0..1 of the picture's side, got {place!r}"
        for i, (name, place) in enumerate(zip(_CORNERS, box, strict=True))
        if isinstance(place, bool) or not isinstance(place, int | float) or not 0 <= place <= 1
    ]
    if problems:
        return problems
    return [
        f"{at}/{i + 2}: wanted {_CORNERS[i + 2]} above {_CORNERS[i]} {box[i]:g}, got {box[i + 2]:g}"
        for i in (0, 1)
        if box[i + 2] <= box[i]
    ]


def _nearest(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
