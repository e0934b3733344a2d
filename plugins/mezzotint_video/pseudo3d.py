"""The second half of a pseudo-3D convolution: over time alone, after what a picture's layer did over space."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TemporalConvolution"]


class TemporalConvolution(nn.Module):
    """h [B, F, C, H, W] of each place's frames, the same shape; the identity at the start.

    The weight begins as an impulse and the bias as zeros (Singer et al. 2022, section 3.2.1). It is kept as what
    differs from the identity, which is exact so in any arithmetic and any type.

    kernel: odd number of frames that are seen. Beyond the clip's ends there are zeros.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        if kernel % 2 == 0 or kernel < 1:
            raise ValueError(f"kernel {kernel}; wanted an odd number of frames")
        self.weight = nn.Parameter(torch.zeros(channels, channels, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor) -> Tensor:
        # Frames as the height of a picture and places as its width: one convolution, no loop.
        rows = h.flatten(3).transpose(1, 2)  # [B, C, F, P]
        made = functional.conv2d(
            rows, self.weight.unsqueeze(-1), self.bias, padding=(self.weight.shape[-1] // 2, 0)
        )
        return h + made.transpose(1, 2).unflatten(3, h.shape[3:])
