"""What a realised denoiser answers: one protocol for every parametrisation, guided or not.

A guided model is a model: guidance returns more outputs with weights, which the sampler's one fused step adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint.ports import Conditioning, NoiseSchedule

__all__ = ["NoiseLevel", "Prediction", "PredictionKind", "Predictor"]

PredictionKind = Literal["eps", "v", "x0", "flow"]


@dataclass(frozen=True)
class NoiseLevel:
    """One point of the forward process: x = alpha * x0 + sigma * eps at the model's own `time`.

    step, steps: which evaluation of a sampling run this is (for guidance and injectors with a window); progress
    runs from 0 at the noisiest to 1.
    """

    alpha: float
    sigma: float
    time: float
    step: int = 0
    steps: int = 1

    @property
    def progress(self) -> float:
        return min(self.step / max(self.steps - 1, 1), 1.0)


@dataclass(frozen=True)
class Prediction:
    """The weighted sum of `outputs` (each [B, C, ...] like x) is the model's `kind` of prediction at that level.

    rescale: strength in 0..1 of guidance rescaling (Lin et al. 2023, eq. 15 and 16) against outputs[0].
    variance: [B, C, ...] like x, what a model with twice its channels says of the variance: -1 is the smallest
        that the step allows, 1 the largest (Nichol and Dhariwal 2021, eq. 15). None for other models.
    """

    outputs: tuple[Tensor, ...]
    weights: tuple[float, ...]
    kind: PredictionKind
    rescale: float = 0.0
    variance: Tensor | None = None

    def combined(self) -> Tensor:
        """The guided output as one tensor, without rescaling."""
        total = self.outputs[0] * self.weights[0]
        for output, weight in zip(self.outputs[1:], self.weights[1:], strict=True):
            total = total + output * weight
        return total


class Predictor(Protocol):
    """A realised denoiser. `x` is [B, C, H, W] or [B, C, F, H, W] in the schedule's own (alpha, sigma) scaling.

    It may also have `after_step(x, level) -> x`: a sampler's run passes each new sample through it, at the
    level that the step went to. What such a predictor gathers during a run, `remembered() -> dict` of tensors
    gives for saving, and `remember(tensors)` takes back when the run goes on later.
    """

    schedule: NoiseSchedule

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction: ...
