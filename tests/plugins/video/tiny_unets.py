"""Small U-Nets of pictures with random weights, for temporal layers to go into."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel


def unet() -> UNet2DConditionModel:
    """Latents [4, 8, 8] and a text 12 wide; one level has attention."""
    torch.manual_seed(0)
    made = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    return made.eval().requires_grad_(False)


WIDTHS = (32, 64, 64, 64)


def sd15_unet() -> UNet2DConditionModel:
    """Stable Diffusion 1.5's U-Net with a tenth of the channels: four levels, attention in all but the deepest."""
    torch.manual_seed(0)
    made = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=WIDTHS, layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=24, attention_head_dim=8,
    )  # fmt: skip
    return made.eval().requires_grad_(False)
