"""`video.guide_temporally`: how much a clip's frames go with each other, as guidance (Gen-1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mezzotint import Conditioning, Denoiser, NoiseLevel, Patch, Prediction, UserError, node
from mezzotint_sampling import ClassifierFree, Wrapped, compared_with, finished

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor

__all__ = ["TemporalGuidance", "TemporalGuidancePredictor", "guide_temporally"]


@dataclass(frozen=True, eq=False)
class TemporalGuidance(Patch):
    """temporal: weight of what the temporal layers change; 1 is the model of clips itself. negative, scale: of
    classifier-free guidance, or none.
    """

    temporal: float
    negative: Conditioning | None = None
    scale: float = 1.0
    mutates: ClassVar[bool] = False

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        """Raises: UserError: no temporal layers."""
        yield TemporalGuidancePredictor(model, self.temporal, self.negative, self.scale)


class TemporalGuidancePredictor(Wrapped):
    """With m for the model of clips, p for the same one frame by frame, c what is told and n the negative,

        p(n) + temporal * (m(n) - p(n)) + scale * (m(c) - m(n));

    without a negative, p(c) + temporal * (m(c) - p(c)).

    Source: Esser et al. 2023, "Structure and content-guided video synthesis with diffusion models", eq. 7 and 8.
    """

    def __init__(self, model: Predictor, temporal: float, negative: Conditioning | None, scale: float) -> None:
        super().__init__(model)
        self.temporal_weight, self.negative, self.scale = temporal, negative, scale
        # Found through whatever lies between: windows, injectors, other guidance.
        self.apart: Any = getattr(self.model, "frames_apart", None)
        if self.apart is None:
            raise UserError(
                "video.guide_temporally: the denoiser has no temporal layers to leave out; video.inflate puts "
                "some on"
            )

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """The model's own output for what it is told first, then those that it is compared with."""
        asked = [conditioning or Conditioning()]
        if self.negative is not None:
            asked.append(compared_with(self.negative, conditioning))
        given = self.predictions(x, level, asked)
        with self.apart():
            image = finished(self.model.predict(x, level, asked[-1]))
        outputs = (*(finished(one) for one in given), image)
        weight = self.temporal_weight
        weights = (weight,) if self.negative is None else (self.scale, weight - self.scale)
        return Prediction(outputs, (*weights, 1.0 - weight), given[0].kind, variance=given[0].variance)

    def predictions(self, x: Tensor, level: NoiseLevel, asked: list[Conditioning]) -> list[Prediction]:
        """The model of clips for each."""
        if len(asked) == 1:
            return [super().predict(x, level, asked[0])]
        made: list[Prediction] = self.model.predict_many(x, level, asked)
        return made

    def unguided(self, level: NoiseLevel) -> Any:
        """The model of clips, whose finished prediction comes first."""
        return self.model


@node("video.guide_temporally")
def guide_temporally(
    denoiser: Denoiser,
    negative: Conditioning | None = None,
    *,
    temporal: Annotated[float, Field(ge=0, le=100)] = 1.0,
    scale: Annotated[float, Field(ge=0, le=1000)] = 1.0,
) -> Denoiser:
    """Guide a clip towards or away from what each of its frames would be by itself.

    In place of sampling.guide, whose work it does along: both compare with the same.

    denoiser: the model of clips, as video.inflate makes it.
    negative: what classifier-free guidance moves away from, with the side channels of what is told.
    temporal: 0 takes each frame by itself, so that a clip flickers; 1 is the model of clips; more than 1 goes
    beyond it, to calmer clips.
    scale: of classifier-free guidance; 1 is none.

    Source: Esser et al. 2023, "Structure and content-guided video synthesis with diffusion models", section 3.4.
    Raises: UserError: a scale and nothing to compare with; when it runs, a denoiser without temporal layers.
    """
    if negative is None and scale != 1:
        raise UserError(
            f"video.guide_temporally: scale {scale:g} wants a negative to move away from; the encoding of an "
            "empty text is the usual one"
        )
    if temporal != 1:
        return denoiser.patched(TemporalGuidance(temporal, negative, scale))
    # The model of clips itself: each frame alone need not be asked.
    return denoiser if negative is None else denoiser.patched(ClassifierFree(negative, scale))
