"""Values as JSON and tensors, and back: the form in which they lie in the store and go to other processes.

The JSON half holds all but the numbers of tensors, of which it knows dtype and shape. Reading is lazy: a field
that holds tensors is loaded when it is first touched, so a value can be looked at without importing torch.
Classes are looked up by name in a table that the caller gives; nothing is imported and no code runs because of
what is read.

A tensor comes back with the bits, dtype, shape and, where its memory has no gaps, the strides that it had, in
memory as aligned as any fresh tensor's: kernels choose their arithmetic by layout, so a cached value gives the
same results as a fresh one. Device, gradient and sharing of memory are not kept.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from mezzotint.errors import PluginError, StoreError
from mezzotint.values import Value

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "STORED_DTYPES",
    "Encoded",
    "LoadedTypes",
    "TensorInfo",
    "TensorReader",
    "decode",
    "encode",
    "peek",
    "raw_bytes",
    "type_name",
    "type_table",
]

_MAX_DEPTH = 100
# Beyond this Python itself refuses to read an integer back from decimal digits.
_MAX_INT_BITS = 4300 * 3
# What safetensors has a name for, and complex128 as pairs of float64.
STORED_DTYPES = frozenset(
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64 complex128 "
    "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz".split()
)
_MARKS = frozenset({"$tensor", "$tuple", "$dict", "$value", "$float", "$bytes"})


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A value taken apart. meta: strict JSON. tensors: by the names that `meta` uses, in C order, on the CPU."""

    meta: Any
    tensors: Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """What is known of a stored tensor before it is loaded. dtype: torch's name, e.g. "float32"."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None


class TensorReader(Protocol):
    """Where the tensors of a decoded value come from."""

    def read(self, name: str) -> Tensor:
        """The tensor that `Encoded.tensors` held under `name`, in memory of its own."""
        ...

    def raw(self, name: str) -> bytes:
        """The bytes of that tensor, little-endian, without importing torch."""
        ...


def type_name(cls: type[Value]) -> str:
    """The name under which values of a class are stored."""
    return f"{cls.__module__}.{cls.__qualname__}"


def type_table(*classes: type[Value]) -> dict[str, type[Value]]:
    """A table for `decode` with the given classes."""
    return {type_name(cls): cls for cls in classes}


class LoadedTypes(Mapping[str, type[Value]]):
    """All value classes that are defined in this process now, by `type_name`; it grows as plugins are loaded."""

    def __init__(self) -> None:
        self._found: dict[str, type[Value]] = {}

    def __getitem__(self, name: str) -> type[Value]:
        if name not in self._found:
            self._found = {type_name(cls): cls for cls in _subclasses(Value)}
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter([type_name(cls) for cls in _subclasses(Value)])

    def __len__(self) -> int:
        return sum(1 for _ in _subclasses(Value))


def _subclasses(cls: type[Value]) -> Iterator[type[Value]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


# --- taking apart ---


def encode(value: Any, types: Mapping[str, type[Value]] | None = None) -> Encoded:
    """Take `value` apart. With `types`, classes that could not be read back are refused.

    Raises: PluginError: some part of it is nothing that an edge can carry; the message names the part.
    """
    encoder = _Encoder(types)
    meta = encoder.visit(value, "value", 0)
    return Encoded(meta, encoder.tensors)


class _Encoder:
    def __init__(self, types: Mapping[str, type[Value]] | None) -> None:
        self.types = types
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, dict[str, Any]] = {}

    def visit(self, value: Any, where: str, depth: int) -> Any:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            return self._integer(value, where)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
        if depth > _MAX_DEPTH:
            raise PluginError(f"{where}: nested more than {_MAX_DEPTH} deep, or it contains itself")
        if kind is list:
            return [self.visit(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
        if kind is dict or kind is MappingProxyType:
            return self._mapping(value, where, depth)
        return self._other(value, where, depth)

    def _other(self, value: Any, where: str, depth: int) -> Any:
        if isinstance(value, Value):
            return self._value(value, where, depth)
        torch = _imported_torch()
        if torch is not None and isinstance(value, torch.Tensor):
            return self._tensor(value, where)
        if type(value) is tuple or (torch is not None and isinstance(value, torch.Size)):
            return {"$tuple": [self.visit(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]}
        if isinstance(value, bytes):
            return {"$bytes": base64.b64encode(value).decode("ascii")}
        if isinstance(value, Mapping):
            return self._mapping(value, where, depth)
        raise PluginError(
            f"{where}: an edge cannot carry a {type(value).__module__}.{type(value).__qualname__}; "
            f"it can carry values (mezzotint.Value), tensors, tuples, lists, dicts with string keys, strings, "
            f"numbers, booleans and None"
        )

    @staticmethod
    def _integer(value: int, where: str) -> int:
        if value.bit_length() > _MAX_INT_BITS:
            raise PluginError(f"{where}: an integer of {value.bit_length()} bits; at most {_MAX_INT_BITS} fit")
        return value

    def _mapping(self, value: Mapping[Any, Any], where: str, depth: int) -> Any:
        fields: dict[str, Any] = {}
        for key, item in value.items():
            if type(key) is not str:
                raise PluginError(f"{where}: keys must be strings, got {key!r} ({type(key).__qualname__})")
            fields[key] = self.visit(item, f"{where}[{key!r}]", depth + 1)
        # One of ours, or like one of ours: wrapped, so that reading can tell.
        return {"$dict": fields} if not _MARKS.isdisjoint(fields) else fields

    def _value(self, value: Value, where: str, depth: int) -> Any:
        cls = type(value)
        name = type_name(cls)
        if self.types is not None and self.types.get(name) is not cls:
            raise PluginError(f"{where}: the value class {name} is not registered, so it could not be read back")
        if not dataclasses.is_dataclass(cls) or "__dataclass_params__" not in cls.__dict__:
            raise PluginError(f"{where}: {name} must be decorated with @dataclass(frozen=True, eq=False)")
        fields = {
            field.name: self.visit(getattr(value, field.name), f"{where}.{field.name}", depth + 1)
            for field in dataclasses.fields(cls)
        }
        return {"$value": name, "fields": fields}

    def _tensor(self, tensor: Tensor, where: str) -> dict[str, Any]:
        known = self._names.get(id(tensor))
        if known is not None:
            return known
        name = str(len(self.tensors))
        dense, strides = _dense(tensor, where)
        mark: dict[str, Any] = {"$tensor": name, "dtype": str(tensor.dtype).removeprefix("torch.")}
        mark["shape"] = list(tensor.shape)
        if strides is not None:
            mark["strides"] = list(strides)
        self.tensors[name] = dense
        self._names[id(tensor)] = mark
        return mark


def _dense(tensor: Tensor, where: str) -> tuple[Tensor, tuple[int, ...] | None]:
    """The tensor on the CPU without gaps; and its strides, if they are not those of C order."""
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        got = f"{tensor.layout} on {tensor.device}"
        raise PluginError(f"{where}: only dense tensors with data can be stored, got {got}")
    if str(tensor.dtype).removeprefix("torch.") not in STORED_DTYPES:
        raise PluginError(f"{where}: tensors of {tensor.dtype} cannot be stored")
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    if plain.dtype == torch.complex128:  # safetensors has no name for it
        plain, strides = torch.view_as_real(plain.contiguous()), None
    elif plain.is_contiguous():
        strides = plain.stride() if plain.stride() != _c_strides(plain.shape) else None
    elif _fills_its_memory(plain):
        strides = plain.stride()
    else:
        plain, strides = plain.contiguous(), None
    if strides is not None:
        plain = plain.as_strided((plain.numel(),), (1,))
    return plain, tuple(strides) if strides is not None else None


def _c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _fills_its_memory(tensor: Tensor) -> bool:
    """Whether the elements lie next to each other without overlap, in whatever order."""
    step = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1):
        if stride != step:
            return False
        step *= size
    return True


# --- putting together ---


def decode(meta: Any, tensors: TensorReader, types: Mapping[str, type[Value]], *, lazy: bool = True) -> Any:
    """Put together what `encode` took apart.

    lazy: fields of values that hold tensors are read when they are first touched, not now.

    Raises: StoreError: a class that `types` lacks or whose fields have changed, or `meta` is not from `encode`.
    """
    try:
        return _Decoder(tensors, types, lazy).visit(meta)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StoreError(f"the stored value is malformed: {type(error).__name__}: {error}") from error


class _Decoder:
    def __init__(self, tensors: TensorReader, types: Mapping[str, type[Value]], lazy: bool) -> None:
        self.tensors = tensors
        self.types = types
        self.lazy = lazy

    def visit(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.visit(item) for item in node]
        if not isinstance(node, dict):
            return node
        if _MARKS.isdisjoint(node):
            return {key: self.visit(item) for key, item in node.items()}
        return self._marked(node)

    def _marked(self, node: dict[str, Any]) -> Any:
        if "$value" in node:
            return self._value(node["$value"], node["fields"])
        if "$tensor" in node:
            return self._tensor(node)
        if "$tuple" in node:
            return tuple([self.visit(item) for item in node["$tuple"]])
        if "$dict" in node:
            return {key: self.visit(item) for key, item in node["$dict"].items()}
        if "$bytes" in node:
            return base64.b64decode(node["$bytes"], validate=True)
        return float(node["$float"])

    def _value(self, name: str, nodes: dict[str, Any]) -> Value:
        cls = self.types.get(name)
        if cls is None:
            raise StoreError(f"no class is registered for stored values of type {name!r}; is a plugin missing?")
        known = _prepared_fields(cls)
        if unknown := sorted(nodes.keys() - known):
            lacks = f"have fields that the class lacks: {', '.join(unknown)}"
            raise StoreError(f"stored values of type {name!r} {lacks}")
        now: dict[str, Any] = {}
        later: dict[str, Any] = {}
        for field, node in nodes.items():
            if self.lazy and _has_tensors(node):
                later[field] = node
            else:
                now[field] = self.visit(node)
        for field in known - nodes.keys():
            now[field] = _default(cls, field)
        return cls.restore(now, _Stored(self, later) if later else None)

    def _tensor(self, node: dict[str, Any]) -> Tensor:
        import torch

        info = _info(node)
        tensor = self.tensors.read(info.name)
        if info.dtype == "complex128":
            return torch.view_as_complex(tensor)
        if info.strides is not None:
            return tensor.as_strided(info.shape, info.strides)
        return tensor


class _Stored:
    """The fields of one value that still lie in the store; given to `Value.restore`."""

    def __init__(self, decoder: _Decoder, nodes: dict[str, Any]) -> None:
        self.decoder = decoder
        self.nodes = nodes

    def load(self, field: str) -> Any:
        if field not in self.nodes:
            raise AttributeError(f"no stored field {field!r}")
        return self.decoder.visit(self.nodes[field])


class _LazyDefault:
    """Stands for a field's default in its class, which would else hide that the field lies in the store."""

    def __init__(self, name: str, default: Any) -> None:
        self.name = name
        self.default = default

    def __get__(self, value: Value | None, cls: type) -> Any:
        stored = None if value is None else value.__dict__.get("_stored")
        if not isinstance(stored, _Stored) or self.name not in stored.nodes:
            return self.default
        loaded = stored.load(self.name)
        value.__dict__[self.name] = loaded
        return loaded


