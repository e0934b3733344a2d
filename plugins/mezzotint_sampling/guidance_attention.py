"""Guidance away from a model that is worse on purpose: its self-attention disturbed, or what it looks at blurred.

Perturbed attention, Ahn et al. 2024: some self-attention layers attend to nothing but their own place.
Self-attention guidance, Hong et al. 2023: where the model looks most, its picture is blurred.
Both need no second conditioning, and one more evaluation. They go through the attention sites that a
realised denoiser offers (`mezzotint.AttentionSite`), and change nothing outside their own evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mezzotint import AttentionCall, AttentionSite, Conditioning, NoiseLevel, Patch, Prediction, UserError
from mezzotint_sampling.guidance_schedule import GuidanceSchedule, strength
from mezzotint_sampling.wrapped import Wrapped, as_kind, clean, finished, unguided

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Attend, Context, Predictor

__all__ = ["PerturbedAttention", "PerturbedPredictor", "SelfAttention", "SelfAttentionPredictor", "chosen_sites"]


@dataclass(frozen=True, eq=False)
class PerturbedAttention(Patch):
    """prediction + scale * (prediction - the one with identity for the attention of `layers`).

    scale: 0 is no guidance. layers: how the names of the layers begin. schedule: of the scale.
    Source: Ahn et al. 2024, "Self-rectifying diffusion sampling with perturbed-attention guidance".
    """

    scale: float
    layers: tuple[str, ...] = ("mid_block",)
    schedule: GuidanceSchedule | None = None
    mutates: ClassVar[bool] = True

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield PerturbedPredictor(model, chosen_sites(model, self.layers), self.scale, self.schedule)


@dataclass(frozen=True, eq=False)
class SelfAttention(Patch):
    """prediction + scale * (prediction - the one for a sample blurred where the model attends most).

    scale: 0 is no guidance. layers: how the name of the layer begins whose attention is looked at; the
    last one of those is. threshold: of the attention that a place gets, its mean being 1.
    radius, blur: of the Gaussian filter, in latents. schedule: of the scale.
    Source: Hong et al. 2023, "Improving sample quality of diffusion models using self-attention
    guidance", algorithm 1.
    """

    scale: float
    layers: tuple[str, ...] = ("mid_block",)
    threshold: float = 1.0
    radius: int = 4
    blur: float = 1.0
    schedule: GuidanceSchedule | None = None
    mutates: ClassVar[bool] = True

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield SelfAttentionPredictor(model, chosen_sites(model, self.layers)[-1], self)


class PerturbedPredictor(Wrapped):
    """Adds the unguided prediction's distance from the one with perturbed attention."""

    def __init__(
        self,
        model: Predictor,
        sites: Sequence[AttentionSite],
        scale: float,
        strengths: GuidanceSchedule | None = None,
    ) -> None:
        super().__init__(model)
        self.sites = sites
        self.perturbation = scale
        self.strengths = strengths

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """At strength 0 the model's own prediction; else one output more."""
        given = super().predict(x, level, conditioning)
        scale = strength(level, self.perturbation, self.strengths, off=0.0)
        if scale == 0:
            return given
        with self.model.inject(_own_place, self.sites):
            worse = finished(unguided(self.model, level).predict(x, level, conditioning))
        return _away_from(given, worse, scale)

    def unguided(self, level: NoiseLevel) -> Any:
        return unguided(self.model, level)


class SelfAttentionPredictor(Wrapped):
    """Adds the unguided prediction's distance from the one for a partly blurred sample.

    Of several conditions in one, the first one's attention says where; guidance without a picture, at
    alpha = 0, has nothing to blur and is off.
    """

    def __init__(self, model: Predictor, site: AttentionSite, settings: SelfAttention) -> None:
        super().__init__(model)
        self.site = site
        self.settings = settings

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """At strength 0 the model's own prediction; else one output more."""
        scale = strength(level, self.settings.scale, self.settings.schedule, off=0.0)
        if scale == 0 or level.alpha == 0:
            return super().predict(x, level, conditioning)
        watch = _Watch(x)
        with self.model.inject(watch, (self.site,)):
            given = super().predict(x, level, conditioning)
        x0 = clean(given.kind, level, x, given.outputs[0])
        seen = watch.attended() > self.settings.threshold
        blurred = x0.where(~seen, _blurred(x0, self.settings.radius, self.settings.blur))
        worse_x = x + level.alpha * (blurred - x0)  # alpha * blurred + sigma * eps, with the same eps
        worse = finished(unguided(self.model, level).predict(worse_x, level, conditioning))
        return _away_from(given, _at(given.kind, level, x, worse_x, worse), scale)

    def unguided(self, level: NoiseLevel) -> Any:
        return unguided(self.model, level)


