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
from mezzotint_sampling.guidance import ClassifierFree

__all__ = ["empty_latents", "guide", "noise", "sigmas"]

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Steps = Annotated[int, Field(ge=1, le=10_000)]
Side = Annotated[int, Field(ge=1, le=16_384)]


@node("sampling.sigmas", version=1)
def sigmas(
    denoiser: Denoiser,
    *,
    steps: Steps = 20,
    schedule: Literal["uniform", "discrete", "simple", "karras", "exponential"] = "uniform",
    spacing: Literal["leading", "linspace", "trailing"] = "trailing",
    denoise: Annotated[float, Field(gt=0, le=1)] = 1.0,
    offset: Annotated[int, Field(ge=0)] = 1,
) -> Sigmas:
    """The noise levels of a sampling run, from the forward process of the denoiser's training.

    denoiser: whose levels they are to be.
    steps: how many steps the run makes.
    schedule: uniform and discrete are even in the model's training steps (discrete: whole ones),
        simple takes every n-th of them, karras is even in (sigma / alpha)^(1/7) and exponential
        in its logarithm.
    spacing: where uniform and discrete begin and end: trailing starts at the noisiest level,
        leading ends at the cleanest, linspace does both.
    denoise: below 1, the last part of a longer schedule, for image to image.
    offset: training steps by which leading is moved up.
    """
    from mezzotint_sampling.sigmas import make_sigmas

    return make_sigmas(denoiser.schedule, steps, schedule, spacing, denoise, offset)


@node("sampling.noise", version=1)
def noise(
    *,
    seed: Seed = 0,
    kind: Literal["philox", "torch"] = "philox",
    frames: Literal["independent", "shared"] = "independent",
    stream: str = "",
) -> Noise:
    """A source of noise for starting points and for samplers that add noise.

    seed: sample i of a batch gets the noise of seed + i.
    kind: philox gives the same numbers on every device; torch gives those of torch's CPU generator,
        for starts bit-equal to diffusers and ComfyUI.
    frames: whether the frames of a clip have noise of their own or all the same.
    stream: a name that keeps two sources with one seed apart.
    """
    return Noise(seed=seed, kind=kind, frames=frames, stream=stream)


@node("sampling.empty_latents", version=1)
def empty_latents(
    denoiser: Denoiser | None = None,
    autoencoder: Autoencoder | None = None,
    *,
    width: Side = 512,
    height: Side = 512,
    batch: Annotated[int, Field(ge=1, le=4096)] = 1,
    frames: Annotated[int, Field(ge=1, le=4096)] | None = None,
) -> Latents:
    """Latents that hold no picture, all zero: a sampler starts from noise alone.

    denoiser, autoencoder: one of them, whose latents they are to be.
    width, height: of the decoded pictures, in pixels; multiples of the model's downscale.
    batch: how many.
    frames: makes clips, [B, C, F, H, W]; null makes pictures, [B, C, H, W].

    Raises: UserError: a size is not a multiple of the downscale, or neither model is given.
    """
    import torch

    model = denoiser if denoiser is not None else autoencoder
    if model is None:
        raise UserError("empty latents need a denoiser or an autoencoder; got neither")
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


@node("sampling.guide", version=1)
def guide(
    denoiser: Denoiser,
    negative: Conditioning,
    *,
    scale: Annotated[float, Field(ge=0, le=1000)] = 7.5,
    rescale: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Denoiser:
    """Classifier-free guidance: a denoiser that moves away from a negative conditioning.

    denoiser: the model to guide.
    negative: what to move away from; the encoding of an empty text is the usual one.
    scale: 1 is no guidance, and skips the evaluation of the negative.
    rescale: how far the result is scaled back to the contrast of the unguided one.

    Source: Ho and Salimans 2022, eq. 6; rescale, Lin et al. 2023, section 3.4.
    """
    return denoiser.patched(ClassifierFree(negative=negative, scale=scale, rescale=rescale))
