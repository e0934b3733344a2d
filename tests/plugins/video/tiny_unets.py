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
