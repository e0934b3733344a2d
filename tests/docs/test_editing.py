"""docs/editing.md: each of its commands runs, with few steps, and what it names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mezzotint.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "editing.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (mezzotint run .*)$", TEXT, re.MULTILINE)
# Inputs that make a graph quick, where it has them and the command does not say.
FEW = {
    "steps": 2, "updates": 1, "iterations": 1, "fit_steps": 1, "tune_steps": 1, "batch": 1, "eta": "[0, 1]",
    "views": 1, "tuning": 1, "sampling_steps": 1,
}  # fmt: skip


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_a_command_runs(number, tmp_path, monkeypatch, blocks, capsys):
    commands = [c for b in blocks("editing.md") if b.language == "console" for c in b.commands()]
    (tmp_path / "graphs").symlink_to(ROOT / "graphs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    name, verb, graph, *flags = commands[number]
    assert (name, verb) == ("mezzotint", "run")
    inputs = json.loads((ROOT / graph).read_text("utf-8"))["inputs"]
    few = [
        f
        for key, value in FEW.items()
        if key in inputs and f"--{key}" not in flags
        for f in (f"--{key}", str(value))
    ]
    try:
        code = main([verb, graph, *flags, *few])
    except SystemExit as end:
        code = end.code
    assert not code, capsys.readouterr().err
    assert list(tmp_path.glob("outputs/*.png"))


def test_the_graphs_pictures_and_headings_that_it_names_are_there():
    for graph in re.findall(r"graphs/[\w/]+\.json", TEXT):
        assert (ROOT / graph).is_file(), graph
    for target in re.findall(r"\]\(([^#)][^)#]*)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
    headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", TEXT, re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= headings
