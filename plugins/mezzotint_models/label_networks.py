"""Labels and layouts as a denoiser's context: the networks of latent diffusion's two small conditioners.

Rombach et al. 2022, appendix E: a class is one learnt token; a layout is a sequence of tokens that a transformer
without a mask reads. Both learn along with the denoiser.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from mezzotint_models.layout import Grid

__all__ = ["ClassTokens", "LayoutEncoder"]


class ClassTokens(nn.Module):
    """Class numbers [B] int64 to context [B, tokens, width]; the number after the last name is no class at all."""

    def __init__(self, names: list[str], width: int = 128, tokens: int = 1) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"names": list(names), "width": width, "tokens": tokens}
        self.embedding = nn.Embedding(len(names) + 1, tokens * width)

    @property
    def null(self) -> int:
        return self.embedding.num_embeddings - 1

    def forward(self, labels: Tensor) -> Tensor:
        found: Tensor = self.embedding(labels)
        return found.unflatten(1, (self.config["tokens"], self.config["width"]))


class LayoutEncoder(nn.Module):
    """A layout's tokens [B, 3 * objects] int64, see `Grid`, to context [B, 3 * objects, width].

    A corner's vector is the sum of its row's and its column's: the paper has a table of all corners, which a small
    data set would not fill. The blocks begin as the identity, so that names mean at once what their vectors say.
    bound: a name's token begins with its corners added to it, so that which name belongs where need not be learnt.
    """

    def __init__(
        self,
        names: list[str],
        side: int = 32,
        objects: int = 2,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        bound: bool = False,
    ) -> None:
        super().__init__()
        if side < 2 or objects < 1 or width % heads:
            raise ValueError("side must be 2 or more, objects 1 or more, and width a multiple of heads")
        self.config: dict[str, Any] = {
            "names": list(names), "side": side, "objects": objects, "width": width, "layers": layers,
            "heads": heads, "bound": bound,
        }  # fmt: skip
        self.bound = bound
        self.grid = Grid(tuple(names), side, objects)
        self.name_embedding = nn.Embedding(len(names), width)
        self.row_embedding, self.column_embedding = nn.Embedding(side, width), nn.Embedding(side, width)
        self.absent = nn.Parameter(torch.zeros(width))
        self.slot_embedding = nn.Parameter(torch.zeros(self.grid.length, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        with torch.no_grad():
            # Neighbours begin alike; rows and columns differ in phase.
            waves = _waves(side, width)
            self.row_embedding.weight.copy_(waves)
            self.column_embedding.weight.copy_(waves.roll(width // 4, dims=1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedded(tokens) + self.slot_embedding
        for block in self.blocks:
            x = block(x)
        return x

    def embedded(self, tokens: Tensor) -> Tensor:
        """[B, L, width]."""
        count, side = len(self.grid.names), self.grid.side
        corner = (tokens - count).clamp(0, side**2 - 1)
        places = self.row_embedding(corner // side) + self.column_embedding(corner % side)
        named = self.name_embedding(tokens.clamp(max=count - 1))
        if self.bound:
            objects = places.unflatten(1, (-1, 3))
            named = named + (objects[:, :, 1] + objects[:, :, 2]).repeat_interleave(3, 1)
        found = torch.where((tokens < count)[..., None], named, places)
        return torch.where((tokens == self.grid.padding)[..., None], self.absent, found)


class Block(nn.Module):
    """Attention and an MLP, each behind a norm, added to what comes in; both begin at 0."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (self.outputs, self.down):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inputs(self.first(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.outputs(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.second(x))))


def _waves(count: int, width: int) -> Tensor:
    """[count, width]: sines and cosines of the place in 0..1, from half a period to count / 2 of them."""
    place = torch.linspace(0, 1, count)[:, None]
    rates = math.pi * torch.logspace(0, math.log10(max(count / 2, 1)), width // 2)
    return 0.5 * torch.cat((torch.sin(place * rates), torch.cos(place * rates)), dim=1)
