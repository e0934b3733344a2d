"""The down path of a U-Net with attention pooling: what it says of a noisy picture, at every noise level.

Trained with labels it is ADM's noisy classifier, trained against texts GLIDE's noised CLIP. The blocks are
diffusers'; how they are put together follows Dhariwal and Nichol 2021, sections 4.2 and H, the pooling Radford et
al. 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, get_down_block
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle, scaled_dot_product_attention, silu

__all__ = ["AttentionPool", "NoisyEncoder"]


class NoisyEncoder(nn.Module):
    """x_t [B, C, size, size] and its time to [B, outputs].

    size: side of the samples. in_channels: of the samples: 3 for pixels. patch: side of what becomes one place of
    the network's grid. channels: of the levels, each half as large as the one before. layers: blocks per level.
    head_channels: of the attention, which all levels but the first have. outputs: classes, or a width.
    """

    def __init__(
        self,
        *,
        size: int = 32,
        in_channels: int = 3,
        patch: int = 2,
        channels: Sequence[int] = (48, 96, 96),
        layers: int = 1,
        head_channels: int = 24,
        outputs: int = 8,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "size": size, "in_channels": in_channels, "patch": patch, "channels": list(channels), "layers": layers,
            "head_channels": head_channels, "outputs": outputs,
        }  # fmt: skip
        scale = patch * 2 ** (len(channels) - 1)
        if size % scale:
            raise ValueError(
                f"size {size} is not a multiple of {scale}: patches of {patch}, {len(channels)} levels"
            )
        first, last, times = channels[0], channels[-1], 4 * channels[0]
        groups = next(count for count in (32, 16, 8, 4, 2, 1) if all(width % count == 0 for width in channels))
        self.patch = patch
        self.frequencies = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, times)
        self.conv_in = nn.Conv2d(in_channels * patch**2, first, 3, padding=1)
        self.levels = nn.ModuleList(
            get_down_block(
                "AttnDownBlock2D" if level else "DownBlock2D",
                num_layers=layers, in_channels=channels[max(level - 1, 0)], out_channels=width,
                temb_channels=times, add_downsample=level < len(channels) - 1, resnet_eps=1e-5,
                resnet_act_fn="silu", resnet_groups=groups, attention_head_dim=head_channels, downsample_padding=1,
                resnet_time_scale_shift="scale_shift",
            )
            for level, width in enumerate(channels)
        )  # fmt: skip
        self.middle = UNetMidBlock2D(
            last,
            times,
            resnet_groups=groups,
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=head_channels,
        )
        self.norm = nn.GroupNorm(groups, last)
        self.pool = AttentionPool(last, (size // scale) ** 2, head_channels, outputs)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        """times: [B], or one for all; the schedule's own, fractions too.

        Raises: ValueError: another size or number of channels.
        """
        size, channels = self.config["size"], self.config["in_channels"]
        if x.ndim != 4 or tuple(x.shape[1:]) != (channels, size, size):
            raise ValueError(f"wanted samples [B, {channels}, {size}, {size}], got {list(x.shape)}")
        embedded = self.time_embedding(self.frequencies(times.expand(len(x))).to(x.dtype))
        x = self.conv_in(pixel_unshuffle(x, self.patch))
        for level in self.levels:
            x, _ = level(x, embedded)
        return self.pool(silu(self.norm(self.middle(x, embedded))))


class AttentionPool(nn.Module):
    """[B, C, h, w] to [B, outputs]: attention whose one query is the mean of all places."""

    def __init__(self, channels: int, places: int, head_channels: int, outputs: int) -> None:
        super().__init__()
        self.heads = max(channels // head_channels, 1)
        self.position_embedding = nn.Parameter(torch.randn(places + 1, channels) / channels**0.5)
        self.query, self.key_value = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)
        tokens = torch.cat((places.mean(1, keepdim=True), places), 1) + self.position_embedding
        key, value = self.key_value(tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = self.query(tokens[:, :1]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1))
