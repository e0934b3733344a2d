"""The JSON Schema of graph files, with every installed node in it: editors complete and check from it.

It is derived: the document's own fields from the pydantic models that read it, a node's inputs from its signature.
It knows neither links' targets nor types across links; `mezzotint validate` does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mezzotint.document import JSON_TYPES, GraphDoc
from mezzotint.node_docs import FLOW

if TYPE_CHECKING:
    from mezzotint.nodes import NodeSpec
    from mezzotint.registry import Registry
    from mezzotint.signature import InputSpec

__all__ = ["graph_schema"]

Schema = dict[str, Any]

_NAME = "^[a-z][a-z0-9_]*$"
_LINK = "^[a-z][a-z0-9_]*(\\.[a-z][a-z0-9_]*)?$"
_LINK_REF = {"$ref": "#/$defs/link"}
_LITERAL_REF = {"$ref": "#/$defs/literal"}


def graph_schema(registry: Registry) -> Schema:
    """The schema of format 1 for the nodes of a registry; imports every plugin."""
    schema = GraphDoc.model_json_schema(by_alias=True)
    defs: Schema = {"InputDoc": _tidy(schema["$defs"]["InputDoc"]), "link": _link(), "literal": _literal()}
    kinds = [
        {"enum": list(JSON_TYPES)},
        {"enum": list(registry.ports), "description": "a port, from a parent graph"},
    ]
    defs["InputDoc"]["properties"]["type"] = {"type": "string", "anyOf": kinds}
    uses: list[Schema] = []
    rules: list[Schema] = []
    for spec in registry.specs():
        uses += [
            {"const": f"{spec.id}@{v}", "description": spec.summary, "deprecated": True} for v in spec.upgrades
        ]
        uses.append({"const": spec.use, "description": spec.summary})
        defs[spec.use] = _node_inputs(spec, defs)
        rules.append(_rule(spec.use, any(i.required for i in spec.inputs.values())))
    for form, inputs in _flow_inputs().items():
        uses.append({"const": form, "description": next(d.summary for d in FLOW if d.use == form)})
        defs[form] = inputs
        rules.append(_rule(form, True))
    uses.append({"pattern": "^graph:.", "description": "Another graph as a node: graph:FILE."})
    defs["node"] = _node(schema["$defs"]["NodeDoc"], uses, rules)
    found = _tidy({k: v for k, v in schema.items() if k != "$defs"})
    found["properties"]["nodes"] = _named({"$ref": "#/$defs/node"}, "The nodes by name.")
    found["properties"]["outputs"] = _named(_LINK_REF, "What the graph gives: a link for each output.")
    found["properties"]["inputs"] = _named({"$ref": "#/$defs/InputDoc"}, "The graph's own parameters.")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A Mezzotint graph, format 1"}
    result: Schema = {**found, **head, "$defs": defs}
    return result


def _named(values: Schema, description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": _NAME, "maxLength": 200},
        "additionalProperties": values,
    }


def _tidy(schema: Schema) -> Schema:
    """Without pydantic's titles, and without the nulls that its optional fields allow but a file never holds."""
    found: Schema = {k: v for k, v in schema.items() if k not in ("title", "additionalProperties")}
    properties: Schema = {}
    for name, part in schema.get("properties", {}).items():
        choices = [c for c in part.get("anyOf", ()) if c != {"type": "null"}]
        kept = {k: v for k, v in part.items() if k not in ("title", "anyOf", "default")}
        properties[name] = (
            {**kept, **choices[0]} if len(choices) == 1 else {**kept, **({"anyOf": choices} if choices else {})}
        )
    return {**found, "properties": properties, "additionalProperties": False}


def _link() -> Schema:
    return {
        "type": "object",
        "description": 'A link: "node.port", "node" alone where it has one output, or "inputs.name".',
        "properties": {"ref": {"type": "string", "pattern": _LINK}},
        "required": ["ref"],
        "additionalProperties": False,
    }


def _literal() -> Schema:
    return {
        "type": "object",
        "description": "A value that is taken as it stands, even if it looks like a link.",
        "properties": {"literal": True},
        "required": ["literal"],
        "additionalProperties": False,
    }


def _node(base: Schema, uses: list[Schema], rules: list[Schema]) -> Schema:
    node = _tidy(base)
    node["properties"]["use"] = {"type": "string", "description": "Which node.", "anyOf": uses}
    node["properties"]["inputs"] = {
        "type": "object",
        "description": "What goes in, by port.",
        "propertyNames": {"pattern": _NAME},
    }
    return {**node, "allOf": rules}


def _rule(use: str, needs_inputs: bool) -> Schema:
    """If a node uses this type, its inputs are the type's."""
    then: Schema = {"properties": {"inputs": {"$ref": f"#/$defs/{use}"}}}
    if needs_inputs:
        then["required"] = ["inputs"]
    return {"if": {"properties": {"use": {"const": use}}, "required": ["use"]}, "then": then}


def _node_inputs(spec: NodeSpec, defs: Schema) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": spec.summary,
        "properties": {name: _input(port, spec.use, defs) for name, port in spec.inputs.items()},
        "additionalProperties": False,
    }
    required = [name for name, port in spec.inputs.items() if port.required]
    return {**schema, "required": required} if required else schema


def _input(port: InputSpec, use: str, defs: Schema) -> Schema:
    """A link, or a literal that fits."""
    about = {"description": f"{port.description} ({port.type})".strip()}
    if port.holds_ports:
        choices: list[Schema] = [_LINK_REF]
        if port.type.item is not None:
            choices.append({"type": "array", "items": _LINK_REF})
        if port.type.optional:
            choices.append({"type": "null"})
        return {**about, **(choices[0] if len(choices) == 1 else {"anyOf": choices})}
    schema = json.loads(json.dumps(port.json_schema()).replace('"#/$defs/', f'"#/$defs/{use}.'))
    for name, part in schema.pop("$defs", {}).items():
        defs[f"{use}.{name}"] = part
    default = {"default": schema.pop("default")} if "default" in schema else {}
    schema.pop("description", None)
    schema.pop("title", None)
    return {**about, **default, "anyOf": [_with_links(schema), _LINK_REF, _LITERAL_REF]}


def _with_links(schema: Schema) -> Schema:
    """The schema with a link allowed in place of every part: links are found at any depth."""
    found = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict) and found[key]:
            found[key] = {"anyOf": [_with_links(found[key]), _LINK_REF]}
    for key in ("prefixItems", "anyOf", "oneOf"):
        if key in found:
            parts = [_with_links(part) for part in found[key]]
            found[key] = [{"anyOf": [p, _LINK_REF]} for p in parts] if key == "prefixItems" else parts
    return found


def _flow_inputs() -> dict[str, Schema]:
    anything: Schema = {"type": "object", "propertyNames": {"pattern": _NAME}}
    a_list = {"anyOf": [{"type": "array"}, _LINK_REF]}
    return {
        "flow.map@1": {
            "type": "object",
            "properties": {
                "graph": {"type": "string", "pattern": "^graph:.", "description": "Which graph: graph:FILE."},
                "over": {**anything, "minProperties": 1, "additionalProperties": a_list},
                "with": anything,
            },
            "required": ["graph", "over"],
            "additionalProperties": False,
        },
        "flow.switch@1": {
            "type": "object",
            "properties": {"on": True, "cases": {"type": "object", "minProperties": 1}, "default": True},
            "required": ["on", "cases"],
            "additionalProperties": False,
        },
    }
