"""Null-text guidance: classifier-free guidance whose negative is another one at each step of the run.

Inverted without guidance, a picture comes back without guidance only. Nulls that were optimised for it lead the
guided run back along the inversion's path, so that another prompt edits that picture (Mokady et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mezzotint import Conditioning, NoiseLevel, Patch, Port, Prediction, UserError
from mezzotint_sampling.guidance import ClassifierFreePredictor

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor

__all__ = ["NullText", "NullTextPredictor", "NullTexts"]


@dataclass(frozen=True, eq=False)
class NullTexts(Port):
    """A negative for each step of a run, and the guidance that they were made for.

    context: [S, L, D] float32, that of step i in row i. negative: what else the null says (mask, pooled).
    alphas, sigmas: the level from which each step starts. scale: of guidance.
    """

    context: Tensor
    negative: Conditioning
    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    scale: float

    def at(self, level: NoiseLevel) -> Conditioning:
        """The negative of the step that starts at this level, one row.

        Raises: UserError: no step does: the run has other levels.
        """
        for i, (alpha, sigma) in enumerate(zip(self.alphas, self.sigmas, strict=True)):
            if abs(alpha - level.alpha) < 1e-6 and abs(sigma - level.sigma) < 1e-6:
                return self.negative.replace(context=self.context[i : i + 1])
        raise UserError(
            f"there is no null text for the level alpha {level.alpha:.4g}, sigma {level.sigma:.4g}: they were "
            f"optimised for the {len(self.alphas)} steps of a run, and fit the same sigmas alone. Give both nodes "
            "the same sigmas, and take a sampler that stays on them, such as ddim"
        )


@dataclass(frozen=True, eq=False)
class NullText(Patch):
    """Classifier-free guidance by null texts."""

    nulls: NullTexts

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield NullTextPredictor(model, self.nulls)


class NullTextPredictor(ClassifierFreePredictor):
    """A guided predictor whose negative is that of the step."""

    def __init__(self, model: Predictor, nulls: NullTexts) -> None:
        super().__init__(model, nulls.negative, nulls.scale)
        self.nulls = nulls

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """As its base, with the null of this level, in the dtype of what is asked: so both share an evaluation."""
        null = self.nulls.at(level)
        context = None if conditioning is None else conditioning.context
        if context is not None and null.context is not None:
            null = null.replace(context=null.context.to(context))
        return ClassifierFreePredictor(self.model, null, self.scale).predict(x, level, conditioning)
