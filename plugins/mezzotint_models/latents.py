"""Pictures to latents, latents to pictures, and the mask that says which latents may change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mezzotint import Autoencoder, Context, Image, Latents, Mask, UserError, node

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["decode", "encode", "set_mask"]

_PIXELS_AT_ONCE = 1 << 20


@node("models.encode", device=True)
def encode(ctx: Context, autoencoder: Autoencoder, image: Image) -> Latents:
    """Encode pictures into the denoiser's scaled latent space, at the mode of the posterior.

    autoencoder: of the checkpoint that samples.
    image: [B, H, W, C], C = 3, or 1, which counts as three equal channels; H and W multiples of the
    autoencoder's downscale (8 in Stable Diffusion).
    Raises: UserError: sizes that do not divide (image.resize has multiple_of), four channels.
    """
    pixels, step = image.data, autoencoder.downscale
    _, height, width, channels = pixels.shape
    if height % step or width % step:
        raise UserError(
            f"models.encode: the picture is {width}x{height}, wanted multiples of {step}; "
            f"image.resize with multiple_of {step} makes it {width // step * step}x{height // step * step}"
        )
    if channels == 4:
        raise UserError(
            "models.encode: the picture has an alpha channel; load it with channels 3, or composite it"
        )
    pixels = pixels.expand(-1, -1, -1, 3) if channels == 1 else pixels
    model = ctx.realise(autoencoder)
    latents = _in_portions(ctx, model.encode, pixels, height * width)
    return Latents(latents, space=autoencoder.space, downscale=step)


@node("models.decode", device=True)
def decode(ctx: Context, autoencoder: Autoencoder, latents: Latents) -> Image:
    """Decode latents to pictures, [B, H, W, 3], clamped to 0..1.

    autoencoder: of the checkpoint that sampled, or another of the same latent space.
    latents: [B, C, H, W], scaled.
    Raises: UserError: latents of another space, or of a clip.
    """
    data = latents.data
    if data.ndim != 4:
        raise UserError(f"models.decode: wanted latents of pictures, [B, C, H, W], got {list(data.shape)}")
    if latents.space and autoencoder.space and latents.space != autoencoder.space:
        raise UserError(
            f"models.decode: the latents are of space {latents.space!r}, the autoencoder's is "
            f"{autoencoder.space!r}: they come from different models"
        )
    if data.shape[1] != autoencoder.channels:
        raise UserError(f"models.decode: wanted {autoencoder.channels} channels, got {data.shape[1]}")
    model = ctx.realise(autoencoder)
    pixels = data.shape[2] * data.shape[3] * autoencoder.downscale**2
    return Image(_in_portions(ctx, model.decode, data, pixels))


@node("models.set_mask")
def set_mask(latents: Latents, mask: Mask, *, cover: bool = True) -> Latents:
    """Say which latents may change: a sampler keeps the others (inpainting).

    latents: what is kept where the mask is 0.
    mask: [B or 1, H, W] in pixels, 1 = change here; for a clip [B or 1, F, H, W] too. Any size of at least
    the latents' own; it is reduced to theirs.
    cover: True lets a latent change when any pixel under it should; False takes the mean of those pixels, so
    that edges are soft.
    Raises: UserError: a mask with another number of samples or frames, or smaller than the latents; one that is 0
        throughout.
    """
    data, wanted = latents.data, latents.data.shape
    pixels = mask.data.float()
    clip, frames = data.ndim == 5, wanted[2] if data.ndim == 5 else 1
    if pixels.shape[0] not in (1, wanted[0]) or (pixels.ndim == 4 and pixels.shape[1] not in (1, frames)):
        raise UserError(
            f"models.set_mask: the mask is {list(pixels.shape)}, the latents {list(wanted)}; give one mask, "
            "or one for each sample"
        )
    if pixels.shape[-2] < wanted[-2] or pixels.shape[-1] < wanted[-1]:
        raise UserError(
            f"models.set_mask: the mask is {list(pixels.shape[-2:])}, the latents {list(wanted[-2:])}; give it "
            "the picture's size (image.resize takes a mask along)"
        )
    if not pixels.any():
        raise UserError(
            "models.set_mask: the mask is 0 throughout, so nothing would change; make it white where the picture "
            "is to change (image.mask_refine with invert, if black was meant), or leave the mask out"
        )
    stacked = pixels.flatten(0, -3).unsqueeze(1)
    small = _reduced(stacked, (wanted[-2], wanted[-1]), cover)
    small = small.unflatten(0, pixels.shape[:-2]).movedim(-3, 1)
    if clip:
        small = small if small.ndim == 5 else small.unsqueeze(2)
        small = small.expand(-1, -1, frames, -1, -1)
    small = small.expand(wanted[0], *small.shape[1:]).to(data.device).contiguous()
    return latents.replace(mask=small)


def _reduced(mask: Tensor, size: tuple[int, int], cover: bool) -> Tensor:
    from torch.nn import functional

    pool = functional.adaptive_max_pool2d if cover else functional.adaptive_avg_pool2d
    return pool(mask, size).clamp(0, 1)


def _in_portions(ctx: Context, run: Callable[[Tensor], Tensor], data: Tensor, pixels_each: int) -> Tensor:
    """`run` on the rows of a batch, about a megapixel at a time.

    A large batch does not need a large memory.
    """
    import torch

    rows = max(1, _PIXELS_AT_ONCE // pixels_each)
    done = []
    for start in range(0, data.shape[0], rows):
        done.append(run(data[start : start + rows]))
        ctx.progress(min(start + rows, data.shape[0]), data.shape[0])
    return torch.cat(done)
