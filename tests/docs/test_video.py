"""docs/video.md: each of its commands runs, with few steps, and what it names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mezzotint.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "video.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (mezzotint run .*)$", TEXT, re.MULTILINE)
FEW = {"steps": 1, "frames": 2, "batch": 1}


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_a_command_runs(number, tmp_path, monkeypatch, blocks, capsys):
    commands = [c for b in blocks("video.md") if b.language == "console" for c in b.commands()]
    commands = [c for c in commands if c[:2] == ["mezzotint", "run"]]
    (tmp_path / "graphs").symlink_to(ROOT / "graphs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    _, verb, graph, *flags = commands[number]
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
    assert list(tmp_path.glob("outputs/*.mp4"))


def test_the_graphs_and_pages_that_it_names_are_there():
    for graph in re.findall(r"graphs/[\w/]+\.json", TEXT):
        assert (ROOT / graph).is_file(), graph
    for target in re.findall(r"\]\(([^#)][^)#]*)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
