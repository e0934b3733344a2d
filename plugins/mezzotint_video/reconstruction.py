"""Frames that are known, by reconstruction guidance: a picture begins a clip, a clip goes on from another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Denoiser, Latents, NoiseLevel, Patch, Prediction, UserError, node
from mezzotint_sampling import Wrapped, as_kind, clean, finished

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor

__all__ = ["KnownFrames", "keep_frames"]


@dataclass(frozen=True, eq=False)
class KnownFrames(Patch):
    """Known frames of a clip: known [B or 1, C, K, h, w], at the places `frames`; weight: of the guidance."""

    known: Any
    frames: tuple[int, ...] = (0,)
    weight: float = 2.0

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield KnownFramesPredictor(model, self)


class KnownFramesPredictor(Wrapped):
    """With a for the known frames and b for the others, at each step

        x~b = x^b - weight * alpha / 2 * grad_zb |xa - x^a(z)|^2

    and the known frames are predicted to be what they are. So a sampler carries them along as samples of the
    forward process, which is the paper's replacement; weight 0 is that alone.
    """

    def __init__(self, model: Predictor, settings: KnownFrames) -> None:
        super().__init__(model)
        self.settings = settings

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """One finished prediction of the model's kind."""
        import torch

        known, places = self._known(x), list(self.settings.frames)
        if level.sigma == 0:
            return super().predict(x, level, conditioning)
        with torch.set_grad_enabled(self.settings.weight > 0):
            sample = x.detach().requires_grad_(self.settings.weight > 0)
            given = self.model.predict(sample, level, conditioning)
            x0 = clean(given.kind, level, sample, finished(given))
            if self.settings.weight > 0:
                error = (known - x0[:, :, places]).square().sum()
                (gradient,) = torch.autograd.grad(error, sample)
                x0 = x0.detach() - self.settings.weight * level.alpha / 2 * gradient
        made = x0.detach().clone()
        made[:, :, places] = known
        return Prediction((as_kind(given.kind, level, x, made),), (1.0,), given.kind)

    def _known(self, x: Tensor) -> Tensor:
        known, frames = self.settings.known, self.settings.frames
        fits = x.ndim == 5 and known.shape[1] == x.shape[1] and known.shape[3:] == x.shape[3:]
        if not fits or x.shape[0] % known.shape[0]:
            raise UserError(
                f"video.keep_frames: the known frames are {list(known.shape)}, the clips {list(x.shape)}; wanted "
                "the same channels and sizes, and one of them or one for each clip"
            )
        if max(frames) >= x.shape[2]:
            raise UserError(
                f"video.keep_frames: frame {max(frames)} is to be known, and the clips have {x.shape[2]}, from 0"
            )
        rows: Tensor = known.to(x).repeat(x.shape[0] // known.shape[0], 1, 1, 1, 1)
        return rows


@node("video.keep_frames")
def keep_frames(
    denoiser: Denoiser,
    known: Latents,
    *,
    frames: list[Annotated[int, Field(ge=0, le=65535)]] | None = None,
    weight: Annotated[float, Field(ge=0, le=1000)] = 2.0,
) -> Denoiser:
    """Make a model of clips keep frames that are known, and draw the others so that they go with those.

    denoiser: of clips, guided or not.
    known: the frames [B or 1, C, K, h, w], or pictures [B or 1, C, h, w] for one known frame.
    frames: their places in the clip, from 0; without it the first ones.
    weight: of reconstruction guidance; above 1, since its own guess counts for too much; 0 only replaces the
    known frames, at half of the cost.

    Source: Ho et al. 2022, "Video diffusion models", section 3.1, eq. 7.
    Raises: UserError: places that are not as many as the frames, or named twice; when it runs, other sizes.
    """
    data = known.data.unsqueeze(2) if known.data.ndim == 4 else known.data
    places = tuple(range(data.shape[2]) if frames is None else frames)
    if len(places) != data.shape[2] or len(set(places)) != len(places):
        raise UserError(
            f"video.keep_frames: {data.shape[2]} frames are known, and their places are {list(places)}; wanted "
            "one place for each, none twice"
        )
    return denoiser.patched(KnownFrames(data, places, weight))
