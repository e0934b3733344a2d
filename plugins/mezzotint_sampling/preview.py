"""A quick look at latents while they are made, without an autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mezzotint import Image

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["preview"]


def preview(latents: Tensor, space: str) -> Image:
    """A small picture of latents [B, C, H, W] or [B, C, F, H, W]; of a clip, its first frame.

    Pixels are shown as they are. Of other latents the first three channels are shown, each sample
    stretched to its own range: enough to see the composition.
    """
    first = latents[:, :, 0] if latents.dim() == 5 else latents
    first = first.detach().float()
    channels = 3 if first.shape[1] >= 3 else 1
    shown = first[:, :channels].movedim(1, -1)
    if space == "pixels":
        return Image(data=(shown * 0.5 + 0.5).clamp(0, 1).cpu())
    low, high = shown.amin(dim=(1, 2), keepdim=True), shown.amax(dim=(1, 2), keepdim=True)
    stretched = (shown - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    return Image(data=stretched.cpu())
