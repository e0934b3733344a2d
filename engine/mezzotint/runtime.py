"""What runs share: the registry, the store, the pool of loaded models, the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.errors import StoreError
from mezzotint.settings import Settings, numerics_profile

if TYPE_CHECKING:
    from mezzotint.graph import Graph
    from mezzotint.plan import Plan
    from mezzotint.pool import ModelPool
    from mezzotint.registry import Registry

__all__ = ["Runtime", "default_runtime"]


def _pool() -> ModelPool:
    from mezzotint.pool import ModelPool

    return ModelPool(4 * 2**30)


@dataclass
class Runtime:
    """registry: the installed nodes. store: a `Store` or `MemoryStore`. pool: loaded models."""

    registry: Registry
    store: Any
    settings: Settings = field(default_factory=Settings)
    pool: Any = field(default_factory=_pool)

    def digest(self, path: str) -> str:
        """The content digest of a file or folder, remembered by the store.

        Raises: UserError: if it cannot be read, or changes meanwhile.
        """
        from mezzotint.fingerprint import file_digest, folder_digest

        digest = folder_digest if Path(path).is_dir() else file_digest
        try:
            return digest(path, self.store)
        except StoreError:  # it only remembers
            return digest(path)

    def plan(
        self,
        graph: Graph,
        inputs: Mapping[str, Any],
        wanted: Iterable[str] | None = None,
        *,
        warn: Callable[[StoreError], None] | None = None,
    ) -> Plan:
        """Plan a graph against what the store has. warn: called if it cannot be read; then nothing is cached.

        Raises: GraphError: for bad inputs. StoreError: without `warn`.
        """
        from mezzotint.plan import make_plan

        return make_plan(
            graph, self.registry, inputs, wanted=wanted, profile=numerics_profile(self.settings),
            digest=self.digest, cached=lambda keys: self.present(keys, warn),
        )  # fmt: skip

    def present(self, keys: Iterable[str], warn: Callable[[StoreError], None] | None = None) -> set[str]:
        """Which of the keys the store has. warn: called if it cannot be read, and then none counts as there."""
        try:
            found: set[str] = self.store.contains_many(keys)
            return found
        except StoreError as error:
            if warn is None:
                raise
            warn(error)
            return set()

    def close(self) -> None:
        self.store.close()


def default_runtime(
    *, plugins: Iterable[Path] = (), settings: Settings | None = None, persistent: bool = True
) -> Runtime:
    """The runtime of the command line: installed plugins, the user's store.

    Raises: StoreError: if the store's folder cannot be used. PluginError: for a plugin named here that is broken.
    """
    from mezzotint.plugins import load_registry
    from mezzotint.store import MemoryStore, Store

    registry = load_registry(namespaces=(), files=tuple(plugins))
    store = Store.open_default(types=registry.types) if persistent else MemoryStore()
    return Runtime(registry, store, settings or Settings())