def _prepared_fields(cls: type[Value]) -> frozenset[str]:
    """The names of the class's fields, with their class-level defaults made lazy."""
    found = cls.__dict__.get("_stored_fields")
    if found is not None:
        return found  # type: ignore[no-any-return]
    if not issubclass(cls, Value) or not dataclasses.is_dataclass(cls):
        raise StoreError(f"{type_name(cls)} is not a value class: a dataclass that derives from mezzotint.Value")
    fields = dataclasses.fields(cls)
    for field in fields:
        default = getattr(cls, field.name, dataclasses.MISSING)
        if default is not dataclasses.MISSING:
            setattr(cls, field.name, _LazyDefault(field.name, default))
    names = frozenset(field.name for field in fields)
    cls._stored_fields = names  # type: ignore[attr-defined]
    return names


def _default(cls: type[Value], name: str) -> Any:
    """What a field that was added since has in values stored before it."""
    field = cls.__dataclass_fields__[name]
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise StoreError(f"stored values of type {type_name(cls)!r} lack the field {name!r}")


def _has_tensors(node: Any) -> bool:
    """Whether visiting the node would load a tensor. Values inside load their own later."""
    if isinstance(node, list):
        return any(_has_tensors(item) for item in node)
    if not isinstance(node, dict) or "$value" in node:
        return False
    return "$tensor" in node or any(_has_tensors(item) for item in node.values())


