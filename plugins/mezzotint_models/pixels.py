"""Pictures as the latents of a denoiser that works on pixels, and back."""

from __future__ import annotations

from mezzotint import Image, Latents, UserError, node

__all__ = ["SPACE", "to_image", "to_latents"]

SPACE = "pixels"
"""The latent space of denoisers that see pixels: [B, 3, H, W] in -1..1."""


@node("models.to_latents")
def to_latents(image: Image) -> Latents:
    """Pictures as latents of a denoiser of pixels, in -1..1.

    image: [B, H, W, C], C = 3, or 1, which counts as three equal channels.
    Raises: UserError: four channels.
    """
    pixels = image.data
    if pixels.shape[-1] == 4:
        raise UserError("models.to_latents: the picture has an alpha channel; load it with channels 3")
    pixels = pixels.expand(-1, -1, -1, 3)
    return Latents(pixels.movedim(-1, 1).contiguous() * 2 - 1, space=SPACE, downscale=1)


@node("models.to_image")
def to_image(latents: Latents) -> Image:
    """What a denoiser of pixels sampled, as pictures [B, H, W, 3], clamped to 0..1.

    latents: [B, 3, H, W] of space "pixels".
    Raises: UserError: an autoencoder's latents, or a clip's.
    """
    data = latents.data
    if latents.space not in ("", SPACE):
        raise UserError(
            f"models.to_image: the latents are of space {latents.space!r}, which an autoencoder decodes: take "
            "models.decode"
        )
    if data.ndim != 4 or data.shape[1] != 3:
        raise UserError(f"models.to_image: wanted [B, 3, H, W], got {list(data.shape)}")
    return Image((data.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1).contiguous())
