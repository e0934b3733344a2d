"""Long clips from a model of short ones: windows over time whose predictions go over into each other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Denoiser, NoiseLevel, Patch, Prediction, UserError, node
from mezzotint_models import blending_weights, even_starts
from mezzotint_sampling import Wrapped

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor

__all__ = ["WindowedPredictor", "Windows", "window_starts", "windows"]

# Multiples of it, modulo 1, are spread evenly however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False)
class Windows(Patch):
    """Windows of `frames` that overlap by `overlap`; with `shift` they lie elsewhere at each step.

    seed: which shifts.
    """

    frames: int
    overlap: int
    shift: bool = True
    seed: int = 0

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield WindowedPredictor(model, self)


class WindowedPredictor(Wrapped):
    """A predictor of long clips: at each frame the weighted mean of what the windows over it say.

    That mean is the one clip that all windows, each with its weights, together differ least from: MultiDiffusion
    (Bar-Tal et al. 2023, eq. 5), over time.
    """

    def __init__(self, model: Predictor, settings: Windows) -> None:
        super().__init__(model)
        self.settings = settings

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """As the model's own where x is a picture or no longer than a window."""
        size = self.settings.frames
        if x.ndim != 5 or x.shape[2] <= size:
            return super().predict(x, level, conditioning)
        starts = window_starts(x.shape[2], self.settings, level.step)
        weights = blending_weights(starts, [start + size for start in starts], self.settings.overlap)
        blend = _Blend(x.shape[2])
        for start, share in zip(starts, weights, strict=True):
            told = over(conditioning, start, start + size, x.shape[2])
            blend.add(start, share, super().predict(x[:, :, start : start + size].contiguous(), level, told))
        return blend.prediction()

    def unguided(self, level: NoiseLevel) -> Any:
        """Windows of what the model says without its guidance."""
        inner = self.model.unguided(level)
        return self if inner is self.model else WindowedPredictor(inner, self.settings)


class _Blend:
    """Adds up the predictions of windows, output by output."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.first: Prediction | None = None
        self.outputs: list[Tensor] = []
        self.variance: Tensor | None = None

    def add(self, start: int, share: Tensor, prediction: Prediction) -> None:
        if self.first is None:
            self.first = prediction
            self.outputs = [self._room(output) for output in prediction.outputs]
            self.variance = None if prediction.variance is None else self._room(prediction.variance)
        elif prediction.weights != self.first.weights:
            raise UserError(
                "video.windows: the guidance inside differs from window to window; put video.windows on the "
                "denoiser first, and the guidance around it"
            )
        for total, output in zip(self.outputs, prediction.outputs, strict=True):
            self._add(total, start, share, output)
        if self.variance is not None and prediction.variance is not None:
            self._add(self.variance, start, share, prediction.variance)

    def prediction(self) -> Prediction:
        """Of the whole clip; where it is to be rescaled, the sampler does so over all of it."""
        assert self.first is not None
        first = self.first
        return Prediction(tuple(self.outputs), first.weights, first.kind, first.rescale, self.variance)

    def _room(self, output: Tensor) -> Tensor:
        return output.new_zeros(*output.shape[:2], self.frames, *output.shape[3:])

    @staticmethod
    def _add(total: Tensor, start: int, share: Tensor, output: Tensor) -> None:
        total[:, :, start : start + len(share)] += output * share.to(output).view(-1, 1, 1)


def window_starts(length: int, settings: Windows, step: int) -> list[int]:
    """Where the windows begin at evaluation `step`: the first at 0, the last so that it ends with the clip.

    length: more than a window. With a shift the second begins after some part of a stride, another one at each
    step, and the others a stride after each other; so borders are at each frame about equally often.
    """
    size, overlap = settings.frames, settings.overlap
    if not settings.shift:
        return even_starts(length, size, overlap)
    stride, last = size - overlap, length - size
    part = 1 + int(math.modf((settings.seed * math.sqrt(2) + (step + 1) * _GOLDEN) % 1.0)[0] * stride)
    return [0, *range(part, last, stride), last]


def over(conditioning: Conditioning | None, first: int, last: int, frames: int) -> Conditioning | None:
    """What of a conditioning for a clip of `frames` belongs to its frames first..last - 1.

    Cut are words per frame [B, F, L, D], and what is [B, C, F, h, w]: side channels, smaller clips, parts' masks.
    """
    if conditioning is None:
        return None
    changes: dict[str, Any] = {}
    if conditioning.context is not None and conditioning.context.ndim == 4:
        changes["context"] = _cut(conditioning.context, 1, first, last, frames)
    for name in ("concat", "low_res"):
        value = getattr(conditioning, name)
        if value is not None and value.ndim == 5:
            changes[name] = _cut(value, 2, first, last, frames)
    clips = {key: value for key, value in conditioning.extra.items() if getattr(value, "ndim", 0) == 5}
    if clips:
        cut = {key: _cut(value, 2, first, last, frames) for key, value in clips.items()}
        changes["extra"] = {**conditioning.extra, **cut}
    if hasattr(conditioning, "parts"):
        changes["parts"] = tuple(_part_over(part, first, last, frames) for part in conditioning.parts)
    return conditioning.replace(**changes) if changes else conditioning


def _part_over(part: Any, first: int, last: int, frames: int) -> Any:
    """One of several conditions in one, with its mask if that has frames."""
    mask = part.mask
    if mask is not None and mask.ndim == 5:
        mask = _cut(mask, 2, first, last, frames)
    return part.replace(conditioning=over(part.conditioning, first, last, frames), mask=mask)


def _cut(value: Tensor, axis: int, first: int, last: int, frames: int) -> Tensor:
    """Those frames; all of it where one stands for all. Raises: UserError: another number of frames."""
    if value.shape[axis] == 1:
        return value
    if value.shape[axis] != frames:
        raise UserError(
            f"video.windows: the conditioning says something of {value.shape[axis]} frames, and the clip has "
            f"{frames}; give it one entry for each frame, or one for all"
        )
    return value.narrow(axis, first, last - first)


@node("video.windows")
def windows(
    denoiser: Denoiser,
    *,
    frames: Annotated[int, Field(ge=2, le=4096)] = 16,
    overlap: Annotated[int, Field(ge=0, le=4095)] = 8,
    shift: bool = True,
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0,
) -> Denoiser:
    """Let a model of short clips sample long ones: it sees windows over time, and at each step what it says of a
    frame in all windows over it is averaged, so that the windows agree.

    What holds for single frames (words per frame, side channels) goes to the windows that they are in. Memory of
    the model is that of one window, however long the clip is. Clips no longer than a window pass as they are.

    denoiser: of clips, guided or not; guidance around it sees the whole clip.
    frames: of a window: as many as the model was trained on.
    overlap: of two windows, in frames, over which one goes into the other; 0 leaves seams.
    shift: whether the windows lie elsewhere at each step, so that their borders stay nowhere; this takes one
    window more.
    seed: which shifts.

    Source: Bar-Tal et al. 2023, "MultiDiffusion", over time instead of space.
    Raises: UserError: windows on a denoiser that has them, an overlap of a whole window; when it runs, a
    conditioning for another number of frames.
    """
    if overlap >= frames:
        raise UserError(f"video.windows: windows of {frames} frames cannot overlap by {overlap}; give fewer")
    if any(isinstance(patch, Windows) for patch in denoiser.patches):
        raise UserError("video.windows: the denoiser has windows already; leave one of the two out")
    return denoiser.patched(Windows(frames, overlap, shift, seed))
