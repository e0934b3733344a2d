"""Imagic's two trainings: a text's encoding that fits one picture, and a denoiser tuned to it.

Stage A optimises the encoding of the target text on the picture, with the model held still; stage B tunes the
model with that encoding held still; between the two encodings lies the edit (Kawar et al. 2023, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mezzotint import Conditioning, Denoiser, Latents, UserError, Weights, node
from mezzotint_training.objective import Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_training.imagic_task import PictureTask

__all__ = ["PictureObjective", "fit_conditioning", "fit_denoiser", "fitted_conditioning"]


@node("training.fit_conditioning")
def fit_conditioning(denoiser: Denoiser, conditioning: Conditioning, latents: Latents) -> Objective:
    """Train a text's encoding until it tells a denoiser of one picture; the denoiser stays as it is (Imagic, A).

    All tokens of the encoding are trained, by the diffusion objective without guidance. training.train takes no
    data set for it; training.fitted_conditioning makes a conditioning of its weights.

    denoiser: as it is, without guidance.
    conditioning: to begin from: what the picture is to become, by models.encode_text.
    latents: of the picture, clean, by models.encode.

    Raises: UserError: several pictures or texts, guidance, latents that are not the denoiser's.
    Source: Kawar et al. 2023 (Imagic), eq. 2.
    """
    _check("training.fit_conditioning", denoiser, conditioning, latents)
    return PictureObjective(denoiser, conditioning, latents)


@node("training.fit_denoiser")
def fit_denoiser(
    denoiser: Denoiser,
    conditioning: Conditioning,
    latents: Latents,
    *,
    layers: Annotated[list[str], Field(min_length=1)] | None = None,
) -> Objective:
    """Tune a denoiser on one picture, with what it is told of it held still (Imagic, B).

    training.train takes no data set for it; models.tuned puts its weights, which are differences, on the denoiser.

    denoiser: as it is, without guidance.
    conditioning: what tells of the picture, by training.fitted_conditioning.
    latents: of the picture, clean, by models.encode.
    layers: only tensors whose names contain one of these are tuned; null tunes all.

    Raises: UserError: several pictures or texts, guidance, latents that are not the denoiser's; layers that it
    does not have, when training starts.
    Source: Kawar et al. 2023 (Imagic), section 3.2.
    """
    _check("training.fit_denoiser", denoiser, conditioning, latents)
    return PictureObjective(denoiser, conditioning, latents, tunes="denoiser", layers=tuple(layers or ("",)))


@node("training.fitted_conditioning")
def fitted_conditioning(weights: Weights, conditioning: Conditioning) -> Conditioning:
    """The conditioning that training found.

    weights: of training.train with training.fit_conditioning.
    conditioning: the one that it began from.

    Raises: UserError: weights of another training, or for an encoding of another shape.
    """
    context = weights.tensors.get("context")
    if weights.target != "conditioning" or context is None:
        raise UserError(
            "training.fitted_conditioning: wanted weights that training.fit_conditioning trained, got those of "
            f"{weights.target or 'something unnamed'}"
        )
    began = conditioning.context
    if began is None or tuple(began.shape) != tuple(context.shape):
        got = None if began is None else list(began.shape)
        raise UserError(
            f"training.fitted_conditioning: the weights are an encoding {list(context.shape)}, the conditioning's "
            f"is {got}; give the one that the training began from"
        )
    return conditioning.replace(context=context.to(began.dtype))


@dataclass(frozen=True, eq=False)
class PictureObjective(Objective):
    """The diffusion objective on one picture. tunes: the conditioning, or the denoiser's named layers."""

    denoiser: Denoiser
    conditioning: Conditioning
    latents: Latents
    tunes: str = "conditioning"
    layers: tuple[str, ...] = ()
    reads_dataset: ClassVar[bool] = False

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> PictureTask:
        from mezzotint_training.imagic_task import open_picture

        return open_picture(self, ctx, seed, batch)


def _check(name: str, denoiser: Denoiser, conditioning: Conditioning, latents: Latents) -> None:
    if denoiser.patches:
        raise UserError(f"{name}: wanted the denoiser as it is, got one with patches: guide it afterwards")
    shape = list(latents.data.shape)
    if len(shape) != 4 or shape[0] != 1:
        raise UserError(
            f"{name}: wanted the latents of one picture, [1, C, H, W], got {shape}; flow.map takes several"
        )
    if shape[1] != denoiser.channels or latents.downscale != denoiser.downscale:
        raise UserError(
            f"{name}: the latents have {shape[1]} channels and {latents.downscale} pixels to a side, the denoiser "
            f"wants {denoiser.channels} and {denoiser.downscale}: encode the picture with its own autoencoder"
        )
    if latents.space and denoiser.space and latents.space != denoiser.space:
        raise UserError(
            f"{name}: the latents are of the space {latents.space!r}, the denoiser's is {denoiser.space!r}"
        )
    context = conditioning.context
    if context is None or context.ndim != 3 or context.shape[0] != 1:
        got = "nothing" if context is None else str(list(context.shape))
        raise UserError(f"{name}: wanted the encoding of one text, [1, L, D], got {got}")
