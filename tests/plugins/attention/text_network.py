"""A small U-Net that reads a text, with random weights."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel

from mezzotint import NoiseSchedule
from mezzotint_models.unet import UNetPredictor


def text_model(dtype: torch.dtype = torch.float32) -> UNetPredictor:
    """Of latents [4, 8, 8] and tokens 8 wide."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip
    return UNetPredictor(network.eval().requires_grad_(False).to(dtype), NoiseSchedule())