class _Watch:
    """An injector that keeps how much attention each place of the first `rows` pictures gets."""

    def __init__(self, x: Tensor) -> None:
        self.frames = x.shape[2] if x.dim() == 5 else 1
        self.x = x
        self.found: Tensor | None = None

    def __call__(self, call: AttentionCall, attend: Attend) -> Tensor:
        rows = self.x.shape[0] * self.frames
        if self.found is None:
            if call.size is None:
                raise UserError(f"self-attention guidance: the tokens of {call.site.name!r} are no picture")
            scale = call.query.shape[-1] ** -0.5 if call.scale is None else call.scale
            # Of a joint layer's keys, the last ones are the places.
            key = call.key[:rows, :, -call.query.shape[2] :]
            logits = call.query[:rows].float() @ key.float().transpose(-1, -2) * scale
            attention = logits.softmax(-1).mean(1).sum(1)  # [B * F, M]: the mean over places is 1
            self.found = attention.view(-1, *call.size)
        return attend(call)

    def attended(self) -> Tensor:
        """[B, 1, H, W] or [B, 1, F, H, W], at the latents' size."""
        from torch.nn import functional

        assert self.found is not None, "the model did not reach its attention site"
        large = functional.interpolate(self.found[:, None], size=tuple(self.x.shape[-2:]), mode="nearest")
        if self.x.dim() == 4:
            return large
        return large.view(self.x.shape[0], self.frames, 1, *large.shape[-2:]).transpose(1, 2)


def chosen_sites(model: Any, layers: Sequence[str]) -> list[AttentionSite]:
    """The self-attention sites whose names begin with one of `layers`; joint ones, of text and places, are such.

    Raises: UserError: the model has no sites, or none of those.
    """
    sites = [site for site in getattr(model, "attention_sites", ()) if site.kind in ("self", "joint")]
    if not sites:
        raise UserError("attention guidance needs a denoiser with self-attention; this one has none that is known")
    found = [site for site in sites if site.name.startswith(tuple(layers))]
    if not found:
        raise UserError(
            f"no self-attention layer's name begins with {' or '.join(map(repr, layers))}; "
            f"the denoiser has: {', '.join(site.name for site in sites)}"
        )
    return found


def _own_place(call: AttentionCall, attend: Attend) -> Tensor:
    """Identity in place of the attention map: each place reads its own value, and a joint layer's no text."""
    return call.value[:, :, -call.query.shape[2] :]


def _away_from(given: Prediction, worse: Tensor, scale: float) -> Prediction:
    """given + scale * (outputs[0] - worse)."""
    weights = (given.weights[0] + scale, *given.weights[1:], -scale)
    return replace(given, outputs=(*given.outputs, worse), weights=weights)


def _at(kind: str, level: NoiseLevel, x: Tensor, other: Tensor, prediction: Tensor) -> Tensor:
    """A prediction made for the sample `other`, as the one for x that means the same noise."""
    if kind == "eps":
        return prediction
    eps = (other - level.alpha * clean(kind, level, other, prediction)) / level.sigma
    return as_kind(kind, level, x, (x - level.sigma * eps) / level.alpha)


def _blurred(x: Tensor, radius: int, sigma: float) -> Tensor:
    """A Gaussian filter over the last two axes, with mirrored edges; never wider than they are."""
    import torch
    from torch.nn import functional

    planes = x.flatten(0, -3)[:, None]
    for axis in (-2, -1):
        reach = min(radius, x.shape[axis] - 1)
        place = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
        kernel = torch.exp(-0.5 * (place / sigma) ** 2)
        kernel = kernel / kernel.sum()
        padding = (0, 0, reach, reach) if axis == -2 else (reach, reach, 0, 0)
        shape = (1, 1, -1, 1) if axis == -2 else (1, 1, 1, -1)
        planes = functional.conv2d(functional.pad(planes, padding, mode="reflect"), kernel.view(shape))
    return planes.reshape(x.shape)
