"""Windows that overlap and weights that go over from one to the next: tiles of frames, windows over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["blending_weights", "even_starts"]


def even_starts(length: int, side: int, overlap: int) -> list[int]:
    """Where windows of `side` begin that cover `length` with at least `overlap` in common, as even as can be.

    One at 0 if `length` is no longer than a window. overlap: less than `side`.
    """
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def blending_weights(starts: Sequence[int], ends: Sequence[int], fade: int) -> list[Tensor]:
    """For each window [start, end) its weights, float64; at every place the weights of all windows add up to one.

    starts, ends: rising, windows that leave no gap. fade: over so many places a window's share rises from its
    inner edges, linearly (half of a place at the first); where more than two windows lie, all are scaled.
    """
    import torch

    length = max(ends)
    raw, total = [], torch.zeros(length, dtype=torch.float64)
    for start, end in zip(starts, ends, strict=True):
        place = torch.arange(end - start, dtype=torch.float64) + 0.5
        weights = torch.ones(end - start, dtype=torch.float64)
        if fade and start > 0:
            weights = weights.minimum(place / fade)
        if fade and end < length:
            weights = weights.minimum(place.flip(0) / fade)
        raw.append(weights)
        total[start:end] += weights
    return [weights / total[start:end] for start, end, weights in zip(starts, ends, raw, strict=True)]
