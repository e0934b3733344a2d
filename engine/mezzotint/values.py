"""What travels along a graph's edges: frozen values whose tensors load when they are first touched.

A value is a frozen dataclass. Its fields are tensors, other values, tuples, lists, dicts with string keys and JSON
scalars, and nothing else: so any value can be written to the store, sent to another process, and read back.
No torch here: a value read from the store knows its tensors' shapes and loads them on first touch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mezzotint.context import Context

__all__ = ["Patch", "Port", "Recipe", "Source", "Value"]


class StoredFields(Protocol):
    """Tensor fields of a value that still lie in the store."""

    def load(self, field: str) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """Base of everything that an edge or a recipe can carry. Subclasses are frozen dataclasses."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    def replace(self, **changes: Any) -> Self:
        """A copy with the given fields changed."""
        return dataclasses.replace(self, **changes)

    def __getattr__(self, name: str) -> Any:
        # Only reached when the field is not set: it lies in the store still.
        stored: StoredFields | None = self.__dict__.get("_stored")
        if stored is None or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        value = stored.load(name)
        self.__dict__[name] = value
        return value

    @classmethod
    def restore(cls, fields: Mapping[str, Any], stored: StoredFields | None = None) -> Self:
        """Build a value from stored fields without `__init__`; absent fields come from `stored` when touched."""
        value = object.__new__(cls)
        value.__dict__.update(fields)
        if stored is not None:
            value.__dict__["_stored"] = stored
        return value


@dataclasses.dataclass(frozen=True, eq=False)
class Port(Value):
    """A value that has a place of its own on an edge. `port_name` is its name in schemas and docs."""

    port_name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "port_name" not in cls.__dict__:
            cls.port_name = cls.__name__


@dataclasses.dataclass(frozen=True, eq=False)
class Source(Value):
    """Where weights are: the name that the user gave, the file or folder that it means, its content's digest."""

    uri: str
    path: str
    fingerprint: str


@dataclasses.dataclass(frozen=True, eq=False)
class Patch(Value):
    """A change to a model for as long as one node uses it: LoRA, an injector, guidance, a temporal layer."""

    def apply(self, model: Any, ctx: Context) -> AbstractContextManager[Any]:
        """Change `model` (or wrap it) and yield what to use in its place; on exit leave no trace.

        A patch that changes the module's own weights or layers sets `mutates = True`, so that the pool keeps
        other users of the same module away meanwhile. One that adds layers where others inject sets `innermost`.
        """
        raise NotImplementedError

    mutates: ClassVar[bool] = False
    innermost: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe(Port):
    """A model as a description: what to load, how, and which patches go on. `ctx.realise` makes it real.

    loader: the id of a registered loader, e.g. `models.unet`.
    config: what the loader needs besides the files (JSON).
    weights: numbers that came along an edge, a `Weights`, for the loader to take in place of the source's
        files. The source's fingerprint is then a digest of them: recipes with equal ones share a loaded model.
    """

    source: Source
    loader: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    patches: tuple[Patch, ...] = ()
    weights: Port | None = None

    def patched(self, *patches: Patch) -> Self:
        """The same recipe with more patches, applied in order after those it has."""
        return self.replace(patches=(*self.patches, *patches))
