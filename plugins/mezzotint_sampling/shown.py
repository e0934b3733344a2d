"""Pictures that a denoiser is shown: a small one to enlarge, and the part of a picture that is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import (
    Conditioning,
    Context,
    Denoiser,
    Image,
    Latents,
    NoiseLevel,
    Patch,
    Prediction,
    UserError,
    node,
)
from mezzotint_sampling.wrapped import Wrapped, clean, finished

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Predictor

__all__ = ["KeepKnown", "condition_on_known", "condition_on_low_res", "keep_known"]


@node("sampling.condition_on_low_res", version=1, device=True)
def condition_on_low_res(
    ctx: Context,
    image: Image,
    conditioning: Conditioning | None = None,
    *,
    level: Annotated[float, Field(ge=0, le=1)] | None = 0.0,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Conditioning:
    """Show a super-resolution model the small picture that it is to enlarge, with noise on it if wanted.

    image: [B, h, w, 3], of a size up to that of what is made; rounded to 256 levels first, as in a file.
    conditioning: what else it is told; give the negative of guidance the same picture, level and seed.
    level: how much noise (noise conditioning augmentation): 0 is the picture as it is, 1 nothing but noise. The
        model is told; null is for a model that was trained without noise and is told nothing of it.
    seed: of that noise; picture i has that of seed + i.

    Raises: UserError: a picture with another number of channels than 3.
    Source: Ho et al. 2022, "Cascaded diffusion models", section 4; Saharia et al. 2022, "Imagen", section 2.4.
    """
    import torch

    from mezzotint_sampling.augmentation import noised_low_res

    if image.data.shape[-1] != 3:
        raise UserError(
            f"sampling.condition_on_low_res: wanted pictures with 3 channels, got {image.data.shape[-1]}"
        )
    # A cascade is trained on pictures out of files: what a float can hold between two levels means nothing to it.
    levels = (image.data.to(ctx.device).float().clamp(0, 1) * 255).round()
    pixels = (levels / 127.5 - 1).movedim(-1, 1).contiguous()
    told = conditioning or Conditioning()
    if level is None:
        return told.replace(low_res=pixels, low_res_level=None)
    u = torch.full((pixels.shape[0],), level, device=pixels.device)
    # At level 0 the weights are cos 0 = 1 and sin 0 = 0, and the picture stays as it is to the bit.
    noisy = noised_low_res(pixels, u, ctx.noise(seed).normal(tuple(pixels.shape)))
    return told.replace(low_res=noisy, low_res_level=u)


@node("sampling.condition_on_known", version=1)
def condition_on_known(latents: Latents, conditioning: Conditioning | None = None) -> Conditioning:
    """Show an inpainting model what is known: the picture with its holes, and where it has none.

    latents: the picture, with a mask from models.set_mask, which is above 0 where something is to change.
    conditioning: what else the model is told.

    returns: `concat` is latents * keep and then keep, 1 where the mask is 0.
    Raises: UserError: latents without a mask.
    Source: Nichol et al. 2022, "GLIDE", section 2.4, with 1 = keep.
    """
    import torch

    keep = _keep(latents, "sampling.condition_on_known")
    told = conditioning or Conditioning()
    return told.replace(concat=torch.cat([latents.data.float() * keep, keep], dim=1))


@node("sampling.keep_known", version=1)
def keep_known(denoiser: Denoiser, latents: Latents) -> Denoiser:
    """Put what is known into the clean picture that a denoiser predicts, at each step (inpainting).

    Other than a mask in sampling.sample, which noises the known part anew at every level, this leaves the run's
    own noise there, so that known and new parts fit together. Where it is known the result is exact, to the bit
    with the sampler ddim.

    denoiser: the model, guided or not. Put it after guidance and thresholds.
    latents: the picture, with a mask from models.set_mask; where that is 0 the picture is known.
    Raises: UserError: latents without a mask, or of another space than the denoiser's.
    Source: Nichol et al. 2022, "GLIDE", whose released code does so in its inpainting.
    """
    if latents.space and denoiser.space and latents.space != denoiser.space:
        raise UserError(
            f"sampling.keep_known: the latents are of space {latents.space!r}, "
            f"the denoiser's is {denoiser.space!r}"
        )
    return denoiser.patched(KeepKnown(latents.data, _keep(latents, "sampling.keep_known")))


@dataclass(frozen=True, eq=False)
class KeepKnown(Patch):
    """The clean picture is `known` where `keep` is 1. known: [B or 1, C, ...]. keep: [B or 1, 1, ...], 0 or 1."""

    known: Tensor
    keep: Tensor

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield _KeepingPredictor(model, self.known, self.keep)


class _KeepingPredictor(Wrapped):
    """Gives its model's prediction as a clean picture, known parts in their place: one finished output."""

    def __init__(self, model: Predictor, known: Tensor, keep: Tensor) -> None:
        super().__init__(model)
        self.known, self.keep = known, keep

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        import torch

        given = super().predict(x, level, conditioning)
        x0 = clean(given.kind, level, x, finished(given))
        rows = x.shape[0]
        if self.known.shape[1:] != x.shape[1:] or rows % self.known.shape[0]:
            raise UserError(
                f"sampling.keep_known: the picture is {list(self.known.shape)}, the sample {list(x.shape)}"
            )
        # Guidance under further guidance puts equal batches one after the other.
        known = self.known.to(x0).repeat(rows // self.known.shape[0], *[1] * (x.dim() - 1))
        keep = self.keep.to(x.device).repeat(rows // self.keep.shape[0], *[1] * (x.dim() - 1))
        kept = torch.where(keep > 0, known, x0)
        return replace(given, outputs=(kept,), weights=(1.0,), kind="x0", rescale=0.0)


def _keep(latents: Latents, where: str) -> Tensor:
    """1 where the mask is 0, else 0: [B, 1, ...] float32."""
    if latents.mask is None:
        raise UserError(f"{where}: the latents have no mask; models.set_mask says which of them may change")
    # What any mask of a path frees is not known.
    return (latents.mask.amax(1, keepdim=True) <= 0).float()
