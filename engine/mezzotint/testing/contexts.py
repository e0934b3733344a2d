"""A node's context without an engine: it records what the node does, and can cancel it."""

from __future__ import annotations

from collections import ChainMap
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from mezzotint.context import Context
from mezzotint.errors import PluginError
from mezzotint.observers import Hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mezzotint.ports import Dataset
    from mezzotint.registry import Registry
    from mezzotint.values import Recipe

__all__ = ["FakeContext", "fake_context"]


class FakeServices:
    """The engine's side, on record. See `fake_context` for the arguments."""

    def __init__(
        self,
        node_type: str,
        device: str,
        dtype: str,
        cancel_at: int | None,
        state: Mapping[str, Any] | None,
        assets: Mapping[str, Path],
        loaders: Mapping[str, Callable[..., Any]],
        samplers: Mapping[str, Callable[..., Any]],
        previews: bool,
    ) -> None:
        self.node_type = node_type
        self.device = device
        self.dtype = dtype
        self.cancel_at = cancel_at
        self.assets = assets
        self.loaders = loaders
        self.own_samplers = samplers
        self.wants_previews = previews
        self.reports: list[tuple[int, int]] = []
        self.previews: list[Any] = []
        self.states: list[Mapping[str, Any]] = [] if state is None else [state]
        self.patches = ExitStack()

    def progress(self, done: int, total: int, preview: Callable[[], Any] | None) -> None:
        self.reports.append((done, total))
        if preview is not None and self.wants_previews:
            self.previews.append(preview())

    def is_cancelled(self) -> bool:
        return self.cancel_at is not None and len(self.reports) >= self.cancel_at

    def load_state(self) -> Mapping[str, Any] | None:
        return self.states[-1] if self.states else None

    def save_state(self, state: Mapping[str, Any]) -> bool:
        self.states.append(dict(state))
        return True

    def realise(self, recipe: Recipe, ctx: Context) -> Any:
        model = self._loader(recipe.loader)(recipe, ctx)
        for patch in recipe.patches:
            model = self.patches.enter_context(patch.apply(model, ctx))
        return model

    def open_dataset(self, dataset: Dataset, ctx: Context) -> Any:
        return self._loader(dataset.reader)(dataset, ctx)

    def _loader(self, name: str) -> Callable[..., Any]:
        loader = self.loaders.get(name) or _bundled().loaders.get(name)
        if loader is None:
            raise PluginError(f"no loader {name!r}; give fake_context(loaders={{{name!r}: ...}})")
        return loader

    def asset(self, name: str) -> Path:
        if name not in self.assets:
            raise PluginError(f"no asset {name!r}; give fake_context(assets={{{name!r}: path}})")
        return Path(self.assets[name])

    def step_hooks(self) -> Hooks:
        return Hooks(lambda _: [])

    def samplers(self) -> Mapping[str, Any]:
        return ChainMap(dict(self.own_samplers), cast("dict[str, Any]", _bundled().samplers))


class FakeContext(Context):
    """A context for tests. Leaving it (`with`) takes the patches off the models that it realised."""

    _services: FakeServices

    @property
    def reports(self) -> list[tuple[int, int]]:
        """The (done, total) of each call of `progress`."""
        return self._services.reports

    @property
    def previews(self) -> list[Any]:
        """What the previews gave."""
        return self._services.previews

    @property
    def states(self) -> list[Mapping[str, Any]]:
        """Every state that was saved, the one to resume from first."""
        return self._services.states

    def fresh(self) -> FakeContext:
        """One like this, nothing recorded, with nothing to resume from."""
        given = self._services
        return fake_context(
            node_type=given.node_type,
            device=given.device,
            dtype=given.dtype,
            assets=given.assets,
            loaders=given.loaders,
            samplers=given.own_samplers,
        )

    def close(self) -> None:
        """Take the patches off again."""
        self._services.patches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fake_context(
    *,
    node_type: str = "testing.node",
    device: str = "cpu",
    dtype: str = "float32",
    cancel_at: int | None = None,
    state: Mapping[str, Any] | None = None,
    assets: Mapping[str, Path] | None = None,
    loaders: Mapping[str, Callable[..., Any]] | None = None,
    samplers: Mapping[str, Callable[..., Any]] | None = None,
    previews: bool = True,
) -> FakeContext:
    """A context without an engine.

    node_type: part of the noise's stream, as `namespace.name`. cancel_at: the node is cancelled in its n-th call
    of `progress`. state: what `resume` gives until the node saves another. assets: files by name.
    loaders, samplers: functions by name, besides the bundled ones. previews: whether previews are asked for.
    """
    services = FakeServices(
        node_type, device, dtype, cancel_at, state, assets or {}, loaders or {}, samplers or {}, previews
    )
    return FakeContext(services)


def _bundled() -> Registry:
    from mezzotint.plugins import load_registry
    from mezzotint.testing import gaussian

    return load_registry(namespaces=(), installed=False, extra=[gaussian])
