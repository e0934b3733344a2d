"""A plan for looking at: as rows of a table, as JSON, as Graphviz dot, as a Mermaid diagram."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.literals import FileRef
from mezzotint.plan import Plan, Step, StepOutput, step_outputs
from mezzotint.values import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mezzotint.registry import Registry

__all__ = ["Load", "PlanView", "StepRow"]


@dataclass(frozen=True)
class Load:
    """Something that steps which will run read from disk. bytes: of the file, or of all files in the folder."""

    name: str
    path: str
    kind: str
    bytes: int
    steps: tuple[str, ...]


@dataclass(frozen=True)
class StepRow:
    """One step. node: its path in the graph.

    state: "run", "load" (a step that runs takes its stored result) or "cached" (not even read).
    """

    node: str
    use: str
    state: str
    key: str
    needs: tuple[str, ...]
    loads: tuple[str, ...]


class PlanView:
    """What a plan would do."""

    def __init__(self, plan: Plan, registry: Registry) -> None:
        self.plan = plan
        self.registry = registry
        self.demand = plan.demand()

    @cached_property
    def rows(self) -> list[StepRow]:
        """The steps in the order in which they would run."""
        running = {step.key for step in self.demand.pending}
        loading = {step.key for step in self.demand.loads} if running else set()
        rows = []
        for key, step in self.plan.steps.items():
            state = "run" if key in running else "load" if key in loading else "cached"
            needs = tuple(self.plan.steps[k].name for k in step.needs)
            loads = tuple(self._sources(step)) if key in running else ()
            rows.append(StepRow(step.name, step.use, state, key, needs, loads))
        return rows

    @cached_property
    def loads(self) -> list[Load]:
        """Model sources and files that the steps to run read, and for which steps."""
        users: dict[str, list[str]] = {}
        for row in self.rows:
            for name in row.loads:
                users.setdefault(name, []).append(row.node)
        found = {ref.text: ref for step in self.plan.steps.values() for ref in _files(dict(step.inputs))}
        return [
            Load(name, found[name].path, found[name].kind, _size(Path(found[name].path)), tuple(steps))
            for name, steps in users.items()
        ]

    def _sources(self, step: Step) -> dict[str, None]:
        """What a step reads: files among its inputs, and the sources of the models that reach it as recipes."""
        names: dict[str, None] = {}
        seen: set[str] = set()
        waiting = [step]
        while waiting:
            one = waiting.pop()
            if one.key in seen:
                continue
            seen.add(one.key)
            for ref in _files(dict(one.inputs)):
                names[ref.text] = None
            waiting += [self.plan.steps[o.key] for o in step_outputs(dict(one.inputs)) if self._is_recipe(o)]
        return names

    def _is_recipe(self, output: StepOutput) -> bool:
        id, _, version = self.plan.steps[output.key].use.partition("@")
        spec = self.registry.node(id, int(version))
        kind = spec.outputs[output.port].type if spec is not None else None
        while kind is not None and kind.item is not None:
            kind = kind.item
        return kind is not None and kind.port is not None and issubclass(kind.port, Recipe)

    def to_json(self) -> dict[str, Any]:
        """The plan for machines."""
        return {
            "graph": self.plan.graph.name,
            "inputs": {name: _plain(value) for name, value in self.plan.inputs.items()},
            "outputs": {name: sorted(self._makers(name)) for name in self.plan.outputs},
            "steps": [asdict(row) for row in self.rows],
            "loads": [asdict(load) for load in self.loads],
        }

    def _makers(self, output: str) -> set[str]:
        return {self.plan.steps[o.key].name for o in step_outputs(self.plan.outputs[output])}

    def dot(self) -> str:
        """The plan for Graphviz; what is cached is grey."""
        lines = [f"digraph {_quoted(self.plan.graph.name)} {{", "  rankdir=LR;"]
        lines.append('  node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif"];')
        for row in self.rows:
            colour = "" if row.state == "run" else ", fillcolor=grey90, color=grey50"
            lines.append(f'  {_quoted(row.node)} [label="{_escaped(row.node)}\\n{_escaped(row.use)}"{colour}];')
        for name in self.plan.outputs:
            lines.append(f"  {_quoted(f'outputs.{name}')} [shape=ellipse, label={_quoted(name)}];")
        for source, target, label in self._edges():
            lines.append(f"  {_quoted(source)} -> {_quoted(target)} [label={_quoted(label)}];")
        return "\n".join([*lines, "}"])

    def mermaid(self) -> str:
        """The plan as a Mermaid flowchart."""
        ids = {row.node: f"n{i}" for i, row in enumerate(self.rows)}
        lines = ["flowchart LR"]
        for row in self.rows:
            cached = "" if row.state == "run" else ":::cached"
            lines.append(f'  {ids[row.node]}["{_entities(row.node)}<br/>{_entities(row.use)}"]{cached}')
        for i, name in enumerate(self.plan.outputs):
            ids[f"outputs.{name}"] = f"o{i}"
            lines.append(f'  o{i}(["{_entities(name)}"])')
        for source, target, label in self._edges():
            lines.append(f"  {ids[source]} -- {_entities(label)} --> {ids[target]}")
        return "\n".join([*lines, "  classDef cached fill:#eee,stroke:#999"])

    def _edges(self) -> Iterator[tuple[str, str, str]]:
        """Each link: from which step, to which step or output, and the names of its ports."""
        for step in self.plan.steps.values():
            for port, tree in step.inputs.items():
                for source in dict.fromkeys(step_outputs(tree)):
                    label = source.port if source.port == port else f"{source.port} to {port}"
                    yield self.plan.steps[source.key].name, step.name, label
        for name, tree in self.plan.outputs.items():
            for source in dict.fromkeys(step_outputs(tree)):
                yield self.plan.steps[source.key].name, f"outputs.{name}", source.port


def _files(tree: Any) -> Iterator[FileRef]:
    if isinstance(tree, FileRef):
        yield tree
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from _files(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from _files(part)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(os.path.getsize(Path(folder, f)) for folder, _, files in os.walk(path) for f in files)


def _plain(value: Any) -> Any:
    return value.text if isinstance(value, FileRef) else value


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _entities(text: str) -> str:
    return (
        text.replace("&", "&amp;")
        .replace('"', "&quot;")
        .replace("<", "&lt;")
        .replace("[", "&#91;")
        .replace("]", "&#93;")
    )
