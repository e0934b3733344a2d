"""From a document to a graph: every problem in one pass, each with its place, what was got and what was wanted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.document import JSON_TYPES, GraphDoc, InputDoc, NodeDoc, Ref, parse_doc, parse_value, read_graph, refs_in
from mezzotint.errors import GraphError, Problem, UserError, did_you_mean
from mezzotint.graph import Graph, GraphNode
from mezzotint.literals import canonical, check_input, type_name
from mezzotint.paths import FileAccess
from mezzotint.signature import EdgeType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mezzotint.nodes import NodeSpec
    from mezzotint.registry import Registry
    from mezzotint.signature import InputSpec

__all__ = ["FORMS", "validate"]

MAX_GRAPH_DEPTH = 32
FORMS = {"flow.map@1": "map", "flow.switch@1": "switch"}
_USE = re.compile(r"^([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+)(?:@([1-9][0-9]{0,5}))?$")
_ANY = EdgeType("any")


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

    path: the file it came from; paths written in it stay inside that file's folder, or inside `folder`, or `allowed`.
    embedded, given: subgraphs and inputs that came along inside a picture.

    Raises: GraphError: with every problem found.
    """
    base = folder or (path.resolve().parent if path else None)
    name = file or (str(path) if path else "graph")
    graph = _Validation(doc, registry, FileAccess(base, allowed, embedded or {}), name, path, ()).run()
    return replace(graph, given=dict(given)) if given else graph


