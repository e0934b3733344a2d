"""Graphs inside graphs: found, validated once each, bounded in depth, never containing themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.document import GraphDoc, parse_doc, read_graph, refs_in
from mezzotint.errors import GraphError, UserError
from mezzotint.findings import Findings, below
from mezzotint.literals import check_input

if TYPE_CHECKING:
    from mezzotint.graph import Graph
    from mezzotint.paths import FileAccess

__all__ = ["Place", "Subgraphs", "check_graph_inputs"]

MAX_GRAPH_DEPTH = 32


@dataclass(frozen=True)
class Place:
    """Where a graph stands. file: its name in messages. parents: the graphs around it, outermost first."""

    file: str
    access: FileAccess
    path: Path | None = None
    parents: tuple[Path, ...] = ()

    @property
    def chain(self) -> tuple[Path, ...]:
        """The graphs around what this one contains."""
        return (*self.parents, self.path.resolve()) if self.path else self.parents


class Subgraphs:
    """All subgraphs of one validation. A file that is used often is validated, and its problems told, once."""

    def __init__(self, validate: Callable[[GraphDoc, Place, Subgraphs], Graph]) -> None:
        self._validate = validate
        self._known: dict[Path, Graph | None] = {}

    def find(self, text: str, pointer: str, place: Place, findings: Findings) -> Graph | None:
        """The graph that `graph:FILE` names, validated; what is wrong in it goes to `findings`."""
        if not text.startswith("graph:"):
            findings.say(pointer, "not a graph", "bad_use", got=repr(text), wanted='"graph:FILE"')
            return None
        name = text.removeprefix("graph:")
        embedded = name in place.access.embedded
        try:
            # A graph out of a picture has no file; its name stands for its path.
            path = Path(f"/{name}") if embedded else place.access.resolve(name)
        except UserError as error:
            findings.say(pointer, str(error), "bad_file")
            return None
        if not self._may_contain(path, pointer, place, findings):
            return None
        if path not in self._known:
            self._known[path] = self._validated(name if embedded else "", path, pointer, place, findings)
        graph = self._known[path]
        if graph is not None and len(place.chain) + graph.height > MAX_GRAPH_DEPTH:
            findings.say(pointer, f"graphs nested deeper than {MAX_GRAPH_DEPTH}", "too_deep")
            return None
        return graph

    def _may_contain(self, path: Path, pointer: str, place: Place, findings: Findings) -> bool:
        chain = place.chain
        if path in chain:
            loop = " -> ".join(p.name for p in (*chain[chain.index(path) :], path))
            findings.say(pointer, f"a graph cannot contain itself: {loop}", "recursion")
            return False
        if len(chain) >= MAX_GRAPH_DEPTH:
            findings.say(pointer, f"graphs nested deeper than {MAX_GRAPH_DEPTH}", "too_deep")
            return False
        return True

    def _validated(
        self, embedded: str, path: Path, pointer: str, place: Place, findings: Findings
    ) -> Graph | None:
        used = f" (used at {place.file}#{pointer})"
        try:
            if embedded:
                inner = Place(f"{place.file}[{embedded}]", place.access, None, (*place.chain, path))
                doc = parse_doc(place.access.embedded[embedded], inner.file)
            else:
                inner = Place(str(path), replace(place.access, folder=path.parent), path, place.chain)
                doc = read_graph(path)
            graph = self._validate(doc, inner, self)
        except GraphError as error:
            findings.problems += [replace(p, message=p.message + used) for p in error.problems]
            return None
        except UserError as error:
            findings.say(pointer, str(error), "bad_file")
            return None
        findings.problems += [replace(p, message=p.message + used) for p in graph.warnings]
        return graph


def check_graph_inputs(
    graph: Graph,
    inputs: Mapping[str, Any],
    pointer: str,
    findings: Findings,
    elsewhere: frozenset[str] = frozenset(),
) -> None:
    """The literals that a graph is given. elsewhere: inputs that it gets in another way."""
    wanted = graph.doc.inputs
    for name, tree in inputs.items():
        if name not in wanted:
            findings.unknown(below(pointer, name), f"the graph has no input {name!r}", name, list(wanted))
        elif not refs_in(tree):
            check_input(wanted[name], tree, below(pointer, name), findings.problems)
    for name, declared in wanted.items():
        if declared.required and name not in inputs and name not in elsewhere:
            findings.say(pointer, f"the input {name!r} is missing", "missing_input", wanted=declared.type)
