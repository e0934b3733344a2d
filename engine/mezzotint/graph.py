"""A validated graph: every name resolved, every literal checked. Immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mezzotint.document import GraphDoc, Ref, refs_in

if TYPE_CHECKING:
    from pathlib import Path

    import networkx as nx

    from mezzotint.errors import Problem
    from mezzotint.nodes import NodeSpec
    from mezzotint.paths import FileAccess
    from mezzotint.signature import EdgeType

__all__ = ["Graph", "GraphNode"]


@dataclass(frozen=True, eq=False)
class GraphNode:
    """One node: a node type, a whole graph, or one of the flow forms.

    inputs: parsed values with `Ref`s in them. literals: those inputs that hold no link, checked and canonical.
    graph: of a "graph" or "map" node.
    """

    name: str
    use: str
    form: Literal["node", "graph", "map", "switch"]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, EdgeType]
    spec: NodeSpec | None = None
    graph: Graph | None = None
    literals: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pointer(self) -> str:
        return f"/nodes/{self.name}"

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The nodes that this one links to, each once, in document order."""
        return tuple(dict.fromkeys(r.node for r in refs_in(dict(self.inputs)) if r.node != "inputs"))


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph without mistakes. file: where it came from, for messages; access: which files it may read.

    given: inputs that came along with it (out of a picture). They stand before the declared defaults, and like
    these they are the graph's words, not the caller's: paths in them are not trusted.
    """

    doc: GraphDoc
    file: str
    access: FileAccess
    nodes: Mapping[str, GraphNode]
    outputs: Mapping[str, Ref]
    input_types: Mapping[str, EdgeType]
    output_types: Mapping[str, EdgeType]
    warnings: tuple[Problem, ...] = ()
    path: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The graph's own name, or its file's."""
        return self.doc.name or (self.path.stem if self.path else "graph")

    @cached_property
    def height(self) -> int:
        """How many graphs lie one inside the other, this one included."""
        return 1 + max((node.graph.height for node in self.nodes.values() if node.graph is not None), default=0)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The defaults of the graph's inputs, as if they were given."""
        from mezzotint.literals import check_input

        inputs = self.doc.inputs.items()
        return {name: check_input(doc, doc.default, "", []) for name, doc in inputs if not doc.required}

    @cached_property
    def network(self) -> nx.MultiDiGraph[str]:
        """The graph as a frozen networkx graph: an edge for each link, with `port` and `input`."""
        import networkx as nx

        network: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=self.name)
        network.add_nodes_from((n.name, {"use": n.use}) for n in self.nodes.values())
        for node in self.nodes.values():
            for name, tree in node.inputs.items():
                for ref in refs_in(tree):
                    if ref.node != "inputs":
                        network.add_edge(ref.node, node.name, port=ref.port, input=name)
        return nx.freeze(network)
