"""VideoFusion: the noise of a clip as a part that all frames share and a residual of each, and a model for both.

    eps^i = sqrt(c) b + sqrt(1 - c) r^i        and b alone for the middle frame

A model of pictures says b of the middle frame, once for all frames. What is left of frame i then,

    z^i - sqrt(c) sigma b = alpha x^i + sigma sqrt(1 - c) r^i,

is frame i with less noise, which a model of clips denoises at the level that this is. Source: Luo et al. 2023,
"VideoFusion: decomposed diffusion models for high-quality video generation", eq. 6 to 10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mezzotint import Conditioning, Denoiser, NoiseLevel, NoiseSchedule, Patch, Prediction, UserError, node
from mezzotint_sampling import Wrapped, as_kind, clean, finished

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor

__all__ = ["Decomposed", "DecomposedPredictor", "decompose", "of_one_frame", "residual_level"]


@dataclass(frozen=True, eq=False)
class Decomposed(Patch):
    """A model of pictures as the base, `residual` for what differs between frames; correlation: c."""

    residual: Denoiser
    correlation: float = 0.5
    mutates: ClassVar[bool] = False

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield DecomposedPredictor(model, ctx.realise(self.residual), self.correlation)


class DecomposedPredictor(Wrapped):
    """Of clips [B, C, F, H, W]. The base is asked once, about the middle frame, however many frames there are."""

    def __init__(self, model: Predictor, residual: Predictor, correlation: float) -> None:
        super().__init__(model)
        self.residual, self.correlation = residual, correlation

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """One finished prediction of the base's kind."""
        if x.ndim != 5:
            raise UserError(f"video.decompose: wanted clips [B, C, F, H, W], got {list(x.shape)}")
        middle = x.shape[2] // 2
        base = self.model.predict(x[:, :, middle], level, of_one_frame(conditioning, middle))
        x0 = clean(base.kind, level, x[:, :, middle], finished(base))
        kind = base.kind
        if level.sigma == 0 or self.correlation == 1:
            # All frames have the base's noise: each is the base's picture of it.
            noise = (x[:, :, middle] - level.alpha * x0) / max(level.sigma, 1e-12)
            made = (x - level.sigma * noise.unsqueeze(2)) / level.alpha
        else:
            noise = (x[:, :, middle] - level.alpha * x0) / level.sigma
            there, scale = residual_level(level, self.schedule, self.correlation)
            seen = (x - math.sqrt(self.correlation) * level.sigma * noise.unsqueeze(2)) / scale
            rest = self.residual.predict(seen, there, conditioning)
            made = clean(rest.kind, there, seen, finished(rest)).clone()
        made[:, :, middle] = x0
        return Prediction((as_kind(kind, level, x, made),), (1.0,), kind)


def residual_level(level: NoiseLevel, schedule: NoiseSchedule, correlation: float) -> tuple[NoiseLevel, float]:
    """The level of a frame whose shared noise is taken away, and the factor that its scale lacks there."""
    from mezzotint_sampling import index_of  # which loads numpy

    left = level.sigma * math.sqrt(1 - correlation)
    scale = math.hypot(level.alpha, left)
    time = index_of(schedule, left / max(level.alpha, 1e-9))
    return replace(level, alpha=level.alpha / scale, sigma=left / scale, time=time), scale


def of_one_frame(conditioning: Conditioning | None, frame: int) -> Conditioning | None:
    """What a picture's model is told of one frame of a clip."""
    if conditioning is None:
        return None
    context = conditioning.context
    if context is not None and context.ndim == 4:
        context = context[:, frame]
    return replace(conditioning, context=context, concat=None, low_res_level=None, fps=None)


@node("video.decompose")
def decompose(
    base: Denoiser, residual: Denoiser, *, correlation: Annotated[float, Field(ge=0, le=1)] = 0.5
) -> Denoiser:
    """VideoFusion: a model of pictures for what a clip's frames share, and a model of clips for what differs.

    base: of pictures, guided or not; it draws the middle frame.
    residual: of clips, guided or not, trained by video.learn_residual on this base.
    correlation: how much of the noise all frames share, as in training; the noise of the run wants frames residual
    and the same number. 0 is an ordinary model of clips around the base's middle frame, 1 repeats that frame.

    Raises: UserError: models of different latents or schedules.
    """
    same = (base.channels, base.space, base.schedule) == (residual.channels, residual.space, residual.schedule)
    if not same:
        raise UserError(
            f"video.decompose: the base has {base.channels} channels of {base.space!r}, the residual model "
            f"{residual.channels} of {residual.space!r}, or the schedules differ; wanted both on the same latents"
        )
    # A loaded model of its own: the temporal layers of one must not lie in the other.
    own: Any = residual.replace(config={**residual.config, "instance": "residual"})
    return base.patched(Decomposed(own, correlation))
