"""Links: whether each leads somewhere, and whether what it carries fits there, as far as types can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mezzotint.document import Ref, refs_in
from mezzotint.errors import did_you_mean
from mezzotint.findings import below
from mezzotint.literals import type_name
from mezzotint.signature import EdgeType

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mezzotint.findings import Findings
    from mezzotint.graph import GraphNode

__all__ = ["ANY", "Links"]

ANY = EdgeType("any")
_SHOWN = 12


class Links:
    """The links of one graph. unknown: nodes whose outputs nobody can tell, because they are wrong themselves."""

    def __init__(
        self,
        nodes: Mapping[str, GraphNode],
        input_types: Mapping[str, EdgeType],
        unknown: Collection[str],
        findings: Findings,
    ) -> None:
        self.nodes = nodes
        self.input_types = input_types
        self.unknown = unknown
        self.findings = findings

    def check(self, node: GraphNode) -> None:
        """Every link in a node's inputs."""
        for name, tree in node.inputs.items():
            pointer = below(f"{node.pointer}/inputs", name)
            if node.form == "map":
                self._check_map_input(node, name, tree, pointer)
            elif node.form == "switch":
                self._check_tree(tree, ANY, pointer)
                if name == "on":
                    self._check_known(tree, pointer)
            elif node.form == "graph":
                types = node.graph.input_types if node.graph else {}
                self._check_tree(tree, types.get(name, ANY), pointer)
            else:
                known = node.spec is not None and name in node.spec.inputs
                self._check_tree(tree, node.spec.inputs[name].type if node.spec and known else ANY, pointer)

    def _check_map_input(self, node: GraphNode, name: str, tree: Any, pointer: str) -> None:
        if not isinstance(tree, dict):
            self._check_tree(tree, ANY, pointer)
            return
        types = node.graph.input_types if node.graph else {}
        for key, part in tree.items():
            wanted = types.get(key, ANY)
            if name == "over":
                self._check_tree(part, EdgeType("list", item=wanted), below(pointer, key))
                self._check_known(part, below(pointer, key))
            else:
                self._check_tree(part, wanted, below(pointer, key))

    def _check_known(self, tree: Any, pointer: str) -> None:
        """What decides which nodes there are cannot be the result of one."""
        source = self.nodes.get(tree.node) if isinstance(tree, Ref) else None
        if source is not None and source.form == "node":
            text = "must be known when planning, before any node runs"
            self.findings.say(pointer, text, "not_known", got=f"a link to node {tree.node!r}")

    def _check_tree(self, tree: Any, wanted: EdgeType, pointer: str) -> None:
        if isinstance(tree, Ref):
            found = self.type_of(tree, pointer)
            if not wanted.accepts(found):
                text = f"{tree} gives the wrong type"
                self.findings.say(pointer, text, "wrong_type", got=str(found), wanted=str(wanted))
        elif isinstance(tree, list):
            self._check_list(tree, wanted, pointer)
        elif isinstance(tree, dict):
            if wanted.name not in ("any", "object") and refs_in(tree):
                text = "an object with links where none is wanted"
                self.findings.say(pointer, text, "wrong_type", wanted=str(wanted))
            for key, part in tree.items():
                self._check_tree(part, ANY, below(pointer, key))

    def _check_list(self, tree: list[Any], wanted: EdgeType, pointer: str) -> None:
        links = bool(refs_in(tree))
        item = wanted.item
        if links and item is None and wanted.name != "any":
            text = "a list of links where one value is wanted"
            self.findings.say(pointer, text, "wrong_type", wanted=str(wanted))
        ports = links and item is not None and item.port is not None
        for i, part in enumerate(tree):
            if ports and item is not None and not refs_in(part) and not (part is None and item.optional):
                got, wants = type_name(part), f"a link to {item}"
                self.findings.say(below(pointer, i), "a port takes a link", "wrong_type", got=got, wanted=wants)
            self._check_tree(part, item or ANY, below(pointer, i))

    def type_of(self, ref: Ref, pointer: str | None = None) -> EdgeType:
        """The type that a link carries; where `pointer` is given, report a link that leads nowhere."""
        if ref.node == "inputs":
            return self._input_type(ref, pointer)
        node = self.nodes.get(ref.node)
        if node is None:
            return self._lost(pointer, f"there is no node {ref.node!r}", self.nodes, ref.node, "")
        if ref.node in self.unknown:
            return ANY
        if not node.outputs:
            return self._lost(pointer, f"node {ref.node!r} ({node.use}) has no outputs", {}, "", "")
        if ref.port is None:
            if len(node.outputs) == 1:
                return next(iter(node.outputs.values()))
            names = ", ".join(f"{ref.node}.{o}" for o in node.outputs)
            text = f"node {ref.node!r} has {len(node.outputs)} outputs; say which: {names}"
            return self._lost(pointer, text, {}, "", "")
        if ref.port not in node.outputs:
            text = f"node {ref.node!r} ({node.use}) has no output {ref.port!r}"
            return self._lost(pointer, text, node.outputs, ref.port, f"{ref.node}.")
        return node.outputs[ref.port]

    def _input_type(self, ref: Ref, pointer: str | None) -> EdgeType:
        if ref.port is None:
            text = "'inputs' is all of the graph's inputs; say which"
            return self._lost(pointer, text, self.input_types, "", "inputs.")
        if ref.port not in self.input_types:
            text = f"the graph has no input {ref.port!r}"
            return self._lost(pointer, text, self.input_types, ref.port, "inputs.")
        return self.input_types[ref.port]

    def _lost(
        self, pointer: str | None, message: str, known: Mapping[str, Any], got: str, prefix: str
    ) -> EdgeType:
        if pointer is not None:
            near = did_you_mean(got, known)
            wanted = ", ".join(f"{prefix}{k}" for k in list(known)[:_SHOWN])
            suggestion = prefix + near if near else ""
            self.findings.say(pointer, message, "bad_link", wanted=wanted, suggestion=suggestion)
        return ANY
