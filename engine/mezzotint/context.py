"""What a running node may ask of the engine, and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mezzotint.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from mezzotint.ports import Dataset
    from mezzotint.values import Recipe

__all__ = ["Context", "NodeServices", "NoiseSource"]


class NodeServices(Protocol):
    """The engine's side of a context: what an executor gives a node. Tests may give their own."""

    node_type: str
    device: str
    dtype: str

    def progress(self, done: int, total: int, preview: Callable[[], Any] | None) -> None: ...
    def is_cancelled(self) -> bool: ...
    def load_state(self) -> Mapping[str, Any] | None: ...
    def save_state(self, state: Mapping[str, Any]) -> bool: ...
    def realise(self, recipe: Recipe, ctx: Context) -> Any: ...
    def open_dataset(self, dataset: Dataset, ctx: Context) -> Any: ...
    def asset(self, name: str) -> Path: ...
    def step_hooks(self) -> Any: ...
    def samplers(self) -> Mapping[str, Any]: ...


class NoiseSource:
    """Counter-based standard normal numbers for one seed and one stream.

    Sample i of a batch uses seed + i, so a picture's noise is the same alone and inside a batch; frame f of a clip
    is in the counter, so a longer clip begins with the same numbers.
    """

    def __init__(self, seed: int, stream: str, device: str = "cpu") -> None:
        self.seed = seed
        self.stream = stream
        self.device = device

    def normal(self, shape: tuple[int, ...] | torch.Size, step: int = 0) -> Tensor:
        """Float32 numbers of `shape` ([B, ...]), drawn for the given step; the same on every device."""
        from mezzotint_kernels.philox import normals

        return normals(self.seed, tuple(shape), step=step, stream=self.stream, device=self.device)


class Context:
    """Given to a node as its first argument, by the engine or by `mezzotint.testing`."""

    def __init__(self, services: NodeServices) -> None:
        self._services = services

    @property
    def device(self) -> str:
        """Where the node should compute: "cpu", "cuda:0", ..."""
        return self._services.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that models run in."""
        import torch

        found = getattr(torch, self._services.dtype)
        assert isinstance(found, torch.dtype)
        return found

    def noise(self, seed: int, stream: str = "") -> NoiseSource:
        """Reproducible noise. The node type is part of the stream unless a common one is named.

        Two node types with one seed never share noise by accident; two that name one stream share it on purpose.
        """
        return NoiseSource(seed, stream or self._services.node_type, self.device)

    def progress(self, done: int, total: int, preview: Callable[[], Any] | None = None) -> None:
        """Report progress. `preview` is called only if somebody looks; it returns an Image.

        Raises: Cancelled: if the run was cancelled or the node's time is up.
        """
        self._services.progress(done, total, preview)
        self.check_cancelled()

    @property
    def cancelled(self) -> bool:
        """Whether the node should stop soon. Most nodes only call `progress`, which raises."""
        return self._services.is_cancelled()

    def check_cancelled(self) -> None:
        """Raises: Cancelled: if the node should stop."""
        if self.cancelled:
            raise Cancelled("cancelled")

    def resume(self) -> Mapping[str, Any] | None:
        """The state that an earlier, interrupted run of this very step saved last, or None."""
        return self._services.load_state()

    def save_state(self, state: Mapping[str, Any]) -> bool:
        """Save where the node is: tensors, values and JSON. The newest state replaces the older one as a whole.

        returns: whether it was saved. If the disk is full, say, a warning has said so, and the older one is kept.
        """
        return self._services.save_state(state)

    def realise(self, recipe: Recipe) -> Any:
        """Load the model that a recipe describes, patches applied; it is the node's until the node returns."""
        return self._services.realise(recipe, self)

    def open_dataset(self, dataset: Dataset) -> Any:
        """The reader of a data set: `len(reader)` items, dicts with "image" ([H, W, C] uint8) and "caption"."""
        return self._services.open_dataset(dataset, self)

    def asset(self, name: str) -> Path:
        """A file that the node's own package ships, by its path inside the package."""
        return self._services.asset(name)

    @property
    def hooks(self) -> Any:
        """The plugin hooks `before_step` and `after_step`, for samplers."""
        return self._services.step_hooks()

    @property
    def samplers(self) -> Mapping[str, Any]:
        """The samplers that plugins have registered, by name."""
        return self._services.samplers()
