"""Fixtures that every suite may use: registries, runtimes and stores that are a test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mezzotint.api import LoadedGraph, load
from mezzotint.hookspecs import hookimpl
from mezzotint.plugins import load_registry
from mezzotint.registry import Registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore, Store

GB = 10**9


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` where torch sees none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


def plugin_of(*nodes: Callable[..., Any], name: str = "tests", **hooks: Callable[..., Any]) -> Any:
    """A plugin with these nodes and hooks."""

    @hookimpl
    def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
        for each in nodes:
            register(each)

    return SimpleNamespace(__name__=name, register_nodes=register_nodes, **hooks)


def registry_of(*nodes: Callable[..., Any], **hooks: Callable[..., Any]) -> Registry:
    """A registry with these nodes and hooks, and the bundled plugins where they are asked for."""
    return load_registry(installed=False, namespaces=(), extra=[plugin_of(*nodes, **hooks)])


def runtime_of(registry: Registry, store: Any = None, **settings: Any) -> Runtime:
    """A runtime on the CPU; in memory, unless a store is given."""
    return Runtime(registry, MemoryStore() if store is None else store, Settings(**{"device": "cpu", **settings}))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store", limit_bytes=GB) as opened:
        yield opened


def graph_of(
    nodes: dict[str, Any],
    outputs: dict[str, str],
    *functions: Callable[..., Any],
    inputs: dict[str, Any] | None = None,
    runtime: Runtime | None = None,
) -> LoadedGraph:
    """A graph from `{"name": ("use@1", {"input": value})}` and `{"output": "node.port"}`."""
    doc = {
        "format": 1,
        "name": "test",
        "inputs": inputs or {},
        "nodes": {name: {"use": use, "inputs": given} for name, (use, given) in nodes.items()},
        "outputs": {name: {"ref": ref} for name, ref in outputs.items()},
    }
    return load(doc, runtime=runtime or runtime_of(registry_of(*functions)))


class Log:
    """Events of a run, in order. Give `log` as `on_event`."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._lock = threading.Lock()

    def __call__(self, event: Any) -> None:
        with self._lock:
            self.events.append(event)

    def kinds(self) -> list[str]:
        return [e.kind for e in self.events]

    def of(self, kind: str) -> list[Any]:
        return [e for e in self.events if e.kind == kind]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def kit() -> SimpleNamespace:
    """The functions of this file; tests cannot import it."""
    return SimpleNamespace(
        plugin_of=plugin_of, registry_of=registry_of, runtime_of=runtime_of, graph_of=graph_of, Log=Log
    )
