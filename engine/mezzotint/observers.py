"""Calls of the hooks that watch runs, each guarded.

A plugin that fails in one is reported once and not called there again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mezzotint.errors import Cancelled, MezzotintError, PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["OBSERVERS", "HookImpl", "Hooks", "call_hook", "first_source", "strict", "warn"]

OBSERVERS = ("before_node", "after_node", "node_error", "before_step", "after_step")


class HookImpl(Protocol):
    """What is used of pluggy's description of one implementation."""

    plugin_name: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    kwargnames: tuple[str, ...]
    tryfirst: bool
    trylast: bool


def strict() -> bool:
    """Whether a failing plugin is an error at once (MEZZOTINT_STRICT_PLUGINS), as a test run wants it."""
    return os.environ.get("MEZZOTINT_STRICT_PLUGINS", "") not in ("", "0")


def warn(message: str) -> None:
    """Say it once through the logger `mezzotint.plugins`, which writes to stderr unless somebody set it up."""
    import logging  # costs 5 ms, and most runs have nothing to say

    logging.getLogger("mezzotint.plugins").warning("%s", message)


def call_hook(impl: HookImpl, hook: str, arguments: dict[str, Any]) -> Any:
    """Call one implementation with the arguments that it names."""
    named = {n: arguments[n] for n in (*impl.argnames, *impl.kwargnames) if n in arguments}
    if os.environ.get("MEZZOTINT_TRACE_PLUGINS", "") in ("", "0"):
        return impl.function(**named)
    started = time.perf_counter()
    try:
        return impl.function(**named)
    finally:
        took = (time.perf_counter() - started) * 1000
        shown = ", ".join(f"{n}={_short(v)}" for n, v in named.items())
        print(f"[plugins] {impl.plugin_name}: {hook}({shown}) {took:.1f} ms", file=sys.stderr)


class Hooks:
    """The hooks of all loaded plugins. Each attribute is a function that takes the hook's arguments by name."""

    before_node: Callable[..., None]
    after_node: Callable[..., None]
    node_error: Callable[..., None]
    before_step: Callable[..., None]
    after_step: Callable[..., None]

    def __init__(self, impls: Callable[[str], Sequence[HookImpl]]) -> None:
        for hook in OBSERVERS:
            found = _ordered(impls(hook))
            setattr(self, hook, _observer(hook, found) if found else _nobody)


def first_source(impls: Sequence[HookImpl], uri: str) -> Path | None:
    """The first answer of `resolve_source`.

    Raises: PluginError: if a plugin failed at it and no other one knew. MezzotintError: as plugins raise it.
    """
    failure: PluginError | None = None
    for impl in _ordered(impls):
        try:
            answer = call_hook(impl, "resolve_source", {"uri": uri})
            if answer is None:
                continue
            if isinstance(answer, Path):
                return answer
            failure = PluginError(f"plugin {impl.plugin_name!r} gave {answer!r} for source {uri!r}, wanted a Path")
        except MezzotintError:
            raise
        except Exception as error:
            failure = PluginError(f"plugin {impl.plugin_name!r} failed at source {uri!r}: {_text(error)}")
            failure.__cause__ = error
        warn(str(failure))
    if failure is not None:
        raise failure
    return None


def _nobody(**_: Any) -> None:
    """In place of a hook that no plugin implements."""


def _observer(hook: str, impls: list[HookImpl]) -> Callable[..., None]:
    def call(**arguments: Any) -> None:
        for impl in tuple(impls):
            try:
                call_hook(impl, hook, arguments)
            except Cancelled:
                raise
            except Exception as error:
                what = f"plugin {impl.plugin_name!r} failed in {hook}"
                if strict():
                    raise PluginError(f"{what}: {_text(error)}") from error
                impls.remove(impl)
                warn(f"{what} and is not called there again: {_text(error)}")

    return call


def _ordered(impls: Sequence[HookImpl]) -> list[HookImpl]:
    # By name and not by the order of loading, which depends on the graph: bundled ones first.
    return sorted(
        impls, key=lambda i: (not i.tryfirst, i.trylast, not i.plugin_name.startswith("mezzotint:"), i.plugin_name)
    )


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _short(value: Any) -> str:
    if isinstance(value, (str, int, float, bool, Path, BaseException)) or value is None:
        return repr(value)[:60]
    return f"<{type(value).__name__}>"
