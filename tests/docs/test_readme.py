"""README.md is true: its commands, its graph, its node and its Python run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mezzotint.cli import main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


@pytest.fixture
def at_home(tmp_path, monkeypatch, blocks):
    """A folder with graphs/ and the README's own files in it, and a store of its own."""
    (tmp_path / "graphs").symlink_to(ROOT / "graphs")
    for block in blocks("../README.md"):
        if block.file:
            (tmp_path / block.file).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(*arguments):
    """One command's exit code, as a shell would see it."""
    try:
        code = main(list(arguments))
    except SystemExit as end:
        code = end.code
    return code or 0


def test_every_command_of_the_readme_succeeds(at_home, blocks, capsys):
    commands = [c for b in blocks("../README.md") if b.language == "console" for c in b.commands()]
    assert len(commands) >= 8
    for name, *arguments in commands:
        assert name == "mezzotint"
        assert run(*arguments) == 0, (arguments, capsys.readouterr().err)
    assert len(list(at_home.glob("outputs/*.png"))) >= 9


def test_the_readmes_node_works_as_a_one_file_plugin(at_home):
    assert run("nodes", "show", "my.invert", "--plugin", "invert.py") == 0


def test_the_readmes_python_runs(at_home, blocks):
    (block,) = [b for b in blocks("../README.md") if b.mark == "test"]
    names = {}
    exec(compile(block.text, "README.md", "exec"), names)
    assert tuple(names["pixels"].shape) == (1, 64, 64, 3)


def test_the_readmes_make_targets_and_links_exist():
    text = README.read_text()
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^    make (\w+)", text, re.MULTILINE)) <= targets
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
