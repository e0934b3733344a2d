"""From a graph and its inputs to a plan: an ordered list of steps, each with a content key. A plan is data.

A step's key is a digest of everything that its result depends on, so equal keys mean equal results: on another day,
in another process, on another machine of the same kind.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mezzotint.document import Ref, refs_in
from mezzotint.errors import GraphError, Problem, UserError
from mezzotint.literals import FileRef, Trusted, bind_inputs, canonical, check_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mezzotint.document import InputDoc
    from mezzotint.graph import Graph, GraphNode
    from mezzotint.registry import Registry

__all__ = ["Demand", "Plan", "Step", "StepOutput", "make_plan", "step_outputs"]

MAX_STEPS = 1_000_000


@dataclass(frozen=True)
class StepOutput:
    """One output of one step."""

    key: str
    port: str


@dataclass(frozen=True, eq=False)
class Step:
    """One node to run. name: its path in the graph, e.g. `pictures[2]/sample`. inputs: JSON with `StepOutput`s."""

    key: str
    name: str
    use: str
    inputs: Mapping[str, Any]

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Keys of the steps whose outputs this one takes."""
        return tuple(dict.fromkeys(o.key for o in step_outputs(dict(self.inputs))))


@dataclass(frozen=True, eq=False)
class Demand:
    """What has to be done for some outputs: steps to run, in order, and cached steps whose values they take."""

    pending: tuple[Step, ...]
    loads: tuple[Step, ...]

    @cached_property
    def uses(self) -> dict[str, int]:
        """How many pending steps take each step's outputs."""
        counts: dict[str, int] = {}
        for step in self.pending:
            for key in step.needs:
                counts[key] = counts.get(key, 0) + 1
        return counts


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps in an order that respects their links, the outputs as JSON with `StepOutput`s, and what is cached."""

    graph: Graph
    inputs: Mapping[str, Any]
    steps: Mapping[str, Step]
    outputs: Mapping[str, Any]
    cached: frozenset[str] = field(default_factory=frozenset)

    def demand(self, wanted: Iterable[str] | None = None) -> Demand:
        """What must run, and what must be loaded, for these outputs (all, if None)."""
        names = self.outputs if wanted is None else wanted
        waiting = [o.key for name in names for o in step_outputs(self.outputs[name])]
        seen: set[str] = set()
        while waiting:
            key = waiting.pop()
            if key not in seen:
                seen.add(key)
                if key not in self.cached:
                    waiting += self.steps[key].needs
        pending = tuple(s for k, s in self.steps.items() if k in seen and k not in self.cached)
        loads = tuple(s for k, s in self.steps.items() if k in seen and k in self.cached)
        return Demand(pending, loads)


def step_outputs(tree: Any) -> Iterator[StepOutput]:
    """All step outputs inside a tree of lists and objects."""
    if isinstance(tree, StepOutput):
        yield tree
    elif isinstance(tree, list):
        for part in tree:
            yield from step_outputs(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from step_outputs(part)


def make_plan(
    graph: Graph,
    registry: Registry,
    inputs: Mapping[str, Any],
    *,
    wanted: Iterable[str] | None = None,
    profile: str = "",
    digest: Callable[[str], str],
    cached: Callable[[Iterable[str]], set[str]] = lambda keys: set(),
) -> Plan:
    """Bind the inputs, inline subgraphs and flow forms, prune to the wanted outputs, order and key the steps.

    profile: what the numbers depend on besides the graph: device kind, dtype, threads, torch.
    digest: content digest of a file or folder. cached: which of these keys the store has.

    Raises: GraphError: for inputs that are unknown, missing or wrong, here or in a subgraph.
    """
    planner = _Planner(registry, profile, digest)
    bound = planner.bind(graph, inputs)
    names = list(graph.outputs) if wanted is None else list(wanted)
    unknown = [n for n in names if n not in graph.outputs]
    if unknown:
        raise UserError(f"the graph has no output {unknown[0]!r}; it has {', '.join(graph.outputs)}")
    frame = _Frame(graph, bound, "")
    outputs = {}
    for name in names:
        outputs[name] = planner.resolve(frame, graph.outputs[name])
    if planner.problems:
        raise GraphError(planner.problems)
    found = cached(planner.steps)
    return Plan(graph, bound, planner.steps, outputs, frozenset(found))


@dataclass(eq=False)
class _Frame:
    """One graph being inlined: its bound inputs and what its nodes gave so far."""

    graph: Graph
    env: Mapping[str, Any]
    prefix: str
    done: dict[str, dict[str, Any]] = field(default_factory=dict)


class _Planner:
    def __init__(self, registry: Registry, profile: str, digest: Callable[[str], str]) -> None:
        self.registry = registry
        self.profile = profile
        self.digest = digest
        self.steps: dict[str, Step] = {}
        self.problems: list[Problem] = []
        self.salts: dict[str, str] = {}

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
        if isinstance(value, list) and doc.items is not None:
            return [self.file_input(graph, doc.items, v, f"{pointer}/{i}") for i, v in enumerate(value)]
        if not doc.is_file or not isinstance(value, str):
            return value
        try:
            path = graph.access.resolve_trusted(value) if isinstance(value, Trusted) else graph.access.resolve(value)
        except UserError as error:
            self.problems.append(Problem(pointer, str(error), "bad_file", file=graph.file))
            return None
        return FileRef(str(value), str(path), "file")

    def resolve(self, frame: _Frame, ref: Ref) -> Any:
        """What a link leads to: JSON that is known already, or a step's output."""
        if ref.node == "inputs":
            return frame.env[ref.port or ""]
        if ref.node not in frame.done:
            self.visit(frame, ref.node)
        outputs = frame.done[ref.node]
        return outputs[ref.port] if ref.port is not None else next(iter(outputs.values()))

    def visit(self, frame: _Frame, start: str) -> None:
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

    def needs(self, frame: _Frame, node: GraphNode) -> Iterator[str]:
        """The nodes that must be built before this one. A switch needs its one case only."""
        if node.form != "switch":
            yield from node.needs
            return
        yield from (r.node for r in refs_in(node.inputs["on"]) if r.node != "inputs")
        chosen = self.chosen(frame, node, report=False)
        yield from (r.node for r in refs_in(chosen) if r.node != "inputs")

    def chosen(self, frame: _Frame, node: GraphNode, *, report: bool = True) -> Any:
        """The case that a switch takes."""
        on = self.fill(frame, node.inputs["on"])
        pointer = f"{node.pointer}/inputs/on"
        cases = node.inputs["cases"]
        if isinstance(on, (StepOutput, list, dict, FileRef)):
            if report:
                self.say(frame, pointer, "must be known when planning: link it to an input of the graph", "not_known")
            return None
        word = on if isinstance(on, str) else json.dumps(on)
        if word in cases:
            return cases[word]
        if "default" not in node.inputs and report:
            self.say(frame, pointer, "no such case, and no default", "bad_value", got=word, wanted=", ".join(cases))
        return node.inputs.get("default")

    def say(self, frame: _Frame, pointer: str, message: str, code: str, **more: Any) -> None:
        where = f" (in {frame.prefix.rstrip('/')})" if frame.prefix else ""
        self.problems.append(Problem(pointer, message + where, code, file=frame.graph.file, **more))

    def fill(self, frame: _Frame, tree: Any) -> Any:
        """A parsed value with its links replaced by what they lead to."""
        if isinstance(tree, Ref):
            return self.resolve(frame, tree)
        if isinstance(tree, list):
            return [self.fill(frame, part) for part in tree]
        if isinstance(tree, dict):
            return {k: self.fill(frame, part) for k, part in tree.items()}
        return tree

    def build(self, frame: _Frame, node: GraphNode) -> dict[str, Any]:
        if node.form == "node":
            return self.build_step(frame, node)
        if node.form == "switch":
            return {"value": self.fill(frame, self.chosen(frame, node))}
        if node.form == "map":
            return self.build_map(frame, node)
        assert node.graph is not None
        given = {k: self.fill(frame, tree) for k, tree in node.inputs.items()}
        return self.inline(frame, node.graph, given, f"{frame.prefix}{node.name}/", f"{node.pointer}/inputs")

    def inline(self, frame: _Frame, graph: Graph, given: Mapping[str, Any], prefix: str, pointer: str) -> dict[str, Any]:
        env = {}
        for name, doc in graph.doc.inputs.items():
            if name not in given:
                env[name] = self.file_input(graph, doc, doc.default, f"/inputs/{name}")
                continue
            value = given[name]
            if not any(step_outputs(value)) and not isinstance(value, FileRef):
                problems: list[Problem] = []
                check_input(doc, value, f"{pointer}/{name}", problems)
                for problem in problems:
                    self.say(frame, problem.pointer, problem.message, problem.code, got=problem.got, wanted=problem.wanted)
                value = self.file_input(frame.graph, doc, value, f"{pointer}/{name}")
            env[name] = value
        inner = _Frame(graph, env, prefix)
        return {name: self.resolve(inner, ref) for name, ref in graph.outputs.items()}

    def build_map(self, frame: _Frame, node: GraphNode) -> dict[str, Any]:
        assert node.graph is not None
        pointer = f"{node.pointer}/inputs"
        over = {k: self.fill(frame, tree) for k, tree in node.inputs["over"].items()}
        rest = {k: self.fill(frame, tree) for k, tree in node.inputs.get("with", {}).items()}
        nothing: dict[str, Any] = {name: [] for name in node.graph.outputs}
        for name, items in over.items():
            if not isinstance(items, list):
                self.say(frame, f"{pointer}/over/{name}", "the list must be known when planning", "not_known")
                return nothing
        lengths = {name: len(items) for name, items in over.items()}
        if len(set(lengths.values())) > 1:
            got = ", ".join(f"{k}: {n}" for k, n in lengths.items())
            self.say(frame, f"{pointer}/over", "the lists differ in length", "bad_value", got=got)
            return nothing
        rows = []
        for i in range(next(iter(lengths.values()), 0)):
            item = {name: items[i] for name, items in over.items()}
            prefix = f"{frame.prefix}{node.name}[{i}]/"
            rows.append(self.inline(frame, node.graph, {**rest, **item}, prefix, f"{pointer}/over"))
        return {name: [row[name] for row in rows] for name in node.graph.outputs}

    def build_step(self, frame: _Frame, node: GraphNode) -> dict[str, Any]:
        assert node.spec is not None
        inputs: dict[str, Any] = {}
        for name, spec in node.spec.inputs.items():
            if name in node.literals:
                inputs[name] = node.literals[name]
            elif name in node.inputs:
                value = self.fill(frame, node.inputs[name])
                known = not isinstance(value, FileRef) and not any(step_outputs(value))
                inputs[name] = self.check(frame, node, name, value) if known else value
            else:
                inputs[name] = self.default(spec.default)
        name = f"{frame.prefix}{node.name}"
        key = self.key(node, inputs)
        if key not in self.steps:
            if len(self.steps) >= MAX_STEPS:
                raise UserError(f"the graph unrolls to more than {MAX_STEPS:,} steps")
            self.steps[key] = Step(key, name, node.spec.use, inputs)
        return {port: StepOutput(key, port) for port in node.outputs}

    def check(self, frame: _Frame, node: GraphNode, name: str, value: Any) -> Any:
        """A value that came through a link, as strictly as one written in place."""
        assert node.spec is not None
        problems: list[Problem] = []
        pointer = f"{node.pointer}/inputs/{name}"
        access, resolve = frame.graph.access, self.registry.resolve_source
        found = canonical(node.spec.inputs[name], value, pointer, problems, access, resolve)
        for problem in problems:
            more = {"got": problem.got, "wanted": problem.wanted, "suggestion": problem.suggestion}
            self.say(frame, problem.pointer, problem.message, problem.code, **more)
        return found

    @staticmethod
    def default(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    def key(self, node: GraphNode, inputs: Mapping[str, Any]) -> str:
        """sha256 over everything that the node's result depends on. Its name is not among it."""
        assert node.spec is not None
        salt = self.salts.get(node.spec.id)
        if salt is None:
            salt = self.salts[node.spec.id] = self.registry.provenance(node.spec.id).digest or ""
        parts = [node.spec.use, inputs, self.profile, salt]
        if not node.spec.cacheable:
            parts.append(uuid.uuid4().hex)
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=self.key_part)
        return hashlib.sha256(text.encode()).hexdigest()

    def key_part(self, value: Any) -> Any:
        if isinstance(value, StepOutput):
            return {"\0step": value.key, "port": value.port}
        if isinstance(value, FileRef):
            digest = self.digest(value.path)
            return {"\0file": digest} if value.kind == "file" else {"\0source": digest, "uri": value.text}
        return str(value)
