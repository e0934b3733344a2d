"""A graph and its inputs as one text that travels inside a picture, with all subgraphs, to be run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mezzotint.document import GraphDoc, parse_doc, parse_json
from mezzotint.errors import UserError
from mezzotint.literals import FileRef
from mezzotint.paths import bundled_name

if TYPE_CHECKING:
    from pathlib import Path

    from mezzotint.graph import Graph

__all__ = ["KEYWORD", "Embedded", "embed", "read_embedded", "read_picture"]

KEYWORD = "mezzotint"


@dataclass(frozen=True)
class Embedded:
    """What a picture carries: its graph, the subgraphs by name, and the inputs it was made with."""

    doc: GraphDoc
    graphs: Mapping[str, Any]
    inputs: Mapping[str, Any]


def embed(graph: Graph, inputs: Mapping[str, Any]) -> str:
    """The graph, all that it contains and its inputs, as JSON in the order of the graph's files."""
    graphs: dict[str, Any] = {}
    doc = _Portable(graphs).doc(graph)
    given = {name: _portable_input(value) for name, value in inputs.items()}
    record = {"format": 1, "graph": doc, "inputs": given, **({"graphs": graphs} if graphs else {})}
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False)


class _Portable:
    """Documents that stand alone. graphs: takes the subgraphs, each named by its content."""

    def __init__(self, graphs: dict[str, Any]) -> None:
        self.graphs = graphs
        self.names: dict[int, str] = {}

    def name(self, graph: Graph) -> str:
        if id(graph) not in self.names:
            inner = self.doc(graph)
            text = json.dumps(inner, separators=(",", ":"))
            name = f"embedded:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
            self.graphs[name] = inner
            self.names[id(graph)] = name
        return self.names[id(graph)]

    def doc(self, graph: Graph) -> dict[str, Any]:
        """The document without an editor's data, with its subgraphs by their new names."""
        doc = graph.doc.to_json()
        doc.pop("ui", None)
        doc.pop("$schema", None)
        for name, place in doc["nodes"].items():
            place.pop("ui", None)
            node = graph.nodes[name]
            if node.graph is None:
                continue
            if node.form == "graph":
                place["use"] = f"graph:{self.name(node.graph)}"
            else:
                place["inputs"]["graph"] = f"graph:{self.name(node.graph)}"
        for name, wanted in doc.get("inputs", {}).items():
            value = wanted.get("default")
            if graph.doc.inputs[name].is_file and isinstance(value, str):
                try:
                    wanted["default"] = bundled_name(graph.access.resolve(value)) or value
                except UserError:
                    pass  # a default that is not there matters only to who uses it
        return doc


def _portable_input(value: Any) -> Any:
    if isinstance(value, FileRef):
        from pathlib import Path

        return bundled_name(Path(value.path)) or value.text
    if isinstance(value, list):
        return [_portable_input(v) for v in value]
    return str(value) if isinstance(value, str) else value


def read_embedded(text: str, file: str) -> Embedded:
    """The reverse of `embed`.

    Raises: GraphError: if the text is no such record.
    """
    data = parse_json(text, file)
    if not isinstance(data, dict) or data.get("format") != 1 or "graph" not in data:
        raise UserError(f"{file}: the picture carries no graph that this version can read")
    graphs, inputs = data.get("graphs", {}), data.get("inputs", {})
    if not isinstance(graphs, dict) or not isinstance(inputs, dict):
        raise UserError(f"{file}: the graph inside the picture is damaged")
    return Embedded(parse_doc(data["graph"], file), graphs, inputs)


def read_picture(path: Path) -> Embedded:
    """The graph inside a PNG that Mezzotint wrote.

    Raises: UserError: if there is none.
    """
    from mezzotint.png import read_text

    text = read_text(path, KEYWORD)
    if text is None:
        raise UserError(f"{path}: there is no graph inside this picture")
    return read_embedded(text, str(path))
