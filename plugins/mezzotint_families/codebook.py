"""Vector quantisation: the nearest vector of a codebook, gradients straight through, moving-average updates.

van den Oord et al. 2017, eq. 3 and appendix A.1 (the moving average).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, mse_loss

__all__ = ["Codebook", "Quantised", "perplexity"]

Update = Literal["average", "gradient"]


class Quantised(NamedTuple):
    """vectors: [B, D, H, W], with the gradient of the input. indices: [B, H, W] int64.

    codebook: squared distance that only the codebook's gradient sees. commitment: the same for the encoder.
    """

    vectors: Tensor
    indices: Tensor
    codebook: Tensor
    commitment: Tensor


def perplexity(indices: Tensor, codes: int) -> Tensor:
    """exp of the entropy of how often each code is used: from 1, always the same, to `codes`, all alike."""
    share = torch.bincount(indices.flatten(), minlength=codes).double()
    share = share / share.sum()
    return (-torch.special.xlogy(share, share).sum()).exp().float()


class Codebook(nn.Module):
    """`codes` vectors of `width` numbers.

    update: "average" moves each vector to the mean of what was assigned to it, with a decay, and no gradient;
    "gradient" leaves it to the optimiser.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, *, update: Update = "average", decay: float = 0.99) -> None:
        super().__init__()
        self.codes, self.width, self.update, self.decay = codes, width, update, decay
        vectors = torch.randn(codes, width)
        if update == "gradient":
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
            self.register_buffer("counts", torch.ones(codes))
            self.register_buffer("sums", vectors.clone())

    def nearest(self, x: Tensor) -> Tensor:
        """Index of the nearest vector at each place: [B, D, H, W] to [B, H, W] int64.

        In float32 or wider: the expanded square loses small distances in half precision.
        """
        flat = x.detach().movedim(1, -1)
        flat = flat if flat.dtype == torch.float64 else flat.float()
        table = self.vectors.detach().to(flat.dtype)
        return (table.square().sum(1) - 2 * flat @ table.T).argmin(-1)

    def look_up(self, indices: Tensor) -> Tensor:
        """[B, H, W] to vectors [B, D, H, W]."""
        return embedding(indices, self.vectors).movedim(-1, 1)

    def forward(self, x: Tensor) -> Quantised:
        indices = self.nearest(x)
        found = self.look_up(indices)
        codebook, commitment = mse_loss(found, x.detach()), mse_loss(x, found.detach())
        return Quantised(x + (found - x).detach(), indices, codebook, commitment)

    @torch.no_grad()
    def follow(self, x: Tensor, indices: Tensor, generator: torch.Generator | None = None) -> None:
        """One moving-average update from the inputs that a batch assigned. x: [B, D, H, W].

        A vector that nothing comes to any more starts again at a random input, or it would stay unused for ever.
        """
        if self.update != "average":
            return
        flat, chosen = x.detach().movedim(1, -1).reshape(-1, self.width).float(), indices.flatten()
        counts = torch.bincount(chosen, minlength=self.codes).float()
        sums = torch.zeros_like(self.sums).index_add_(0, chosen, flat)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        lost = self.counts < 0.02 * len(flat) / self.codes
        if lost.any():
            rows = torch.randint(len(flat), (int(lost.sum()),), generator=generator)
            self.counts[lost] = len(flat) / self.codes
            self.sums[lost] = flat[rows.to(flat.device)] * self.counts[lost, None]
        self.vectors.copy_(self.sums / self.counts[:, None])
