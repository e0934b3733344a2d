"""LoRA: a change of low rank to some layers, in the layouts that the ecosystem writes.

Hu et al. 2021: W + strength * alpha / r * B A. Read are the files of diffusers and peft (lora_A, lora_B) and of
kohya's scripts (lora_down, lora_up, alpha); written are those of diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mezzotint import Denoiser, Patch, Source, UserError, Weights, node
from mezzotint_models.packed import Part, recipe_for, weights_of
from mezzotint_models.tuned import moved

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context

__all__ = ["LowRank", "export_lora", "lora", "pack_lora", "read_lora"]

Strength = Annotated[float, Field(ge=-10, le=10)]
_SIDES = {"lora_A": "A", "lora_down": "A", "lora_B": "B", "lora_up": "B"}
_PREFIXES = ("base_model.model.", "unet.", "lora_unet_")
# What diffusers' own scripts wrote over the years, for attention and for other layers.
_SPELT = (
    (".processor.", "."),
    ("to_out_lora.", "to_out.0.lora."),
    ("_lora.", ".lora."),
    (".lora_linear_layer.", ".lora."),
    (".lora.down", ".lora_down"),
    (".lora.up", ".lora_up"),
)


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
        module = getattr(model.module, "network", model.module)
        there = dict(module.named_parameters())
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


@node("models.read_lora")
def read_lora(source: Source) -> Weights:
    """A LoRA file of the ecosystem, as a value for models.lora: diffusers', peft's or kohya's names.

    source: a .safetensors file. What it has for text encoders is left out.

    Raises: UserError: a pickle, a damaged file, or one without a U-Net's LoRA.
    """
    from safetensors import safe_open

    from mezzotint_models.description import read_header, refuse_pickle

    path = Path(source.path)
    refuse_pickle(path)
    read_header(path)
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name).clone() for name in file.keys()}
    kept = {n: t for n, t in found.items() if not n.startswith(("text_encoder", "lora_te"))}
    changes(kept, source.uri)
    return pack_lora(kept)


@node("models.export_lora")
def export_lora(weights: Weights, *, part: Part = "") -> Weights:
    """A LoRA as a file that diffusers reads (`load_lora_weights`): lora_A and lora_B below `unet.`.

    weights: what training gave, or models.read_lora.
    part: which part of those, where several are LoRAs.
    Raises: UserError: no LoRA in there.
    """
    _, recipe = recipe_for("lora", weights, None, part, node="models.export_lora")
    made = {}
    for layer, (a, b, scale) in _pairs(weights_of(LowRank(**recipe)).tensors, "the LoRA").items():
        made[f"unet.{layer}.lora_A.weight"] = a.contiguous()
        made[f"unet.{layer}.lora_B.weight"] = (b * scale).contiguous()
    return Weights(made, kind="low_rank", target="lora_file")


def pack_lora(tensors: Mapping[str, Tensor], **meta: Any) -> Weights:
    """A LoRA as weights, by the names of any of the layouts."""
    return Weights(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, kind="low_rank",
        target="lora", meta={"class": "lora", "config": {}, "lora": meta},
    )  # fmt: skip


def changes(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """alpha / r * B A by layer, [out, in] or [out, in * k * k], float32. Raises: UserError: no LoRA."""
    return {
        layer: (b.flatten(1).float() @ a.flatten(1).float()) * scale
        for layer, (a, b, scale) in _pairs(tensors, where).items()
    }


def _pairs(tensors: Mapping[str, Tensor], where: str) -> dict[str, tuple[Tensor, Tensor, float]]:
    """(A, B, alpha / r) by layer."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, side = _named(name)
        if side:
            found.setdefault(layer, {})[side] = tensor
    broken = [layer for layer, sides in found.items() if not {"A", "B"} <= sides.keys()]
    if not found or broken:
        what = f"only one half of {broken[0]}" if broken else f"tensors such as {next(iter(tensors), 'none')}"
        wanted = "a LoRA, pairs of lora_A and lora_B (or lora_down and lora_up)"
        raise UserError(f"{where}: wanted {wanted}; got {what}")
    pairs = {}
    for layer, sides in found.items():
        a, b = sides["A"], sides["B"]
        if a.shape[0] != b.shape[1]:
            raise UserError(f"{where}: the halves of {layer} do not fit: {list(a.shape)} and {list(b.shape)}")
        alpha = float(sides["alpha"]) if "alpha" in sides else float(a.shape[0])
        pairs[layer] = (a, b, alpha / a.shape[0])
    return pairs


def _named(name: str) -> tuple[str, str]:
    """The layer that a tensor belongs to, and which half it is; "" for another tensor."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = name.removesuffix(".weight").removesuffix(".default")
    for old, new in _SPELT:
        name = name.replace(old, new)
    layer, _, last = name.rpartition(".")
    return layer, _SIDES.get(last) or ("alpha" if last == "alpha" else "")


def _layer(layer: str, there: Mapping[str, Any], where: str) -> str:
    """The weight that a layer's name means. Raises: UserError: the model has none of that name."""
    flat = layer.replace(".", "_")
    for name in (f"{layer}.weight", *(n for n in there if n.removesuffix(".weight").replace(".", "_") == flat)):
        if name in there:
            return name
    raise UserError(f"{where}: is for another model: this one has no layer {layer}")
