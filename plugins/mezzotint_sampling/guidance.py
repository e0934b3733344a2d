"""Guidance: a guided model is a model, so each kind of it is a patch from denoiser to denoiser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, NoiseLevel, Patch, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor

__all__ = ["ClassifierFree", "ClassifierFreePredictor"]


@dataclass(frozen=True, eq=False)
class ClassifierFree(Patch):
    """Classifier-free guidance: scale * conditional + (1 - scale) * negative.

    negative: what to move away from. scale: 1 is no guidance. rescale: 0..1, as in `Prediction`.
    Source: Ho and Salimans 2022, eq. 6, with scale = 1 + w.
    """

    negative: Conditioning
    scale: float
    rescale: float = 0.0

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield ClassifierFreePredictor(model, self.negative, self.scale, self.rescale)


class ClassifierFreePredictor:
    """A predictor that evaluates its model with two conditionings and weighs the two outputs."""

    def __init__(self, model: Predictor, negative: Conditioning, scale: float, rescale: float = 0.0) -> None:
        self.model = model
        self.schedule = model.schedule
        self.negative = negative
        self.scale = scale
        self.rescale = rescale

    def __getattr__(self, name: str) -> Any:
        # What the model offers beyond the protocol stays in reach of patches that come later.
        if name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """The two outputs, conditional first; at scale 1 only that one is evaluated."""
        if self.scale == 1:
            return self.model.predict(x, level, conditioning)
        positive, negative = self._both(x, level, conditioning or Conditioning())
        weights = tuple(w * self.scale for w in positive.weights)
        weights += tuple(w * (1 - self.scale) for w in negative.weights)
        outputs = (*positive.outputs, *negative.outputs)
        return Prediction(outputs, weights, positive.kind, self.rescale)

    def _both(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning) -> tuple[Prediction, Prediction]:
        """Predictions for the conditioning and its negative: one evaluation where shapes match."""
        import torch

        from mezzotint_sampling.conditioning import for_batch, stacked

        batch = x.shape[0]
        first, second = for_batch(conditioning, batch), for_batch(self.negative, batch)
        together = stacked(first, second)
        if together is None:
            return (
                _collapsed(self.model.predict(x, level, first)),
                _collapsed(self.model.predict(x, level, second)),
            )
        both = self.model.predict(torch.cat((x, x)), level, together)
        halves = [torch.split(output, batch) for output in both.outputs]
        first_half, second_half = (
            Prediction(tuple(half[i] for half in halves), both.weights, both.kind, both.rescale) for i in range(2)
        )
        return _collapsed(first_half), _collapsed(second_half)


def _collapsed(prediction: Prediction) -> Prediction:
    """One output if the model was guided and rescaled itself: rescaling is not a weighted sum."""
    if prediction.rescale == 0:
        return prediction
    from mezzotint_kernels import guided

    total = guided(prediction.outputs, prediction.weights, prediction.rescale)
    return Prediction((total,), (1.0,), prediction.kind)
