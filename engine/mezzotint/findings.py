"""The problems found so far in one graph, and the places that they are at."""

from __future__ import annotations

from typing import Any

from mezzotint.document import escape_pointer
from mezzotint.errors import Problem, did_you_mean

__all__ = ["Findings", "below"]


def below(pointer: str, key: str | int) -> str:
    """The JSON pointer of a key or an index inside the value at `pointer`."""
    return f"{pointer}/{escape_pointer(str(key))}"


class Findings:
    """Collects problems, so that one pass reports them all."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def say(self, pointer: str, message: str, code: str, **more: Any) -> None:
        """Note a problem; `more` are the other fields of `Problem`."""
        self.problems.append(Problem(pointer, message, code, **more))

    def unknown(self, pointer: str, message: str, name: str, known: list[str]) -> None:
        """Note an input that is not there, with those that are and the nearest."""
        wanted = ", ".join(known) or "no inputs"
        self.say(pointer, message, "unknown_input", wanted=wanted, suggestion=did_you_mean(name, known))
