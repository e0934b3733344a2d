"""The supply behind a registry: it imports a plugin, guarded, when something that it gives is asked for."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from mezzotint import hookspecs
from mezzotint.codec import type_name
from mezzotint.contribution import BrokenPlugin, Contribution, Provenance
from mezzotint.discovery import Found, Index, read_preferences, source_digest
from mezzotint.errors import PluginError, UserError, did_you_mean
from mezzotint.observers import OBSERVERS, call_hook, strict, warn
from mezzotint.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from mezzotint.observers import HookImpl

__all__ = ["PluginSet"]

_REGISTER = {
    "register_ports": "port",
    "register_nodes": "node",
    "register_loaders": "loader",
    "register_samplers": "sampler",
    "register_interpreters": "interpreter",
}


class PluginSet:
    """All the plugins that a registry draws on, and their state.

    index: what is installed. installed: whether third-party packages and the configuration file count.
    loaded: what each loaded plugin gave. clashing: those of whom something was refused, with the message.
    """

    def __init__(self, index: Index, installed: bool) -> None:
        self.index = index
        self.found = [f for f in index.found if installed or f.package == "mezzotint"]
        self.manager = pluggy.PluginManager("mezzotint")
        self.manager.add_hookspecs(hookspecs)
        self.registry = Registry(self, read_preferences() if installed else {})
        self.broken: dict[str, BrokenPlugin] = {}
        self.loaded: dict[str, Contribution] = {}
        self._tried: set[str] = set()
        self.clashing: dict[str, str] = {}
        self._files: dict[str, Path] = {}
        self._asked: set[str] = set()
        self._lock = threading.RLock()

    # --- what the registry asks ---

    def need(self, kind: str, name: str | None) -> None:
        """Import what gives `name`, or for None all that gives anything of that kind."""
        if name is not None and kind in ("nodes", "loaders"):
            self.need_namespace(name.partition(".")[0])
            return
        with self._lock:
            for found in self._waiting():
                given = self._gives(found, kind)
                if name in given or (name is None and given):
                    self._load_found(found)

    def need_namespace(self, namespace: str) -> None:
        """Import all that has nodes or loaders in a namespace: only together do clashes show."""
        with self._lock:
            if namespace in self._asked:
                return
            self._asked.add(namespace)
            for found in self._givers(namespace):
                self._load_found(found)
            self.index.save()

    def _givers(self, namespace: str) -> list[Found]:
        waiting = self._waiting()
        givers = [f for f in waiting if namespace in self._namespaces(f)]
        if givers or any(id.partition(".")[0] == namespace for id in self.registry.ids()):
            return givers
        # A plugin that never loaded may be the one; a failing graph can wait for another try.
        return [f for f in waiting if f.key in self.broken and not self.broken[f.key].nodes]

    def need_all(self) -> None:
        """Import every plugin."""
        with self._lock:
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
        with self._lock:
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
            if entry is None or (entry.error and strict()):
                self._load_found(found)
            elif entry.error:
                nodes = tuple(entry.gives.get("nodes", ()))
                self.broken[found.key] = BrokenPlugin(
                    found.name, found.package, found.version, entry.error, entry.traceback, nodes
                )
        self.index.save()

    def load_file(self, path: Path, *, must_load: bool = False) -> None:
        """Load a one-file plugin.

        Raises: UserError: if there is no such file, or two have one name.
        Raises: PluginError: if it must load and is broken.
        """
        if not path.is_file():
            raise UserError(f"there is no plugin file {str(path)!r}")
        if self._files.setdefault(path.name, path.resolve()) != path.resolve():
            raise UserError(f"two plugin files are named {path.name!r}; rename one of them")
        # The bytes that are hashed are those that are compiled: what the content keys say is what runs.
        source = path.read_bytes()
        digest = hashlib.sha256(source).hexdigest()
        given = Provenance(path.name, module=f"mezzotint_file_{path.stem}", digest=digest)
        self._load(path.name, given, lambda: _execute(source, path, given.module), must_load=must_load)

    def load_module(self, name: str) -> None:
        """Load a plugin named in MEZZOTINT_PLUGINS."""
        found = next((f for f in self.found if f.module == name), None)
        if found is not None:
            self._load_found(found)
        elif name not in self._tried:
            self._load(name, Provenance(name, module=name), lambda: importlib.import_module(name))

    def load_object(self, plugin: Any, *, must_load: bool = False) -> None:
        """Load a module or any object with hooks. Raises: PluginError: if it must load and is broken."""
        name = getattr(plugin, "__name__", None) or type(plugin).__name__
        found = next((f for f in self.found if isinstance(plugin, ModuleType) and f.module == name), None)
        if found is not None:
            self._load_found(found)
        else:
            module = name if isinstance(plugin, ModuleType) else type(plugin).__module__
            self._load(name, Provenance(name, module=module), lambda: plugin, must_load=must_load)

    def _load_found(self, found: Found) -> None:
        given = Provenance(found.package, found.version, found.module)
        if self._load(found.key, given, lambda: _imported(found), found):
            self.index.put(found, _gives(self.loaded[found.key], self.hook_names(found.key)))
        elif found.key in self.broken:
            broken = self.broken[found.key]
            self.index.put(found, None, broken.error, broken.traceback)

    def _load(
        self,
        key: str,
        given: Provenance,
        get: Callable[[], Any],
        found: Found | None = None,
        must_load: bool = False,
    ) -> bool:
        """Whether the plugin is loaded now and was not before. All that goes wrong in it ends here."""
        if key in self._tried:
            return False
        self._tried.add(key)
        try:
            # A plugin that prints while it is imported must not end up in JSON on stdout.
            with contextlib.redirect_stdout(sys.stderr):
                contribution = self._collect(key, given, get)
            messages = self.registry.add(contribution)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if self.manager.has_plugin(key):
                self.manager.unregister(name=key)
            self._note_broken(key, given, error, found, must_load or strict())
            return False
        self.loaded[key] = contribution
        self.broken.pop(key, None)
        for message in messages:
            self.clashing[key] = message
            if strict():
                raise PluginError(message)
            warn(message)
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
        callers = {n: c for n, c in self.manager.hook.__dict__.items() if not n.startswith("_")}
        known = [n for n, c in callers.items() if c.has_spec()]
        for hook in callers:
            for impl in self._impls_of(hook, key):
                if hook not in known and not impl.optionalhook:
                    nearest = did_you_mean(hook, known)
                    advice = f"; did you mean {nearest!r}?" if nearest else ""
                    raise PluginError(f"{given} implements an unknown hook {hook!r}{advice}")
                if impl.wrapper or impl.hookwrapper:
                    raise PluginError(f"{given}: hook {hook!r} cannot be wrapped")

    def _impls_of(self, hook: str, key: str) -> list[Any]:
        caller = getattr(self.manager.hook, hook)
        return [impl for impl in caller.get_hookimpls() if impl.plugin_name == key]

    def _note_broken(
        self, key: str, given: Provenance, error: BaseException, found: Found | None, fatal: bool
    ) -> None:
        entry = self.index.entries.get(found.key) if found else None
        nodes = tuple(entry.gives.get("nodes", ())) if entry else ()
        import traceback  # rarely needed

        trace = "".join(traceback.format_exception(error))
        name = found.name if found else key
        broken = BrokenPlugin(name, given.package, given.version, _reason(error), trace, nodes)
        self.broken[key] = broken
        message = f"plugin {broken.described()} failed to load: {broken.error}"
        if fatal:
            raise PluginError(message) from error
        if not (entry and entry.error == broken.error):  # told when it broke; from then on in the listing
            warn(message)

    # --- what the index knows ---

    def _waiting(self) -> list[Found]:
        return [f for f in self.found if f.key not in self._tried]

    def _gives(self, found: Found, kind: str) -> list[str]:
        entry = self.index.entries.get(found.key)
        return entry.gives.get(kind, []) if entry else []

    def _namespaces(self, found: Found) -> set[str]:
        names = self._gives(found, "nodes") + self._gives(found, "loaders")
        return {name.partition(".")[0] for name in names}

    def hook_names(self, key: str) -> list[str]:
        """The hooks that a loaded plugin implements."""
        return [h for h in (*OBSERVERS, "resolve_source", *_REGISTER) if self._impls_of(h, key)]


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
    return {
        "nodes": sorted(contribution.nodes),
        "types": sorted(contribution.types),
        "ports": sorted(contribution.ports),
        "writers": sorted(type_name(cls) for cls in contribution.writers),
        "loaders": sorted(contribution.loaders),
        "samplers": sorted(contribution.samplers),
        "interpreters": sorted(contribution.interpreters),
        "hooks": hooks,
    }
