"""Objective of the latent denoiser: v-prediction, words dropped for classifier-free guidance.

Salimans & Ho 2022 (v = alpha eps - sigma x0); Ho & Salimans 2022 (10% empty captions). The schedule
is Stable Diffusion's scaled-linear one, taken further (beta 0.00085 to 0.02, sigma / alpha about 64
at the end) so that the last step hides the mean colour and pure noise is a fair start.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from mezzotint_training.trainer import Figures

LatentBatch = tuple[Tensor, Tensor]


def make_denoiser(
    channels: tuple[int, ...] = (64, 128),
    *,
    latent_channels: int = 8,
    size: int = 16,
    words: int = 128,
    layers: int = 1,
    heads: int = 4,
    groups: int = 16,
) -> UNet2DConditionModel:
    """A UNet2DConditionModel that sees the words at every level and in its time embedding."""
    levels = len(channels)
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=channels,
        layers_per_block=layers,
        cross_attention_dim=words,
        attention_head_dim=heads,
        norm_num_groups=groups,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=heads,
    )


def make_scheduler() -> DDIMScheduler:
    """The schedule that the denoiser is trained and sampled with."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )


def velocity(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """v = alpha noise - sigma clean; alpha and sigma broadcast. Source: Salimans & Ho 2022, D."""
    return alpha * noise - sigma * clean


class DenoiserObjective:
    """Batch: latents [B, C, h, w] float32, token ids [B, L] int64. Figures: mse by noise level."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text: CLIPTextModel,
        empty_ids: Tensor,
        *,
        drop: float = 0.1,
        focus: float = 0.0,
    ) -> None:
        """empty_ids: [L] int64, the empty caption. drop: share of captions replaced by it.

        focus: share of times drawn from the middle levels (sigma / alpha from 1 to 8), where
        outlines are decided; the others are uniform.
        """
        self.unet, self.text, self.empty_ids = unet, text, empty_ids
        self.drop, self.focus = drop, focus
        products = make_scheduler().alphas_cumprod.float()
        self.alpha, self.sigma = products.sqrt(), (1 - products).sqrt()
        ratio = self.sigma / self.alpha
        self.low, self.high = (int((ratio < bound).sum()) for bound in (1.0, 8.0))

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text": self.text}

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] int64, one in each of `count` equal parts of the range (stratified)."""
        device = generator.device
        base = torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)
        base = base / count
        focused = torch.rand(count, generator=generator, device=device) < self.focus
        middle = self.low + base * (self.high - self.low)
        return torch.where(focused, middle, base * len(self.alpha)).long()

    def loss(self, batch: LatentBatch, generator: torch.Generator) -> tuple[Tensor, Figures]:
        clean, ids = batch
        count, device = len(clean), clean.device
        dropped = torch.rand(count, generator=generator, device=device) < self.drop
        ids = torch.where(dropped[:, None], self.empty_ids.to(device), ids)
        times = self.times(count, generator)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        alpha, sigma = (table.to(device)[times, None, None, None] for table in (self.alpha, self.sigma))
        noisy = (alpha * clean + sigma * noise).contiguous(memory_format=torch.channels_last)
        words = self.text(ids).last_hidden_state
        output = self.unet(noisy, times, words).sample
        errors = (output - velocity(clean, noise, alpha, sigma)).square().mean((1, 2, 3))
        parts = errors.detach().view(4, -1).mean(1) if count % 4 == 0 and not self.focus else None
        figures = {} if parts is None else {f"mse{i}": parts[i] for i in range(4)}
        return errors.mean(), figures
