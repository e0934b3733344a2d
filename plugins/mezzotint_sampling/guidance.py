"""Guidance: a guided model is a model, so each kind of it is a patch from denoiser to denoiser.

`mezzotint_sampling.wrapped` has the rules by which they stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, NoiseLevel, Patch, Prediction
from mezzotint_sampling.guidance_schedule import GuidanceSchedule, strength
from mezzotint_sampling.wrapped import Wrapped, finished, unguided

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor

__all__ = ["ClassifierFree", "ClassifierFreePredictor", "compared_with"]


@dataclass(frozen=True, eq=False)
class ClassifierFree(Patch):
    """Classifier-free guidance: scale * conditional + (1 - scale) * negative.

    negative: what to move away from. scale: 1 is no guidance. rescale: 0..1, as in `Prediction`.
    schedule: what of the scale, less 1, holds at each step.
    Source: Ho and Salimans 2022, eq. 6, with scale = 1 + w.
    """

    negative: Conditioning
    scale: float
    rescale: float = 0.0
    schedule: GuidanceSchedule | None = None

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield ClassifierFreePredictor(model, self.negative, self.scale, self.rescale, self.schedule)


class ClassifierFreePredictor(Wrapped):
    """A predictor that evaluates its model with two conditionings and weighs the two outputs."""

    def __init__(
        self,
        model: Predictor,
        negative: Conditioning,
        scale: float,
        rescale: float = 0.0,
        strengths: GuidanceSchedule | None = None,
    ) -> None:
        super().__init__(model)
        self.negative = negative
        self.scale = scale
        self.rescale = rescale
        self.strengths = strengths

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """The two outputs, conditional first; at scale 1 only that one is evaluated."""
        scale = strength(level, self.scale, self.strengths, off=1.0)
        if scale == 1:
            return super().predict(x, level, conditioning)
        asked = (conditioning or Conditioning(), compared_with(self.negative, conditioning))
        positive, negative = (_collapsed(p) for p in self.model.predict_many(x, level, asked))
        weights = tuple(w * scale for w in positive.weights)
        weights += tuple(w * (1 - scale) for w in negative.weights)
        outputs = (*positive.outputs, *negative.outputs)
        return replace(positive, outputs=outputs, weights=weights, rescale=self.rescale)

    def unguided(self, level: NoiseLevel) -> Any:
        """The model's own unguided one, unless its rescaling made one finished output of it all."""
        collapses = strength(level, self.scale, self.strengths, off=1.0) != 1
        if collapses and isinstance(self.model, ClassifierFreePredictor) and self.model.rescale:
            return self.model
        return unguided(self.model, level)


def compared_with(negative: Conditioning, conditioning: Conditioning | None) -> Conditioning:
    """The negative with its rows' numbers, where the run's own conditioning has them."""
    from mezzotint_sampling.conditioning import ROW, compared

    first = conditioning
    while getattr(first, "parts", ()):
        first = first.parts[0].conditioning  # type: ignore[union-attr]
    if first is None or ROW not in first.extra:
        return negative
    # The numbers that are there: under other guidance the batch has several rows of one sample.
    return compared(negative, first.extra[ROW])


def _collapsed(prediction: Prediction) -> Prediction:
    """One output if the model was guided and rescaled itself: rescaling is not a weighted sum."""
    if prediction.rescale == 0:
        return prediction
    return replace(prediction, outputs=(finished(prediction),), weights=(1.0,), rescale=0.0)
