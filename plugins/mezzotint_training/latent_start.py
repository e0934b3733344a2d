"""A denoiser of pixels that starts from one of latents, whose autoencoder's encoder is linear.

The bundled autoencoder codes each 4x4 patch of a 64-pixel picture by its principal components, and so each 2x2
patch of the picture at half the size. A U-Net of such patches sees the same places; only its first and last
convolution must be told what a latent is in pixels: W_in A and A^+ W_out, with z = A p + b. Noise is white in the
latents and not quite so in A p, and what the latents leave out is missing: that is left to training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mezzotint import Autoencoder, Context, Source, TextEncoder, UserError, Weights, node
from mezzotint_models import Architecture

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["start_from_latents"]

SOFTLY = 0.3
"""How strongly what the latents leave out comes in at first, beside what they hold."""


@node("training.start_from_latents", device=True)
def start_from_latents(
    ctx: Context,
    architecture: Architecture,
    autoencoder: Autoencoder,
    known: TextEncoder | None = None,
    read: TextEncoder | None = None,
    *,
    source: Source,
    captions: list[str] | None = None,
    classes: list[str] | None = None,
) -> Weights:
    """Weights for a U-Net of pixels out of a latent U-Net that can draw; for training.train's partial_init.

    architecture: of the network of pixels, of models.unet, its channels those of the latent one; what has
        another name or shape there, such as another kind of attention, begins as it would without this.
    autoencoder: of the latent U-Net. Its encoder must be linear, as training.autoencoder makes it.
    known: the text encoder that the latent U-Net reads, and read: the one that the network of pixels is to read.
        Keys and values are made to fit, by least squares from the tokens of the one to those of the other.
    source: the checkpoint with the latent U-Net, such as bundled:smallworld.
    captions: whose tokens that fit is made on.
    classes: the architecture's classes in words, if it tells them as tokens: those begin as what `known` makes of
        the words, and of nothing for no class. The class adds nothing to the time embedding at first.

    Raises: UserError: an encoder that is not linear, a network of latents, or nothing that fits.
    """
    from mezzotint_models import trunk_tensors

    if architecture.space != "pixels" or architecture.patch < 2:
        raise UserError("training.start_from_latents: wanted an architecture of pixels in patches of 2 or more")
    tensors = {name: tensor.float() for name, tensor in trunk_tensors(source).items()}
    first, last = tensors.get("network.conv_in.weight"), tensors.get("network.conv_out.weight")
    if first is None or last is None:
        raise UserError(f"training.start_from_latents: {source.uri} has no U-Net as diffusers makes them")
    code, offset = _linear(ctx.realise(autoencoder), architecture.patch, autoencoder.downscale)
    tensors.update(_ends(tensors, code, offset, architecture))
    if known is not None and read is not None:
        change = _token_map(ctx.realise(read), ctx.realise(known), captions or [""])
        for name in [n for n in tensors if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]:
            tensors[name] = tensors[name] @ change.T
    if classes is not None:
        tensors.update(_class_tokens(ctx, known, classes, architecture.config))
    config: dict[str, Any] = {"class": architecture.cls, "config": dict(architecture.config)}
    return Weights(
        tensors={f"unet/{name}": tensor.contiguous().cpu() for name, tensor in tensors.items()},
        target="parts",
        meta={"parts": {"unet": {"target": architecture.cls, "meta": config}}},
    )


def _linear(model: Any, patch: int, downscale: int) -> tuple[Tensor, Tensor]:
    """A [channels, 3 patch^2] and b [channels] of z = A p + b, p a patch of the smaller picture.

    Raises: UserError: the encoder is not linear.
    """
    import torch
    from torch.nn.functional import interpolate, pixel_unshuffle

    if downscale % patch:
        raise UserError(f"training.start_from_latents: a latent covers {downscale} pixels, no multiple of {patch}")
    small = torch.rand(64, 3, 8 * patch, 8 * patch, generator=torch.Generator().manual_seed(0))
    large = interpolate(small, scale_factor=downscale // patch, mode="nearest")
    with torch.no_grad():
        latents = model.encode(large.movedim(1, -1).contiguous()).float()
    # Away from the rim, which the encoder's convolutions pad.
    seen = pixel_unshuffle(small * 2 - 1, patch)[..., 2:-2, 2:-2].movedim(1, -1).flatten(0, 2)
    wanted = latents[..., 2:-2, 2:-2].movedim(1, -1).flatten(0, 2)
    fitted = torch.linalg.lstsq(torch.cat([seen, torch.ones(len(seen), 1)], 1), wanted).solution
    missed = wanted - seen @ fitted[:-1] - fitted[-1]
    if missed.square().mean() > 0.05 * (wanted - wanted.mean(0)).square().mean():
        raise UserError("training.start_from_latents: the autoencoder's encoder is not linear in patches")
    return fitted[:-1].T, fitted[-1]


def _ends(
    tensors: dict[str, Tensor], code: Tensor, offset: Tensor, architecture: Architecture
) -> dict[str, Tensor]:
    """The first and the last convolution, in pixels."""
    import torch

    first, last = tensors["network.conv_in.weight"], tensors["network.conv_out.weight"]
    back = torch.linalg.pinv(code)
    entrance = torch.einsum("ocij,cp->opij", first, code)
    # What the latents leave out comes in at random, softly: with zeros here and at the end, neither would learn.
    left_out = torch.eye(code.shape[1]) - back @ code
    drawn = torch.randn(entrance.shape, generator=torch.Generator().manual_seed(0)) * entrance.std() * SOFTLY
    entrance = entrance + torch.einsum("opij,pq->oqij", drawn, left_out)
    weight, bias = torch.einsum("pc,coij->poij", back, last), back @ tensors["network.conv_out.bias"]
    if architecture.config["out_channels"] == 2 * architecture.channels:
        # The second half, which says what the variance is, begins at zero: between its two bounds.
        weight, bias = torch.cat([weight, weight * 0]), torch.cat([bias, bias * 0])
    return {
        "network.conv_in.weight": entrance,
        "network.conv_in.bias": tensors["network.conv_in.bias"] + torch.einsum("ocij,c->o", first, offset),
        "network.conv_out.weight": weight,
        "network.conv_out.bias": bias,
    }


def _token_map(read: Any, known: Any, captions: list[str]) -> Tensor:
    """[D of known, D of read]: the tokens of the one out of those of the other, by ridge regression."""
    import torch

    with torch.no_grad():
        given, wanted = (encoder.condition(captions).context.float().flatten(0, 1) for encoder in (read, known))
    square = given.T @ given
    ridge = 1e-3 * square.trace() / len(square) * torch.eye(len(square))
    return torch.linalg.solve(square + ridge, given.T @ wanted).T


def _class_tokens(
    ctx: Context, known: TextEncoder | None, classes: list[str], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The embeddings of a network of `config` that tells a class as tokens.

    Raises: UserError: other classes or tokens than the network's.
    """
    import torch

    count, length, width = config["classes"], config.get("class_tokens", 0), config["context"]
    if known is None or not length or len(classes) != count:
        raise UserError(
            "training.start_from_latents: classes wants `known`, and an architecture with class_tokens and "
            f"as many classes; got {len(classes)} words for {count} classes of {length} tokens"
        )
    with torch.no_grad():
        tokens = ctx.realise(known).condition([*classes, ""]).context.float()
    if tokens.shape[1] < length or tokens.shape[2] != width:
        raise UserError(
            f"training.start_from_latents: the architecture's classes are {length} tokens of width {width}, and "
            f"`known` makes {tokens.shape[1]} of width {tokens.shape[2]}"
        )
    return {
        "label_tokens.weight": tokens[:, :length].flatten(1),
        "label_embedding.weight": torch.zeros(count + 1, 4 * config["channels"][0]),
    }
