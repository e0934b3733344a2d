"""`flow.map` and `flow.switch`: nodes that planning dissolves into others. Here their own inputs are checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mezzotint.document import Ref, refs_in
from mezzotint.errors import did_you_mean
from mezzotint.findings import Findings, below
from mezzotint.graph import GraphNode
from mezzotint.links import ANY
from mezzotint.literals import check_input, type_name
from mezzotint.signature import EdgeType
from mezzotint.subgraphs import check_graph_inputs

if TYPE_CHECKING:
    from mezzotint.graph import Graph

__all__ = ["FORMS", "case_word", "map_node", "switch_node"]

FORMS = {"flow.map@1": "map", "flow.switch@1": "switch"}


def map_node(
    name: str, inputs: dict[str, Any], subgraph: Callable[[str, str], Graph | None], findings: Findings
) -> GraphNode:
    """A `flow.map@1`. subgraph: gives the graph that a text names at a pointer, or None after reporting it."""
    pointer = f"/nodes/{name}/inputs"
    _check_names(inputs, ("graph", "over", "with"), ("graph", "over"), pointer, findings)
    text, over, rest = inputs.get("graph"), inputs.get("over", {}), inputs.get("with", {})
    graph = None
    if isinstance(text, str):
        graph = subgraph(text, f"{pointer}/graph")
    elif "graph" in inputs:
        what = "which graph to map must be written here"
        findings.say(f"{pointer}/graph", what, "bad_value", got=type_name(text), wanted='"graph:FILE"')
    for key, tree in (("over", over), ("with", rest)):
        if not isinstance(tree, dict):
            what = f"'{key}' is an object from input names to values"
            findings.say(f"{pointer}/{key}", what, "bad_value", got=type_name(tree))
    if isinstance(over, dict) and "over" in inputs:
        _check_lists(over, f"{pointer}/over", findings)
    if isinstance(over, dict) and isinstance(rest, dict):
        for key in over:
            if key in rest:
                findings.say(below(f"{pointer}/with", key), f"{key!r} is in 'over' already", "bad_value")
        if graph is not None:
            check_graph_inputs(graph, rest, f"{pointer}/with", findings, frozenset(over))
            _check_items(graph, over, f"{pointer}/over", findings)
    outputs = {k: EdgeType("list", item=t) for k, t in graph.output_types.items()} if graph else {}
    return GraphNode(name, "flow.map@1", "map", inputs, outputs, graph=graph)


def _check_lists(over: dict[str, Any], pointer: str, findings: Findings) -> None:
    lengths = {k: len(v) for k, v in over.items() if isinstance(v, list)}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{k}: {n}" for k, n in lengths.items())
        findings.say(pointer, "the lists differ in length", "bad_value", got=got)
    if not over:
        findings.say(pointer, "nothing to map over", "bad_value")
    for key, tree in over.items():
        if not isinstance(tree, (list, Ref)):
            findings.say(below(pointer, key), "wanted a list to map over", "wrong_type", got=type_name(tree))


def _check_items(graph: Graph, over: dict[str, Any], pointer: str, findings: Findings) -> None:
    wanted = graph.doc.inputs
    for key, tree in over.items():
        where = below(pointer, key)
        if key not in wanted:
            findings.unknown(where, f"the graph has no input {key!r}", key, list(wanted))
        elif isinstance(tree, list):
            for i, item in enumerate(tree):
                if not refs_in(item):
                    check_input(wanted[key], item, below(where, i), findings.problems)


def switch_node(name: str, inputs: dict[str, Any], findings: Findings) -> GraphNode:
    """A `flow.switch@1`."""
    pointer = f"/nodes/{name}/inputs"
    _check_names(inputs, ("on", "cases", "default"), ("on", "cases"), pointer, findings)
    cases, on = inputs.get("cases", {}), inputs.get("on")
    if not isinstance(cases, dict):
        what = "'cases' is an object from values to links"
        findings.say(f"{pointer}/cases", what, "bad_value", got=type_name(cases))
    elif not cases and "cases" in inputs:
        findings.say(f"{pointer}/cases", "a switch needs at least one case", "bad_value")
    elif isinstance(on, (list, dict)):
        findings.say(f"{pointer}/on", "wanted one value", "wrong_type", got=type_name(on))
    elif "on" in inputs and not isinstance(on, Ref) and case_word(on) not in cases and "default" not in inputs:
        word = case_word(on)
        findings.say(
            f"{pointer}/on", "no such case, and no default", "bad_value", got=word,
            wanted=", ".join(cases), suggestion=did_you_mean(word, cases),
        )  # fmt: skip
    return GraphNode(name, "flow.switch@1", "switch", inputs, {"value": ANY})


def case_word(on: Any) -> str:
    """The name of the case for a value: the string itself, or the value as JSON."""
    return str(on) if isinstance(on, str) else json.dumps(on)


def _check_names(
    inputs: dict[str, Any], known: tuple[str, ...], needed: tuple[str, ...], pointer: str, findings: Findings
) -> None:
    for name in inputs:
        if name not in known:
            findings.unknown(below(pointer, name), f"no input {name!r}", name, list(known))
    for name in needed:
        if name not in inputs:
            findings.say(pointer, f"the input {name!r} is missing", "missing_input")
