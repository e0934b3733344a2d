"""Embeddings as short rows of whole numbers: principal components, each cut into equal buckets.

After Ramesh et al. 2022 (unCLIP), section 2.2: components in the order of falling variance, each quantised.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mezzotint import UserError

__all__ = ["Codes", "Similarity"]


class Codes(nn.Module):
    """Between embeddings [B, D] and codes [B, K] int64 below `buckets`. All it knows are buffers.

    mean: [D]; basis: [K, D], orthonormal rows by falling variance; low, high: [K], where the first bucket of a
    component begins and the last ends.
    """

    mean: Tensor
    basis: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, embedding: int, components: int, buckets: int) -> None:
        super().__init__()
        if not 1 <= components <= embedding:
            raise UserError(f"components must be 1 to {embedding}, the width of the embeddings; got {components}")
        self.buckets = buckets
        self.register_buffer("mean", torch.zeros(embedding))
        self.register_buffer("basis", torch.eye(components, embedding))
        self.register_buffer("low", -torch.ones(components))
        self.register_buffer("high", torch.ones(components))

    def fit(self, embeddings: Tensor) -> None:
        """Components and bounds of these embeddings [N, D], computed in float64.

        The sign of a component is that of its largest entry, so the same embeddings give the same codes.
        Raises: UserError: fewer embeddings than components.
        """
        components = len(self.basis)
        if len(embeddings) <= components:
            raise UserError(f"{components} components need more embeddings than that, got {len(embeddings)}")
        exact = embeddings.double()
        mean = exact.mean(0)
        _, _, rows = torch.linalg.svd(exact - mean, full_matrices=False)
        basis = rows[:components]
        largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
        basis = basis * largest.sign()
        values = (exact - mean) @ basis.T
        for name, value in (("mean", mean), ("basis", basis), ("low", values.amin(0)), ("high", values.amax(0))):
            getattr(self, name).copy_(value)

    @property
    def widths(self) -> Tensor:
        """[K] of a bucket of each component."""
        return (self.high - self.low).clamp_min(1e-6) / self.buckets

    def project(self, embeddings: Tensor) -> Tensor:
        """[B, K], the components."""
        return (embeddings - self.mean) @ self.basis.T

    def encode(self, embeddings: Tensor) -> Tensor:
        """The codes; what is out of bounds falls into the outermost bucket."""
        return ((self.project(embeddings) - self.low) / self.widths).floor().long().clamp(0, self.buckets - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """The middle of each bucket, back as embeddings [B, D]; not normalised."""
        values = self.low + (codes.to(self.low) + 0.5) * self.widths
        return values @ self.basis + self.mean


class Similarity(nn.Module):
    """The dot product of a text's and an image's embedding as one of `buckets`, equally frequent when fitted.

    So the upper half of the buckets is the upper half of the distribution.
    """

    edges: Tensor

    def __init__(self, buckets: int) -> None:
        super().__init__()
        if buckets < 2 or buckets % 2:
            raise UserError(f"buckets of similarity must be an even number from 2 on, got {buckets}")
        self.buckets = buckets
        self.register_buffer("edges", torch.zeros(buckets - 1))

    def fit(self, products: Tensor) -> None:
        """The quantiles of dot products [N]."""
        shares = torch.arange(1, self.buckets, dtype=torch.float64, device=products.device) / self.buckets
        self.edges.copy_(torch.quantile(products.double(), shares))

    def forward(self, products: Tensor) -> Tensor:
        """[B] int64 of dot products [B]."""
        return torch.bucketize(products.contiguous(), self.edges.to(products), right=True)
