"""The nodes that guide a denoiser, and that put conditions together. Each gives a denoiser for the next."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mezzotint import Conditioning, Denoiser, Mask, Recipe, Sigmas, UserError, node
from mezzotint_sampling.combined import CombinedConditioning, Part, check_windows, parts_of
from mezzotint_sampling.guidance_attention import PerturbedAttention, SelfAttention
from mezzotint_sampling.guidance_gradient import ClassifierGuidance
from mezzotint_sampling.guidance_schedule import GuidanceSchedule
from mezzotint_sampling.guidance_threshold import Threshold

__all__ = [
    "combine_conditions", "guidance_schedule", "guide_by_attention", "guide_by_classifier", "limit_condition",
    "threshold",
]  # fmt: skip

Part01 = Annotated[float, Field(ge=0, le=1)]


@node("sampling.guidance_schedule", version=1)
def guidance_schedule(
    *,
    shape: Literal["constant", "linear", "cosine"] = "constant",
    first: Annotated[float, Field(ge=0)] = 1.0,
    last: Annotated[float, Field(ge=0)] = 1.0,
    factors: Annotated[list[float], Field(max_length=10_000)] | None = None,
    sigma_low: Annotated[float, Field(ge=0)] = 0.0,
    sigma_high: Annotated[float, Field(gt=0)] | None = None,
) -> GuidanceSchedule:
    """How strong guidance is along a run: a factor for the scale, less what guides nothing.

    shape: how the factor goes from first to last: it stays, in a line, or in half a cosine.
    first: the factor at the noisiest step; 1 is the scale of the guidance node, 0 no guidance.
    last: the factor at the last step; not looked at if the shape is constant.
    factors: one for each step in place of all this; with two values in turn, oscillating guidance.
    sigma_low: guidance is off at this k-diffusion sigma (sigma / alpha) and below.
    sigma_high: and above this one; null has no bound.

    Source: interval, Kynkaanniemi et al. 2024; shapes, Wang et al. 2024, "Analysis of
    classifier-free guidance weight schedulers"; oscillating, Ho et al. 2022, "Imagen Video".
    Raises: UserError: an interval without any level, or both a shape and factors.
    """
    if sigma_high is not None and sigma_high <= sigma_low:
        raise UserError(f"sigma_high must be above sigma_low; got {sigma_high:g} and {sigma_low:g}")
    if factors is not None and (not factors or shape != "constant"):
        raise UserError("factors are one for each step, and take the place of a shape; got both, or none")
    return GuidanceSchedule(
        shape=shape,
        first=first,
        last=last,
        factors=tuple(factors or ()),
        sigma_low=sigma_low,
        sigma_high=sigma_high,
    )


@node("sampling.guide_by_attention", version=1)
def guide_by_attention(
    denoiser: Denoiser,
    schedule: GuidanceSchedule | None = None,
    *,
    how: Literal["perturbed", "blurred"] = "perturbed",
    scale: Annotated[float, Field(ge=0, le=1000)] = 3.0,
    layers: Annotated[list[str], Field(min_length=1)] = ["mid_block"],  # noqa: B006
    threshold: Annotated[float, Field(ge=0)] = 1.0,
    blur: Annotated[float, Field(gt=0, le=100)] = 1.0,
) -> Denoiser:
    """Guidance away from the same model made worse: for structure, also without a text.

    denoiser: the model to guide, guided otherwise or not; the amounts add up.
    schedule: how the scale goes along the run; null keeps it.
    how: perturbed lets some layers attend to nothing but their own place (perturbed-attention
        guidance); blurred shows the model a picture that is blurred where it looks most
        (self-attention guidance, whose usual scale is 0.75).
    scale: 0 is no guidance.
    layers: how the names of the self-attention layers begin; blurred looks at the last of them.
    threshold: blurred: how much attention a place needs, the mean being 1.
    blur: blurred: standard deviation of the filter, in latents.

    Source: Ahn et al. 2024 (perturbed); Hong et al. 2023, algorithm 1 (blurred).
    Raises: UserError: a denoiser without such layers, when it is realised.
    """
    if how == "perturbed":
        return denoiser.patched(PerturbedAttention(scale=scale, layers=tuple(layers), schedule=schedule))
    settings = SelfAttention(scale=scale, layers=tuple(layers), threshold=threshold, blur=blur, schedule=schedule)
    return denoiser.patched(settings)


@node("sampling.guide_by_classifier", version=1)
def guide_by_classifier(
    denoiser: Denoiser,
    classifier: Recipe,
    sigmas: Sigmas | None = None,
    schedule: GuidanceSchedule | None = None,
    *,
    label: Annotated[int, Field(ge=0)] | list[int],
    scale: Annotated[float, Field(ge=0, le=10_000)] = 1.0,
    of: Literal["x", "x0", "x0_fixed"] = "x",
    form: Literal["ddim", "ancestral"] = "ddim",
) -> Denoiser:
    """Guidance towards a class, by the gradient of a classifier.

    denoiser: the model to guide, guided otherwise or not; the amounts add up.
    classifier: any model that, realised, is called with (x, level) and gives logits, [B, classes].
    sigmas: those of the run; the ancestral form needs them.
    schedule: how the scale goes along the run; null keeps it.
    label: the class, or one for each sample.
    scale: 0 is no guidance; 1 is Bayes' rule.
    of: what the classifier was trained on: x, noisy pictures; x0, clean ones, which it is shown as
        the model predicts them, and the gradient goes through the model; x0_fixed holds the model's
        noise constant, which is cheaper.
    form: ddim changes the predicted noise, for any sampler; ancestral moves the mean by variance
        times gradient, for the sampler ddpm.

    Source: Dhariwal and Nichol 2021, algorithms 1 and 2.
    Raises: UserError: the ancestral form without sigmas, or with others than the run's.
    """
    if form == "ancestral" and sigmas is None:
        raise UserError("the ancestral form of guidance needs the sigmas of the run")
    labels = (label,) if isinstance(label, int) else tuple(label)
    if not labels:
        raise UserError("label: wanted a class, or one for each sample; got an empty list")
    patch = ClassifierGuidance(
        classifier=classifier, labels=labels, scale=scale, of=of, form=form, sigmas=sigmas, schedule=schedule
    )
    return denoiser.patched(patch)


@node("sampling.threshold", version=1)
def threshold(
    denoiser: Denoiser,
    *,
    limit: Annotated[float, Field(gt=0)] = 1.0,
    percentile: Annotated[float, Field(ge=0, le=1)] | None = None,
) -> Denoiser:
    """Bounds on the clean picture at every step; put it after guidance, whose excess it takes back.

    denoiser: the model, guided or not.
    limit: bounds the picture to -limit..limit; 1 for models of pixels.
    percentile: dynamic thresholding: a sample in which a larger part than this lies within
        -s..s, s above the limit, is clipped at s and scaled back; 0.995 is Imagen's. null clips.

    Source: Saharia et al. 2022, section 2.3.
    """
    return denoiser.patched(Threshold(limit=limit, percentile=percentile))


@node("sampling.limit_condition", version=1)
def limit_condition(
    conditioning: Conditioning,
    mask: Mask | None = None,
    *,
    area: Annotated[list[Part01], Field(min_length=4, max_length=4)] | None = None,
    weight: Annotated[float, Field(gt=0)] = 1.0,
    start: Part01 = 0.0,
    end: Part01 = 1.0,
) -> Conditioning:
    """Say where, when and how much a condition counts, to combine it with others.

    conditioning: what holds there.
    mask: where it holds, in any size, soft or not; null is everywhere.
    area: [left, top, width, height] where it holds, each 0..1 of the picture; besides a mask, both.
    weight: how much it counts against others in the same place.
    start: from which part of the run on, 0..1.
    end: up to which part.

    Raises: UserError: a condition that is limited or combined already, an empty area or time, or a
        weight outside 1e-6 to 1e6.
    """
    if isinstance(conditioning, CombinedConditioning):
        raise UserError("this condition is limited or combined already; limit each one before combining them")
    if not 1e-6 <= weight <= 1e6:
        raise UserError(f"weight must be from 1e-6 to 1e6; got {weight:g}")
    if start >= end:
        raise UserError(f"start must be before end; got {start:g} and {end:g}")
    if area is not None and (area[2] <= 0 or area[3] <= 0 or area[0] + area[2] > 1 or area[1] + area[3] > 1):
        raise UserError(f"area must lie in the picture and not be empty; got [left, top, width, height] = {area}")
    part = Part(
        conditioning,
        weight=weight,
        mask=None if mask is None else mask.data.unsqueeze(1),
        area=None if area is None else (area[0], area[1], area[2], area[3]),
        start=start,
        end=end,
    )
    return CombinedConditioning(parts=(part,))


@node("sampling.combine_conditions", version=1)
def combine_conditions(*, conditionings: Annotated[list[Conditioning], Field(min_length=1)]) -> Conditioning:
    """Several conditions in one picture: predictions for each, averaged by weight where and when they hold.

    conditionings: plain ones hold everywhere; `sampling.limit_condition` gives the others a place, a
        time and a weight. Where none holds, all count by their weights.

    The result goes where a conditioning goes, the negative of guidance too. What fits together is
    evaluated in one batch.
    Raises: UserError: a time of the run in which none holds.
    """
    parts = tuple(part for conditioning in conditionings for part in parts_of(conditioning))
    check_windows(parts)
    return CombinedConditioning(parts=parts)
