"""The JSON Schema of graph files agrees with `validate` where a schema can."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import jsonschema
import pytest
from pydantic import Field

from mezzotint import Image, node
from mezzotint.plugins import load_registry
from mezzotint.schema import graph_schema

GRAPHS = Path(__file__).parents[2] / "graphs"


@node("t.picture", version=2, upgrades={1: lambda inputs: inputs})
def picture(
    width: Annotated[int, Field(ge=1, le=64)],
    names: list[str],
    *,
    mode: Literal["fast", "exact"] = "fast",
    strength: float | None = None,
    options: dict = {},  # noqa: B006
    image: Image | None = None,
) -> Image:
    """A picture."""


@node("t.join")
def join(images: list[Image]) -> Image:
    """One of many."""


@pytest.fixture
def registry(kit):
    return kit.registry_of(picture, join)


@lru_cache(maxsize=2)
def validator(text):
    """Of a schema's text, which is long: checking it takes seconds."""
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def valid(registry):
    check = validator(json.dumps(graph_schema(registry)))

    def call(*nodes, **more):
        named = {f"n{i}": each for i, each in enumerate(nodes)}
        return check.is_valid({"format": 1, "nodes": named, **more})

    return call


def use(kind="t.picture@2", **inputs):
    return {"use": kind, "inputs": inputs}


LINK = {"ref": "n1.image"}


@pytest.mark.parametrize("path", sorted(GRAPHS.rglob("*.json")), ids=lambda p: p.stem)
def test_the_bundled_graphs_fit(path):
    if path.name.endswith(".schema.json"):
        return
    schema = graph_schema(load_registry(installed=False))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(json.loads(path.read_text()))
    assert [f"{e.json_path}: {e.message}" for e in errors] == []


@pytest.mark.parametrize(
    "node",
    [
        use(width=3, names=["a"]),
        use(width={"ref": "inputs.width"}, names={"ref": "n1"}, mode="exact", strength=None),
        use(width=3, names=["a", {"ref": "inputs.name"}], strength=1),
        use(width=3, names=[], options={"deep": [{"ref": "n1.value"}]}, image=None),
        use(width=3, names=[], image=LINK, strength={"literal": 1}),
        use("t.picture@1", anything=1),
        use("t.join@1", images=[LINK, LINK]),
        use("t.join@1", images=LINK),
        use("graph:other.json", anything=1),
        use("flow.map@1", graph="graph:x.json", over={"seed": [1, 2]}, **{"with": {"a": 1}}),
        use("flow.switch@1", on={"ref": "inputs.mode"}, cases={"a": LINK}, default=LINK),
        {**use(width=3, names=[]), "ui": {"x": 1}, "description": "words"},
    ],
    ids=str,
)
def test_what_is_right_is_valid(valid, node):
    assert valid(node)


@pytest.mark.parametrize(
    "node",
    [
        use(names=[]),
        use(width=0, names=[]),
        use(width=65, names=[]),
        use(width="3", names=[]),
        use(width=3, names=[1]),
        use(width=3, names=[], mode="exat"),
        use(width=3, names=[], image="picture.png"),
        use(width=3, names=[], imag=LINK),
        use(width=3, names=[], image={"ref": "../x"}),
        use("t.picture@3", width=3, names=[]),
        use("t.picture", width=3, names=[]),
        use("t.pictur@2"),
        {"use": "t.picture@2"},
        use("t.join@1", images=[3]),
        use("flow.map@1", graph="graph:x.json"),
        use("flow.map@1", graph="x.json", over={"a": [1]}),
        use("flow.map@1", graph="graph:x.json", over={"a": 1}),
        {**use(width=3, names=[]), "extra": 1},
    ],
    ids=str,
)
def test_what_is_wrong_is_not(valid, node):
    assert not valid(node)


def test_the_documents_own_fields_are_checked(valid):
    good = use(width=3, names=[])
    assert valid(good, inputs={"a": {"type": "integer", "minimum": 0, "default": None}}, outputs={"o": LINK})
    assert valid(good, inputs={"a": {"type": "Image"}}, ui=[1])
    assert not valid(good, format=2)
    assert not valid(good, nods={})
    assert not valid(good, inputs={"a": {"type": "int"}})
    assert not valid(good, inputs={"A": {"type": "integer"}})
    assert not valid(good, outputs={"o": "n0.image"})
    assert not valid(good, inputs={"a": {"type": "integer", "minimun": 0}})


def test_descriptions_ranges_and_defaults_are_there_for_editors(registry):
    schema = graph_schema(registry)
    inputs = schema["$defs"]["t.picture@2"]["properties"]
    assert inputs["mode"]["default"] == "fast"
    assert {"minimum": 1, "maximum": 64, "type": "integer"} in inputs["width"]["anyOf"]
    uses = {u.get("const"): u.get("description") for u in schema["$defs"]["node"]["properties"]["use"]["anyOf"]}
    assert uses["t.picture@2"] == "A picture." and "flow.map@1" in uses
