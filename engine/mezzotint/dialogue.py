"""A dialogue about one picture: what was said, what it changed, and the inputs that came of it.

A dialogue is a value. Each turn makes a new one; a picture is a graph run with the inputs that the dialogue stands
at, so that what a turn does not change is found in the store, and going back runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from mezzotint.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Dialogue", "Edit", "Interpreter", "Kind", "Turn", "read_dialogue", "write_dialogue"]

Kind = Literal["set", "undo", "redo", "say"]
FORMAT = 1
LONGEST = 64 * 2**20  # bytes of a dialogue's file


@dataclass(frozen=True)
class Edit:
    """What something said means.

    kind: "set" changes inputs of the graph; "undo" and "redo" go through what was set before; "say" only answers.
    inputs: the inputs that change and their new values, JSON; None takes the graph's default again.
    text: an answer to show, for any kind.
    about: what "it" means from now on, in the interpreter's own words; empty leaves it.
    """

    kind: Kind
    inputs: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"an edit is one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.kind != "set" and self.inputs:
            raise ValueError(f"only an edit that sets has inputs, got {self.kind!r} with {dict(self.inputs)}")
        object.__setattr__(self, "inputs", _json_copy(self.inputs))


@dataclass(frozen=True)
class Turn:
    """One thing said.

    inputs: of the graph after it, without those that are at their defaults. about: as in `Edit`.
    """

    said: str
    edit: Edit
    inputs: Mapping[str, Any]
    about: str = ""


@dataclass(frozen=True)
class Dialogue:
    """All that was said about one picture.

    graph: where its graph is, as it was named. start: the inputs that were given at the beginning.
    """

    graph: str
    start: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _json_copy(self.start))

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The graph's inputs as they stand, without those that are at their defaults."""
        return self.turns[-1].inputs if self.turns else self.start

    @property
    def about(self) -> str:
        """What "it" means now."""
        return self.turns[-1].about if self.turns else ""

    def after(self, said: str, edit: Edit) -> Dialogue:
        """The dialogue with one turn more. Raises: UserError: there is nothing to undo or to redo."""
        past, future = self._states()
        inputs, about = past[-1]
        if edit.kind == "set":
            changed = {**inputs, **edit.inputs}
            inputs = {name: value for name, value in changed.items() if value is not None}
        elif edit.kind == "undo":
            if len(past) == 1:
                raise UserError("there is nothing to undo: this is the picture that we began with")
            inputs, about = past[-2]
        elif edit.kind == "redo":
            if not future:
                raise UserError("there is nothing to redo: nothing was undone")
            inputs, about = future[-1]
        return replace(self, turns=(*self.turns, Turn(said, edit, _json_copy(inputs), edit.about or about)))

    def _states(self) -> tuple[list[tuple[Mapping[str, Any], str]], list[tuple[Mapping[str, Any], str]]]:
        """What undo goes back through, the present state last, and what redo would bring, the next one last."""
        past: list[tuple[Mapping[str, Any], str]] = [(self.start, "")]
        future: list[tuple[Mapping[str, Any], str]] = []
        for turn in self.turns:
            if turn.edit.kind == "set":
                past.append((turn.inputs, turn.about))
                future.clear()
            elif turn.edit.kind == "undo":
                future.append(past.pop())
            elif turn.edit.kind == "redo":
                past.append(future.pop())
            else:
                past[-1] = (past[-1][0], turn.about)
        return past, future

    def to_json(self) -> dict[str, Any]:
        """The dialogue as JSON; `from_json` reads it."""
        turns = [
            {
                "said": turn.said,
                "edit": {**vars(turn.edit), "inputs": dict(turn.edit.inputs)},
                "inputs": dict(turn.inputs),
            }
            for turn in self.turns
        ]
        return {"dialogue": FORMAT, "graph": self.graph, "start": dict(self.start), "turns": turns}

    @classmethod
    def from_json(cls, data: Any) -> Dialogue:
        """Raises: UserError: what is no dialogue, or one whose turns do not follow from each other."""
        try:
            if data["dialogue"] != FORMAT:
                raise UserError(f"a dialogue of format {data['dialogue']!r}; this version reads {FORMAT}")
            made = cls(_text(data["graph"]), data["start"])
            for turn in data["turns"]:
                given = turn["edit"]
                edit = Edit(given["kind"], given["inputs"], _text(given["text"]), _text(given["about"]))
                made = made.after(_text(turn["said"]), edit)
                if made.inputs != turn["inputs"]:
                    raise UserError(f"turn {len(made.turns)}: its inputs do not follow from what was said before")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"no dialogue: {type(error).__name__}: {error}") from error
        return made


class Interpreter(Protocol):
    """Reads what someone said. Plugins give functions of this shape to `register_interpreters`."""

    def __call__(
        self, dialogue: Dialogue, said: str, *, inputs: Mapping[str, Mapping[str, Any]], **settings: str
    ) -> Edit:
        """What is meant, given what was said before.

        inputs: the graph's inputs by name, each as the graph file describes it. settings: the interpreter's own.
        Raises: UserError: what it did not understand, and what it would have.
        """


def read_dialogue(path: Path) -> Dialogue:
    """Raises: UserError: a file that cannot be read or holds no dialogue."""
    try:
        if path.stat().st_size > LONGEST:
            raise UserError(f"{path}: larger than any dialogue")
        return Dialogue.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def write_dialogue(path: Path, dialogue: Dialogue) -> None:
    """Write it whole, or leave the file as it was. Raises: UserError: a place where nothing can be written."""
    from mezzotint.atomic import write_bytes

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps(dialogue.to_json(), indent=1, ensure_ascii=False).encode())
    except OSError as error:
        raise UserError(f"cannot write the dialogue {path}: {error.strerror or error}") from error


def _json_copy(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that nobody else holds. Raises: ValueError: what is no JSON object."""
    if not isinstance(value, Mapping):
        raise ValueError(f"wanted an object, got {value!r}")
    try:
        copied: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except TypeError as error:
        raise ValueError(f"not JSON: {error}") from error
    return copied


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"wanted a text, got {value!r}")
    return value
