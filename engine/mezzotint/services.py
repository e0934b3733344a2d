"""The engine's side of a node's context: progress, cancelling, saved state, realised models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.errors import Cancelled, NodeTimeout, PluginError, StoreError
from mezzotint.events import Event, StepDone

if TYPE_CHECKING:
    from mezzotint.context import Context
    from mezzotint.nodes import NodeSpec
    from mezzotint.plan import Step
    from mezzotint.ports import Dataset
    from mezzotint.runtime import Runtime
    from mezzotint.values import Recipe

__all__ = ["StepServices", "Stop"]


class Stop:
    """Whether a run should stop: because its caller said so (`cancel`), or by itself (`halt`)."""

    def __init__(self, cancel: threading.Event) -> None:
        self.cancel = cancel
        self.halt = threading.Event()

    def is_set(self) -> bool:
        return self.cancel.is_set() or self.halt.is_set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the run should stop."""
        until = time.monotonic() + seconds
        while not self.is_set() and (left := until - time.monotonic()) > 0:
            self.halt.wait(min(left, 0.05))


class StepServices:
    """Serves one step while it runs; closed when the step ends, which gives its models back.

    warn: called with what the store raised. A state that cannot be kept costs the resuming, not the step.
    """

    def __init__(
        self,
        step: Step,
        spec: NodeSpec,
        runtime: Runtime,
        stop: Stop,
        emit: Callable[[Event], None],
        warn: Callable[[StoreError], None],
    ) -> None:
        self.step = step
        self.spec = spec
        self.node_type = spec.id
        self.device = runtime.settings.resolved_device
        self.dtype = runtime.settings.dtype
        self._runtime = runtime
        self._stop = stop
        self._emit = emit
        self._warn = warn
        self._models = ExitStack()
        self._realised: dict[int, tuple[Recipe, Any]] = {}
        self.has_state = False
        asked = runtime.settings.timeout
        self.limit = asked if asked is not None else spec.timeout
        self.deadline: float | None = None

    def begin(self) -> None:
        """The step's time runs from here."""
        self.deadline = time.monotonic() + self.limit if self.limit else None

    def close(self) -> None:
        self._models.close()

    def progress(self, done: int, total: int, preview: Callable[[], Any] | None) -> None:
        self._emit(StepDone(self.step.name, done, total, preview))

    def is_cancelled(self) -> bool:
        return self._stop.is_set() or self.timed_out()

    def timed_out(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def cancelled_as(self) -> Cancelled:
        """What a cancelled step is reported as."""
        if self.timed_out() and not self._stop.is_set():
            return NodeTimeout(f"node {self.step.name!r} ran out of time")
        return Cancelled("cancelled")

    def load_state(self) -> Mapping[str, Any] | None:
        try:
            state: Mapping[str, Any] | None = self._runtime.store.load_state(self.step.key)
        except StoreError as error:
            self._warn(error)
            return None
        self.has_state = self.has_state or state is not None
        return state

    def save_state(self, state: Mapping[str, Any]) -> bool:
        if not self.step.cacheable:  # no later run could find it
            return False
        try:
            self._runtime.store.save_state(self.step.key, state)
        except StoreError as error:
            self._warn(error)
            return False
        self.has_state = True
        return True

    def realise(self, recipe: Recipe, ctx: Context) -> Any:
        """Lease the module from the pool, put the patches on in order, and keep both until the step ends."""
        held = self._realised.get(id(recipe))
        if held is not None:
            return held[1]
        given, recipe = recipe, self._relocated(recipe)
        registry = self._runtime.registry
        if recipe.loader not in registry.loaders:
            raise PluginError(f"no plugin has the loader {recipe.loader!r} that {recipe.source.uri!r} needs")
        loader = registry.loaders[recipe.loader]
        exclusive = any(patch.mutates for patch in recipe.patches)
        lease = self._runtime.pool.lease(
            recipe, lambda: loader(recipe, ctx), device=self.device, dtype=self.dtype,
            exclusive=exclusive, owner=self,
        )  # fmt: skip
        model = self._models.enter_context(lease)
        for patch in recipe.patches:
            model = self._models.enter_context(patch.apply(model, ctx))
        self._realised[id(given)] = (given, model)
        return model

    def open_dataset(self, dataset: Dataset, ctx: Context) -> Any:
        """Data sets are read by loaders too: the reader's name is a loader's."""
        loaders = self._runtime.registry.loaders
        if dataset.reader not in loaders:
            raise PluginError(f"no plugin has the reader {dataset.reader!r} that the data set needs")
        return loaders[dataset.reader](dataset, ctx)

    def _relocated(self, recipe: Recipe) -> Recipe:
        # A recipe may come from the store: a bundled source can lie elsewhere by now, with the same content.
        path = self._runtime.registry.resolve_source(recipe.source.uri)
        if path is None or str(path) == recipe.source.path:
            return recipe
        return recipe.replace(source=replace(recipe.source, path=str(path)))

    def asset(self, name: str) -> Path:
        import sys

        module = sys.modules[self.spec.fn.__module__]
        root = Path(module.__file__ or ".").resolve().parent
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise PluginError(f"the package of node {self.spec.id!r} ships no file {name!r}")
        return path

    def step_hooks(self) -> Any:
        return self._runtime.registry.hooks

    def samplers(self) -> Mapping[str, Any]:
        return self._runtime.registry.samplers
