import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from mezzotint.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. mark: the HTML comment right above it, e.g. `file: invert.py` or `test`."""

    mark: str
    language: str
    text: str

    @property
    def file(self):
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None

    def commands(self):
        """The lines of a console block that someone types."""
        return [shlex.split(line[2:], comments=True) for line in self.text.splitlines() if line.startswith("$ ")]


@pytest.fixture
def blocks():
    """The fenced blocks of a page in docs/."""

    def read(page):
        text = (DOCS / page).read_text(encoding="utf-8")
        return [Block(m["mark"] or "", m["language"], m["text"]) for m in _BLOCK.finditer(text)]

    return read


@pytest.fixture
def run_command(tmp_path, monkeypatch, blocks, capsys):
    """Runs one of a page's `mezzotint run` commands in an empty folder, which it returns.

    few: inputs that make a graph quick, where it has them and the command does not say.
    instead: inputs that take the place of what it says.
    """

    def run(page, number, few, instead=()):
        commands = [c for b in blocks(page) if b.language == "console" for c in b.commands()]
        name, verb, graph, *flags = [c for c in commands if c[1] == "run"][number]
        assert name == "mezzotint"
        (tmp_path / "graphs").symlink_to(ROOT / "graphs")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
        for key in (key for key in instead if f"--{key}" in flags):
            flags[flags.index(f"--{key}") + 1] = str(instead[key])
        inputs = json.loads((ROOT / graph).read_text("utf-8"))["inputs"]
        unsaid = [key for key in few if key in inputs and f"--{key}" not in flags]
        try:
            code = main([verb, graph, *flags, *(word for key in unsaid for word in (f"--{key}", str(few[key])))])
        except SystemExit as end:
            code = end.code
        assert not code, capsys.readouterr().err
        return tmp_path

    return run


@pytest.fixture
def named_and_missing():
    """The graphs, pages and pictures that a page of docs/ names and that are not there."""

    def missing(page):
        text = (DOCS / page).read_text(encoding="utf-8")
        graphs = [ROOT / graph for graph in re.findall(r"graphs/[\w/]+\.json", text)]
        targets = [DOCS / target for target in re.findall(r"\]\(([^#)][^)#]*)\)", text)]
        return [path for path in (*graphs, *targets) if not path.exists()]

    return missing
