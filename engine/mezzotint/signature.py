"""From a Python signature to ports and parameters: what a node takes and gives, read from its annotations."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from mezzotint.errors import PluginError
from mezzotint.values import Port, Source

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MISSING",
    "EdgeType",
    "InputSpec",
    "OutputSpec",
    "Registered",
    "edge_type",
    "read_inputs",
    "read_outputs",
]


class _Missing:
    """Marks an input without a default: None is a value."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()

_SCALARS = {int: "integer", float: "number", str: "string", bool: "boolean", dict: "object", Any: "any"}


@dataclass(frozen=True)
class EdgeType:
    """What may travel along an edge.

    name: a port's name, "list", or a JSON word ("integer", "number", "string", "boolean", "object", "any", "file",
    "source"). item: of a list. optional: None is accepted.
    """

    name: str
    port: type[Port] | None = None
    item: EdgeType | None = None
    optional: bool = False

    def __str__(self) -> str:
        text = f"list of {self.item}" if self.item else self.name
        return f"{text} or null" if self.optional else text

    def accepts(self, other: EdgeType) -> bool:
        """Whether a value of type `other` may be given here, as far as types alone can tell."""
        if "any" in (self.name, other.name):
            return True
        if other.optional and not self.optional:
            return False
        if self.port is not None:
            return other.port is not None and issubclass(other.port, self.port)
        if self.item is not None:
            return other.item is not None and self.item.accepts(other.item)
        same = {
            "number": {"number", "integer"},
            "file": {"file", "string"},
            "source": {"source", "string", "file"},
        }
        return other.port is None and other.name in same.get(self.name, {self.name})

    def holds(self, value: Any) -> bool:
        """Whether a value that a node returned is of this type."""
        if value is None or self.name == "any":
            return self.optional or self.name == "any"
        if self.port is not None:
            return isinstance(value, self.port)
        if self.item is not None:
            return isinstance(value, (list, tuple)) and all(self.item.holds(part) for part in value)
        return isinstance(value, _KINDS[self.name]) and isinstance(value, bool) == (self.name == "boolean")


_KINDS: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (float, int),
    "string": (str,),
    "boolean": (bool,),
    "object": (Mapping,),
    "file": (Path,),
    "source": (Source,),
}


@dataclass(frozen=True)
class Registered:
    """Marks a string that names what plugins register: `sampler: Annotated[str, Registered("samplers")]`.

    The step's content key then depends on the plugin that registered it, too.
    """

    table: Literal["samplers", "loaders"]


@dataclass(frozen=True)
class InputSpec:
    """One input of a node. `annotation` is what pydantic checks literals against."""

    name: str
    type: EdgeType
    annotation: Any
    default: Any = MISSING
    description: str = ""

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @cached_property
    def registered(self) -> Registered | None:
        """Which table of the registry the input's words come from, if any."""
        found = [m for m in getattr(self.annotation, "__metadata__", ()) if isinstance(m, Registered)]
        return found[0] if found else None

    @cached_property
    def adapter(self) -> Any:
        """The pydantic adapter for literals; built when first needed, since each costs about a millisecond."""
        from pydantic import TypeAdapter

        literal = str if self.type.name in ("file", "source") else self.annotation
        if self.type.optional and literal is str:
            literal = str | None
        return TypeAdapter(literal)

    @cached_property
    def canonical_default(self) -> Any:
        """The default as it would be were it written in a graph; as it stands where it breaks its own rules."""
        from pydantic import ValidationError

        if self.default is None or isinstance(self.default, Path) or self.holds_ports or self.holds_files:
            return list(self.default) if isinstance(self.default, tuple) else self.default
        try:
            checked = self.adapter.validate_python(self.default)
            return self.adapter.dump_python(checked, mode="json")
        except ValidationError:
            return list(self.default) if isinstance(self.default, tuple) else self.default

    @cached_property
    def holds_ports(self) -> bool:
        """Whether the input takes ports, so that no literal but null and lists can be given."""
        return self._innermost.port is not None

    @cached_property
    def holds_files(self) -> bool:
        """Whether the input takes files or sources, alone or in lists."""
        return self._innermost.name in ("file", "source")

    @cached_property
    def is_tuple(self) -> bool:
        """Whether the function asks for a tuple where a graph has a list."""
        found = self.annotation
        while get_origin(found) in (Annotated, typing.Union, types.UnionType):
            found = next(a for a in get_args(found) if a is not type(None))
        return get_origin(found) is tuple

    @property
    def _innermost(self) -> EdgeType:
        inner = self.type
        while inner.item is not None:
            inner = inner.item
        return inner

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of literals for this input; ports can only be linked."""
        if self.holds_ports:
            return {}
        schema: dict[str, Any] = self.adapter.json_schema()
        if self.type.name == "file":
            schema["format"] = "path"
        if not self.required:
            schema["default"] = str(self.default) if isinstance(self.default, Path) else self.default
        if self.description:
            schema["description"] = self.description
        return schema


@dataclass(frozen=True)
class OutputSpec:
    """One output of a node."""

    name: str
    type: EdgeType
    description: str = ""


def edge_type(annotation: Any, where: str) -> EdgeType:
    """The edge type of an annotation.

    Raises: PluginError: if no edge can carry it.
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        return edge_type(get_args(annotation)[0], where)
    if origin in (typing.Union, types.UnionType):
        return _union(get_args(annotation), where)
    if origin is Literal:
        kinds = {_SCALARS.get(type(a), "any") for a in get_args(annotation)}
        return EdgeType(kinds.pop() if len(kinds) == 1 else "any")
    if origin in (list, tuple):
        items = [a for a in get_args(annotation) if a is not Ellipsis]
        inner = {edge_type(a, where) for a in items}
        return EdgeType("list", item=inner.pop() if len(inner) == 1 else EdgeType("any"))
    if origin is dict or (origin is not None and isinstance(origin, type) and issubclass(origin, typing.Mapping)):
        _refuse_files(annotation, where, "an object")
        return EdgeType("object")
    if annotation is list:
        return EdgeType("list", item=EdgeType("any"))
    if isinstance(annotation, type):
        if issubclass(annotation, Port):
            return EdgeType(annotation.port_name, port=annotation)
        if issubclass(annotation, Source):
            return EdgeType("source")
        if issubclass(annotation, Path):
            return EdgeType("file")
    if annotation in _SCALARS:
        return EdgeType(_SCALARS[annotation])
    raise PluginError(f"{where}: no edge can carry {annotation!r}; use a port type, a JSON type, Path or Source")


