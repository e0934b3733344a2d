"""From a document to a graph: every problem in one pass, each with its place, what was got and what was wanted."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.cycles import check_cycles, check_unused
from mezzotint.document import JSON_TYPES, GraphDoc, InputDoc, NodeDoc, Ref, parse_value, refs_in
from mezzotint.errors import GraphError, did_you_mean
from mezzotint.findings import Findings, below
from mezzotint.forms import FORMS, map_node, switch_node
from mezzotint.graph import Graph, GraphNode
from mezzotint.links import ANY, Links
from mezzotint.literals import canonical, check_declaration
from mezzotint.paths import FileAccess
from mezzotint.signature import EdgeType
from mezzotint.subgraphs import Place, Subgraphs, check_graph_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mezzotint.nodes import NodeSpec
    from mezzotint.registry import Registry
    from mezzotint.signature import InputSpec

__all__ = ["validate"]

_USE = re.compile(r"^([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+)(?:@([1-9][0-9]{0,5}))?$")


def validate(
    doc: GraphDoc,
    registry: Registry,
    *,
    path: Path | None = None,
    file: str = "",
    allowed: tuple[Path, ...] = (),
    folder: Path | None = None,
    embedded: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Graph:
    """Check a document against the installed nodes.

    path: the file it came from; paths written in it stay inside that file's folder, or in `folder`, or `allowed`.
    embedded, given: subgraphs and inputs that came along inside a picture.

    Raises: GraphError: with every problem found.
    """
    base = folder or (path.resolve().parent if path else None)
    place = Place(file or (str(path) if path else "graph"), FileAccess(base, allowed, embedded or {}), path)

    def check(doc: GraphDoc, place: Place, subgraphs: Subgraphs) -> Graph:
        return _Validation(doc, registry, place, subgraphs).run()

    graph = check(doc, place, Subgraphs(check))
    return replace(graph, given=dict(given)) if given else graph


class _Validation:
    """The state of one pass over one document."""

    def __init__(self, doc: GraphDoc, registry: Registry, place: Place, subgraphs: Subgraphs) -> None:
        self.doc = doc
        self.registry = registry
        self.place = place
        self.subgraphs = subgraphs
        self.findings = Findings()
        self.nodes: dict[str, GraphNode] = {}
        self.unknown: set[str] = set()

    def run(self) -> Graph:
        input_types = {name: self.graph_input(d, f"/inputs/{name}") for name, d in self.doc.inputs.items()}
        if "inputs" in self.doc.nodes:
            self.say("/nodes/inputs", "a node cannot be named 'inputs': links use that word", "reserved_name")
        for name, node in self.doc.nodes.items():
            self.nodes[name] = self.node(name, node)
        links = Links(self.nodes, input_types, self.unknown, self.findings)
        for graph_node in self.nodes.values():
            links.check(graph_node)
        outputs = self.outputs(links)
        check_cycles(self.nodes, self.findings)
        check_unused(self.nodes, (ref.node for ref in outputs.values()), self.findings)
        found = [replace(p, file=p.file or self.place.file) for p in self.findings.problems]
        warnings = tuple(p for p in found if p.severity == "warning")
        if len(warnings) < len(found):
            raise GraphError([*(p for p in found if p.severity == "error"), *warnings])
        return Graph(
            doc=self.doc, file=self.place.file, access=self.place.access, nodes=self.nodes, outputs=outputs,
            input_types=input_types, output_types={name: links.type_of(ref) for name, ref in outputs.items()},
            warnings=warnings, path=self.place.path,
        )  # fmt: skip

    def say(self, pointer: str, message: str, code: str, **more: Any) -> None:
        self.findings.say(pointer, message, code, **more)

    def graph_input(self, declared: InputDoc, pointer: str) -> EdgeType:
        before = len(self.findings.problems)
        found = self.input_type(declared, pointer)
        if len(self.findings.problems) == before:
            check_declaration(declared, pointer, self.findings.problems)
        return found

    def input_type(self, declared: InputDoc, pointer: str) -> EdgeType:
        optional = not declared.required and declared.default is None
        name = declared.type
        if name == "array":
            item = self.input_type(declared.items, f"{pointer}/items") if declared.items else ANY
            return EdgeType("list", item=item, optional=optional)
        if name in JSON_TYPES:
            return EdgeType("file" if declared.is_file else name, optional=optional)
        port = self.registry.ports.get(name)
        if port is not None:
            return EdgeType(name, port=port, optional=optional)
        near = did_you_mean(name, [*JSON_TYPES, *self.registry.ports])
        wanted = f"{', '.join(JSON_TYPES)} or a port"
        self.say(f"{pointer}/type", f"unknown type {name!r}", "unknown_type", wanted=wanted, suggestion=near)
        return ANY

    def node(self, name: str, doc: NodeDoc) -> GraphNode:
        pointer = f"/nodes/{name}"
        if doc.use.startswith("graph:") or doc.use in FORMS:
            inputs = self.parsed(doc.inputs, f"{pointer}/inputs")
            return self.form(name, doc.use, inputs, pointer)
        spec, given = self.find_spec(doc, pointer)
        inputs = self.parsed(given, f"{pointer}/inputs")
        if spec is None:
            self.unknown.add(name)
            return GraphNode(name, doc.use, "node", inputs, {})
        literals = self.check_inputs(spec.inputs, inputs, f"{pointer}/inputs")
        outputs = {o.name: o.type for o in spec.outputs.values()}
        return GraphNode(name, spec.use, "node", inputs, outputs, spec, literals=literals)

    def parsed(self, inputs: Mapping[str, Any], pointer: str) -> dict[str, Any]:
        return {k: parse_value(v, below(pointer, k), self.findings.problems) for k, v in inputs.items()}

    def form(self, name: str, use: str, inputs: dict[str, Any], pointer: str) -> GraphNode:
        if FORMS.get(use) == "switch":
            return switch_node(name, inputs, self.findings)
        if FORMS.get(use) == "map":
            node = map_node(name, inputs, self.subgraph, self.findings)
        else:
            graph = self.subgraph(use, f"{pointer}/use")
            if graph is not None:
                check_graph_inputs(graph, inputs, f"{pointer}/inputs", self.findings)
            node = GraphNode(name, use, "graph", inputs, graph.output_types if graph else {}, graph=graph)
        if node.graph is None:
            self.unknown.add(name)
        return node

    def subgraph(self, text: str, pointer: str) -> Graph | None:
        return self.subgraphs.find(text, pointer, self.place, self.findings)

    def find_spec(self, doc: NodeDoc, node_pointer: str) -> tuple[NodeSpec | None, Mapping[str, Any]]:
        """The node type that `use` names, and the inputs in its version's terms."""
        pointer = f"{node_pointer}/use"
        match = _USE.match(doc.use)
        if match is None:
            near = did_you_mean(doc.use, self.registry.ids())
            wanted = '"namespace.name@version" or "graph:FILE"'
            self.say(pointer, "not a node's name", "bad_use", got=repr(doc.use), wanted=wanted, suggestion=near)
            return None, doc.inputs
        known, version = match[1], int(match[2] or 0)
        newest = self.registry.newest(known)
        newest_use = newest.use if newest is not None else f"{known}@1"
        if newest is None and newest_use not in FORMS:
            self.unknown_node(known, pointer)
        elif not version:
            text = f"{known!r} has no version; the newest is {newest_use}"
            self.say(pointer, text, "no_version", suggestion=newest_use)
        elif newest is None:
            self.say(pointer, f"{doc.use} is newer than what is installed", "unknown_version", wanted=newest_use)
        elif (spec := self.registry.node(known, version)) is not None:
            return spec, doc.inputs
        else:
            return self.upgraded(newest, version, doc.inputs, pointer)
        return None, doc.inputs

    def unknown_node(self, known: str, pointer: str) -> None:
        from mezzotint.plugins import explain_missing

        near = did_you_mean(known, [*self.registry.ids(), *(use.partition("@")[0] for use in FORMS)])
        self.say(pointer, explain_missing(self.registry, known), "unknown_node", suggestion=near)

    def upgraded(
        self, newest: NodeSpec, version: int, inputs: Mapping[str, Any], pointer: str
    ) -> tuple[NodeSpec | None, Mapping[str, Any]]:
        """The JSON inputs of an older version, brought up to the newest one's by the plugin's own functions."""
        steps = range(version, newest.version)
        if version > newest.version or not all(step in newest.upgrades for step in steps):
            why = "is newer than what is installed" if version > newest.version else "is no longer supported"
            self.say(pointer, f"{newest.id}@{version} {why}", "unknown_version", wanted=newest.use)
            return None, inputs
        found: Any = copy.deepcopy(dict(inputs))
        for step in steps:
            try:
                found = newest.upgrades[step](found)
                if not isinstance(found, dict):
                    raise TypeError(f"it gave {type(found).__name__}, wanted the inputs as a dict")
            except Exception as error:  # a plugin's function: whatever it raises is reported, not thrown
                text = f"upgrading {newest.id} from {step} to {step + 1} failed: {error}"
                self.say(pointer, text, "upgrade_failed")
                return None, inputs
        return newest, found

    def check_inputs(
        self, wanted: Mapping[str, InputSpec], inputs: dict[str, Any], pointer: str
    ) -> dict[str, Any]:
        """Report unknown and missing inputs; give the literals in canonical form."""
        literals = {}
        problems, access, resolve = self.findings.problems, self.place.access, self.registry.resolve_source
        for name, tree in inputs.items():
            where = below(pointer, name)
            if name not in wanted:
                self.findings.unknown(where, f"no input {name!r}", name, list(wanted))
            elif not refs_in(tree):
                literals[name] = canonical(wanted[name], tree, where, problems, access, resolve)
        for name, spec in wanted.items():
            if spec.required and name not in inputs:
                self.say(pointer, f"the input {name!r} is missing", "missing_input", wanted=str(spec.type))
        return literals

    def outputs(self, links: Links) -> dict[str, Ref]:
        found = {}
        for name, link in self.doc.outputs.items():
            ref = parse_value({"ref": link.ref}, f"/outputs/{name}", self.findings.problems)
            if isinstance(ref, Ref):
                links.type_of(ref, f"/outputs/{name}/ref")
                found[name] = ref
        if not self.doc.outputs:
            text = "the graph has no outputs: nothing would run"
            self.say("/outputs", text, "no_outputs", severity="warning")
        return found
