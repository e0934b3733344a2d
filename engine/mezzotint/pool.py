"""The pool of loaded models: one set of weights serves many recipes, within a bound of bytes.

A lease lends a model to a node. Leases that only read share one instance; an exclusive lease, for patches that
change the module itself, has an instance to itself. Whoever would wait for ever (two nodes that hold what the
other wants, or one node that wants a model both patched and plain) is given a further instance instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mezzotint.codec import encode
from mezzotint.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mezzotint.values import Recipe

__all__ = ["ModelPool", "PoolStats", "model_bytes"]

_Key = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class PoolStats:
    """models: loaded instances, `bytes` in all, `leased` of them in use. The rest are counts of all time."""

    models: int
    bytes: int
    limit: int
    leased: int
    loads: int
    hits: int
    evictions: int


@dataclass(eq=False)
class _Instance:
    key: _Key
    model: Any = None
    size: int = 0
    used: int = 0
    loading: bool = True
    exclusive: bool = False
    holders: dict[Hashable, int] = field(default_factory=dict)

    def free_for(self, exclusive: bool) -> bool:
        return not self.loading and not self.exclusive and not (exclusive and self.holders)

    def release(self, owner: Hashable) -> None:
        self.holders[owner] -= 1
        if not self.holders[owner]:
            del self.holders[owner]
        self.exclusive = False


@dataclass(frozen=True, eq=False)
class _Wait:
    owner: Hashable
    key: _Key
    exclusive: bool


class ModelPool:
    """Loaded models, least recently used first out. Models in use are never evicted, so the bound may be exceeded.

    limit_bytes: what models may take together while nobody needs more.
    on_evict: called after models were dropped, e.g. to empty a device's allocator.
    """

    def __init__(self, limit_bytes: int, *, on_evict: Callable[[], None] | None = None) -> None:
        self.limit_bytes = limit_bytes
        self._on_evict = on_evict
        self._changed = threading.Condition()
        self._instances: list[_Instance] = []
        self._waiting: list[_Wait] = []
        self._clock = itertools.count(1)
        self._loads = 0
        self._hits = 0
        self._evictions = 0

    @contextlib.contextmanager
    def lease(
        self,
        recipe: Recipe,
        load: Callable[[], Any],
        *,
        exclusive: bool,
        device: str = "cpu",
        dtype: str = "float32",
        owner: Hashable = None,
        size_hint: int = 0,
    ) -> Iterator[Any]:
        """Lend the model of a recipe, without its patches, while the block runs.

        load: makes the model; called outside of all locks, once for those who ask at the same time. Its errors are
        raised here. exclusive: nobody else uses the instance meanwhile. If such a block raises, the instance is
        dropped: nobody knows whether its patches came off. owner: who asks, by default this thread; one owner may
        hold many leases. size_hint: bytes to make room for before loading.
        """
        key = pool_key(recipe, device, dtype)
        owner = ("thread", threading.get_ident()) if owner is None else owner
        instance = self._acquire(key, load, exclusive, owner, size_hint)
        try:
            yield instance.model
        except BaseException:
            self._release(instance, owner, drop=exclusive)
            raise
        self._release(instance, owner, drop=False)

    # --- taking and giving back ---

    def _acquire(
        self, key: _Key, load: Callable[[], Any], exclusive: bool, owner: Hashable, size_hint: int
    ) -> _Instance:
        with self._changed:
            instance = self._wait_for(key, exclusive, owner)
            if instance is not None:
                self._hits += 1
                self._take(instance, exclusive, owner)
                return instance
            instance = _Instance(key)
            instance.holders[owner] = 1
            self._instances.append(instance)
            self._loads += 1
            evicted = self._evict(size_hint)
        self._tell(evicted)
        return self._load(instance, load, exclusive)

    def _load(self, instance: _Instance, load: Callable[[], Any], exclusive: bool) -> _Instance:
        try:
            model = load()
            size = model_bytes(model)
        except BaseException:
            with self._changed:
                self._remove(instance)
                self._changed.notify_all()
            raise
        with self._changed:
            instance.model, instance.size, instance.used = model, size, next(self._clock)
            instance.loading, instance.exclusive = False, exclusive
            evicted = self._evict(0)
            self._changed.notify_all()
        self._tell(evicted)
        return instance

    def _take(self, instance: _Instance, exclusive: bool, owner: Hashable) -> None:
        instance.holders[owner] = instance.holders.get(owner, 0) + 1
        instance.exclusive = exclusive
        instance.used = next(self._clock)

    def _release(self, instance: _Instance, owner: Hashable, *, drop: bool) -> None:
        with self._changed:
            instance.release(owner)
            if drop:
                self._remove(instance)
            evicted = self._evict(0) + drop
            self._changed.notify_all()
        self._tell(evicted)

    # --- waiting ---

    def _wait_for(self, key: _Key, exclusive: bool, owner: Hashable) -> _Instance | None:
        """An instance that is free for the lease, waiting for it if need be; None: load one."""
        wait = _Wait(owner, key, exclusive)
        self._waiting.append(wait)
        try:
            while True:
                free = next((i for i in self._of(key) if i.free_for(exclusive)), None)
                if free is not None and not self._queued(wait, {w.owner for w in self._waiting}):
                    return free
                if not self._of(key) or self._is_stuck(owner):
                    return free
                self._changed.wait()
        finally:
            self._waiting.remove(wait)
            self._changed.notify_all()  # readers may have queued behind this one

    def _of(self, key: _Key) -> list[_Instance]:
        return [i for i in self._instances if i.key == key]

    def _queued(self, wait: _Wait, blocked: set[Hashable]) -> bool:
        """Whether a reader lets one of the `blocked` go first, who wants the model for itself.

        Else readers that come and go could keep it waiting for ever. Not if the reader has a lease already: the
        other one waits for that.
        """
        if wait.exclusive or any(wait.owner in i.holders for i in self._of(wait.key)):
            return False
        others = (w for w in self._waiting if w.owner != wait.owner and w.owner in blocked)
        return any(w.exclusive and w.key == wait.key for w in others)

    def _is_stuck(self, owner: Hashable) -> bool:
        """Whether `owner` would wait for ever.

        Start with all who wait, and take away whoever needs nothing from the rest, until that changes nothing.
        """
        blocked = {wait.owner for wait in self._waiting}
        before = 0
        while len(blocked) != before:
            before = len(blocked)
            for wanted in list(blocked):
                if all(self._can_be_met(w, blocked) for w in self._waiting if w.owner == wanted):
                    blocked.discard(wanted)
        return owner in blocked

    def _can_be_met(self, wait: _Wait, blocked: set[Hashable]) -> bool:
        instances = self._of(wait.key)
        free = any(i.free_for(wait.exclusive) or blocked.isdisjoint(i.holders) for i in instances)
        return not instances or (free and not self._queued(wait, blocked))

    # --- room ---

    def _evict(self, more: int) -> int:
        """Drop idle models, the least recently used first, until the rest and `more` bytes fit; how many went."""
        total, count = sum(i.size for i in self._instances) + more, 0
        for instance in sorted(self._instances, key=lambda i: i.used):
            if total <= self.limit_bytes:
                break
            if not instance.holders:
                self._remove(instance)
                total -= instance.size
                count += 1
        self._evictions += count
        return count

    def _remove(self, instance: _Instance) -> None:
        self._instances.remove(instance)
        instance.model = None  # frames that still know the instance must not keep its memory

    def _tell(self, evicted: int) -> None:
        if evicted and self._on_evict is not None:
            self._on_evict()

    def clear(self) -> None:
        """Drop all models that nobody uses."""
        with self._changed:
            idle = [i for i in self._instances if not i.holders]
            for instance in idle:
                self._remove(instance)
            self._evictions += len(idle)
        count = len(idle)
        idle.clear()
        self._tell(count)

    def stats(self) -> PoolStats:
        """What is loaded now, and what happened so far."""
        with self._changed:
            size = sum(i.size for i in self._instances)
            leased = sum(1 for i in self._instances if i.holders)
            return PoolStats(
                len(self._instances), size, self.limit_bytes, leased, self._loads, self._hits, self._evictions
            )


def pool_key(recipe: Recipe, device: str, dtype: str) -> _Key:
    """What makes two recipes share one loaded model: all but their patches.

    Raises: PluginError: the recipe's config is not JSON.
    """
    encoded = encode(dict(recipe.config))
    if encoded.tensors:
        raise PluginError(f"the config of a {recipe.loader} recipe holds tensors; it must be JSON")
    text = json.dumps(encoded.meta, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()
    return recipe.loader, recipe.source.fingerprint, digest, device, dtype


def model_bytes(model: Any) -> int:
    """Bytes of a model's parameters and buffers, shared ones once; of all in a list or dict; else its `nbytes`."""
    if isinstance(model, Mapping):
        return sum(model_bytes(part) for part in model.values())
    if isinstance(model, (list, tuple)):
        return sum(model_bytes(part) for part in model)
    if callable(getattr(model, "parameters", None)):
        tensors = [*model.parameters()]
        if callable(getattr(model, "buffers", None)):
            tensors += model.buffers()
        distinct = {(t.data_ptr(), t.numel()): t.numel() * t.element_size() for t in tensors}
        return sum(distinct.values())
    size = getattr(model, "nbytes", 0)
    return size if isinstance(size, int) else 0
