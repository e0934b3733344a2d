"""docs/command-line.md names every verb, flag, event and variable; docs/nodes.md and the schema are up to date."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from mezzotint import events
from mezzotint.cli import VERBS, run_verbs

ROOT = Path(__file__).parents[2]
PAGE = "command-line.md"
TEXT = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
SECTIONS = {
    m[1]: m[2] for m in re.finditer(r"^## mezzotint ([\w-]+)(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
}
EVERYWHERE = {"--debug", "--help", "-h"}


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))


def commands(verb):
    command = importlib.import_module(f"mezzotint.cli.{VERBS[verb][0]}").command
    return command.commands.values() if isinstance(command, click.Group) else [command]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_section_that_names_each_of_its_flags(verb):
    for command in commands(verb):
        if command.name != verb:
            assert f"`mezzotint {verb} {command.name}" in SECTIONS[verb]
        for option in (p for p in command.params if isinstance(p, click.Option)):
            for flag in {*option.opts, *option.secondary_opts} - EVERYWHERE:
                assert re.search(rf"`{re.escape(flag)}\b", SECTIONS[verb]), f"{verb} {flag}"


def test_no_flag_is_named_that_is_not_there():
    for verb, text in SECTIONS.items():
        known = {flag for c in commands(verb) for p in c.params for flag in (*p.opts, *p.secondary_opts)}
        named = set(re.findall(r"^\| `(--[\w-]+)", text, re.MULTILINE))
        assert named <= known, verb


@pytest.mark.parametrize("name", [n for n in events.__all__ if n != "Event"])
def test_every_event_is_named_with_its_keys(name):
    event = getattr(events, name)
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{event.kind}`")]
    for field in fields(event):
        assert (f"`{field.name}`" in row) == field.metadata.get("json", True), f"{name}.{field.name}"


def test_every_variable_of_the_environment_is_named():
    found = set()
    for path in (ROOT / "engine").rglob("*.py"):
        found |= set(re.findall(r"\"(MEZZOTINT_[A-Z_]+)\"", path.read_text(encoding="utf-8")))
    assert {name for name in found if f"`{name}`" not in TEXT} == set()


def test_every_command_in_the_page_succeeds(at_home, blocks, capsys):
    lines = [c for b in blocks(PAGE) if b.language == "console" for c in b.commands()]
    assert len(lines) >= 10
    for name, *arguments in lines:
        assert name == "mezzotint"
        if "plan" in arguments and not weights():
            continue
        assert run_verbs(arguments) == 0, (arguments, capsys.readouterr().err)


def weights():
    return (ROOT / "plugins" / "mezzotint_smallworld" / "weights").is_dir()


def test_the_reference_of_nodes_is_that_of_the_bundled_ones(at_home, capsys):
    assert run_verbs(["nodes", "--markdown", "--bundled"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "nodes.md").read_text(encoding="utf-8"), "run `make docs`"


def test_the_schema_beside_the_graphs_is_that_of_the_bundled_nodes(at_home, capsys):
    assert run_verbs(["schema", "--bundled"]) == 0
    written = (ROOT / "graphs" / "graph-1.schema.json").read_text(encoding="utf-8")
    assert json.loads(capsys.readouterr().out) == json.loads(written), "run `make docs`"
