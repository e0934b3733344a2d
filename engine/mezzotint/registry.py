"""What plugins have registered: nodes, values, writers, loaders, samplers, interpreters, hooks, and who gave each.

A registry can be filled by hand (`add_node`) or by a `Supply`, which imports a plugin when something of it is
asked for. No table lets one package shadow another silently: see `Registry.clashes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from mezzotint import ports as _ports
from mezzotint import values as _values
from mezzotint.codec import type_name
from mezzotint.contribution import (
    BUNDLED_NAMESPACES,
    RESERVED_NAMESPACES,
    BrokenPlugin,
    Contribution,
    Provenance,
    Writer,
)
from mezzotint.errors import PluginError
from mezzotint.observers import Hooks, first_source
from mezzotint.values import Port, Value

if TYPE_CHECKING:
    from pathlib import Path

    from mezzotint.nodes import NodeSpec
    from mezzotint.observers import HookImpl

__all__ = ["BrokenPlugin", "Contribution", "Provenance", "Registry", "Supply", "Writer"]

K = TypeVar("K")
V = TypeVar("V")


ENGINE = Provenance("mezzotint", module="mezzotint")


class Supply(Protocol):
    """Imports plugins when something of theirs is asked for."""

    def need(self, kind: str, name: str | None) -> None: ...
    def known(self, kind: str) -> frozenset[str]: ...
    def hook_impls(self, hook: str) -> list[HookImpl]: ...
    @property
    def broken(self) -> Mapping[str, BrokenPlugin]: ...


class Table(Mapping[K, V], Generic[K, V]):
    """Registered things by name. Looking one up may import the plugin that gives it; listing them imports all."""

    def __init__(self, kind: str, label: Callable[[K], str], supply: Supply | None) -> None:
        self.kind = kind
        self.label = label
        self.supply = supply
        self.held: dict[K, tuple[Provenance, V]] = {}

    def __getitem__(self, name: K) -> V:
        if self.supply is not None:
            self.supply.need(self.kind, self.label(name))
        return self.held[name][1]

    def __iter__(self) -> Iterator[K]:
        if self.supply is not None:
            self.supply.need(self.kind, None)
        return iter(sorted(self.held, key=self.label))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class TypeTable(Table[str, type[Value]]):
    """Value types by the name that they are stored under (`codec.type_name`); ports by their `port_name` too."""

    def __init__(self, ports: Table[str, type[Port]], supply: Supply | None) -> None:
        super().__init__("types", str, supply)
        self._ports = ports

    def __getitem__(self, name: str) -> type[Value]:
        return super().__getitem__(name) if "." in name else self._ports[name]


class Registry:
    """See the module's docstring. `prefer` maps a node id to the package whose node is to be used."""

    def __init__(self, supply: Supply | None = None, prefer: Mapping[str, str] | None = None) -> None:
        self.supply = supply
        self._prefer = {id: _normal(package) for id, package in (prefer or {}).items()}
        self._nodes: Table[str, dict[int, NodeSpec]] = Table("nodes", str, supply)
        self._hooks: Hooks | None = None
        self.ports: Table[str, type[Port]] = Table("ports", str, supply)
        self.types = TypeTable(self.ports, supply)
        self.writers: Table[type[Port], Writer] = Table("writers", type_name, supply)
        self.loaders: Table[str, Callable[..., Any]] = Table("loaders", str, supply)
        self.samplers: Table[str, Callable[..., Any]] = Table("samplers", str, supply)
        self.interpreters: Table[str, Callable[..., Any]] = Table("interpreters", str, supply)
        self.clashes: dict[str, str] = {}
        """What two packages both give, e.g. "node 'acme.blur'", with the message; neither one's is used."""
        for module in (_values, _ports):
            for cls in (getattr(module, name) for name in module.__all__):
                self.types.held[type_name(cls)] = (ENGINE, cls)
                if issubclass(cls, Port):
                    self.ports.held[cls.port_name] = (ENGINE, cls)

    def add_node(self, fn: Callable[..., Any], provenance: Provenance) -> None:
        """Register one decorated function.

        Raises: PluginError: if it is not a node, or its id is taken, reserved or another package's.
        """
        contribution = Contribution(provenance)
        contribution.node(fn)
        for message in self.add(contribution):
            raise PluginError(message)

    def add(self, contribution: Contribution) -> list[str]:
        """Take in all that a plugin registers; gives a message for each thing that another package gives too.

        Raises: PluginError: if it reaches into a namespace that is not its own; then nothing is taken.
        """
        self._check_namespaces(contribution)
        given = contribution.provenance
        messages = []
        for table, things in (
            (self._nodes, contribution.nodes),
            (self.types, contribution.types),
            (self.ports, contribution.ports),
            (self.writers, contribution.writers),
            (self.loaders, contribution.loaders),
            (self.samplers, contribution.samplers),
            (self.interpreters, contribution.interpreters),
        ):
            messages += [self._put(table, name, thing, given) for name, thing in things.items()]
        return [m for m in messages if m]

    def _check_namespaces(self, contribution: Contribution) -> None:
        given = contribution.provenance
        for kind, names in (("node", contribution.nodes), ("loader", contribution.loaders)):
            for name in names:
                namespace = name.partition(".")[0]
                refused = f"{given} may not register {kind} {name!r}: the namespace {namespace!r} is"
                if namespace in RESERVED_NAMESPACES:
                    raise PluginError(f"{refused} the engine's own")
                preferred = kind == "node" and self._prefer.get(name) in _names(given)
                if namespace in BUNDLED_NAMESPACES and not given.bundled and not preferred:
                    advice = f"; to replace that node write {_preference(name, given)}" if kind == "node" else ""
                    raise PluginError(f"{refused} mezzotint's{advice}")

    def _put(self, table: Table[Any, Any], name: Any, thing: Any, given: Provenance) -> str:
        what = f"{table.kind.removesuffix('s')} {table.label(name)!r}"
        held = table.held.get(name)
        if what in self.clashes:
            return self.clashes[what]
        if held is None or held[1] is thing or (held[0] == given and held[1] == thing):
            table.held[name] = (given, thing)
            return ""
        if table is self._nodes and held[0] == given and held[1].keys().isdisjoint(thing):
            held[1].update(thing)
            return ""
        preferred = self._prefer.get(name) if table is self._nodes else None
        if preferred in _names(given) and preferred not in _names(held[0]):
            table.held[name] = (given, thing)
            return ""
        if preferred in _names(held[0]):
            return ""
        message = f"{what} is provided by both {held[0]} and {given}; remove one of them"
        if table is self._nodes:
            message += f", or choose: {_preference(name, given)}"
        if given.bundled:
            table.held[name] = (given, thing)
        elif not held[0].bundled:
            del table.held[name]
            self.clashes[what] = message
        return message

    def node(self, id: str, version: int) -> NodeSpec | None:
        """The node type, or None; `plugins.explain_missing` says why."""
        return self._nodes.get(id, {}).get(version)

    def newest(self, id: str) -> NodeSpec | None:
        """The newest version of a node type."""
        versions = self._nodes.get(id)
        return versions[max(versions)] if versions else None

    def ids(self) -> list[str]:
        """The ids of all node types, sorted; imports no plugin."""
        known = self.supply.known("nodes") if self.supply is not None else frozenset()
        gone = {id for id in known if f"node {id!r}" in self.clashes}
        return sorted((known - gone) | set(self._nodes.held))

    def specs(self) -> list[NodeSpec]:
        """All node types and versions, sorted by id and version; imports every plugin."""
        return [versions[v] for versions in self._nodes.values() for v in sorted(versions)]

    def provenance(self, id: str) -> Provenance:
        """Which package a node type comes from.

        Raises: KeyError: if there is no such node.
        """
        self._nodes[id]
        return self._nodes.held[id][0]

    def digest_of(self, table: Literal["samplers", "loaders"], name: str) -> str:
        """The source digest of the plugin that registered a sampler or loader; empty where a version pins it."""
        things: Table[str, Callable[..., Any]] = getattr(self, table)
        return things.held[name][0].digest if name in things else ""

    def writer(self, port: type[Port]) -> Writer | None:
        """The writer of a port type or of the nearest type that it derives from."""
        for cls in port.__mro__:
            if issubclass(cls, Port) and cls in self.writers:
                return self.writers[cls]
        return None

    def resolve_source(self, uri: str) -> Path | None:
        """Ask the plugins for the file or folder behind `uri`; None if it is nobody's.

        Raises: PluginError: if a plugin failed at it and no other one knew. MezzotintError: as plugins raise it.
        """
        return first_source(self.supply.hook_impls("resolve_source") if self.supply is not None else [], uri)

    @property
    def hooks(self) -> Hooks:
        """The hooks that watch runs; asking for them imports the plugins that have some."""
        if self._hooks is None:
            self._hooks = Hooks(self.supply.hook_impls if self.supply is not None else lambda _: [])
        return self._hooks

    @property
    def broken(self) -> Mapping[str, BrokenPlugin]:
        """Plugins that could not be loaded, by name."""
        return self.supply.broken if self.supply is not None else {}


def _normal(package: str) -> str:
    return package.lower().replace("_", "-").replace(".", "-")


def _names(given: Provenance) -> set[str]:
    return {_normal(given.package), _normal(given.package.removesuffix(".py"))}


def _preference(id: str, given: Provenance) -> str:
    return f'prefer = {{"{id}" = "{given.package}"}} in the configuration file'
