"""Predictors around a predictor: what every kind of guidance has in common. No torch until one predicts.

A guided model is a model. Three rules make any stack of them mean one thing:

- `outputs[0]` of a guided prediction is the unguided one for the run's own conditioning; guidance adds
  outputs and weights, which the sampler's one fused step sums up.
- Guidance that compares with a worse model (perturbed attention) compares the unguided prediction with
  it, whatever guides the model besides: over classifier-free guidance the amounts add up. Classifier-free
  guidance over another kind guides both of its predictions so.
- What does not add up (thresholding, rescaling under further guidance) gives one finished output, which
  whoever comes later takes for a model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, NoiseLevel, Prediction, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Predictor

__all__ = ["Wrapped", "as_kind", "clean", "finished", "halves", "unguided"]


class Wrapped:
    """A predictor around `model`; what the model offers beyond the protocol stays in reach."""

    def __init__(self, model: Predictor) -> None:
        from mezzotint_sampling.combined import combining

        self.model: Any = combining(model)
        self.schedule = model.schedule

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """The model's own prediction; each kind of guidance makes another one of it."""
        prediction: Prediction = self.model.predict(x, level, conditioning)
        return prediction

    def predict_many(
        self, x: Tensor, level: NoiseLevel, conditionings: Sequence[Conditioning]
    ) -> list[Prediction]:
        """One prediction for each: in one evaluation of a larger batch, if their parts fit together."""
        from mezzotint_sampling.conditioning import for_batch, stacked

        rows = [for_batch(conditioning, x.shape[0]) for conditioning in conditionings]
        together = stacked(*rows)
        if together is None:
            return [self.predict(x, level, row) for row in rows]
        from torch import cat

        return halves(self.predict(cat([x] * len(rows)), level, together), len(rows))

    def unguided(self, level: NoiseLevel) -> Any:
        """The predictor whose prediction is `outputs[0]` at this level: here itself."""
        return self


def unguided(model: Any, level: NoiseLevel) -> Any:
    """The predictor whose finished prediction is `outputs[0]` of the model's."""
    return model.unguided(level) if isinstance(model, Wrapped) else model


def finished(prediction: Prediction) -> Tensor:
    """The prediction as one tensor, rescaled if it asks for that."""
    from mezzotint_kernels import guided

    return guided(prediction.outputs, prediction.weights, prediction.rescale)


def halves(prediction: Prediction, parts: int) -> list[Prediction]:
    """A prediction for a batch of `parts` equal ones, taken apart."""
    outputs = [output.chunk(parts) for output in prediction.outputs]
    variances = [None] * parts if prediction.variance is None else prediction.variance.chunk(parts)
    return [
        replace(prediction, outputs=tuple(output[i] for output in outputs), variance=variances[i])
        for i in range(parts)
    ]


def clean(kind: str, level: NoiseLevel, x: Tensor, prediction: Tensor) -> Tensor:
    """The clean picture that a prediction of that kind means."""
    from mezzotint_sampling.run import clean_row

    ax, am = clean_row(kind, level)
    return prediction if (ax, am) == (0.0, 1.0) else x * ax + prediction * am


def as_kind(kind: str, level: NoiseLevel, x: Tensor, x0: Tensor) -> Tensor:
    """The prediction of that kind that means the clean picture x0: the inverse of `clean`.

    Raises: UserError: at the clean end, where no prediction but x0 means anything.
    """
    from mezzotint_sampling.run import clean_row

    ax, am = clean_row(kind, level)
    if am == 0:
        raise UserError(f"a prediction of kind {kind!r} says nothing about the picture at sigma = 0")
    return (x0 - x * ax) / am
