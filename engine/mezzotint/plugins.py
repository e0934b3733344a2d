"""Finding plugins and loading them one by one, each guarded: a broken one is listed, and takes nothing else down.

Plugins come from the entry-point group `mezzotint.plugins`, from `--plugin FILE.py`, and from MEZZOTINT_PLUGINS.
An installed one is imported when something that it gives is asked for; `discovery.Index` knows what each gives.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mezzotint.discovery import Index
from mezzotint.loading import PluginSet

if TYPE_CHECKING:
    from mezzotint.registry import Registry

__all__ = ["PluginRow", "explain_missing", "load_registry", "plugins_table"]


@dataclass(frozen=True)
class PluginRow:
    """One line of `mezzotint plugins`. state "clash": other packages give some of its things too."""

    name: str
    package: str
    version: str
    state: Literal["ok", "broken", "clash"]
    nodes: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    error: str = ""
    traceback: str = ""


def load_registry(
    *,
    namespaces: Iterable[str] | None = None,
    files: Iterable[str | Path] = (),
    extra: Iterable[Any] = (),
    must_load: bool = True,
    installed: bool = True,
    index: Index | None = None,
) -> Registry:
    """A registry of the installed plugins, of one-file plugins, and of plugin objects.

    namespaces: import now what gives something there, and the rest when it is asked for. None imports all now.
    files: paths given with `--plugin`. extra: modules or objects with hooks. must_load: False only lists a broken
    one of these, as it is always done with those that are installed or named in MEZZOTINT_PLUGINS.
    installed: False leaves out third-party packages, MEZZOTINT_PLUGINS and the configuration file.

    Raises: UserError: if one of `files` is not there, or the configuration file is wrong.
    Raises: PluginError: if one of `files` or `extra` is broken; if MEZZOTINT_STRICT_PLUGINS is set, any.
    """
    plugins = PluginSet(index or Index(), installed)
    for path in files:
        plugins.load_file(Path(path), must_load=must_load)
    for plugin in extra:
        plugins.load_object(plugin, must_load=must_load)
    for item in _environment() if installed else ():
        if item.endswith(".py") or os.sep in item:
            plugins.load_file(Path(item))
        else:
            plugins.load_module(item)
    plugins.refresh()
    if namespaces is None:
        plugins.need_all()
    for namespace in namespaces or ():
        plugins.need_namespace(namespace)
    return plugins.registry


def explain_missing(registry: Registry, id: str) -> str:
    """Why `registry` has no node `id`: two packages claim it, its plugin is broken, or nobody knows it."""
    id = id.partition("@")[0]
    clash = registry.clashes.get(f"node {id!r}")
    if clash:
        return clash
    for broken in registry.broken.values():
        if id in broken.nodes:
            return f"node {id} is provided by {broken}, which failed to load: {broken.error}"
    text = f"unknown node {id!r}"
    silent = [f"{b} ({b.error})" for b in registry.broken.values() if not b.nodes]
    if silent:
        text += f"; plugins that failed to load and may have it: {', '.join(silent)}"
    return text


def plugins_table(registry: Registry) -> list[PluginRow]:
    """All plugins of a registry made by `load_registry`, bundled ones first; imports every one."""
    supply = registry.supply
    if not isinstance(supply, PluginSet):
        return []
    supply.need_all()
    rows = []
    for key, given in supply.loaded.items():
        clash = supply.clashing.get(key, "")
        rows.append(
            PluginRow(
                name=key.rpartition(":")[2],
                package=given.provenance.package,
                version=given.provenance.version,
                state="clash" if clash else "ok",
                nodes=tuple(sorted(given.nodes)),
                hooks=tuple(supply.hook_names(key)),
                error=clash,
            )
        )
    for b in supply.broken.values():
        rows.append(PluginRow(b.name, b.package, b.version, "broken", b.nodes, (), b.error, b.traceback))
    return sorted(rows, key=lambda r: (r.package != "mezzotint", r.package, r.name))


def _environment() -> list[str]:
    items = os.environ.get("MEZZOTINT_PLUGINS", "").replace(",", os.pathsep).split(os.pathsep)
    return [item.strip() for item in items if item.strip()]
