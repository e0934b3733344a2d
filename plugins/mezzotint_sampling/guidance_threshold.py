"""Bounds on the clean picture that a model predicts: against colours that strong guidance drives off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mezzotint import Conditioning, NoiseLevel, Patch, Prediction
from mezzotint_sampling.wrapped import Wrapped, clean, finished

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor

__all__ = ["Threshold", "ThresholdPredictor", "thresholded"]


@dataclass(frozen=True, eq=False)
class Threshold(Patch):
    """The clean picture within -limit..limit.

    percentile: 0..1; each sample is clipped at that quantile s of its own sizes, if it lies above
    the limit, and divided by s / limit (dynamic thresholding). None clips at the limit (static).
    Source: Saharia et al. 2022, "Imagen", section 2.3.
    """

    limit: float = 1.0
    percentile: float | None = None

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield ThresholdPredictor(model, self.limit, self.percentile)


class ThresholdPredictor(Wrapped):
    """Gives its model's prediction as a clean picture, within bounds: one finished output."""

    def __init__(self, model: Predictor, limit: float, percentile: float | None) -> None:
        super().__init__(model)
        self.limit = limit
        self.percentile = percentile

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        given = super().predict(x, level, conditioning)
        x0 = clean(given.kind, level, x, finished(given))
        bounded = thresholded(x0, self.limit, self.percentile)
        return replace(given, outputs=(bounded,), weights=(1.0,), kind="x0", rescale=0.0)


def thresholded(x0: Tensor, limit: float, percentile: float | None) -> Tensor:
    """x0 [B, ...] within -limit..limit; see `Threshold`."""
    if percentile is None:
        return x0.clamp(-limit, limit)
    sizes = x0.flatten(1).abs().float()
    place = percentile * (sizes.shape[1] - 1)
    # Two order statistics: torch.quantile refuses more than 2^24 numbers.
    low = sizes.kthvalue(int(place) + 1, dim=1).values
    high = sizes.kthvalue(min(int(place) + 2, sizes.shape[1]), dim=1).values
    s = (low + (high - low) * (place - int(place))).clamp_min(limit).to(x0.dtype)
    s = s.view(-1, *[1] * (x0.dim() - 1))
    return x0.clamp(-s, s) * (limit / s)
