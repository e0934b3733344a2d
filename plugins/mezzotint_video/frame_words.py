"""Words that learn to change over time: what a clip is told, said anew for each of its frames.

A model of pictures draws "a red circle on the left" where it is told to. "A red circle on the left, moving right"
is drawn once it hears "on the left" at the first frame and "on the right" at the last; what to say in between is
learnt from clips. Ours, after the changing text embeddings of the survey's outlook.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["FrameWords", "WordReader"]

HEAD = 32


class FrameWords(nn.Module):
    """context [B, L, D] or [B, F, L, D] to [B, F, L, D], the same at the start.

    context: D. known: width of what is known of each frame's time. blocks: how many. width: inside.
    """

    def __init__(self, context: int, known: int, blocks: int, width: int = 128) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(known, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.enter = nn.Linear(context, width)
        self.blocks = nn.ModuleList([_Block(width) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, context)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, context: Tensor, known: Tensor) -> Tensor:
        """known: [B, F, K], the time of each frame."""
        context = context if context.ndim == 4 else context.unsqueeze(1)
        time = self.time(known.to(self.enter.weight.dtype))
        batch, frames = time.shape[:2]
        tokens = self.enter(context.to(time.dtype)).expand(batch, frames, -1, -1).flatten(0, 1)
        for block in self.blocks:
            tokens = block(tokens, time.flatten(0, 1))
        changed: Tensor = self.leave(self.norm(tokens)).unflatten(0, (batch, frames))
        return context + changed.to(context.dtype)


class WordReader(nn.Module):
    """context [..., L, D] to [..., queries * 32], what learnt queries find in it after a few blocks.

    Which words tell the motion, and what several of them say together, is for them to find.
    """

    def __init__(self, context: int, blocks: int, queries: int = 4, width: int = 128) -> None:
        super().__init__()
        self.enter = nn.Linear(context, width)
        self.time = nn.Parameter(torch.zeros(1, width))
        self.blocks = nn.ModuleList([_Block(width) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(queries, HEAD))
        self.to_k, self.to_v = nn.Linear(width, HEAD), nn.Linear(width, HEAD)

    def forward(self, context: Tensor) -> Tensor:
        rows = context.flatten(0, -3) if context.ndim > 3 else context
        tokens = self.enter(rows.to(self.enter.weight.dtype))
        for block in self.blocks:
            tokens = block(tokens, self.time.expand(len(tokens), -1))
        tokens = self.norm(tokens)
        logits = torch.einsum("qd,bld->bql", self.queries, self.to_k(tokens)) * HEAD**-0.5
        found: Tensor = (logits.softmax(-1) @ self.to_v(tokens)).flatten(1)
        return found.view(*context.shape[:-2], -1)


class _Block(nn.Module):
    """Self-attention of a text's tokens and a perceptron, both scaled and shifted by the frame's time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.norms = nn.ModuleList([nn.LayerNorm(width, elementwise_affine=False) for _ in range(2)])
        self.scale_shift = nn.Linear(width, 4 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, time: Tensor) -> Tensor:
        parts = self.scale_shift(time).unsqueeze(1).chunk(4, dim=-1)
        seen = self.norms[0](tokens) * (1 + parts[0]) + parts[1]
        q, k, v = (
            part.unflatten(-1, (self.heads, HEAD)).transpose(1, 2) for part in self.qkv(seen).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(mixed)
        after: Tensor = tokens + self.mlp(self.norms[1](tokens) * (1 + parts[2]) + parts[3])
        return after