def _union(members: tuple[Any, ...], where: str) -> EdgeType:
    kinds = [edge_type(m, where) for m in members if m is not type(None)]
    optional = type(None) in members
    if len(kinds) == 1:
        return EdgeType(kinds[0].name, kinds[0].port, kinds[0].item, optional)
    if any(k.port is not None for k in kinds):
        raise PluginError(f"{where}: a union of ports is not supported; make two inputs or a common port")
    for member in members:
        _refuse_files(member, where, "a union")
    return EdgeType("any", optional=optional)


def _refuse_files(annotation: Any, where: str, inside: str) -> None:
    # Nobody would know which of the strings are paths, and so look where they lead and what is in them.
    if isinstance(annotation, type) and issubclass(annotation, (Path, Source)):
        raise PluginError(f"{where}: a file inside {inside} is not supported; make it an input, or a list")
    for argument in get_args(annotation):
        _refuse_files(argument, where, inside)


def read_hints(fn: Callable[..., Any], where: str) -> dict[str, Any]:
    """Resolved annotations of a node function.

    Raises: PluginError: if a name in them cannot be found when the plugin is imported.
    """
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except NameError as error:
        advice = "import it outside `if TYPE_CHECKING`, the engine reads it"
        raise PluginError(f"{where}: {error}; {advice}") from error


def read_inputs(fn: Callable[..., Any], hints: dict[str, Any], where: str) -> tuple[bool, tuple[InputSpec, ...]]:
    """Whether the function wants a context first, and its inputs in order."""
    docs = described(fn.__doc__ or "")
    specs = []
    parameters = list(inspect.signature(fn).parameters.values())
    wants_context = bool(parameters) and parameters[0].name == "ctx"
    for parameter in parameters[wants_context:]:
        name = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise PluginError(f"{where}: parameter '*{name}' cannot be a port; use a list")
        if name not in hints:
            raise PluginError(f"{where}: parameter {name!r} has no annotation")
        default = MISSING if parameter.default is parameter.empty else parameter.default
        kind = edge_type(hints[name], f"{where}, parameter {name!r}")
        specs.append(InputSpec(name, kind, hints[name], default, docs.get(name, "")))
    return wants_context, tuple(specs)


def read_outputs(fn: Callable[..., Any], hints: dict[str, Any], where: str) -> tuple[bool, tuple[OutputSpec, ...]]:
    """Whether the function returns a NamedTuple of outputs, and its outputs in order."""
    returned = hints.get("return", MISSING)
    if returned in (MISSING, type(None)):
        raise PluginError(f"{where}: no return annotation; a node gives at least one value")
    docs = described(fn.__doc__ or "")
    if isinstance(returned, type) and issubclass(returned, tuple) and hasattr(returned, "_fields"):
        fields = typing.get_type_hints(returned, include_extras=True)
        docs = {**described(returned.__doc__ or ""), **docs}
        outputs = tuple(
            OutputSpec(n, edge_type(t, f"{where}, output {n!r}"), docs.get(n, "")) for n, t in fields.items()
        )
        return True, outputs
    kind = edge_type(returned, f"{where}, its return value")
    return False, (OutputSpec(_output_name(kind), kind, docs.get("returns", "")),)


def _output_name(kind: EdgeType) -> str:
    """`Image` gives "image", `TextEncoder` "text_encoder", `list[Image]` "images", JSON "value"."""
    if kind.item is not None:
        name = _output_name(kind.item)
        return name if name.endswith("s") else f"{name}s"
    if kind.port is None:
        return "value"
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.name).lower()


_DESCRIBED = re.compile(r"^(\w+(?:, \w+)*): (.*)$")


def described(doc: str) -> dict[str, str]:
    """The `name: description` lines of a docstring, continuation lines joined; `left, top: …` describes both."""
    found: dict[str, str] = {}
    current: list[str] = []
    for line in inspect.cleandoc(doc).splitlines():
        match = _DESCRIBED.match(line)
        if match:
            current = match[1].split(", ")
            found.update(dict.fromkeys(current, match[2].strip()))
        elif not line.strip():
            current = []
        else:
            found.update({name: f"{found[name]} {line.strip()}" for name in current})
    return found
