"""Heads that follow what moves: each sees the frames shifted, turned and scaled, so that it stands still there.

Temporal attention compares a place with the same place of the other frames. A thing that moves is elsewhere there.
What a frame is told (its time, and what the words say of the motion) says by how much: attention takes place in
coordinates that go along, and its result is moved back. Ours; after spatial transformers (Jaderberg et al. 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MovingHeads"]

PARTS = 4  # shift in x and y, logarithm of the scale, angle


class MovingHeads(nn.Module):
    """Where each of `heads` heads looks in each frame; in place at first. told: width of what a frame is told."""

    def __init__(self, told: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.course = nn.Linear(told, heads * PARTS)
        nn.init.zeros_(self.course.weight)
        nn.init.zeros_(self.course.bias)

    def forward(self, told: Tensor) -> Tensor:
        """told [B, F, T] to maps [B, F, H, 2, 3], from the coordinates that go along to those of the frame."""
        x, y, grow, turn = self.course(told).float().unflatten(-1, (self.heads, PARTS)).unbind(-1)
        scale, sine, cosine = grow.clamp(-2, 2).exp(), turn.sin(), turn.cos()
        first = torch.stack([scale * cosine, -scale * sine, x], dim=-1)
        second = torch.stack([scale * sine, scale * cosine, y], dim=-1)
        return torch.stack([first, second], dim=-2)


def inverse(maps: Tensor) -> Tensor:
    """The maps back, [..., 2, 3]: of similarities, whose matrix has the determinant of its scale squared."""
    a, b = maps[..., 0, 0], maps[..., 1, 0]
    x, y = maps[..., 0, 2], maps[..., 1, 2]
    size = a * a + b * b
    first = torch.stack([a, b, -(a * x + b * y)], dim=-1)
    second = torch.stack([-b, a, b * x - a * y], dim=-1)
    return torch.stack([first, second], dim=-2) / size[..., None, None]


def moved(h: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """h [B, F, P, H, D], each head's pictures looked at through maps [B, F, H, 2, 3]; the edge goes on outside."""
    batch, frames, places, heads, width = h.shape
    pictures = h.permute(0, 1, 3, 4, 2).reshape(batch * frames * heads, width, *size)
    grid = functional.affine_grid(maps.reshape(-1, 2, 3), [len(pictures), width, *size], align_corners=False)
    seen = functional.grid_sample(pictures, grid.to(pictures.dtype), padding_mode="border", align_corners=False)
    return seen.view(batch, frames, heads, width, places).permute(0, 1, 4, 2, 3).contiguous()
