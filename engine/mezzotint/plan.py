"""From a graph and its inputs to a plan: an ordered list of steps, each with a content key. A plan is data.

A step's key is a digest of everything that its result depends on, so equal keys mean equal results: on another
day, in another process, on another machine of the same kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mezzotint.errors import GraphError, UserError
from mezzotint.literals import FileRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mezzotint.graph import Graph
    from mezzotint.registry import Registry

__all__ = ["Demand", "Plan", "Step", "StepOutput", "file_refs", "make_plan", "step_outputs"]


@dataclass(frozen=True)
class StepOutput:
    """One output of one step."""

    key: str
    port: str


@dataclass(frozen=True, eq=False)
class Step:
    """One node to run.

    name: its path in the graph, e.g. `pictures[2]/sample`. inputs: JSON with `StepOutput`s and `FileRef`s in it.
    cacheable: False if it, or one that it needs, is not a function of its inputs: no later run has this key.
    """

    key: str
    name: str
    use: str
    inputs: Mapping[str, Any]
    cacheable: bool = True

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


def file_refs(tree: Any) -> Iterator[FileRef]:
    """All files inside a tree of lists and objects."""
    if isinstance(tree, FileRef):
        yield tree
    elif isinstance(tree, list):
        for part in tree:
            yield from file_refs(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from file_refs(part)


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
    from mezzotint.planner import Frame, Planner

    planner = Planner(registry, profile, digest)
    bound = planner.bind(graph, inputs)
    names = list(graph.outputs) if wanted is None else list(wanted)
    unknown = [n for n in names if n not in graph.outputs]
    if unknown:
        raise UserError(f"the graph has no output {unknown[0]!r}; it has {', '.join(graph.outputs)}")
    frame = Frame(graph, bound, "")
    outputs = {}
    for name in names:
        outputs[name] = planner.resolve(frame, graph.outputs[name])
    if planner.problems:
        raise GraphError(planner.problems)
    found = cached(planner.steps)
    return Plan(graph, bound, planner.steps, outputs, frozenset(found))
