"""LoRA files: the layouts that the ecosystem writes, read into one, and written in diffusers'.

Read are the files of diffusers and peft (lora_A, lora_B) and of kohya's scripts (lora_down, lora_up, alpha), for
the U-Net and for CLIP's text model; written are those of diffusers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint import Source, UserError, Weights, node
from mezzotint_models.networks import join_parts, part_of, parts_of
from mezzotint_models.packed import Part

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bare", "changes", "export_lora", "pack_lora", "read_lora"]

_SIDES = {"lora_A": "A", "lora_down": "A", "lora_B": "B", "lora_up": "B"}
_TEXT = ("text_encoder.", "lora_te_", "lora_te1_")
_OTHER_TEXT = ("text_encoder_2.", "lora_te2_")
_PREFIXES = ("base_model.model.", "unet.", "lora_unet_", *_TEXT)
# What diffusers' own scripts wrote over the years, for attention and for other layers.
_SPELT = (
    (".processor.", "."),
    ("to_out_lora.", "to_out.0.lora."),
    ("_lora.", ".lora."),
    (".lora_linear_layer.", ".lora."),
    (".lora.down", ".lora_down"),
    (".lora.up", ".lora_up"),
)
# Those scripts named the text model's projections as the U-Net's.
_OF_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "out_proj"}


@node("models.read_lora")
def read_lora(source: Source) -> Weights:
    """A LoRA file of the ecosystem, as a value for models.lora: diffusers', peft's or kohya's names.

    What it has for the text encoder is a part of its own, "text_lora" (for models.text_lora), beside the U-Net's.

    source: a .safetensors file.

    Raises: UserError: a pickle, a damaged file, one without a LoRA, or for a model with two text encoders.
    """
    from safetensors import safe_open

    from mezzotint_models.description import read_header, refuse_pickle

    path = Path(source.path)
    refuse_pickle(path)
    _, header = read_header(path)
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name).clone() for name in file.keys()}
    if other := next((name for name in found if name.startswith(_OTHER_TEXT)), None):
        raise UserError(f"{source.uri}: is for a model with two text encoders, such as SDXL: it has {other}")
    text = {name: tensor for name, tensor in found.items() if name.startswith(_TEXT)}
    rest = {name: tensor for name, tensor in found.items() if name not in text}
    parts = {}
    for role, part, tensors in (("lora", "unet", rest), ("text_lora", "text_encoder", text)):
        if tensors or not found:
            scaled = _with_alphas(tensors, header, part, source.uri)
            parts[role] = pack_lora(scaled, role=role)
    return join_parts(parts) if len(parts) > 1 else next(iter(parts.values()))


@node("models.export_lora")
def export_lora(weights: Weights, *, part: Part = "") -> Weights:
    """A LoRA as a file that diffusers reads (`load_lora_weights`): lora_A and lora_B below `unet.`.

    What there is for the text encoder goes below `text_encoder.`.

    weights: what training gave, or models.read_lora.
    part: which part of those, where several are LoRAs of the U-Net.
    Raises: UserError: no LoRA in there.
    """
    text = [one for one in parts_of(weights).values() if "text_lora" in one.meta]
    chosen = [] if len(text) == len(parts_of(weights)) else [("unet.", _lora(weights, part))]
    made = {}
    for prefix, one in [*chosen, *(("text_encoder.text_model.", one) for one in text)]:
        for layer, (a, b, scale) in _pairs(one.tensors, "the LoRA").items():
            made[f"{prefix}{bare(layer)}.lora_A.weight"] = a.contiguous()
            made[f"{prefix}{bare(layer)}.lora_B.weight"] = (b * scale).contiguous()
    return Weights(made, kind="low_rank", target="lora_file")


def pack_lora(tensors: Mapping[str, Tensor], *, role: str = "lora", **meta: Any) -> Weights:
    """A LoRA as weights, by the names of any of the layouts. role: "lora", or "text_lora"."""
    return Weights(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, kind="low_rank",
        target=role, meta={"class": role, "config": {}, role: meta},
    )  # fmt: skip


def changes(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """alpha / r * B A by layer, [out, in] or [out, in * k * k], float32. Raises: UserError: no LoRA."""
    return {
        layer: (b.flatten(1).float() @ a.flatten(1).float()) * scale
        for layer, (a, b, scale) in _pairs(tensors, where).items()
    }


def bare(name: str) -> str:
    """A name without the module that some releases of transformers put around the text model."""
    return name.removeprefix("text_model.").removeprefix("text_model_")


def _lora(weights: Weights, part: str) -> Weights:
    found = part_of(weights, part or "lora")
    if "lora" not in found.meta:
        raise UserError(f"models.export_lora: wanted a LoRA, got a {found.meta.get('class', found.target)}")
    return found


def _with_alphas(
    tensors: Mapping[str, Tensor], header: Mapping[str, str], part: str, where: str
) -> dict[str, Tensor]:
    """The tensors of one part, checked, with the alphas that diffusers writes into the header beside them."""
    import torch

    layers = _pairs(tensors, where)
    told = {name for name in map(_named, tensors) if name[1] == "alpha"}
    try:
        alpha = json.loads(header.get("lora_adapter_metadata") or "{}").get(f"{part}.lora_alpha")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: its header's 'lora_adapter_metadata' is damaged") from error
    if not isinstance(alpha, int | float) or told:
        return dict(tensors)
    return {**tensors, **{f"{layer}.alpha": torch.tensor(float(alpha)) for layer in layers}}


def _pairs(tensors: Mapping[str, Tensor], where: str) -> dict[str, tuple[Tensor, Tensor, float]]:
    """(A [r, in], B [out, r], alpha / r) by layer. Raises: UserError: none, or halves that do not fit."""
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
    of_text = name.startswith(_TEXT)
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = name.removesuffix(".weight").removesuffix(".default")
    for old, new in _SPELT:
        name = name.replace(old, new)
    layer, _, last = name.rpartition(".")
    if of_text:
        for old, new in _OF_TEXT.items():
            if layer.endswith(f".{old}"):
                layer = layer.removesuffix(old) + new
    return layer, _SIDES.get(last) or ("alpha" if last == "alpha" else "")
