"""The autoencoder of planes, realised: clips in 0..1 to latents and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint import Autoencoder, Context, UserError
from mezzotint_video.triplane import stack_planes, unstack_planes

if TYPE_CHECKING:
    from mezzotint_video.triplane_autoencoder import TriplaneAutoencoder

__all__ = ["PlaneModel", "load_planes"]


class PlaneModel:
    """frames, size: of the clips that three planes hold."""

    def __init__(self, module: TriplaneAutoencoder, scale: float) -> None:
        self.module, self.scale = module, scale
        self.frames, self.size = int(module.config["frames"]), int(module.config["size"])

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.module.parameters())

    def encode(self, clips: Tensor) -> Tensor:
        """Latents [B, C, rows, side]. clips: [B, F, H, W, 3] in 0..1, a larger side is averaged down.

        Raises: UserError: another number of frames, or frames that are not square or no multiple of the size.
        """
        _, frames, height, width, colours = clips.shape
        if frames != self.frames or colours != 3 or height != width or height % self.size:
            raise UserError(
                f"three planes hold {self.frames} frames of {self.size}x{self.size} pixels (or a square multiple) "
                f"in 3 colours; got {frames} of {width}x{height} in {colours}"
            )
        parameter = next(self.module.parameters())
        x = clips.to(parameter.device, parameter.dtype).movedim(-1, 1)
        step = height // self.size
        x = torch.nn.functional.avg_pool3d(x, (1, step, step)) if step > 1 else x
        return stack_planes(self.module.encode(x.contiguous() * 2 - 1)) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """[B, F, S, S, 3] float32 in 0..1. latents: of `encode`."""
        parameter = next(self.module.parameters())
        stacked = latents.to(parameter.device, parameter.dtype) / self.scale
        # What a denoiser makes may lie a little beyond what tanh can give.
        pixels = self.module.decode(unstack_planes(stacked.clamp(-1, 1)))
        return (pixels / 2 + 0.5).clamp(0, 1).movedim(1, -1).float().contiguous()


def load_planes(recipe: Autoencoder, ctx: Context) -> PlaneModel:
    """Loader `video.planes`. Raises: UserError: weights of another network."""
    from mezzotint_models import network_of
    from mezzotint_video.triplane_autoencoder import TriplaneAutoencoder

    network = network_of(recipe, ctx)
    if not isinstance(network, TriplaneAutoencoder):
        raise UserError(f"wanted an autoencoder of planes, got a {type(network).__name__}")
    return PlaneModel(network, recipe.scale)
