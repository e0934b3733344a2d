"""The command line in tests: run in this process, or in another one that can be interrupted and killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "plugins" / "arith.py"
COMMAND = [sys.executable, "-m", "mezzotint"]


@dataclass
class Done:
    """What a command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def events(self):
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def files(self):
        return [Path(line) for line in self.out.splitlines()]


@pytest.fixture(scope="session")
def plugin_index(tmp_path_factory):
    """The index of installed plugins, so that not every test imports them all."""
    from mezzotint.discovery import Index
    from mezzotint.plugins import load_registry

    folder = tmp_path_factory.mktemp("index")
    index = Index(folder)
    load_registry(index=index)
    return index.path


@pytest.fixture
def place(tmp_path, monkeypatch, plugin_index):
    """An empty working folder with a store of its own and the plugin `arith`."""
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(plugin_index, cache)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MEZZOTINT_CACHE", str(cache))
    monkeypatch.setenv("MEZZOTINT_PLUGINS", str(PLUGIN))
    monkeypatch.setenv("ARITH_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a part of the content keys
    monkeypatch.delenv("MEZZOTINT_DEBUG", raising=False)
    return folder


@pytest.fixture
def cli(place, capsys):
    """Run a command line in this process."""
    from mezzotint.cli import run_verbs

    def call(*words) -> Done:
        capsys.readouterr()
        code = run_verbs([str(word) for word in words])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def start(place):
    """Start a command line as another process; it is killed at the end of the test."""
    running = []

    def call(*words) -> subprocess.Popen:
        process = subprocess.Popen(
            [*COMMAND, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=place,
        )
        running.append(process)
        return process

    yield call
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def log(place):
    """What the nodes of `arith` have noted so far."""
    path = place.parent / "log"
    return lambda: path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def write(place):
    """Write a graph: its nodes, outputs and inputs as JSON."""

    def call(nodes, outputs=None, inputs=None, name="graph.json", **more) -> Path:
        last = list(nodes)[-1]
        doc = {
            "format": 1,
            "name": Path(name).stem,
            "inputs": inputs or {},
            "nodes": nodes,
            "outputs": outputs or {"result": {"ref": last}},
            **more,
        }
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(doc))
        return path

    return call


@pytest.fixture
def sum_graph(write):
    """(a + b), then a slow node."""
    return write(
        {
            "add": {"use": "arith.add@1", "inputs": {"a": {"ref": "inputs.a"}, "b": {"ref": "inputs.cfg_scale"}}},
            "slow": {
                "use": "arith.slow@1",
                "inputs": {"value": {"ref": "add"}, "steps": {"ref": "inputs.steps"}, "pause": 0.0},
            },
        },
        outputs={"total": {"ref": "slow"}, "sum": {"ref": "add"}},
        inputs={
            "a": {
                "type": "number",
                "default": 1,
                "minimum": 0,
                "maximum": 100,
                "description": "The first number.",
            },
            "cfg_scale": {"type": "number", "default": 2},
            "steps": {"type": "integer", "default": 2, "minimum": 1, "maximum": 50},
        },
        name="sum.json",
    )
