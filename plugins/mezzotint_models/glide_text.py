"""GLIDE's text transformer: it is trained along with the denoiser that it conditions.

Every token sees every other: no causal mask, and none of padding either; what stands behind the end of a text is
an embedding of its own for each position, which is learnt. Nichol et al. 2021, "GLIDE", section 4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

__all__ = ["GlideText"]


class GlideText(nn.Module):
    """Token ids [B, L] to tokens [B, L, width] and pooled [B, pooled]. L must be `length`.

    vocabulary: number of tokens. end: id of the end mark; all that follows the first one is padding.
    length: tokens of a text. width, layers, heads: of the transformer. pooled: width of what the last position is
    projected to, for a denoiser's time embedding.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        end: int,
        length: int = 32,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        pooled: int = 128,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "vocabulary": vocabulary, "end": end, "length": length, "width": width, "layers": layers,
            "heads": heads, "pooled": pooled,
        }  # fmt: skip
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.end = end
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Parameter(torch.randn(length, width) * 0.01)
        self.padding_embedding = nn.Parameter(torch.randn(length, width) * 0.01)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, pooled)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids: [B, L] int64.

        Raises: ValueError: another length than the network's.
        """
        length = self.config["length"]
        if ids.ndim != 2 or ids.shape[1] != length:
            raise ValueError(f"wanted token ids [B, {length}], got {list(ids.shape)}")
        ends = (ids == self.end).long().cumsum(1)
        # The mark itself is the first of its kind; from the next position on it is padding.
        padding = (ends > 1) | ((ends == 1) & (ids != self.end))
        x = self.token_embedding(ids) + self.position_embedding
        x = torch.where(padding[..., None], self.padding_embedding, x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x, self.projection(x[:, -1])


class Block(nn.Module):
    """A layer of a transformer, norms first: attention of all with all, then an MLP four times as wide."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.query_key_value(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [B, heads, L, width / heads]
        seen = scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp_out(gelu(self.mlp_in(self.mlp_norm(x))))
