"""The nodes around the sampler: noise levels, noise, empty latents and guidance."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mezzotint import (
    Autoencoder,
    Conditioning,
    Denoiser,
    Latents,
    Noise,
    Sigmas,
    UserError,
    node,
)
from mezzotint_sampling.combined import CombinedConditioning, check_windows
from mezzotint_sampling.guidance import ClassifierFree
from mezzotint_sampling.guidance_schedule import GuidanceSchedule

__all__ = ["empty_latents", "guide", "noise", "sigmas"]

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Steps = Annotated[int, Field(ge=1, le=10_000)]
Side = Annotated[int, Field(ge=1, le=16_384)]
Positive = Annotated[float, Field(gt=0)]


@node("sampling.sigmas", version=1)
def sigmas(
    denoiser: Denoiser,
    latents: Latents | None = None,
    *,
    steps: Steps = 20,
    schedule: Literal[
        "uniform",
        "discrete",
        "simple",
        "sgm_uniform",
        "karras",
        "exponential",
        "kl_optimal",
        "beta",
        "linear_quadratic",
        "align_your_steps",
    ] = "uniform",
    spacing: Literal["leading", "linspace", "trailing"] = "trailing",
    denoise: Annotated[float, Field(gt=0, le=1)] = 1.0,
    offset: Annotated[int, Field(ge=0)] = 1,
    rho: Positive = 7.0,
    sigma_min: Positive | None = None,
    sigma_max: Positive | None = None,
    alpha: Positive = 0.6,
    beta: Positive = 0.6,
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.025,
    table: Literal["sd1", "sdxl", "svd"] = "sd1",
    shift: Positive | None = None,
    shift_by_size: Literal["flux", "root"] | None = None,
    end: Literal["clean", "trained"] = "clean",
) -> Sigmas:
    """The noise levels of a sampling run, from the forward process of the denoiser's training.

    denoiser: whose levels they are to be.
    latents: what will be sampled; needed for shift_by_size alone.
    steps: how many steps the run makes.
    schedule: uniform and discrete are even in the model's training steps (discrete: whole ones),
        simple takes every n-th of them, sgm_uniform leaves out the cleanest; karras is even in
        (sigma / alpha)^(1/rho), exponential in its logarithm, kl_optimal in its arctangent; beta has
        more at both ends; linear_quadratic slows down at the noisy end, for video; align_your_steps
        takes published tables. docs/schedules.md has them all, with other programs' names.
    spacing: where uniform and discrete begin and end: trailing starts at the noisiest level,
        leading ends at the cleanest, linspace does both.
    denoise: below 1, the last part of a longer schedule, for image to image.
    offset: training steps by which leading is moved up.
    rho: of karras.
    sigma_min: the cleanest level of karras, exponential and kl_optimal; null is the model's.
    sigma_max: their noisiest level.
    alpha: of beta; below 1 puts more steps near the clean end.
    beta: of beta; below 1 puts more steps near the noisy end.
    threshold: how much of the noise the first half of linear_quadratic takes away.
    table: of align_your_steps: which family of models.
    shift: of a flow model, in place of its own; above 1 spends more steps on noise.
    shift_by_size: of a flow model, the shift for the size of the latents: root is (size / trained
        size)^(1/2), flux is that of Flux.
    end: clean is without noise; trained is the cleanest level of the model's training, where Stable
        Diffusion's own DDIM stops.

    Source: each schedule's is in its function's docstring, in mezzotint_sampling.sigmas.
    Raises: UserError: options that contradict each other, the schedule or the model.
    """
    from mezzotint_sampling.sigmas import Options, make_sigmas, resolution_shift

    if shift_by_size is not None:
        if latents is None or shift is not None:
            raise UserError("shift_by_size needs the latents whose size it goes by, and no shift besides")
        height, width = latents.data.shape[-2:]
        shift = resolution_shift(shift_by_size, height * width, denoiser.sample_size**2)
    options = Options(
        rho=rho, sigma_min=sigma_min, sigma_max=sigma_max, alpha=alpha, beta=beta, threshold=threshold, table=table
    )
    return make_sigmas(
        denoiser.schedule, steps, schedule, spacing, denoise, offset, shift=shift, options=options, end=end
    )


@node("sampling.noise", version=1)
def noise(
    *,
    seed: Seed = 0,
    kind: Literal["philox", "torch", "brownian"] = "philox",
    frames: Literal["independent", "shared", "mixed", "progressive", "residual"] = "independent",
    correlation: Annotated[float, Field(ge=0, le=1)] = 0.5,
    stream: str = "",
    copies: Annotated[int, Field(ge=1, le=4096)] = 1,
) -> Noise:
    """A source of noise for starting points and for samplers that add noise.

    seed: sample i of a batch gets the noise of seed + i.
    kind: philox gives the same numbers on every device; torch gives those of torch's CPU generator,
        for starts bit-equal to diffusers and ComfyUI. brownian is philox whose steps follow one
        path, so that more steps refine a picture and do not make another one.
    frames: whether the frames of a clip have noise of their own or all the same, or a mixture: of
        a part that all share, or of each with the one before (progressive). residual is mixed, but the middle
        frame has the shared part alone, as video.decompose wants it.
    correlation: of any two frames that are mixed, or of two neighbours of a progressive clip.
    stream: a name that keeps two sources with one seed apart.
    copies: so many neighbours in a batch get the same noise: a picture and its edits.

    Source: mixed and progressive, Ge et al. 2023, "Preserve your own correlation"; their
    alpha is given by correlation = alpha^2 / (1 + alpha^2), for progressive by its square root.
    """
    return Noise(seed=seed, kind=kind, frames=frames, correlation=correlation, stream=stream, copies=copies)


@node("sampling.empty_latents", version=1)
def empty_latents(
    denoiser: Denoiser | None = None,
    autoencoder: Autoencoder | None = None,
    *,
    width: Side | None = 512,
    height: Side | None = 512,
    batch: Annotated[int, Field(ge=1, le=4096)] = 1,
    frames: Annotated[int, Field(ge=1, le=4096)] | None = None,
) -> Latents:
    """Latents that hold no picture, all zero: a sampler starts from noise alone.

    denoiser, autoencoder: one of them, whose latents they are to be.
    width, height: of the decoded pictures, in pixels; multiples of the model's downscale. Null is the side that
        the denoiser was trained at.
    batch: how many.
    frames: makes clips, [B, C, F, H, W]; null makes pictures, [B, C, H, W].

    Raises: UserError: a size is not a multiple of the downscale, or neither model is given.
    """
    import torch

    model = denoiser if denoiser is not None else autoencoder
    if model is None:
        raise UserError("empty latents need a denoiser or an autoencoder; got neither")
    width, height = (_trained_side(denoiser) if side is None else side for side in (width, height))
    for side, size in (("width", width), ("height", height)):
        if size % model.downscale:
            near = max(1, round(size / model.downscale)) * model.downscale
            raise UserError(
                f"{side} must be a multiple of {model.downscale} (pixels per latent); "
                f"got {size}, the nearest is {near}"
            )
    clip = () if frames is None else (frames,)
    shape = (batch, model.channels, *clip, height // model.downscale, width // model.downscale)
    return Latents(data=torch.zeros(shape), space=model.space, downscale=model.downscale)


def _trained_side(denoiser: Denoiser | None) -> int:
    if denoiser is None:
        raise UserError("empty latents without a size take it from the denoiser, and there is none")
    return denoiser.sample_size * denoiser.downscale


@node("sampling.guide", version=1)
def guide(
    denoiser: Denoiser,
    negative: Conditioning,
    schedule: GuidanceSchedule | None = None,
    *,
    scale: Annotated[float, Field(ge=0, le=1000)] = 7.5,
    rescale: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Denoiser:
    """Classifier-free guidance: a denoiser that moves away from a negative conditioning.

    denoiser: the model to guide.
    negative: what to move away from; the encoding of an empty text is the usual one.
    schedule: how the scale goes along the run, for guidance in an interval too; null keeps it.
    scale: 1 is no guidance, and skips the evaluation of the negative.
    rescale: how far the result is scaled back to the contrast of the unguided one.

    Raises: UserError: a combined negative without a condition at some time of the run.
    Source: Ho and Salimans 2022, eq. 6; rescale, Lin et al. 2023, section 3.4.
    """
    if isinstance(negative, CombinedConditioning):
        check_windows(negative.parts)
    return denoiser.patched(ClassifierFree(negative, scale, rescale, schedule))
