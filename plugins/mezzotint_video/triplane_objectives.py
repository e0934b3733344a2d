"""What PVDM trains, as values: the autoencoder of planes, and the denoiser of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mezzotint import Autoencoder
from mezzotint_models import Architecture
from mezzotint_training import Conditioner, Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_video.triplane_autoencoder_task import PlaneAutoencoderTask
    from mezzotint_video.triplane_diffusion_task import PlaneDiffusionTask

__all__ = ["PlaneAutoencoderObjective", "PlaneDiffusionObjective"]


@dataclass(frozen=True, eq=False)
class PlaneAutoencoderObjective(Objective):
    """Fields as in `video.learn_planes`."""

    frames: int = 8
    size: int = 32
    patch: int = 4
    channels: int = 8
    width: int = 64
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    heads: int = 2
    noise: float = 0.05
    l1: float = 0.1

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> PlaneAutoencoderTask:
        from mezzotint_video.triplane_autoencoder import TriplaneAutoencoder
        from mezzotint_video.triplane_autoencoder_task import PlaneAutoencoderTask

        model = TriplaneAutoencoder(
            frames=self.frames, size=self.size, patch=self.patch, channels=self.channels, width=self.width,
            encoder_blocks=self.encoder_blocks, decoder_blocks=self.decoder_blocks, heads=self.heads,
        )  # fmt: skip
        return PlaneAutoencoderTask(self, model, reader, seed, batch)


@dataclass(frozen=True, eq=False)
class PlaneDiffusionObjective(Objective):
    """Fields as in `video.learn_plane_diffusion`."""

    architecture: Architecture
    autoencoder: Autoencoder
    conditioner: Conditioner | None = None
    previous: float = 0.3
    drop: float = 0.1

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> PlaneDiffusionTask:
        from mezzotint_video.triplane_diffusion_task import PlaneDiffusionTask

        conditions = None if self.conditioner is None else self.conditioner.open(ctx, reader, seed)
        encoder = ctx.realise(self.autoencoder)
        return PlaneDiffusionTask(self, self.architecture.build(), conditions, encoder, reader, seed, batch)
