"""Run a graph on a registry and a store of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from mezzotint.hookspecs import hookimpl

if TYPE_CHECKING:
    from mezzotint.runner import RunResult

__all__ = ["run_graph"]


def run_graph(
    doc: Mapping[str, Any] | str | Path, plugins: Iterable[Any] = (), *, device: str = "cpu", **inputs: Any
) -> RunResult:
    """Run a graph with the bundled plugins and those given, in memory; `result.outputs` has the values by name.

    doc: the graph as parsed JSON, or its path. plugins: modules, paths of one-file plugins, or node functions.
    Other installed plugins, the user's store and configuration are left out. The node `testing.denoiser` is there.
    inputs: the graph's.

    Raises: GraphError: for a wrong graph or input. NodeError: if a node failed. PluginError: for a broken plugin.
    """
    from mezzotint import api
    from mezzotint.plugins import load_registry
    from mezzotint.runtime import Runtime
    from mezzotint.settings import Settings
    from mezzotint.store import MemoryStore
    from mezzotint.testing import gaussian

    given = list(plugins)
    functions = [p for p in given if callable(p) and not isinstance(p, ModuleType)]
    files = [p for p in given if isinstance(p, (str, Path))]
    objects = [p for p in given if p not in functions and p not in files]
    registry = load_registry(
        namespaces=(), installed=False, files=files, extra=[gaussian, *objects, *_as_plugin(functions)]
    )
    return api.load(doc, runtime=Runtime(registry, MemoryStore(), Settings(device=device))).run(**inputs)


def _as_plugin(functions: list[Callable[..., Any]]) -> list[Any]:
    @hookimpl
    def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
        for function in functions:
            register(function)

    return [SimpleNamespace(__name__="functions", register_nodes=register_nodes)] if functions else []