class _Validation:
    """The state of one pass over one document."""

    def __init__(
        self,
        doc: GraphDoc,
        registry: Registry,
        access: FileAccess,
        file: str,
        path: Path | None,
        parents: tuple[Path, ...],
    ) -> None:
        self.doc = doc
        self.registry = registry
        self.access = access
        self.file = file
        self.path = path
        self.parents = parents
        self.problems: list[Problem] = []
        self.nodes: dict[str, GraphNode] = {}
        self.input_types: dict[str, EdgeType] = {}

    def run(self) -> Graph:
        for name, wanted in self.doc.inputs.items():
            self.input_types[name] = self.graph_input(wanted, f"/inputs/{name}")
        if "inputs" in self.doc.nodes:
            self.say("/nodes/inputs", "a node cannot be named 'inputs': links use that word", "reserved_name")
        for name, node in self.doc.nodes.items():
            self.nodes[name] = self.node(name, node)
        for node in self.nodes.values():
            self.check_links(node)
        outputs = self.outputs()
        self.check_cycles()
        warnings = [p for p in self.problems if p.severity == "warning"] + self.unused(outputs)
        errors = [p for p in self.problems if p.severity == "error"]
        if errors:
            raise GraphError([replace(p, file=p.file or self.file) for p in (*errors, *warnings)])
        types = {name: self.type_of(ref) for name, ref in outputs.items()}
        return Graph(
            doc=self.doc, file=self.file, access=self.access, nodes=self.nodes, outputs=outputs, path=self.path,
            input_types=self.input_types, output_types=types,
            warnings=tuple(replace(p, file=p.file or self.file) for p in warnings),
        )  # fmt: skip

    def say(self, pointer: str, message: str, code: str, **more: Any) -> None:
        self.problems.append(Problem(pointer, message, code, **more))

    def graph_input(self, wanted: InputDoc, pointer: str) -> EdgeType:
        port = self.registry.types.get(wanted.type)
        if wanted.type not in JSON_TYPES and getattr(port, "port_name", "") != wanted.type:
            near = did_you_mean(wanted.type, [*JSON_TYPES, *self.registry.types])
            words = ", ".join(JSON_TYPES)
            self.say(f"{pointer}/type", f"unknown type {wanted.type!r}", "unknown_type", wanted=f"{words} or a port", suggestion=near)
            return _ANY
        if wanted.type in JSON_TYPES and not wanted.required and wanted.default is not None:
            check_input(wanted, wanted.default, f"{pointer}/default", self.problems)
        return self.input_type(wanted)

    def input_type(self, wanted: InputDoc) -> EdgeType:
        optional = not wanted.required and wanted.default is None
        if wanted.type == "array":
            return EdgeType("list", item=self.input_type(wanted.items) if wanted.items else _ANY, optional=optional)
        if wanted.type in JSON_TYPES:
            return EdgeType("file" if wanted.is_file else wanted.type, optional=optional)
        port: Any = self.registry.types.get(wanted.type)
        return EdgeType(wanted.type, port=port, optional=optional) if port else _ANY

    def node(self, name: str, doc: NodeDoc) -> GraphNode:
        pointer = f"/nodes/{name}"
        inputs = {k: parse_value(v, f"{pointer}/inputs/{k}", self.problems) for k, v in doc.inputs.items()}
        if doc.use.startswith("graph:"):
            return self.graph_node(name, doc.use, inputs, f"{pointer}/use")
        if doc.use in FORMS:
            return self.map_node(name, inputs) if FORMS[doc.use] == "map" else self.switch_node(name, inputs)
        spec, inputs = self.find_spec(doc.use, inputs, f"{pointer}/use")
        if spec is None:
            return GraphNode(name, doc.use, "node", inputs, {})
        literals = self.check_inputs(spec.inputs, inputs, f"{pointer}/inputs")
        return GraphNode(
            name, spec.use, "node", inputs, {o.name: o.type for o in spec.outputs.values()}, spec, literals=literals
        )

    def find_spec(self, use: str, inputs: dict[str, Any], pointer: str) -> tuple[NodeSpec | None, dict[str, Any]]:
        match = _USE.match(use)
        if match is None:
            near = did_you_mean(use, self.registry.ids())
            self.say(pointer, "not a node's name", "bad_use", got=repr(use), wanted='"namespace.name@version" or "graph:FILE"', suggestion=near)
            return None, inputs
        known, version = match[1], int(match[2] or 0)
        newest = self.registry.newest(known)
        if newest is None:
            self.unknown_node(known, pointer)
            return None, inputs
        if not version:
            self.say(pointer, f"{known!r} has no version; the newest is {newest.use}", "no_version", suggestion=newest.use)
            return None, inputs
        spec = self.registry.node(known, version)
        if spec is not None:
            return spec, inputs
        return self.upgraded(newest, version, inputs, pointer)

    def unknown_node(self, known: str, pointer: str) -> None:
        from mezzotint.plugins import explain_missing

        near = did_you_mean(known, [*self.registry.ids(), "flow.map", "flow.switch"])
        self.say(pointer, explain_missing(self.registry, known), "unknown_node", suggestion=near)

    def upgraded(
        self, newest: NodeSpec, version: int, inputs: dict[str, Any], pointer: str
    ) -> tuple[NodeSpec | None, dict[str, Any]]:
        """The inputs of an older version, brought up to the newest one's by the plugin's own functions."""
        if version > newest.version or not all(v in newest.upgrades for v in range(version, newest.version)):
            why = "is newer than what is installed" if version > newest.version else "is no longer supported"
            self.say(pointer, f"{newest.id}@{version} {why}", "unknown_version", wanted=newest.use)
            return None, inputs
        for step in range(version, newest.version):
            try:
                inputs = newest.upgrades[step](dict(inputs))
            except Exception as error:  # a plugin's function: whatever it raises is reported, not thrown
                message = f"upgrading {newest.id} from {step} to {step + 1} failed: {error}"
                self.say(pointer, message, "upgrade_failed")
                return None, inputs
        return newest, inputs

    def check_inputs(self, wanted: Mapping[str, InputSpec], inputs: dict[str, Any], pointer: str) -> dict[str, Any]:
        """Report unknown and missing inputs; give the literals in canonical form."""
        literals = {}
        for name, tree in inputs.items():
            if name not in wanted:
                self.say(f"{pointer}/{name}", f"no input {name!r}", "unknown_input", wanted=", ".join(wanted) or "no inputs", suggestion=did_you_mean(name, wanted))
            elif not refs_in(tree):
                literals[name] = canonical(
                    wanted[name], tree, f"{pointer}/{name}", self.problems, self.access, self.registry.resolve_source
                )
        for name, spec in wanted.items():
            if spec.required and name not in inputs:
                self.say(pointer, f"the input {name!r} is missing", "missing_input", wanted=str(spec.type))
        return literals

    def subgraph(self, text: str, pointer: str) -> Graph | None:
        """The graph that `graph:FILE` names, validated; its problems become this one's."""
        if not text.startswith("graph:"):
            self.say(pointer, "not a graph", "bad_use", got=repr(text), wanted='"graph:FILE"')
            return None
        name = text.removeprefix("graph:")
        if name in self.access.embedded:
            return self.embedded(name, pointer)
        try:
            path = self.access.resolve(name)
            parents = (*self.parents, self.path.resolve()) if self.path else self.parents
            if path in parents:
                chain = " -> ".join(p.name for p in (*parents[parents.index(path) :], path))
                self.say(pointer, f"a graph cannot contain itself: {chain}", "recursion")
                return None
            if len(parents) >= MAX_GRAPH_DEPTH:
                self.say(pointer, f"graphs nested deeper than {MAX_GRAPH_DEPTH}", "too_deep")
                return None
            access = replace(self.access, folder=path.parent)
            return _Validation(read_graph(path), self.registry, access, str(path), path, parents).run()
        except GraphError as error:
            self.problems += [replace(p, message=f"{p.message} (used at {self.file}#{pointer})") for p in error.problems]
        except UserError as error:
            self.say(pointer, str(error), "bad_file")
        return None

    def embedded(self, name: str, pointer: str) -> Graph | None:
        """A subgraph that came along inside a picture."""
        marker = Path(f"/{name}")
        if marker in self.parents or len(self.parents) >= MAX_GRAPH_DEPTH:
            self.say(pointer, f"a graph cannot contain itself: {name}", "recursion")
            return None
        try:
            doc = parse_doc(self.access.embedded[name], f"{self.file}[{name}]")
            parents = (*self.parents, marker)
            return _Validation(doc, self.registry, self.access, f"{self.file}[{name}]", None, parents).run()
        except GraphError as error:
            self.problems += error.problems
        return None

    def graph_node(self, name: str, use: str, inputs: dict[str, Any], pointer: str) -> GraphNode:
        graph = self.subgraph(use, pointer)
        if graph is None:
            return GraphNode(name, use, "graph", inputs, {})
        self.check_graph_inputs(graph, inputs, f"/nodes/{name}/inputs", set())
        return GraphNode(name, use, "graph", inputs, graph.output_types, graph=graph)

    def check_graph_inputs(self, graph: Graph, inputs: Mapping[str, Any], pointer: str, elsewhere: set[str]) -> None:
        wanted = graph.doc.inputs
        for name, tree in inputs.items():
            if name not in wanted:
                self.say(f"{pointer}/{name}", f"the graph has no input {name!r}", "unknown_input", wanted=", ".join(wanted), suggestion=did_you_mean(name, wanted))
            elif not refs_in(tree):
                check_input(wanted[name], tree, f"{pointer}/{name}", self.problems)
        for name, spec in wanted.items():
            if spec.required and name not in inputs and name not in elsewhere:
                self.say(pointer, f"the input {name!r} is missing", "missing_input", wanted=spec.type)

    def map_node(self, name: str, inputs: dict[str, Any]) -> GraphNode:
        pointer = f"/nodes/{name}/inputs"
        self.only_inputs(inputs, ("graph", "over", "with"), ("graph", "over"), pointer)
        text, over, rest = inputs.get("graph"), inputs.get("over"), inputs.get("with", {})
        graph = self.subgraph(text, f"{pointer}/graph") if isinstance(text, str) else None
        if not isinstance(text, str) and "graph" in inputs:
            self.say(f"{pointer}/graph", "which graph to map must be written here", "bad_value", got=type_name(text), wanted='"graph:FILE"')
        for key, tree in (("over", over), ("with", rest)):
            if key in inputs and not isinstance(tree, dict):
                self.say(f"{pointer}/{key}", f"'{key}' is an object from input names to values", "bad_value", got=type_name(tree))
        if not (isinstance(over, dict) and isinstance(rest, dict)):
            return GraphNode(name, "flow.map@1", "map", inputs, {})
        lengths = {k: len(v) for k, v in over.items() if isinstance(v, list)}
        if len(set(lengths.values())) > 1:
            self.say(f"{pointer}/over", "the lists differ in length", "bad_value", got=", ".join(f"{k}: {n}" for k, n in lengths.items()))
        if not over:
            self.say(f"{pointer}/over", "nothing to map over", "bad_value")
        for key, tree in over.items():
            if not isinstance(tree, (list, Ref)):
                self.say(f"{pointer}/over/{key}", "wanted a list to map over", "wrong_type", got=type_name(tree))
        for key in set(over) & set(rest):
            self.say(f"{pointer}/with/{key}", f"{key!r} is in 'over' already", "bad_value")
        if graph is None:
            return GraphNode(name, "flow.map@1", "map", inputs, {})
        self.check_graph_inputs(graph, rest, f"{pointer}/with", set(over))
        for key in set(over) - set(graph.doc.inputs):
            self.say(f"{pointer}/over/{key}", f"the graph has no input {key!r}", "unknown_input", wanted=", ".join(graph.doc.inputs), suggestion=did_you_mean(key, graph.doc.inputs))
        outputs = {k: EdgeType("list", item=t) for k, t in graph.output_types.items()}
        return GraphNode(name, "flow.map@1", "map", inputs, outputs, graph=graph)

    def switch_node(self, name: str, inputs: dict[str, Any]) -> GraphNode:
        pointer = f"/nodes/{name}/inputs"
        self.only_inputs(inputs, ("on", "cases", "default"), ("on", "cases"), pointer)
        cases = inputs.get("cases", {})
        if not isinstance(cases, dict):
            self.say(f"{pointer}/cases", "'cases' is an object from values to links", "bad_value", got=type_name(cases))
        elif not cases and "cases" in inputs:
            self.say(f"{pointer}/cases", "a switch needs at least one case", "bad_value")
        return GraphNode(name, "flow.switch@1", "switch", inputs, {"value": _ANY})

    def only_inputs(self, inputs: dict[str, Any], known: tuple[str, ...], needed: tuple[str, ...], pointer: str) -> None:
        for name in inputs:
            if name not in known:
                self.say(f"{pointer}/{name}", f"no input {name!r}", "unknown_input", wanted=", ".join(known), suggestion=did_you_mean(name, known))
        for name in needed:
            if name not in inputs:
                self.say(pointer, f"the input {name!r} is missing", "missing_input")

    def check_links(self, node: GraphNode) -> None:
        for name, tree in node.inputs.items():
            pointer = f"{node.pointer}/inputs/{name}"
            wanted = node.spec.inputs[name].type if node.spec and name in node.spec.inputs else _ANY
            if node.form == "graph" and node.graph is not None:
                wanted = node.graph.input_types.get(name, _ANY)
            self.check_tree(tree, wanted, pointer)

    def check_tree(self, tree: Any, wanted: EdgeType, pointer: str) -> None:
        if isinstance(tree, Ref):
            found = self.type_of(tree, pointer)
            if found is not None and not wanted.accepts(found):
                self.say(pointer, f"{tree} gives the wrong type", "wrong_type", got=str(found), wanted=str(wanted))
        elif isinstance(tree, list):
            links = bool(refs_in(tree))
            if links and wanted.item is None and wanted.name != "any":
                self.say(pointer, "a list of links where one value is wanted", "wrong_type", wanted=str(wanted))
            for i, part in enumerate(tree):
                if links and wanted.item is not None and wanted.item.port is not None and not refs_in(part):
                    self.say(f"{pointer}/{i}", "a port takes a link", "wrong_type", got=type_name(part), wanted=f"a link to {wanted.item}")
                self.check_tree(part, wanted.item or _ANY, f"{pointer}/{i}")
        elif isinstance(tree, dict):
            for key, part in tree.items():
                self.check_tree(part, _ANY, f"{pointer}/{key}")

    def type_of(self, ref: Ref, pointer: str | None = None) -> EdgeType:
        """The type that a link carries; where `pointer` is given, report a link that leads nowhere."""
        if ref.node == "inputs":
            if ref.port in self.input_types:
                return self.input_types[ref.port]
            self.lost(pointer, f"the graph has no input {ref.port!r}", self.input_types, ref.port or "", "inputs.")
            return _ANY
        node = self.nodes.get(ref.node)
        if node is None:
            self.lost(pointer, f"there is no node {ref.node!r}", self.nodes, ref.node, "")
            return _ANY
        if not node.outputs:  # already reported: its type is unknown
            return _ANY
        if ref.port is None:
            if len(node.outputs) == 1:
                return next(iter(node.outputs.values()))
            names = ", ".join(f"{ref.node}.{o}" for o in node.outputs)
            self.lost(pointer, f"node {ref.node!r} has {len(node.outputs)} outputs; say which: {names}", {}, "", "")
            return _ANY
        if ref.port not in node.outputs:
            self.lost(pointer, f"node {ref.node!r} ({node.use}) has no output {ref.port!r}", node.outputs, ref.port, f"{ref.node}.")
            return _ANY
        return node.outputs[ref.port]

    def lost(self, pointer: str | None, message: str, known: Mapping[str, Any], got: str, prefix: str) -> None:
        if pointer is None:
            return
        near = did_you_mean(got, known)
        wanted = ", ".join(f"{prefix}{k}" for k in list(known)[:12])
        self.say(pointer, message, "bad_link", wanted=wanted, suggestion=prefix + near if near else "")

    def outputs(self) -> dict[str, Ref]:
        found = {}
        for name, link in self.doc.outputs.items():
            ref = parse_value({"ref": link.ref}, f"/outputs/{name}", self.problems)
            if isinstance(ref, Ref):
                self.type_of(ref, f"/outputs/{name}/ref")
                found[name] = ref
        if not self.doc.outputs:
            self.say("/outputs", "the graph has no outputs: nothing would run", "no_outputs", severity="warning")
        return found

    def check_cycles(self) -> None:
        """Name each cycle node by node. Kahn's algorithm finds out whether there is one; networkx which it is."""
        waiting = {n.name: sum(m in self.nodes for m in n.needs) for n in self.nodes.values()}
        users: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            for need in node.needs:
                if need in users:
                    users[need].append(node.name)
        ready = [name for name, count in waiting.items() if not count]
        while ready:
            name = ready.pop()
            del waiting[name]
            for user in users[name]:
                waiting[user] -= 1
                if not waiting[user]:
                    ready.append(user)
        if waiting:
            self.name_cycles(waiting, users)

    def name_cycles(self, stuck: Mapping[str, int], users: Mapping[str, list[str]]) -> None:
        import networkx as nx

        network = nx.DiGraph([(n, u) for n in stuck for u in users[n] if u in stuck])
        for part in nx.strongly_connected_components(network):
            sub = network.subgraph(part)
            if len(part) > 1 or nx.number_of_selfloops(sub):
                start = min(part, key=list(self.nodes).index)
                loop = [edge[0] for edge in nx.find_cycle(sub, start)]
                loop = loop[loop.index(start) :] + loop[: loop.index(start)] if start in loop else loop
                shown = loop if len(loop) <= 12 else [*loop[:6], "…", *loop[-5:]]
                self.say(f"/nodes/{loop[0]}", f"cycle: {' -> '.join([*shown, loop[0]])}", "cycle")

    def unused(self, outputs: Mapping[str, Ref]) -> list[Problem]:
        reached: set[str] = set()
        waiting = [ref.node for ref in outputs.values()]
        while waiting:
            name = waiting.pop()
            if name in self.nodes and name not in reached:
                reached.add(name)
                waiting += self.nodes[name].needs
        message = "leads to no output, so it will not run"
        return [Problem(f"/nodes/{n}", f"node {n!r} {message}", "unused_node", severity="warning") for n in self.nodes if n not in reached]
