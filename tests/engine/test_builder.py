"""GraphBuilder: a graph in Python is the same JSON, and mistakes are met where they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from mezzotint import GraphBuilder, Image, load
from mezzotint.errors import GraphError, UserError
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.store import MemoryStore

GRAPHS = Path(__file__).parents[2] / "graphs"


@pytest.fixture(scope="module")
def registry():
    return load_registry(installed=False)


@pytest.fixture
def g(registry):
    return GraphBuilder("test", registry=registry)


def rebuilt(doc, registry):
    """A graph file written again, statement by statement, as a person would in Python."""
    g = GraphBuilder(doc["name"], description=doc.get("description", ""), registry=registry)
    kinds = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
    known = {}
    for name, words in doc["inputs"].items():
        rest = {k: v for k, v in words.items() if k != "type"}
        known[f"inputs.{name}"] = g.input(name, kinds[words["type"]], **rest)

    def linked(tree):
        if isinstance(tree, dict) and set(tree) == {"ref"}:
            node, _, port = tree["ref"].partition(".")
            if node == "inputs":
                return known[tree["ref"]]
            return known[node][port] if port else known[node]
        if isinstance(tree, dict):
            return {k: linked(v) for k, v in tree.items()}
        return [linked(v) for v in tree] if isinstance(tree, list) else tree

    for name, words in doc["nodes"].items():
        inputs = {k: linked(v) for k, v in words.get("inputs", {}).items()}
        known[name] = g.add(words["use"], name, **inputs)
    for name, link in doc["outputs"].items():
        g.output(name, linked(link))
    return g


@pytest.mark.parametrize("name", ["text_to_image", "image_to_image", "inpaint", "variations"])
def test_a_bundled_graph_written_in_python_is_the_same_json(registry, name):
    doc = json.loads((GRAPHS / f"{name}.json").read_text())
    doc.pop("$schema", None)
    assert rebuilt(doc, registry).to_json() == doc


def test_a_saved_graph_loads_and_runs(g, registry, tmp_path):
    width = g.input("width", int, default=8, minimum=1)
    card = g.add("image.solid@1", width=width, height=4, colour="red")
    g.output("card", card)
    runtime = Runtime(registry, MemoryStore())
    assert g.load(runtime).run(width=6).outputs["card"].data.shape == (1, 4, 6, 3)
    path = g.save(tmp_path / "card.json")
    assert json.loads(path.read_text()) == g.to_json()
    assert load(path, runtime=runtime).run().outputs["card"].data.shape == (1, 4, 8, 3)


def test_names_are_derived_and_never_clash(g):
    names = [g.add("image.solid@1", width=1, height=1)._name for _ in range(3)]
    assert names == ["solid", "solid_2", "solid_3"]
    assert g.add("graph:some/Other-Graph.json")._name == "other_graph"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, {"type": "integer"}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (list, {"type": "array"}),
        (Path, {"type": "string", "format": "path"}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (float | None, {"type": "number", "default": None}),
        (Image, {"type": "Image"}),
    ],
    ids=str,
)
def test_python_types_become_the_words_of_the_file(g, kind, words):
    g.input("x", kind)
    assert g.to_json()["inputs"]["x"] == words


def test_words_are_spelt_as_in_the_file(g):
    g.input("x", str, default="a", min_length=1, pattern="a+", description="words")
    assert g.to_json()["inputs"]["x"] == {
        "type": "string", "minLength": 1, "pattern": "a+", "default": "a", "description": "words"
    }  # fmt: skip


def test_what_only_looks_like_a_link_is_kept_apart(g):
    g.add("flow.map@1", graph="graph:x.json", over={"a": [{"ref": "not a link"}]}, with_={"b": {"literal": 1}})
    (node,) = g.to_json()["nodes"].values()
    assert node["inputs"]["over"] == {"a": [{"literal": {"ref": "not a link"}}]}
    assert node["inputs"]["with"] == {"b": {"literal": {"literal": 1}}}


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda g, card: g.add("image.sold@1", width=1, height=1), "did you mean 'image.solid'"),
        (lambda g, card: g.add("image.solid", width=1, height=1), r"the newest is 'image\.solid@1'"),
        (lambda g, card: g.add("image.solid@9", width=1, height=1), r"the newest is 'image\.solid@1'"),
        (lambda g, card: g.add("image.solid@1", widht=1, height=1), "did you mean 'width'"),
        (lambda g, card: g.add("image.solid@1", height=1), "needs width"),
        (lambda g, card: g.add("image.solid@1", width=card, height=1), "wants integer, card gives Image"),
        (lambda g, card: card.imag, "did you mean 'image'"),
        (lambda g, card: g.add("image.solid@1", "card", width=1, height=1), "a node 'card' already"),
        (lambda g, card: g.output("x", 3), "wanted a node's output"),
        (lambda g, card: g.input("x", int | str), "one type"),
        (lambda g, card: g.output("x", g.add("image.resize@1", image=card, width=1, height=1)), "say which one"),
    ],
)
def test_mistakes_are_met_where_they_are_written(g, mistake, message):
    card = g.add("image.solid@1", "card", width=1, height=1)
    with pytest.raises(UserError, match=message):
        mistake(g, card)


def test_a_graph_that_is_wrong_is_not_written(g, tmp_path):
    g.output("card", g.add("image.solid@1", width=0, height=1))
    with pytest.raises(GraphError, match="greater than or equal to 1"):
        g.save(tmp_path / "card.json")
    assert not (tmp_path / "card.json").exists()
