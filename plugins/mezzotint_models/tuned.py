"""A model with some of its weights moved: what fine-tuning changed, put on while a node samples.

The file holds differences to the model that was tuned, of the tuned tensors alone, and no copy of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mezzotint import Denoiser, Patch, Source, UserError, Weights, node
from mezzotint_models.packed import Part, recipe_for, weights_of

if TYPE_CHECKING:
    from mezzotint import Context

__all__ = ["TunedWeights", "tuned"]


@dataclass(frozen=True, eq=False)
class TunedWeights(Patch):
    """Differences that are added to tensors of the same names.

    source, config, weights: of a recipe, see `recipe_for`. strength: factor of the differences.
    """

    source: Source
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    strength: float = 1.0
    mutates: ClassVar[bool] = True

    @contextmanager
    def apply(self, model: Any, ctx: Context) -> Iterator[Any]:
        """Raises: UserError: a tensor that the model does not have, or has in another shape."""
        module = model.module
        # A network of ours holds diffusers' own inside.
        inner = getattr(module, "network", module)
        there = inner.state_dict(keep_vars=True)
        differences = weights_of(self).tensors
        _check(there, differences, self.source.uri)
        with moved(there, differences.items(), self.strength):
            yield model


@contextmanager
def moved(there: Mapping[str, Any], changes: Iterable[tuple[str, Any]], strength: float) -> Iterator[None]:
    """Add strength * change to tensors by name while the block runs; a name may come several times.

    Nothing is left behind, whatever happens: not by the changes that were made before one that fails.
    """
    import torch

    kept: dict[str, Any] = {}
    try:
        with torch.no_grad():
            for name, change in changes:
                weight = there[name]
                if name not in kept:
                    kept[name] = weight.detach().clone()
                # Added in float32: the model may be in half precision, where small changes would vanish.
                weight.copy_(weight.float() + change.to(weight.device, torch.float32) * strength)
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                there[name].copy_(value)


def _check(there: Mapping[str, Any], differences: Mapping[str, Any], where: str) -> None:
    for name, change in differences.items():
        if name not in there:
            raise UserError(f"{where}: was tuned on another model: this one has no {name}")
        if tuple(there[name].shape) != tuple(change.shape):
            got, wanted = list(change.shape), list(there[name].shape)
            raise UserError(f"{where}: was tuned on another model: {name} has shape {got}, here {wanted}")


@node("models.tuned")
def tuned(
    denoiser: Denoiser,
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    part: Part = "",
    strength: Annotated[float, Field(ge=-10, le=10)] = 1.0,
) -> Denoiser:
    """A denoiser with the weights that tuning moved.

    denoiser: the one that was tuned.
    weights: what training gave; in its place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which part of those, where several are differences.
    strength: how much of the change; 0 is the denoiser itself.
    Raises: UserError: both or neither are given; nothing that was tuned in there.
    """
    _, recipe = recipe_for("tuned", weights, source, part, node="models.tuned")
    return denoiser if strength == 0 else denoiser.patched(TunedWeights(**recipe, strength=strength))
