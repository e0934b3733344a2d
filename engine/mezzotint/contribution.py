"""What one plugin gives, collected and checked before any of it counts, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mezzotint.codec import type_name
from mezzotint.errors import PluginError
from mezzotint.nodes import NodeSpec, spec_of
from mezzotint.values import Port, Value

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BUNDLED_NAMESPACES",
    "RESERVED_NAMESPACES",
    "BrokenPlugin",
    "Contribution",
    "Provenance",
    "Writer",
]

BUNDLED_NAMESPACES = frozenset(
    "attention dialogue families image metrics models sampling smallworld training unclip video".split()
)
RESERVED_NAMESPACES = frozenset(("flow", "graph", "inputs"))


@dataclass(frozen=True)
class Provenance:
    """Where something registered comes from.

    package: the distribution's name (a file's name for a one-file plugin). digest: sha256 over the source where no
    version pins it (one-file and editable plugins), else empty; it is part of the content keys.
    """

    package: str
    version: str = ""
    module: str = ""
    digest: str = ""

    @property
    def bundled(self) -> bool:
        return self.package == "mezzotint"

    def __str__(self) -> str:
        return f"{self.package} {self.version}".rstrip()


@dataclass(frozen=True)
class Writer:
    """How the runner writes an output: `fn(value, info) -> list[bytes]`."""

    suffix: str
    media_type: str
    fn: Callable[..., list[bytes]]


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be loaded. nodes: the ids that it gave when it last loaded."""

    name: str
    package: str
    version: str
    error: str
    traceback: str = ""
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.package} {self.version}".rstrip()

    def described(self) -> str:
        """Its own name too, where the package has another one."""
        return str(self) if self.name == self.package else f"{self.name!r} of {self}"


@dataclass
class Contribution:
    """All that one plugin registers, collected before any of it counts."""

    provenance: Provenance
    nodes: dict[str, dict[int, NodeSpec]] = field(default_factory=dict)
    types: dict[str, type[Value]] = field(default_factory=dict)
    ports: dict[str, type[Port]] = field(default_factory=dict)
    writers: dict[type[Port], Writer] = field(default_factory=dict)
    loaders: dict[str, Callable[..., Any]] = field(default_factory=dict)
    samplers: dict[str, Callable[..., Any]] = field(default_factory=dict)
    interpreters: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def node(self, fn: Callable[..., Any]) -> None:
        """Raises: PluginError: if `fn` is not a node, or its id and version were given before."""
        spec = spec_of(fn)
        versions = self.nodes.setdefault(spec.id, {})
        if versions.get(spec.version, spec) is not spec:
            raise PluginError(f"node {spec.use!r} is registered twice")
        versions[spec.version] = spec

    def port(
        self, cls: Any, *, suffix: str = "", media_type: str = "application/octet-stream", writer: Any = None
    ) -> None:
        """Raises: PluginError: if `cls` is not a value type, or a writer is given for what is no port."""
        if not (isinstance(cls, type) and issubclass(cls, Value)):
            raise PluginError(f"register_ports: wanted a class derived from Port or Value, got {cls!r}")
        self.types[type_name(cls)] = cls
        if issubclass(cls, Port):
            self.ports[cls.port_name] = cls
        if writer is None:
            return
        if not issubclass(cls, Port) or not callable(writer) or not suffix:
            raise PluginError(f"register_ports: {cls.__name__}: a writer is a function for a Port, with a suffix")
        self.writers[cls] = Writer(suffix.removeprefix("."), media_type, writer)

    def loader(self, name: str, fn: Callable[..., Any]) -> None:
        """Raises: PluginError: if the name has no namespace, was given before, or `fn` is not a function."""
        if not (isinstance(name, str) and "." in name):
            raise PluginError(f"register_loaders: a loader's name is 'namespace.name', got {name!r}")
        self._function(self.loaders, "loader", name, fn)

    def sampler(self, name: str, fn: Callable[..., Any]) -> None:
        """Raises: PluginError: if the name is no string, was given before, or `fn` is not a function."""
        if not (isinstance(name, str) and name):
            raise PluginError(f"register_samplers: a sampler's name is a string, got {name!r}")
        self._function(self.samplers, "sampler", name, fn)

    def interpreter(self, name: str, fn: Callable[..., Any]) -> None:
        """Raises: PluginError: if the name is no string, was given before, or `fn` is not a function."""
        if not (isinstance(name, str) and name):
            raise PluginError(f"register_interpreters: an interpreter's name is a string, got {name!r}")
        self._function(self.interpreters, "interpreter", name, fn)

    @staticmethod
    def _function(table: dict[str, Callable[..., Any]], kind: str, name: str, fn: Any) -> None:
        if not callable(fn):
            raise PluginError(f"register_{kind}s: {kind} {name!r} must be a function, got {fn!r}")
        if name in table:
            raise PluginError(f"{kind} {name!r} is registered twice")
        table[name] = fn
