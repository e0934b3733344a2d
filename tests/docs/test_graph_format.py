"""docs/graph-format.md names every field of the format, and its examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mezzotint import document
from mezzotint.cli import run_verbs

PAGE = "graph-format.md"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch, blocks):
    for block in blocks(PAGE):
        if block.file:
            (tmp_path / block.file).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("model", ["GraphDoc", "InputDoc", "NodeDoc", "LinkDoc"])
def test_every_field_of_the_format_is_in_the_page(model):
    text = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`\n]+)`", text))
    for name, field in getattr(document, model).model_fields.items():
        assert (field.alias or name) in named, f"{model}.{name}"


@pytest.mark.parametrize("kind", document.JSON_TYPES)
def test_every_type_is_in_the_page(kind):
    assert f"`{kind}`" in (ROOT / "docs" / PAGE).read_text(encoding="utf-8")


def test_the_bounds_are_those_of_the_engine(blocks):
    from mezzotint.planner import MAX_STEPS
    from mezzotint.subgraphs import MAX_GRAPH_DEPTH

    text = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    for words, value in (
        ("depth of lists and objects", f"{document.MAX_DEPTH}"),
        ("depth of graphs in graphs", f"{MAX_GRAPH_DEPTH}"),
        ("size of a graph file", f"{document.MAX_BYTES // 2**20} MiB"),
        ("nodes after inlining", f"{MAX_STEPS:,}"),
    ):
        assert f"| {words} | {value} |" in text


def test_every_graph_in_the_page_runs(folder, capsys):
    graphs = sorted(folder.glob("*.json"))
    assert len(graphs) == 4
    for graph in graphs:
        assert run_verbs(["validate", str(graph)]) == 0, capsys.readouterr().err
        assert run_verbs(["run", str(graph)]) == 0, capsys.readouterr().err
    assert run_verbs(["run", "choose.json", "--mode", "small"]) == 0


def test_every_command_in_the_page_succeeds(folder, blocks):
    commands = [c for b in blocks(PAGE) if b.language == "console" for c in b.commands()]
    for name, *arguments in commands:
        assert name == "mezzotint" and run_verbs(arguments) == 0


def test_the_python_in_the_page_runs(folder, blocks):
    (block,) = [b for b in blocks(PAGE) if b.language == "python"]
    exec(compile(block.text, PAGE, "exec"), {})
    assert json.loads((folder / "card.json").read_text())["format"] == 1
