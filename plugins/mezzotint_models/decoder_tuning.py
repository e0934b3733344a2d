"""A decoder fitted to one picture: the background of an edit as it was, to what the decoder can.

An autoencoder loses some of any picture, also where an edit has kept the latents. Source: Avrahami et al. 2023,
"Blended Latent Diffusion", section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Autoencoder, Context, Image, Latents, Mask, UserError, Weights, node
from mezzotint_models.packed import recipe_for
from mezzotint_models.tuned import TunedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["tune_decoder"]


@node("models.tune_decoder", device=True)
def tune_decoder(
    ctx: Context,
    autoencoder: Autoencoder,
    latents: Latents,
    image: Image,
    mask: Mask,
    *,
    steps: Annotated[int, Field(ge=0, le=10_000)] = 75,
    rate: Annotated[float, Field(gt=0, le=1)] = 1e-4,
    weight: Annotated[float, Field(ge=0, le=1_000_000)] = 100.0,
) -> Autoencoder:
    """Tune a decoder so that it gives a picture back outside a mask, and inside what it gave before.

    loss = mean((decoded - before)^2 mask) + weight * mean((decoded - image)^2 (1 - mask)), in -1..1, by Adam.

    autoencoder: whose decoder is tuned; its encoder stays.
    latents: [B, C, h, w] of the edited pictures.
    image: [B or 1, H, W, 3], what they were made from.
    mask: [B or 1, H, W], 1 where they were edited.
    steps: of Adam; 0 gives the autoencoder back.
    rate: its learning rate.
    weight: of what lies outside the mask.

    returns: the autoencoder with the differences as a patch, good for these latents alone.
    Raises: UserError: a picture or mask of another size than the decoded latents; latents of another space; an
        autoencoder without a decoder; a loss that is not finite.
    """
    import copy

    import torch

    if not steps:
        return autoencoder
    model = ctx.realise(autoencoder)
    if not hasattr(model.module, "decoder"):
        raise UserError(f"models.tune_decoder: {autoencoder.source.uri} has no decoder that could be tuned")
    target, inside = _wanted(autoencoder, latents, image, mask)
    z = latents.data.to(ctx.device, torch.float32) / model.scale + model.shift
    # The pool's module belongs to all who use it: a copy is tuned.
    module: nn.Module = copy.deepcopy(model.module).float()
    tuned = _decoding(module)
    with torch.enable_grad():
        _fit(ctx, module, tuned, z, target.to(ctx.device), inside.to(ctx.device), steps, rate, weight)
    there = model.module.state_dict()
    moved = {name: (p.detach() - there[name].float()).cpu() for name, p in tuned.items()}
    meta = {"class": type(module).__name__, "config": {}, "tuned": {"kind": "decoder", "steps": steps}}
    _, recipe = recipe_for("tuned", Weights(moved, kind="difference", meta=meta), None, node="models.tune_decoder")
    return autoencoder.patched(TunedWeights(**recipe))


def _wanted(autoencoder: Autoencoder, latents: Latents, image: Image, mask: Mask) -> tuple[Tensor, Tensor]:
    """The picture [B or 1, 3, H, W] in -1..1, and the mask [B or 1, 1, H, W]."""
    where, step = "models.tune_decoder", autoencoder.downscale
    if latents.space and autoencoder.space and latents.space != autoencoder.space:
        raise UserError(f"{where}: the latents are of space {latents.space!r}, not {autoencoder.space!r}")
    rows, height, width = latents.data.shape[0], latents.data.shape[-2] * step, latents.data.shape[-1] * step
    for name, size in (("picture", tuple(image.data.shape[:3])), ("mask", tuple(mask.data.shape))):
        if size[1:] != (height, width) or size[0] not in (1, rows):
            raise UserError(
                f"{where}: the {name} is {list(size)}, [B, H, W]; wanted [1 or {rows}, {height}, {width}] as the "
                "latents are decoded; give it that size (image.resize takes a picture and its mask together)"
            )
    if image.data.shape[-1] == 4:
        raise UserError(f"{where}: the picture has an alpha channel; load it with channels 3")
    pixels = image.data.float().expand(-1, -1, -1, 3).movedim(-1, 1) * 2 - 1
    return pixels.contiguous(), mask.data.float().unsqueeze(1)


def _decoding(module: nn.Module) -> dict[str, Any]:
    """The parameters that only decoding uses, by name; they alone want gradients."""
    found = {}
    for name, parameter in module.named_parameters():
        decodes = name.startswith(("decoder.", "post_quant_conv."))
        parameter.requires_grad_(decodes)
        if decodes:
            found[name] = parameter
    return found


def _fit(
    ctx: Context,
    module: nn.Module,
    tuned: dict[str, Any],
    z: Tensor,
    target: Tensor,
    inside: Tensor,
    steps: int,
    rate: float,
    weight: float,
) -> None:
    import torch

    def decode() -> Tensor:
        out: Tensor = module.decode(z, return_dict=False)[0]  # type: ignore[operator]
        return out

    with torch.no_grad():
        before = decode()
    optimiser = torch.optim.Adam(tuned.values(), lr=rate)
    for done in range(steps):
        now = decode()
        loss = ((now - before) ** 2 * inside).mean() + weight * ((now - target) ** 2 * (1 - inside)).mean()
        if not torch.isfinite(loss):
            raise UserError(
                f"models.tune_decoder: the loss is {loss.item()} at step {done + 1}; take a rate below {rate:g}"
            )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        ctx.progress(done + 1, steps)
