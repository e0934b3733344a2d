"""The `@node` decorator: a plain function becomes a node, and stays a plain function."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from mezzotint.errors import PluginError
from mezzotint.signature import InputSpec, OutputSpec, read_hints, read_inputs, read_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["NodeSpec", "node", "spec_of"]

F = TypeVar("F", bound="Callable[..., Any]")

_ID = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")


@dataclass(frozen=True, eq=False)
class NodeSpec:
    """All that the engine knows of a node type. Made by `@node` from the function's signature and docstring."""

    id: str
    version: int
    fn: Callable[..., Any]
    inputs: Mapping[str, InputSpec]
    outputs: Mapping[str, OutputSpec]
    wants_context: bool
    named_outputs: bool
    cacheable: bool = True
    device: bool = False
    transient: tuple[type[BaseException], ...] = ()
    timeout: float | None = None
    upgrades: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=dict)

    @property
    def use(self) -> str:
        """The name in a graph file: `namespace.name@version`."""
        return f"{self.id}@{self.version}"

    @cached_property
    def doc(self) -> str:
        return inspect.cleandoc(self.fn.__doc__ or "")

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    def call(self, ctx: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the function and give its outputs by name.

        Raises: PluginError: if it returns something else than it declares.
        """
        returned = self.fn(ctx, **inputs) if self.wants_context else self.fn(**inputs)
        if not self.named_outputs:
            (only,) = self.outputs
            return self._checked({only: returned})
        if not (isinstance(returned, tuple) and getattr(returned, "_fields", ()) == tuple(self.outputs)):
            got, wanted = type(returned).__name__, ", ".join(self.outputs)
            raise PluginError(f"node {self.id!r} returned {got}, wanted a NamedTuple of {wanted}")
        return self._checked(dict(zip(self.outputs, returned, strict=True)))

    def _checked(self, outputs: dict[str, Any]) -> dict[str, Any]:
        for name, value in outputs.items():
            wanted = self.outputs[name].type
            if not wanted.holds(value):
                got = type(value).__name__
                raise PluginError(f"node {self.id!r} returned {got} for output {name!r}, wanted {wanted}")
        return outputs


def node(
    id: str,
    version: int = 1,
    *,
    cacheable: bool = True,
    device: bool = False,
    transient: tuple[type[BaseException], ...] = (),
    timeout: float | None = None,
    upgrades: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
) -> Callable[[F], F]:
    """Make a function a node.

    id: `namespace.name`. version: raise it when the same inputs give another result.
    cacheable: False where the answer is not a function of the inputs; the docstring says why.
    device: True if it computes on the device; such nodes take turns on one device.
    transient: exceptions after which another try makes sense. timeout: seconds, unless the caller says otherwise.
    upgrades: for each older version a function from that version's JSON inputs to the next version's.

    Raises: PluginError: at definition, if the signature cannot be read as ports and parameters.
    """

    def mark(fn: F) -> F:
        where = f"node {id!r}"
        if not _ID.match(id):
            raise PluginError(f"{where}: an id is namespace.name, of lower-case letters, digits and _")
        if not isinstance(version, int) or version < 1:
            raise PluginError(f"{where}: version must be an integer from 1, got {version!r}")
        hints = read_hints(fn, where)
        wants_context, inputs = read_inputs(fn, hints, where)
        named, outputs = read_outputs(fn, hints, where)
        spec = NodeSpec(
            id=id, version=version, fn=fn, wants_context=wants_context, named_outputs=named,
            inputs={i.name: i for i in inputs}, outputs={o.name: o for o in outputs},
            cacheable=cacheable, device=device, transient=transient, timeout=timeout,
            upgrades=dict(upgrades or {}),
        )  # fmt: skip
        fn.__mezzotint_node__ = spec  # type: ignore[attr-defined]
        return fn

    return mark


def spec_of(fn: Callable[..., Any]) -> NodeSpec:
    """The spec of a decorated function.

    Raises: PluginError: if it is not a node.
    """
    spec = getattr(fn, "__mezzotint_node__", None)
    if not isinstance(spec, NodeSpec):
        raise PluginError(f"{getattr(fn, '__name__', fn)!r} is not a node: decorate it with @node")
    return spec
