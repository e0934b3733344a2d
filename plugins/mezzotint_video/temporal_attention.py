"""Attention over the frames of a clip, at each place or over a small window of places, on a residual branch.

Its last matrix begins as zeros, so that a model which is given such layers draws what it drew before (Singer et
al. 2022, section 3.2.2). Plain: Ho et al. 2022, section 3. With a window, a place sees its neighbourhood in every
frame, both ways in time, so that what moves is found again where it went.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mezzotint_video.moving_heads import MovingHeads, inverse, moved

__all__ = ["Position", "TemporalAttention", "relative_buckets", "sinusoids"]

Position = Literal["none", "sinusoidal", "relative", "rotary"]
BUCKETS, FARTHEST = 32, 32

Through = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]
"""How attention is computed: of queries, keys and values [B, F, P, H, D] and a bias [H or 1, F, F] or None."""


class TemporalAttention(nn.Module):
    """h [B, F, P, C] to what is added to it, [B, F, P, C]; zeros at the start.

    channels: C. head: channels of one head. position: how frames are told apart: "sinusoidal" adds to the tokens,
        "relative" to the logits (buckets of T5, Raffel et al. 2020), "rotary" turns queries and keys (Su et al.
        2021).
    causal: frame f sees frames 0..f.
    window: odd; each place sees its window x window neighbourhood in all frames, no place beyond the edge.
    modulation: width of a vector per frame that scales and shifts the tokens, and is added to what comes out; 0 is
        none.
    follows: whether each head looks at every frame where what moves has gone, as it is told (MovingHeads).
    """

    def __init__(
        self,
        channels: int,
        head: int = 32,
        position: Position = "relative",
        causal: bool = False,
        window: int = 1,
        modulation: int = 0,
        follows: bool = False,
    ) -> None:
        super().__init__()
        if channels % head or head % 2 or window % 2 == 0 or window < 1:
            raise ValueError(f"channels {channels}, head {head} (even, a divisor), window {window} (odd)")
        self.head, self.heads = head, channels // head
        self.position, self.causal, self.window = position, causal, window
        self.norm = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        self.buckets = nn.Embedding(BUCKETS, self.heads) if position == "relative" else None
        self.scale_shift = nn.Linear(modulation, 2 * channels) if modulation else None
        self.lift = nn.Linear(modulation, channels, bias=False) if modulation else None
        self.moving = MovingHeads(modulation, self.heads) if follows and modulation else None
        for layer in (self.to_out, self.scale_shift, self.lift):
            if layer is not None:
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)
        if self.buckets is not None:
            nn.init.zeros_(self.buckets.weight)

    def forward(
        self, h: Tensor, size: tuple[int, int], told: Tensor | None = None, through: Through | None = None
    ) -> Tensor:
        """size: height and width with P = height * width. told: [B, F, modulation]. through: computes the
        attention in place of the kernel, for injectors.
        """
        tokens = self.norm(h)
        if self.scale_shift is not None and told is not None:
            scale, shift = self.scale_shift(told).unsqueeze(2).chunk(2, dim=-1)
            tokens = tokens * (1 + scale) + shift
        frames = h.shape[1]
        if self.position == "sinusoidal":
            tokens = tokens + sinusoids(frames, h.shape[-1], h).view(1, frames, 1, -1)
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, self.head)) for layer in (self.to_q, self.to_k, self.to_v)
        )
        if self.position == "rotary":
            query, key = _rotated(query), _rotated(key)
        maps = None if self.moving is None or told is None else self.moving(told)
        if maps is not None:
            query, key, value = (moved(part, maps, size) for part in (query, key, value))
        if self.window > 1:
            out = self._windowed(query, key, value, size)
        else:
            out = (through or self._attend)(query, key, value, self.bias(frames, h))
        if maps is not None:
            out = moved(out, inverse(maps), size)
        out = self.to_out(out.flatten(-2).to(h.dtype))
        return out if self.lift is None or told is None else out + self.lift(told).unsqueeze(2)

    def bias(self, frames: int, like: Tensor) -> Tensor | None:
        """[H or 1, F, F], added to the logits: relative positions, and -inf where a frame may not be seen."""
        found = None
        if self.buckets is not None:
            found = self.buckets(relative_buckets(frames).to(like.device)).permute(2, 0, 1)
        if self.causal:
            barred = torch.full((frames, frames), -math.inf, device=like.device, dtype=like.dtype).triu(1)
            found = barred[None] if found is None else found + barred
        return found

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        from mezzotint_kernels import temporal_attention

        return temporal_attention(query, key, value, bias=bias)

    def _windowed(self, query: Tensor, key: Tensor, value: Tensor, size: tuple[int, int]) -> Tensor:
        """Attention of each place to its neighbourhood in all frames, a frame's worth of neighbours at a time."""
        frames, near = query.shape[1], self.window**2
        keys, values = (neighbours(part, size, self.window) for part in (key, value))  # [B, F, P, k, H, D]
        seen = neighbours(torch.ones_like(key[:1, :1, :, :1, :1]), size, self.window)[0, 0, :, :, 0, 0] > 0
        bias = query.new_zeros(1, 1, 1, frames, 1).masked_fill(~seen[:, None, None, None, :], -math.inf)
        table = self.bias(frames, query)
        if table is not None:
            bias = bias + table[None, :, :, :, None]
        bias = bias.expand(-1, -1, frames, -1, near).flatten(3)  # [P, H or 1, F, F * k]
        q = query.permute(0, 2, 3, 1, 4)  # [B, P, H, F, D]
        k, v = (part.permute(0, 2, 4, 1, 3, 5).flatten(3, 4) for part in (keys, values))
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return out.permute(0, 3, 1, 2, 4)


def neighbours(x: Tensor, size: tuple[int, int], window: int) -> Tensor:
    """x [B, F, P, H, D] to [B, F, P, window**2, H, D]: what lies around each place; zeros beyond the edge."""
    batch, frames, places, heads, width = x.shape
    grid = x.flatten(3).permute(0, 1, 3, 2).reshape(batch * frames, heads * width, *size)
    around = functional.unfold(grid, window, padding=window // 2)
    around = around.view(batch, frames, heads, width, window**2, places)
    return around.permute(0, 1, 5, 4, 2, 3)


def sinusoids(frames: int, channels: int, like: Tensor) -> Tensor:
    """[frames, channels]: sine and cosine of the frame's number at falling frequencies (Vaswani et al. 2017)."""
    half = channels // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, device=like.device, dtype=torch.float32) / half)
    angles = torch.arange(frames, device=like.device, dtype=torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)


def relative_buckets(frames: int) -> Tensor:
    """[F, F] int64: the bucket of how far the frame that is asked lies from the one that asks.

    Half of the buckets for each direction; near ones have their own, far ones share by the logarithm (Raffel et
    al. 2020, section 2.1).
    """
    places = torch.arange(frames)
    away = places[None, :] - places[:, None]
    half, exact = BUCKETS // 2, BUCKETS // 4
    far = away.abs()
    shared = exact + (
        (far.clamp(min=1).float() / exact).log() / math.log(FARTHEST / exact) * (half - exact)
    ).long().clamp(max=half - exact - 1)
    return torch.where(away > 0, half, 0) + torch.where(far < exact, far, shared)


def _rotated(x: Tensor) -> Tensor:
    """x [B, F, P, H, D] with each pair of channels turned by its frame's angle."""
    frames, width = x.shape[1], x.shape[-1]
    waves = sinusoids(frames, width, x.float()).view(1, frames, 1, 1, width)
    sine, cosine = waves.chunk(2, dim=-1)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1).to(x.dtype)
