"""The autoencoder: diffusers' AutoencoderKL, from pictures in 0..1 to scaled latents and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mezzotint import Autoencoder, Context, Source, UserError, Weights, node
from mezzotint_models.attention import AttentionLayers
from mezzotint_models.packed import Part, network_of, recipe_for, record_of
from mezzotint_models.weights import load_module, nbytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

__all__ = ["AutoencoderModel", "autoencoder", "load_autoencoder", "load_packed_autoencoder"]


@node("models.autoencoder")
def autoencoder(weights: Weights | None = None, *, source: Source | None = None, part: Part = "") -> Autoencoder:
    """An autoencoder that a training graph made, from its file or from the value itself.

    weights: what training gave; in its place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several are autoencoders.
    Raises: UserError: both or neither are given; no autoencoder in there, or several; a damaged or foreign file.
    """
    meta, recipe = recipe_for("autoencoder", weights, source, part, node="models.autoencoder")
    record = record_of(meta, "autoencoder")
    try:
        return Autoencoder(
            **recipe,
            loader="models.packed_autoencoder",
            channels=int(record["channels"]),
            downscale=int(record["downscale"]),
            space=str(record["space"]),
            scale=float(record.get("scale", 1.0)),
            shift=float(record.get("shift", 0.0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"models.autoencoder: the weights' record 'autoencoder' is damaged: {error!r}") from error


class AutoencoderModel:
    """A realised autoencoder. `module` is diffusers' own, for patches.

    Gradients flow where the input asks for them; the weights are frozen. Inputs are made contiguous first,
    since the last bits of a convolution depend on the memory layout.
    """

    def __init__(self, module: nn.Module, scale: float, shift: float) -> None:
        self.module = module
        # An autoencoder's attention goes through the same kernels; nothing is injected there.
        self.layers = AttentionLayers(module)
        self.scale = scale
        self.shift = shift

    @property
    def nbytes(self) -> int:
        return nbytes(self.module)

    def encode(self, pixels: Tensor) -> Tensor:
        """Scaled latents [B, C, H / f, W / f] at the mode of the posterior. pixels: [B, H, W, 3] in 0..1."""
        parameter = next(self.module.parameters())
        x = pixels.to(parameter.device, parameter.dtype).movedim(-1, 1).contiguous() * 2 - 1
        encoded = self.module.encode(x, return_dict=False)[0]
        # Without a posterior (vector quantisation), the latents themselves.
        latents = encoded.mode() if hasattr(encoded, "mode") and not hasattr(encoded, "numel") else encoded
        return (latents - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels [B, H, W, 3], float32 in 0..1. latents: scaled, [B, C, H / f, W / f]."""
        parameter = next(self.module.parameters())
        z = latents.to(parameter.device, parameter.dtype).contiguous() / self.scale + self.shift
        x = self.module.decode(z, return_dict=False)[0]
        return (x / 2 + 0.5).clamp(0, 1).movedim(1, -1).float().contiguous()


def load_autoencoder(recipe: Autoencoder, ctx: Context) -> AutoencoderModel:
    """Loader `models.autoencoder_kl`."""
    from diffusers import AutoencoderKL

    config = dict(recipe.config["model"])
    convert = _from_original if recipe.config["layout"] == "original" else _modern_names
    module = load_module(recipe, "vae", lambda: AutoencoderKL.from_config(config), ctx, convert)
    return AutoencoderModel(module, recipe.scale, recipe.shift)


def load_packed_autoencoder(recipe: Autoencoder, ctx: Context) -> AutoencoderModel:
    """Loader `models.packed_autoencoder`."""
    return AutoencoderModel(network_of(recipe, ctx), recipe.scale, recipe.shift)


# The published 1.x folders still have the names from before diffusers rewrote its attention.
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def _modern_names(tensors: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new) if ".attentions." in name else name
        renamed[name] = tensor
    return renamed


def _from_original(tensors: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    return _modern_names(convert_ldm_vae_checkpoint(dict(tensors), dict(module.config)), module)
