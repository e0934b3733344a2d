"""The hooks that a plugin can implement. Few and coarse; arguments are only ever added.

An implementation may name fewer arguments than the hook has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["API_VERSION", "hookimpl", "hookspec"]

API_VERSION = 1

hookspec = pluggy.HookspecMarker("mezzotint")
hookimpl = pluggy.HookimplMarker("mezzotint")


@hookspec
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    """Call `register(function)` for each function decorated with `@node`."""


@hookspec
def register_ports(register: Callable[..., None]) -> None:
    """Call `register(PortType)` for each new port, patch or other value type that edges or recipes carry.

    `register(PortType, suffix="png", media_type="image/png", writer=function)` also says how the runner writes an
    output of that type: `writer(value, info) -> list[bytes]`, one item per file, or a dict from relative paths to
    bytes for a folder; `info` is an `OutputInfo`. The engine's own port types get their writers in the same way.
    """


@hookspec
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """Call `register("namespace.name", function)` for each kind of model that a recipe can name as its loader.

    `function(recipe, ctx) -> model` loads the files of `recipe.source`; patches are applied by the engine.
    """


@hookspec
def register_samplers(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """Call `register("name", sampler)` for each sampler; `docs/hooks.md` has the one shape that samplers have."""


@hookspec
def register_interpreters(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """Call `register("name", read)` for each reader of what is said in `mezzotint chat`; see `docs/hooks.md`."""


@hookspec(firstresult=True)
def resolve_source(uri: str) -> Path | None:
    """The file or folder that a source such as `bundled:smallworld` stands for, or None if it is not yours."""


@hookspec
def before_node(name: str, use: str, inputs: Mapping[str, Any]) -> None:
    """A node is about to run."""


@hookspec
def after_node(name: str, use: str, outputs: Mapping[str, Any], seconds: float) -> None:
    """A node has finished."""


@hookspec
def node_error(name: str, use: str, error: BaseException) -> None:
    """A node has failed."""


@hookspec
def before_step(step: int, steps: int, x: Any, level: Any) -> None:
    """A sampler is about to evaluate its model on `x`, noise level `level`."""


@hookspec
def after_step(step: int, steps: int, x: Any, x0: Any) -> None:
    """A sampler has made a step; `x0` is the model's present guess of the result."""
