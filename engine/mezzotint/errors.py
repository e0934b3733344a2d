"""Every error that Mezzotint raises on purpose. Each says where, what was got and what was wanted."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "Cancelled",
    "GraphError",
    "MezzotintError",
    "NodeError",
    "NodeTimeout",
    "PluginError",
    "Problem",
    "StoreError",
    "TransientError",
    "UserError",
    "did_you_mean",
]


class MezzotintError(Exception):
    """The root of all errors that a user can meet; never shown with a traceback."""


class UserError(MezzotintError):
    """Bad usage: a wrong flag, a missing file, a value out of range. Exit code 2.

    A node raises it too, for input that only running could find wrong.
    """


class PluginError(MezzotintError):
    """A plugin is broken, clashes with another one, or defines a node badly."""


class StoreError(MezzotintError):
    """The store cannot be read or written (a full disk, a folder without permission)."""


class TransientError(MezzotintError):
    """A failure that may go away; the engine tries the node again. Nodes raise it."""


class Cancelled(MezzotintError):
    """The run was cancelled; raised inside a node by `ctx.progress` and `ctx.check_cancelled`."""


class NodeTimeout(Cancelled):
    """A node ran longer than its time-out."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a graph.

    pointer: JSON pointer into the file, e.g. `/nodes/sample/inputs/steps`.
    code: a short stable word for machines, e.g. `unknown_node`.
    """

    pointer: str
    message: str
    code: str
    file: str = ""
    got: str = ""
    wanted: str = ""
    suggestion: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        text = f"{self.file}#{self.pointer}: {self.message}"
        if self.wanted:
            text += f"; wanted {self.wanted}"
        if self.got:
            text += f", got {self.got}" if self.wanted else f"; got {self.got}"
        if self.suggestion:
            text += f"; did you mean {self.suggestion!r}?"
        return text


class GraphError(UserError):
    """A graph (or the inputs given to it) is invalid. Carries every problem found, not the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class NodeError(MezzotintError):
    """A node failed while it ran. `node` is its name in the graph, `use` its type."""

    def __init__(self, node: str, use: str, cause: BaseException) -> None:
        self.node = node
        self.use = use
        self.cause = cause
        what = str(cause) if isinstance(cause, MezzotintError) else f"{type(cause).__name__}: {cause}"
        super().__init__(f"node {node!r} ({use}) failed: {what}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest match of `word` among `known`, or an empty string."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else ""
