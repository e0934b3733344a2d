"""Objective of the autoencoder: L1 and MSE on pixels and pixel edges, with a very small KL.

Rombach et al. 2022, sec. 3.1, without the perceptual and adversarial terms: the small world has
flat colours and sharp outlines, which pixel losses carry.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from mezzotint_training.trainer import Figures


def make_autoencoder(
    channels: tuple[int, ...] = (32, 32, 64), latent_channels: int = 8, groups: int = 4
) -> AutoencoderKL:
    """An AutoencoderKL that reduces by 2 ** (len(channels) - 1); one layer per block.

    The posterior's log-variance starts at -6: at 0 its noise would drown the signal.
    """
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=groups,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        model.quant_conv.weight[latent_channels:] *= 0.1
        model.quant_conv.bias[latent_channels:] = -6.0
    return model


def to_model(pictures: Tensor) -> Tensor:
    """[B, H, W, 3] uint8 to [B, 3, H, W] float32 in -1..1, channels last in memory."""
    return pictures.permute(0, 3, 1, 2).to(torch.float32).div(127.5).sub(1.0)


class AutoencoderObjective:
    """Batch: [B, H, W, 3] uint8. Figures: psnr parts (mse in 0..1 units), kl."""

    def __init__(self, model: AutoencoderKL, *, kl: float = 1e-6, edges: float = 0.5) -> None:
        self.model, self.kl, self.edges = model, kl, edges

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"vae": self.model}

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Figures]:
        wanted = to_model(batch)
        posterior = self.model.encode(wanted).latent_dist
        latents = posterior.sample(generator)
        error = self.model.decode(latents).sample - wanted
        square = error.square().mean()
        kl = posterior.kl().mean()
        slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        loss = error.abs().mean() + square + self.edges * slopes + self.kl * kl
        return loss, {"mse": (square / 4).detach(), "kl": kl.detach()}


class DecoderObjective:
    """The decoder alone, behind a fixed encoder, with noisy latents so that it forgives a denoiser.

    encode: [B, 3, H, W] in -1..1 to latents. noise: largest standard deviation of the added noise.
    Batch and figures as for `AutoencoderObjective`.
    """

    def __init__(
        self,
        model: AutoencoderKL,
        encode: Callable[[Tensor], Tensor],
        *,
        noise: float = 0.1,
        edges: float = 0.5,
    ) -> None:
        self.model, self.encode, self.noise, self.edges = model, encode, noise, edges

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"post_quant": self.model.post_quant_conv, "decoder": self.model.decoder}

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Figures]:
        wanted = to_model(batch)
        latents = self.encode(wanted)
        device = latents.device
        spread = self.noise * torch.rand(len(latents), 1, 1, 1, generator=generator, device=device)
        latents = latents + spread * torch.randn(latents.shape, generator=generator, device=device)
        latents = latents.contiguous(memory_format=torch.channels_last)
        error = self.model.decode(latents).sample - wanted
        square = error.square().mean()
        slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        loss = error.abs().mean() + square + self.edges * slopes
        return loss, {"mse": (square / 4).detach()}
