"""Building a plan: subgraphs and flow forms dissolved, only what the outputs need, ordered and keyed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mezzotint.document import Ref, refs_in
from mezzotint.errors import GraphError, Problem, UserError
from mezzotint.findings import below
from mezzotint.forms import case_word
from mezzotint.keys import StepKeys
from mezzotint.literals import FileRef, Trusted, bind_inputs, canonical, check_input
from mezzotint.plan import Step, StepOutput, file_refs, step_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from mezzotint.document import InputDoc
    from mezzotint.graph import Graph, GraphNode
    from mezzotint.registry import Registry

__all__ = ["Frame", "Planner"]

MAX_STEPS = 1_000_000


@dataclass(eq=False)
class Frame:
    """One graph that is being dissolved: its bound inputs and what its nodes gave so far."""

    graph: Graph
    env: Mapping[str, Any]
    prefix: str
    done: dict[str, dict[str, Any]] = field(default_factory=dict)


class Planner:
    def __init__(self, registry: Registry, profile: str, digest: Callable[[str], str]) -> None:
        self.registry = registry
        self.keys = StepKeys(registry, profile)
        self.digest = digest
        self.steps: dict[str, Step] = {}
        self.problems: list[Problem] = []
        self.digests: dict[str, str] = {}
        self.built = 0

    def bind(self, graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
        """The top graph's inputs, files found."""
        bound = bind_inputs(graph.doc, given, graph.file, came_along=graph.given)
        before = len(self.problems)
        for name, doc in graph.doc.inputs.items():
            bound[name] = self.file_input(graph, doc, bound[name], f"/inputs/{name}")
        if len(self.problems) > before:
            raise GraphError(self.problems)
        return bound

    def file_input(self, graph: Graph, doc: InputDoc, value: Any, pointer: str) -> Any:
        """A file parameter's string as a file, found in the folder of the graph that wrote it."""
        if isinstance(value, list) and doc.items is not None and doc.items.type in ("string", "array"):
            return [self.file_input(graph, doc.items, v, f"{pointer}/{i}") for i, v in enumerate(value)]
        if not doc.is_file or not isinstance(value, str):
            return value
        try:
            resolve = graph.access.resolve_trusted if isinstance(value, Trusted) else graph.access.resolve
            path = resolve(value)
        except UserError as error:
            self.problems.append(Problem(pointer, str(error), "bad_file", file=graph.file))
            return None
        return FileRef(str(value), str(path), "file")

    def resolve(self, frame: Frame, ref: Ref) -> Any:
        """What a link leads to: JSON that is known already, or a step's output."""
        if ref.node == "inputs":
            return frame.env[ref.port or ""]
        if ref.node not in frame.done:
            self.visit(frame, ref.node)
        outputs = frame.done[ref.node]
        return outputs[ref.port] if ref.port is not None else next(iter(outputs.values()))

    def visit(self, frame: Frame, start: str) -> None:
        """Build a node after all that it needs; a loop and not a recursion, so that long chains are fine."""
        nodes = frame.graph.nodes
        stack = [(start, self.needs(frame, nodes[start]))]
        while stack:
            name, needs = stack[-1]
            need = next(needs, None)
            if need is None:
                stack.pop()
                frame.done[name] = self.build(frame, nodes[name])
            elif need not in frame.done:
                stack.append((need, self.needs(frame, nodes[need])))

    def needs(self, frame: Frame, node: GraphNode) -> Iterator[str]:
        """The nodes that must be built before this one. A switch needs its one case only."""
        if node.form != "switch":
            yield from node.needs
            return
        yield from (r.node for r in refs_in(node.inputs["on"]) if r.node != "inputs")
        chosen = self.chosen(frame, node, report=False)
        yield from (r.node for r in refs_in(chosen) if r.node != "inputs")

    def chosen(self, frame: Frame, node: GraphNode, *, report: bool = True) -> Any:
        """The case that a switch takes."""
        on = self.fill(frame, node.inputs["on"])
        pointer = f"{node.pointer}/inputs/on"
        cases = node.inputs["cases"]
        if isinstance(on, (StepOutput, list, dict, FileRef)):
            if report:
                text = "must be known when planning: link it to an input of the graph"
                self.say(frame, pointer, text, "not_known")
            return None
        word = case_word(on)
        if word in cases:
            return cases[word]
        if "default" not in node.inputs and report:
            text = "no such case, and no default"
            self.say(frame, pointer, text, "bad_value", got=word, wanted=", ".join(cases))
        return node.inputs.get("default")

    def say(self, frame: Frame, pointer: str, message: str, code: str, **more: Any) -> None:
        where = f" (in {frame.prefix.rstrip('/')})" if frame.prefix else ""
        self.problems.append(Problem(pointer, message + where, code, file=frame.graph.file, **more))

    def fill(self, frame: Frame, tree: Any) -> Any:
        """A parsed value with its links replaced by what they lead to."""
        if isinstance(tree, Ref):
            return self.resolve(frame, tree)
        if isinstance(tree, list):
            return [self.fill(frame, part) for part in tree]
        if isinstance(tree, dict):
            return {k: self.fill(frame, part) for k, part in tree.items()}
        return tree

    def build(self, frame: Frame, node: GraphNode) -> dict[str, Any]:
        self.built += 1
        if self.built > MAX_STEPS:
            raise UserError(f"the graph unrolls to more than {MAX_STEPS:,} nodes")
        if node.form == "node":
            return self.build_step(frame, node)
        if node.form == "switch":
            return {"value": self.fill(frame, self.chosen(frame, node))}
        if node.form == "map":
            return self.build_map(frame, node)
        assert node.graph is not None
        given = {k: self.fill(frame, tree) for k, tree in node.inputs.items()}
        given = self.given(frame, node.graph, given, f"{node.pointer}/inputs")
        return self.inline(node.graph, given, f"{frame.prefix}{node.name}/")

    def given(
        self, frame: Frame, graph: Graph, values: Mapping[str, Any], pointer: str, index: int | None = None
    ) -> dict[str, Any]:
        """Values for a subgraph's inputs: checked as far as they are known, files found."""
        found = {}
        for name, value in values.items():
            doc, where = graph.doc.inputs[name], below(pointer, name)
            where = where if index is None else below(where, index)
            if _known(value) and not any(file_refs(value)):
                problems: list[Problem] = []
                checked = check_input(doc, value, where, problems)
                self.tell(frame, problems)
                # Strings stay as they are: whether the caller gave them counts, if they turn out to be paths.
                value = checked if doc.type in ("number", "integer", "boolean") else value
            found[name] = self.file_input(frame.graph, doc, value, where)
        return found

    def inline(self, graph: Graph, given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        env = {}
        for name, doc in graph.doc.inputs.items():
            if name in given:
                env[name] = given[name]
            else:
                env[name] = self.file_input(graph, doc, graph.defaults[name], f"/inputs/{name}")
        inner = Frame(graph, env, prefix)
        return {name: self.resolve(inner, ref) for name, ref in graph.outputs.items()}

    def build_map(self, frame: Frame, node: GraphNode) -> dict[str, Any]:
        assert node.graph is not None
        pointer = f"{node.pointer}/inputs"
        over = {k: self.fill(frame, tree) for k, tree in node.inputs["over"].items()}
        rest = {k: self.fill(frame, tree) for k, tree in node.inputs.get("with", {}).items()}
        nothing: dict[str, Any] = {name: [] for name in node.graph.outputs}
        for name, items in over.items():
            if not isinstance(items, list):
                text = "must be a list that is known when planning"
                self.say(frame, below(f"{pointer}/over", name), text, "not_known")
                return nothing
        lengths = {name: len(items) for name, items in over.items()}
        if len(set(lengths.values())) > 1:
            got = ", ".join(f"{k}: {n}" for k, n in lengths.items())
            self.say(frame, f"{pointer}/over", "the lists differ in length", "bad_value", got=got)
            return nothing
        before = len(self.problems)
        shared = self.given(frame, node.graph, rest, f"{pointer}/with")
        items = range(next(iter(lengths.values()), 0))
        given = [
            self.given(frame, node.graph, {n: v[i] for n, v in over.items()}, f"{pointer}/over", i) for i in items
        ]
        if len(self.problems) > before:
            return nothing
        prefix = f"{frame.prefix}{node.name}"
        rows = [self.inline(node.graph, {**shared, **item}, f"{prefix}[{i}]/") for i, item in enumerate(given)]
        return {name: [row[name] for row in rows] for name in node.graph.outputs}

    def build_step(self, frame: Frame, node: GraphNode) -> dict[str, Any]:
        assert node.spec is not None
        inputs: dict[str, Any] = {}
        cacheable = node.spec.cacheable
        for name, spec in node.spec.inputs.items():
            if name in node.literals:
                value = node.literals[name]
            elif name in node.inputs:
                value = self.fill(frame, node.inputs[name])
                if _known(value):
                    value = self.check(frame, node, name, value)
                else:
                    cacheable = cacheable and all(self.steps[o.key].cacheable for o in step_outputs(value))
            else:
                value = spec.canonical_default
            inputs[name] = self.digested(frame, node, name, value) if spec.holds_files else value
        key = self.keys.key(node.spec, inputs)
        if key not in self.steps:
            self.steps[key] = Step(key, f"{frame.prefix}{node.name}", node.spec.use, inputs, cacheable)
        return {port: StepOutput(key, port) for port in node.outputs}

    def digested(self, frame: Frame, node: GraphNode, name: str, value: Any) -> Any:
        """Files with the digests of what is in them."""
        if isinstance(value, list):
            return [self.digested(frame, node, name, part) for part in value]
        if not isinstance(value, FileRef):
            return value
        try:
            known = self.digests.get(value.path)
            digest = self.digests[value.path] = known or self.digest(value.path)
            return replace(value, digest=digest)
        except UserError as error:
            self.say(frame, below(f"{node.pointer}/inputs", name), str(error), "bad_file")
            return value

    def check(self, frame: Frame, node: GraphNode, name: str, value: Any) -> Any:
        """A value that came through a link, as strictly as one written in place."""
        assert node.spec is not None
        problems: list[Problem] = []
        pointer = below(f"{node.pointer}/inputs", name)
        access, resolve = frame.graph.access, self.registry.resolve_source
        found = canonical(node.spec.inputs[name], value, pointer, problems, access, resolve)
        self.tell(frame, problems)
        return found

    def tell(self, frame: Frame, problems: list[Problem]) -> None:
        for p in problems:
            self.say(frame, p.pointer, p.message, p.code, got=p.got, wanted=p.wanted, suggestion=p.suggestion)


def _known(value: Any) -> bool:
    """Whether a filled tree is all JSON and files: nothing in it is still to be computed."""
    return not isinstance(value, StepOutput) and not any(step_outputs(value))
