"""Every graph under graphs/ runs, by the table every_graph.json beside this file; a graph that is not in it fails.

An entry of the table, by the graph's path without its suffix, has one of
  "small": inputs with which the graph runs in seconds;
  "run_by": a test elsewhere that runs it small, as tests/…/test_file.py::test_name;
  "within": another graph that has this one as a node, for one that takes ports;
and, for the slow run as shipped,
  "figure": where in the outputs a number is, and its bound: {"of": "report.accuracy", "at_least": 70}, or
      {"shows": "image"} for a picture that shows what the input `prompt` says; or
  "hours": why it is not run as shipped.
"""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mezzotint import Conditioning, Image, Latents, Mask, Port, Report, Video
from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore
from mezzotint_smallworld import check

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = ROOT / "graphs"
TABLE: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("every_graph.json").read_text("utf-8"))
NAMES = sorted(
    path.relative_to(GRAPHS).with_suffix("").as_posix()
    for path in GRAPHS.rglob("*.json")
    if path.name != "graph-1.schema.json"
)
SMALL = [name for name in NAMES if "small" in TABLE.get(name, {})]
SHIPPED = [name for name in NAMES if not {"within", "hours"} & TABLE.get(name, {}).keys()]


def document(name: str) -> dict[str, Any]:
    return json.loads((GRAPHS / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_has_an_entry_in_the_table(name):
    entry = TABLE.get(name)
    if entry is None:
        pytest.fail(
            f'tests/graphs/every_graph.json has no entry for graphs/{name}.json. Add "{name}": {{"small": {{…}}}} '
            "with inputs that make it run in seconds, and a figure of the run as shipped; test_every_graph.py "
            "says which other entries there are"
        )
    ways = [way for way in ("small", "run_by", "within") if way in entry]
    assert len(ways) == 1, f"{name}: wanted one of small, run_by and within, got {ways}"


@pytest.mark.parametrize("name", TABLE)
def test_an_entry_is_true(name):
    entry = TABLE[name]
    assert (GRAPHS / f"{name}.json").is_file(), f"{name}: there is no such graph any more"
    assert not entry.keys() - {"small", "run_by", "within", "figure", "hours"}
    if "run_by" in entry:
        file, _, test = entry["run_by"].partition("::")
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert {name.rpartition("/")[2], f"{name}.json", f"{name.rpartition('/')[2]}.json"} & texts
    if "within" in entry:
        outer = entry["within"]
        assert "small" in TABLE[outer] or "run_by" in TABLE[outer]
        uses = [node["use"] for node in document(outer)["nodes"].values()]
        uses += [node["inputs"].get("graph", "") for node in document(outer)["nodes"].values()]
        assert [use for use in uses if use.endswith(f"{name.rpartition('/')[2]}.json")], f"{outer} has no {name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_is_called_as_its_file_and_describes_itself_and_each_input(name):
    doc = document(name)
    assert doc["name"] == name.rpartition("/")[2]
    assert doc["description"]
    assert [key for key, value in doc.get("inputs", {}).items() if not value.get("description")] == []
    assert doc["outputs"]


@pytest.mark.parametrize("name", SMALL)
def test_a_graph_runs_small_and_writes_every_output(name, runtime, tmp_path):
    small = {key: _found(value) for key, value in TABLE[name]["small"].items()}
    result = load(GRAPHS / f"{name}.json", runtime=runtime).run(out=tmp_path, **small)
    assert result.status == "done"
    outputs = document(name)["outputs"]
    assert {file.output for file in result.files} == set(outputs)
    assert all(file.path.stat().st_size for file in result.files)
    for output in outputs:
        assert_sound(result.outputs[output], output)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SHIPPED)
def test_a_graph_runs_as_shipped_and_its_figure_holds(name, tmp_path):
    runtime = Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))
    given = {key: _found(TABLE[name]["small"][key]) for key in _required(name)}
    result = load(GRAPHS / f"{name}.json", runtime=runtime).run(out=tmp_path, **given)
    for output in document(name)["outputs"]:
        assert_sound(result.outputs[output], output)
    figure = TABLE[name].get("figure", {})
    if "shows" in figure:
        prompt = document(name)["inputs"]["prompt"]["default"]
        got = check(result.outputs[figure["shows"]], prompts=prompt).data["score"]["all"]
        assert got == 100, f"{name}: {got} per cent of the pictures show {prompt!r}"
    elif figure:
        got = _at(result.outputs, figure["of"])
        assert figure.get("at_least", -math.inf) <= got <= figure.get("at_most", math.inf), f"{figure}: got {got}"


def assert_sound(value: Any, where: str) -> None:
    """Pictures within 0..1, tensors and figures finite, lists not empty."""
    if isinstance(value, list | tuple):
        assert value, where
        for number, each in enumerate(value):
            assert_sound(each, f"{where}[{number}]")
    elif isinstance(value, Image | Mask | Video):
        assert value.data.numel() and value.data.min() >= 0 and value.data.max() <= 1, where
    elif isinstance(value, Report):
        assert value.data, where
        json.dumps(dict(value.data), allow_nan=False)
    elif isinstance(value, Latents | Conditioning):
        tensors = [part for part in vars(value).values() if isinstance(part, torch.Tensor)]
        assert tensors and all(torch.isfinite(tensor.float()).all() for tensor in tensors), where
    else:
        assert isinstance(value, Port | str | int | float | bool), where


def _required(name: str) -> list[str]:
    return [key for key, value in document(name).get("inputs", {}).items() if "default" not in value]


def _found(value: Any) -> Any:
    """A path that begins with graphs/ is one of the repository, wherever tests run."""
    return str(ROOT / value) if isinstance(value, str) and value.startswith("graphs/") else value


def _at(outputs: Any, path: str) -> float:
    output, *keys = path.split(".")
    found = outputs[output]
    for key in keys:
        found = found.data if isinstance(found, Report) else found
        found = found[int(key)] if key.lstrip("-").isdigit() else found[key]
    return float(found)
