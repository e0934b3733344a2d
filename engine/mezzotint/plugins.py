"""Finding plugins and loading them one by one, each guarded: a broken one is listed, and takes nothing down with it.

Plugins come from the entry-point group `mezzotint.plugins`, from `--plugin FILE.py`, and from MEZZOTINT_PLUGINS. An
installed one is imported when something of its is asked for; `discovery.Index` knows what each gives.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from mezzotint import hookspecs
from mezzotint.discovery import Found, Index, read_preferences, source_digest
from mezzotint.errors import PluginError, UserError, did_you_mean
from mezzotint.observers import OBSERVERS, call_hook, strict
from mezzotint.registry import BrokenPlugin, Contribution, Provenance, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from mezzotint.observers import HookImpl

__all__ = ["PluginRow", "explain_missing", "load_registry", "plugins_table"]

_log = logging.getLogger("mezzotint.plugins")

_REGISTER = {
    "register_ports": "port", "register_nodes": "node", "register_loaders": "loader", "register_samplers": "sampler"
}  # fmt: skip


@dataclass(frozen=True)
class PluginRow:
    """One line of `mezzotint plugins`. state: "ok", "broken" or "clash"."""

    name: str
    package: str
    version: str
    state: str
    nodes: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    error: str = ""
    traceback: str = ""


def load_registry(
    *,
    namespaces: Iterable[str] | None = None,
    files: Iterable[str | Path] = (),
    extra: Iterable[Any] = (),
    installed: bool = True,
    index: Index | None = None,
) -> Registry:
    """A registry of the installed plugins, of one-file plugins, and of plugin objects.

    namespaces: import only what gives something there, now; the rest follows when it is asked for. None imports all.
    files: paths given with `--plugin`. extra: modules or objects with hooks.
    installed: False leaves out third-party packages, MEZZOTINT_PLUGINS and the configuration file.

    Raises: UserError: if one of `files` is not there, or the configuration file is wrong. PluginError: at the first
    broken plugin, if MEZZOTINT_STRICT_PLUGINS is set.
    """
    plugins = _Plugins(index or Index(), installed)
    for path in files:
        plugins.load_file(Path(path))
    for plugin in extra:
        plugins.load_object(plugin)
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
    nearest = did_you_mean(id, registry.ids())
    text = f"unknown node {id!r}" + (f"; did you mean {nearest!r}?" if nearest else "")
    silent = [f"{b} ({b.error})" for b in registry.broken.values() if not b.nodes]
    if silent:
        text += f"; plugins that failed to load and may have it: {', '.join(silent)}"
    return text


def plugins_table(registry: Registry) -> list[PluginRow]:
    """All plugins of a registry made by `load_registry`, for `mezzotint plugins`; imports every one."""
    supply = registry.supply
    if not isinstance(supply, _Plugins):
        return []
    supply.need_all()
    return supply.rows()


class _Plugins:
    """The supply behind a registry: it imports a plugin when something of its is asked for."""

    def __init__(self, index: Index, installed: bool) -> None:
        self.index = index
        self.found = [f for f in index.found if installed or f.package == "mezzotint"]
        self.manager = pluggy.PluginManager("mezzotint")
        self.manager.add_hookspecs(hookspecs)
        self.registry = Registry(self, read_preferences() if installed else {})
        self.broken: dict[str, BrokenPlugin] = {}
        self._loaded: dict[str, Contribution] = {}
        self._tried: set[str] = set()
        self._clashing: dict[str, str] = {}
        self._files: dict[str, Path] = {}
        self._asked: set[str] = set()
        self._lock = threading.RLock()

    # --- what the registry asks ---

    def need(self, kind: str, name: str | None) -> None:
        """Import what gives `name`, or for None all that gives anything of that kind."""
        if name is not None and kind in ("nodes", "loaders"):
            self.need_namespace(name.partition(".")[0])
            return
        for found in self._waiting():
            given = self._gives(found, kind)
            if name in given or (name is None and given):
                self._load_found(found)

    def need_namespace(self, namespace: str) -> None:
        """Import all that has nodes or loaders in a namespace: only together do clashes show."""
        if namespace in self._asked:
            return
        self._asked.add(namespace)
        waiting = self._waiting()
        wanted = [f for f in waiting if namespace in self._namespaces(f)]
        held = any(id.partition(".")[0] == namespace for id in self.registry.ids())
        if not wanted and not held:
            # A plugin that never loaded may be the one; a failing graph can wait for another try.
            wanted = [f for f in waiting if f.key in self.broken and not self.broken[f.key].nodes]
        for found in wanted:
            self._load_found(found)
        self.index.save()

    def need_all(self) -> None:
        """Import every plugin."""
        for found in self._waiting():
            self._load_found(found)
        self.index.save()

    def known(self, kind: str) -> frozenset[str]:
        """The names of that kind that sound plugins give, loaded or not."""
        names: set[str] = set()
        for found in self.found:
            if found.key not in self.broken:
                names.update(self._gives(found, kind))
        return frozenset(names)

    def hook_impls(self, hook: str) -> list[HookImpl]:
        """All implementations of a hook, their plugins imported."""
        for found in self._waiting():
            if hook in self._gives(found, "hooks"):
                self._load_found(found)
        impls: list[Any] = getattr(self.manager.hook, hook).get_hookimpls()
        return list(impls)

    # --- loading ---

    def refresh(self) -> None:
        """Import those of whom the index knows nothing, and list those that it knows as broken."""
        for found in self.found:
            entry = self.index.entry(found)
            if entry is None:
                self._load_found(found)
            elif entry.error:
                nodes = tuple(entry.gives.get("nodes", ()))
                self.broken[found.key] = BrokenPlugin(
                    found.name, found.package, found.version, entry.error, entry.traceback, nodes
                )
        self.index.save()

    def load_file(self, path: Path) -> None:
        """Load a one-file plugin. Raises: UserError: if there is no such file, or two have one name."""
        if not path.is_file():
            raise UserError(f"there is no plugin file {str(path)!r}")
        if self._files.setdefault(path.name, path.resolve()) != path.resolve():
            raise UserError(f"two plugin files are named {path.name!r}; rename one of them")
        # The bytes that are hashed are those that are compiled: what the content keys say is what runs.
        source = path.read_bytes()
        given = Provenance(path.name, module=f"mezzotint_file_{path.stem}", digest=hashlib.sha256(source).hexdigest())
        self._load(path.name, given, lambda: _execute(source, path, given.module))

    def load_module(self, name: str) -> None:
        """Load a plugin named in MEZZOTINT_PLUGINS."""
        found = next((f for f in self.found if f.module == name), None)
        if found is not None:
            self._load_found(found)
        elif name not in self._tried:
            self._load(name, Provenance(name, module=name), lambda: importlib.import_module(name))

    def load_object(self, plugin: Any) -> None:
        """Load a module or any object with hooks."""
        name = getattr(plugin, "__name__", None) or type(plugin).__name__
        found = next((f for f in self.found if isinstance(plugin, ModuleType) and f.module == name), None)
        if found is not None:
            self._load_found(found)
        else:
            module = name if isinstance(plugin, ModuleType) else type(plugin).__module__
            self._load(name, Provenance(name, module=module), lambda: plugin)

    def _load_found(self, found: Found) -> None:
        given = Provenance(found.package, found.version, found.module)
        if self._load(found.key, given, lambda: _imported(found), found):
            self.index.put(found, _gives(self._loaded[found.key], self._hook_names(found.key)))
        elif found.key in self.broken:
            broken = self.broken[found.key]
            self.index.put(found, None, broken.error, broken.traceback)

    def _load(self, key: str, given: Provenance, get: Callable[[], Any], found: Found | None = None) -> bool:
        """Whether the plugin is loaded now and was not before. All that goes wrong in it ends here."""
        with self._lock:
            if key in self._tried:
                return False
            self._tried.add(key)
            name = found.name if found else key
            try:
                # A plugin that prints while it is imported must not end up in JSON on stdout.
                with contextlib.redirect_stdout(sys.stderr):
                    contribution = self._collect(key, given, get)
                messages = self.registry.add(contribution)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._forget(key)
                self._note_broken(key, name, given, error, found)
                return False
            self._loaded[key] = contribution
            self.broken.pop(key, None)
            for message in messages:
                self._clashing[key] = message
                if strict():
                    raise PluginError(message)
                _log.warning("%s", message)
            return True

    def _collect(self, key: str, given: Provenance, get: Callable[[], Any]) -> Contribution:
        plugin = get()
        wanted = getattr(plugin, "mezzotint_api", hookspecs.API_VERSION)
        if wanted != hookspecs.API_VERSION:
            raise PluginError(
                f"{given} is written for plugin API {wanted}; this Mezzotint has API {hookspecs.API_VERSION}"
            )
        try:
            self.manager.register(plugin, key)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(str(error)) from error
        self._check_hooks(key, given)
        contribution = Contribution(replace(given, digest=given.digest or _digest(given, self.index)))
        for hook, method in _REGISTER.items():
            for impl in self._impls_of(hook, key):
                call_hook(impl, hook, {"register": getattr(contribution, method)})
        return contribution

    def _check_hooks(self, key: str, given: Provenance) -> None:
        hooks = self.manager.hook.__dict__
        for hook in [n for n in hooks if not n.startswith("_")]:
            for impl in self._impls_of(hook, key):
                if not hooks[hook].has_spec() and not impl.optionalhook:
                    nearest = did_you_mean(hook, (n for n in hooks if not n.startswith("_") and hooks[n].has_spec()))
                    advice = f"; did you mean {nearest!r}?" if nearest else ""
                    raise PluginError(f"{given} implements an unknown hook {hook!r}{advice}")
                if impl.wrapper or impl.hookwrapper:
                    raise PluginError(f"{given}: hook {hook!r} cannot be wrapped")

    def _impls_of(self, hook: str, key: str) -> list[Any]:
        caller = getattr(self.manager.hook, hook)
        return [impl for impl in caller.get_hookimpls() if impl.plugin_name == key]

    def _forget(self, key: str) -> None:
        if self.manager.has_plugin(key):
            self.manager.unregister(name=key)

    def _note_broken(
        self, key: str, name: str, given: Provenance, error: BaseException, found: Found | None
    ) -> None:
        entry = self.index.entries.get(found.key) if found else None
        nodes = tuple(entry.gives.get("nodes", ())) if entry else ()
        trace = "".join(traceback.format_exception(error))
        broken = BrokenPlugin(name, given.package, given.version, _reason(error), trace, nodes)
        self.broken[key] = broken
        if strict():
            raise PluginError(f"plugin {broken} failed to load: {broken.error}") from error
        if found is None or not (entry and entry.error == broken.error):
            _log.warning("plugin %s failed to load: %s", broken, broken.error)

    # --- what the index knows ---

    def _waiting(self) -> list[Found]:
        return [f for f in self.found if f.key not in self._tried]

    def _gives(self, found: Found, kind: str) -> list[str]:
        entry = self.index.entries.get(found.key)
        return entry.gives.get(kind, []) if entry else []

    def _namespaces(self, found: Found) -> set[str]:
        names = self._gives(found, "nodes") + self._gives(found, "loaders")
        return {name.partition(".")[0] for name in names}

    def _hook_names(self, key: str) -> list[str]:
        return [h for h in (*OBSERVERS, "resolve_source", *_REGISTER) if self._impls_of(h, key)]

    def rows(self) -> list[PluginRow]:
        rows = []
        for key, contribution in self._loaded.items():
            given = contribution.provenance
            clash = self._clashing.get(key, "")
            rows.append(
                PluginRow(
                    name=key.rpartition(":")[2], package=given.package, version=given.version,
                    state="clash" if clash else "ok", nodes=tuple(sorted(contribution.nodes)),
                    hooks=tuple(self._hook_names(key)), error=clash,
                )  # fmt: skip
            )
        for broken in self.broken.values():
            rows.append(
                PluginRow(
                    broken.name, broken.package, broken.version, "broken", broken.nodes, (), broken.error,
                    broken.traceback,
                )  # fmt: skip
            )
        return sorted(rows, key=lambda r: (r.package != "mezzotint", r.package, r.name))


def _environment() -> list[str]:
    items = os.environ.get("MEZZOTINT_PLUGINS", "").replace(",", os.pathsep).split(os.pathsep)
    return [item.strip() for item in items if item.strip()]


def _imported(found: Found) -> Any:
    module, _, attribute = found.target.partition(":")
    plugin: Any = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        plugin = getattr(plugin, part)
    return plugin


def _execute(source: bytes, path: Path, name: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and type hints look their module up there
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _digest(given: Provenance, index: Index) -> str:
    """Of the source, where no version pins it: editable packages, and modules that are in no distribution."""
    found = next((f for f in index.found if f.module == given.module and f.package == given.package), None)
    if found is not None:
        return source_digest(Path(found.root)) if found.root else ""
    file = getattr(sys.modules.get(given.module), "__file__", None)
    if file is None:
        return ""
    path = Path(file)
    return source_digest(path.parent if path.name == "__init__.py" else path)


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    if isinstance(error, (ImportError, PluginError, UserError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _gives(contribution: Contribution, hooks: list[str]) -> dict[str, list[str]]:
    from mezzotint.codec import type_name

    return {
        "nodes": sorted(contribution.nodes),
        "types": sorted(contribution.types),
        "writers": sorted(type_name(cls) for cls in contribution.writers),
        "loaders": sorted(contribution.loaders),
        "samplers": sorted(contribution.samplers),
        "hooks": hooks,
    }
