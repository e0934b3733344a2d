"""diffusers and transformers, imported by two threads at once.

Each puts an object of its own into `sys.modules` at the end of its `__init__`, which imports what it is asked for.
A second thread that imports the package meanwhile has already taken the first object out of `sys.modules`; it
waits until `__init__` is through and is then handed that one, which has none of the names: "ImportError: cannot
import name ...", seldom, in whoever asked second. Steps run in threads and import late, so this happens.

The loader here leaves a way from the first object to what took its place.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["LAZY", "forward_replaced"]

LAZY = frozenset(("diffusers", "transformers"))
"""Packages known to replace themselves."""


class _Loader:
    """A package's own loader; what it loaded answers with its replacement's names, if it has one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self.inner.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        now = sys.modules.get(module.__name__)
        if now is not None and now is not module:
            module.__getattr__ = partial(getattr, now)  # type: ignore[method-assign]


class _Finder:
    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in self.names else None
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


def forward_replaced(names: frozenset[str] = LAZY) -> None:
    """From now on, let these packages be imported by several threads at once. A second call changes nothing."""
    if not any(isinstance(finder, _Finder) and finder.names == names for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(names))
