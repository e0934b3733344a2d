"""What can be read about a node type: its ports, ranges, docstring and package; as text parts, JSON and Markdown.

The flow forms, which are inlined when planning and no node types of any package, are described here too.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mezzotint.signature import MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mezzotint.nodes import NodeSpec
    from mezzotint.registry import Registry
    from mezzotint.signature import InputSpec

__all__ = ["FLOW", "InputDocs", "NodeDocs", "OutputDocs", "all_docs", "docs_of", "markdown"]


@dataclass(frozen=True)
class InputDocs:
    """One input in words. default: as JSON text, or empty if the input is required."""

    name: str
    type: str
    required: bool
    default: str = ""
    range: str = ""
    description: str = ""


@dataclass(frozen=True)
class OutputDocs:
    """One output in words."""

    name: str
    type: str
    description: str = ""


@dataclass(frozen=True)
class NodeDocs:
    """One node type in words. doc: the docstring without the lines about inputs and outputs."""

    use: str
    summary: str
    doc: str
    package: str
    inputs: tuple[InputDocs, ...]
    outputs: tuple[OutputDocs, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def id(self) -> str:
        return self.use.partition("@")[0]


FLOW = (
    NodeDocs(
        "flow.map@1",
        "Run a graph once per item of one or more lists.",
        "Several lists of one length go together. Each output of the graph becomes a list, in order. The lists\n"
        "must be known when planning: written in the graph, or linked to an input of it.",
        "mezzotint",
        (
            InputDocs("graph", "string", True, description='which graph: "graph:FILE"'),
            InputDocs("over", "object", True, description="for each input that varies, its list of values"),
            InputDocs("with", "object", False, "{}", description="values of the inputs that do not vary"),
        ),
        (OutputDocs("…", "list", "each output of the graph, as a list"),),
    ),
    NodeDocs(
        "flow.switch@1",
        "Take one of several values; what only the others need never runs.",
        "`on` must be known when planning. A value that is no string is compared as its JSON text.",
        "mezzotint",
        (
            InputDocs("on", "any", True, description="what decides"),
            InputDocs("cases", "object", True, description="a value or link for each value of `on`"),
            InputDocs(
                "default", "any", False, "", description="taken if no case fits; without it that is an error"
            ),
        ),
        (OutputDocs("value", "any", "the case that was taken"),),
    ),
)


def docs_of(spec: NodeSpec, package: str) -> NodeDocs:
    """A node type in words."""
    inputs = tuple(_input_docs(i) for i in spec.inputs.values())
    outputs = tuple(OutputDocs(o.name, str(o.type), o.description) for o in spec.outputs.values())
    notes = []
    if not spec.cacheable:
        notes.append("Runs every time: its result is not kept.")
    if spec.device:
        notes.append("Computes on the device.")
    if spec.timeout:
        notes.append(f"Stops after {spec.timeout:g} s unless the run says otherwise.")
    if spec.upgrades:
        notes.append(f"Graphs written for version {min(spec.upgrades)} and later are brought up to date.")
    return NodeDocs(spec.use, spec.summary, _prose(spec.doc), package, inputs, outputs, tuple(notes))


def _input_docs(spec: InputSpec) -> InputDocs:
    schema = spec.json_schema()
    default = "" if spec.default is MISSING else json.dumps(schema.get("default"), ensure_ascii=False)
    return InputDocs(spec.name, str(spec.type), spec.required, default, schema_range(schema), spec.description)


def schema_range(schema: dict[str, Any]) -> str:
    """The range that a JSON Schema allows, in words: `0 to 1`, `more than 0`, `a | b`."""
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return schema_range(choice)
    if "enum" in schema:
        return " | ".join(str(word) for word in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    low, high = schema.get("minimum"), schema.get("maximum")
    parts = [f"{_number(low)} to {_number(high)}"] if low is not None and high is not None else []
    if not parts:
        parts += [f"at least {_number(low)}"] if low is not None else []
        parts += [f"at most {_number(high)}"] if high is not None else []
    for key, word in (("exclusiveMinimum", "more than"), ("exclusiveMaximum", "less than")):
        parts += [f"{word} {_number(schema[key])}"] if key in schema else []
    for key, word in (("minLength", "at least"), ("maxLength", "at most")):
        parts += [f"{word} {schema[key]} characters"] if key in schema else []
    for key, word in (("minItems", "at least"), ("maxItems", "at most")):
        parts += [f"{word} {schema[key]} items"] if key in schema else []
    if isinstance(schema.get("items"), dict) and (inner := schema_range(schema["items"])):
        parts.append(f"each {inner}")
    return ", ".join(parts)


def _number(value: float) -> str:
    if isinstance(value, int) and value >= 2**31 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    if isinstance(value, int) and value >= 2**31 and value & (value + 1) == 0:
        return f"2^{value.bit_length()} - 1"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _prose(doc: str) -> str:
    """A docstring after its first line, without the `name: description` lines, which stand in tables."""
    lines: list[str] = []
    inside = False
    for line in doc.splitlines()[1:]:
        begins = re.match(r"^(\w+(?:, \w+)*): ", line)
        if begins or not line.strip():
            inside = begins is not None and begins[1] not in ("Source", "Raises")
        if not inside:
            lines.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def all_docs(registry: Registry) -> list[NodeDocs]:
    """Every node type, the newest version of each, and the flow forms; imports every plugin."""
    newest: dict[str, NodeSpec] = {spec.id: spec for spec in registry.specs()}
    found = [docs_of(spec, str(registry.provenance(id))) for id, spec in newest.items()]
    return sorted([*found, *FLOW], key=lambda d: d.id)


def markdown(docs: Iterable[NodeDocs]) -> str:
    """A reference of node types, one section per namespace."""
    lines = [
        "# Nodes",
        "",
        "Every node that comes with Mezzotint. Written by `mezzotint nodes --markdown --bundled`.",
        "",
    ]
    listed = list(docs)
    spaces = list(dict.fromkeys(d.id.partition(".")[0] for d in listed))
    lines += [
        f"- [{space}](#{space}): " + ", ".join(f"`{d.id}`" for d in listed if d.id.startswith(f"{space}."))
        for space in spaces
    ]
    for space in spaces:
        lines += ["", f"## {space}"]
        for node in listed:
            if node.id.startswith(f"{space}."):
                lines += ["", *_markdown_node(node)]
    return "\n".join(lines) + "\n"


def _markdown_node(node: NodeDocs) -> list[str]:
    lines = [f"### {node.use}", "", node.summary]
    for part in (node.doc, " ".join(node.notes)):
        lines += ["", part] if part else []
    lines += ["", "| input | type | default | range | |", "|---|---|---|---|---|"] if node.inputs else []
    for each in node.inputs:
        default = "*required*" if each.required else f"`{each.default}`" if each.default else ""
        lines.append(_row(f"`{each.name}`", each.type, default, each.range, each.description))
    lines += ["", "| output | type | |", "|---|---|---|"]
    lines += [_row(f"`{out.name}`", out.type, out.description) for out in node.outputs]
    return lines


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
