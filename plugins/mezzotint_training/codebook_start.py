"""Where a codebook begins, and what becomes of codes that nothing uses.

A codebook that begins around 0 while the encoder's outputs lie far from there ends in one code. So it begins
at what the encoder gives (a few rounds of Lloyd's k-means), and a code that falls out of use begins anew.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CodeUse", "nearest", "perplexity", "start_codebook"]

_AT_ONCE = 1 << 14


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index of the nearest code of each vector: [N, D] and [K, D] to [N] int64, in float32."""
    table = codes.float()
    half = table.square().sum(1) / 2
    return torch.cat([(half - part.float() @ table.T).argmin(1) for part in vectors.split(_AT_ONCE)])


def perplexity(indices: Tensor, codes: int) -> Tensor:
    """exp of the entropy of the codes' use: 1 if it is always the same, `codes` if all are used alike."""
    share = torch.bincount(indices.flatten(), minlength=codes).double()
    share = share / share.sum()
    return (-torch.special.xlogy(share, share).sum()).exp().float()


@torch.no_grad()
def start_codebook(vectors: Tensor, codes: int, generator: torch.Generator, rounds: int = 6) -> Tensor:
    """[codes, D]: means of the vectors nearest to them. vectors: [N, D]; fewer than `codes` are repeated."""
    order = torch.randperm(len(vectors), generator=generator)
    found = vectors[order[torch.arange(codes) % len(vectors)]].float().clone()
    if len(vectors) <= codes:
        return found
    for _ in range(rounds):
        chosen = nearest(vectors, found)
        counts = torch.bincount(chosen, minlength=codes)
        sums = torch.zeros_like(found).index_add_(0, chosen, vectors.float())
        elsewhere = vectors[torch.randint(len(vectors), (codes,), generator=generator)].float()
        found = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], elsewhere)
    return found


class CodeUse(nn.Module):
    """How often each code was used of late. A buffer, so that a stopped run goes on with it."""

    share: Tensor

    def __init__(self, codes: int, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("share", torch.ones(codes))

    @torch.no_grad()
    def follow(self, indices: Tensor) -> Tensor:
        """Count a batch, and say which codes have fallen out of use: [K] bool.

        The share is of what equal use would be; a code below a hundredth of that is lost, and counted as fresh.
        """
        codes = len(self.share)
        counts = torch.bincount(indices.flatten(), minlength=codes).float() * (codes / indices.numel())
        self.share.lerp_(counts.to(self.share), 1 - self.decay)
        lost = self.share < 0.01
        self.share[lost] = 1.0
        return lost
