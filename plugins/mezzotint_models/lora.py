"""LoRA: a change of low rank to some layers of a U-Net or a text encoder, put on while a node runs.

Hu et al. 2021: W + strength * alpha / r * B A. The files that it comes in are lora_files.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from mezzotint import Denoiser, Patch, Source, TextEncoder, UserError, Weights, node
from mezzotint_models.lora_files import bare, changes, read_lora
from mezzotint_models.networks import parts_of
from mezzotint_models.packed import Part, recipe_for, weights_of
from mezzotint_models.tuned import moved

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context

__all__ = ["LowRank", "apply_lora", "lora", "text_lora"]

Strength = Annotated[float, Field(ge=-10, le=10)]


@dataclass(frozen=True, eq=False)
class LowRank(Patch):
    """Changes of low rank that are added to layers' weights. source, config, weights: of a recipe."""

    source: Source
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    strength: float = 1.0
    mutates: ClassVar[bool] = True

    @contextmanager
    def apply(self, model: Any, ctx: Context) -> Iterator[Any]:
        """Raises: UserError: a layer that the model does not have, or of another shape."""
        module = getattr(model, "module", None)
        module = getattr(module, "network", module)
        if module is None:
            raise UserError(f"{self.source.uri}: is for a network of diffusers or transformers; this is another")
        there = {bare(name): parameter for name, parameter in module.named_parameters()}
        with moved(there, self._by_weight(there), self.strength):
            yield model

    def _by_weight(self, there: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """The changes with the names of the weights that they belong to, in those weights' shapes."""
        where = self.source.uri
        for layer, change in changes(weights_of(self).tensors, where).items():
            name = _layer(layer, there, where)
            weight = there[name]
            if weight.numel() != change.numel() or weight.shape[0] != change.shape[0]:
                got, wanted = list(change.shape), list(weight.shape)
                raise UserError(f"{where}: is for another model: {layer} is {got}, here {wanted}")
            yield name, change.view_as(weight)


@node("models.lora")
def lora(
    denoiser: Denoiser,
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    part: Part = "",
    strength: Strength = 1.0,
) -> Denoiser:
    """A denoiser with a LoRA on it. Several add up.

    denoiser: the one that it was made for, guided or not.
    weights: what training gave, or models.read_lora; in its place, `source`.
    source: a .safetensors file that a training graph wrote, or its bundled name.
    part: which part of those, where several are LoRAs.
    strength: 0 is the denoiser itself.

    Raises: UserError: both or neither are given; no LoRA in there. When the denoiser runs: one for another model.
    """
    _, recipe = recipe_for("lora", weights, source, part, node="models.lora")
    # Inside of all that guides: it changes the network's own numbers.
    return denoiser if strength == 0 else denoiser.patched(LowRank(**recipe, strength=strength))


@node("models.text_lora")
def text_lora(
    encoder: TextEncoder,
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    part: Part = "",
    strength: Strength = 1.0,
) -> TextEncoder:
    """A text encoder with what a LoRA has for it. Several add up.

    encoder: the one that it was made for.
    weights: from models.read_lora, of a file that has the text encoder's layers too; in its place, `source`.
    source: a .safetensors file that a training graph wrote, or its bundled name.
    part: which part of those, where several are LoRAs of text encoders.
    strength: 0 is the encoder itself.

    Raises: UserError: both or neither are given; nothing for a text encoder in there. When the encoder runs: a
        LoRA for another model.
    """
    _, recipe = recipe_for("text_lora", weights, source, part, node="models.text_lora")
    return encoder if strength == 0 else encoder.patched(LowRank(**recipe, strength=strength))


class WithLora(NamedTuple):
    """denoiser: with the file's changes to the U-Net, if it has any.
    text_encoder: with those to the text encoder, if it has any.
    """

    denoiser: Denoiser
    text_encoder: TextEncoder


@node("models.apply_lora")
def apply_lora(
    denoiser: Denoiser, encoder: TextEncoder, *, source: Source | None = None, strength: Strength = 1.0
) -> WithLora:
    """A checkpoint with a LoRA file of the ecosystem on it, whichever of its two networks the file changes.

    denoiser, encoder: of the checkpoint that it was made for.
    source: a .safetensors file in diffusers', peft's or kohya's layout; null leaves both as they are.
    strength: of both; 0 leaves both as they are.

    Raises: UserError: as models.read_lora. When they run: a LoRA for another model.
    """
    if source is None:
        return WithLora(denoiser, encoder)
    found = read_lora(source)
    roles = {role for part in parts_of(found).values() for role in part.meta}
    return WithLora(
        lora(denoiser, found, strength=strength) if "lora" in roles else denoiser,
        text_lora(encoder, found, strength=strength) if "text_lora" in roles else encoder,
    )


def _layer(layer: str, there: Mapping[str, Any], where: str) -> str:
    """The weight that a layer's name means. Raises: UserError: the model has none of that name."""
    layer = bare(layer)
    flat = layer.replace(".", "_")
    for name in (f"{layer}.weight", *(n for n in there if n.removesuffix(".weight").replace(".", "_") == flat)):
        if name in there:
            return name
    raise UserError(f"{where}: is for another model: this one has no layer {layer}")