def _info(node: Mapping[str, Any]) -> TensorInfo:
    strides = node.get("strides")
    return TensorInfo(
        node["$tensor"], node["dtype"], tuple(node["shape"]), None if strides is None else tuple(strides)
    )


def _imported_torch() -> Any:
    """torch as far as it is imported: None before tensors can exist.

    Asked for each value anew: another thread may be just importing it, and so may a field that is
    touched for the first time.
    """
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "Tensor") and hasattr(torch, "Size") else None


# --- looking without torch ---


def peek(value: Value, field: str) -> TensorInfo | None:
    """Dtype and shape of a tensor field, without loading it; None if the field holds no tensor of its own."""
    stored = value.__dict__.get("_stored")
    if field not in value.__dict__ and isinstance(stored, _Stored):
        node = stored.nodes.get(field)
        return _info(node) if isinstance(node, dict) and "$tensor" in node else None
    tensor = getattr(value, field)
    if not hasattr(tensor, "dtype") or not hasattr(tensor, "stride"):
        return None
    return TensorInfo("", str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def raw_bytes(value: Value, field: str) -> tuple[TensorInfo, bytes] | None:
    """The numbers of a stored tensor field that was not touched yet, read without importing torch.

    They are in C order, unless `strides` of the returned description says otherwise (in elements, without gaps).
    None: the field was loaded already, or holds no tensor of its own.
    """
    stored = value.__dict__.get("_stored")
    info = peek(value, field)
    if info is None or field in value.__dict__ or not isinstance(stored, _Stored):
        return None
    return info, stored.decoder.tensors.raw(info.name)
