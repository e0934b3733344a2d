"""Whether latents, conditioning and denoiser fit together, before anything is loaded."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from mezzotint import Conditioning, Denoiser, Latents, UserError
from mezzotint_sampling.combined import CombinedConditioning, check_windows
from mezzotint_sampling.guidance import ClassifierFree
from mezzotint_sampling.guidance_gradient import ClassifierGuidance

__all__ = ["check_inputs"]


def check_inputs(denoiser: Denoiser, conditioning: Conditioning, latents: Latents) -> None:
    """Raises: UserError: with what was got, what was wanted, and what to do."""
    _check_latents(denoiser, latents)
    _check_mask(latents)
    _check_finite("the latents", latents.data)
    _check_finite("the latents' mask", latents.mask)
    _check_conditioning(conditioning, latents)
    _check_guidance(denoiser, latents)


def _check_latents(denoiser: Denoiser, latents: Latents) -> None:
    shape = tuple(latents.data.shape)
    if len(shape) not in (4, 5):
        raise UserError(f"latents must be [B, C, H, W] or [B, C, F, H, W]; got shape {shape}")
    if shape[1] != denoiser.channels:
        raise UserError(
            f"latents have {shape[1]} channels; the denoiser ({denoiser.source.uri}) wants {denoiser.channels}"
        )
    if latents.space and denoiser.space and latents.space != denoiser.space:
        raise UserError(
            f"latents are of the space {latents.space!r}; the denoiser ({denoiser.source.uri}) "
            f"wants {denoiser.space!r}: encode them with the denoiser's own autoencoder"
        )
    if latents.downscale != denoiser.downscale:
        raise UserError(
            f"latents have {latents.downscale} pixels to a side; the denoiser wants {denoiser.downscale}"
        )


def _check_finite(what: str, data: Tensor | None) -> None:
    """Else a NaN that came in would be blamed on the denoiser."""
    if data is not None and not data.isfinite().all():
        bad = int((~data.isfinite()).sum())
        raise UserError(f"{what} must be finite; {bad} of {data.numel()} numbers are NaN or infinite")


def _check_mask(latents: Latents) -> None:
    if latents.mask is None:
        return
    data, mask = latents.data.shape, latents.mask.shape
    frames = (1, data[2]) if len(data) == 5 else ()
    # Any number of masks may follow each other along the run.
    count = mask[1] if len(mask) > 1 and mask[1] else 1
    sizes = {(b, count, *data[-2:]) for b in (1, data[0])}
    sizes |= {(b, count, f, *data[-2:]) for b in (1, data[0]) for f in frames}
    if tuple(mask) not in sizes:
        wanted = " or ".join(str(size) for size in sorted(sizes, key=lambda s: (len(s), s)))
        raise UserError(f"the latents' mask has shape {tuple(mask)}; wanted {wanted}")


def _check_conditioning(conditioning: Conditioning, latents: Latents, where: str = "conditioning") -> None:
    batch = latents.data.shape[0]
    for field in dataclasses.fields(conditioning):
        value = getattr(conditioning, field.name)
        if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] not in (1, batch):
            raise UserError(
                f"{where}.{field.name} is for {value.shape[0]} samples; "
                f"wanted 1 or {batch}, the batch of the latents"
            )
    if isinstance(conditioning, CombinedConditioning):
        check_windows(conditioning.parts)
        for i, part in enumerate(conditioning.parts):
            _check_conditioning(part.conditioning, latents, f"{where}.parts[{i}]")
            _check_part_mask(part.mask, latents.data, f"{where}.parts[{i}].mask")


def _check_guidance(denoiser: Denoiser, latents: Latents) -> None:
    """What guidance brings along is for one sample or for each, too."""
    batch = latents.data.shape[0]
    for patch in denoiser.patches:
        if isinstance(patch, ClassifierFree):
            _check_conditioning(patch.negative, latents, "the negative of guidance")
        if isinstance(patch, ClassifierGuidance) and len(patch.labels) not in (1, batch):
            raise UserError(
                f"classifier guidance has {len(patch.labels)} labels; "
                f"wanted 1 or {batch}, the batch of the latents"
            )


def _check_part_mask(mask: Tensor | None, data: Tensor, where: str) -> None:
    if mask is None:
        return
    frames = data.shape[2] if data.dim() == 5 else None
    fits = mask.shape[0] in (1, data.shape[0])
    fits &= mask.dim() == 4 or (mask.dim() == 5 and frames is not None and mask.shape[2] in (1, frames))
    if not fits:
        raise UserError(f"{where} has shape {tuple(mask.shape)}; the latents are {tuple(data.shape)}")
