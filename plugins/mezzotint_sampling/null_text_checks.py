"""Whether a picture can be inverted with null texts, before any model is loaded."""

from __future__ import annotations

from mezzotint import Conditioning, Denoiser, Latents, Sigmas, UserError
from mezzotint_sampling.checks import check_inputs
from mezzotint_sampling.combined import CombinedConditioning
from mezzotint_sampling.guidance import ClassifierFree
from mezzotint_sampling.levels import check_levels
from mezzotint_sampling.null_text import NullText

__all__ = ["check_null_text"]


def check_null_text(
    denoiser: Denoiser, conditioning: Conditioning, negative: Conditioning, latents: Latents, sigmas: Sigmas
) -> None:
    """Raises: UserError: with what was got, what was wanted, and what to do."""
    check_levels(sigmas)
    if sigmas.alphas[0] == 0:
        raise UserError(
            "sampling.null_text: inversion cannot end in pure noise (alpha = 0), where nothing of the picture is "
            "left; leave the noisiest level out, with sampling.sigmas' denoise below 1"
        )
    _check_pictures(latents)
    _check_texts(conditioning, negative)
    check_inputs(denoiser, conditioning, latents)
    if any(isinstance(patch, ClassifierFree | NullText) for patch in denoiser.patches):
        raise UserError(
            "sampling.null_text: the denoiser is guided already; give it as it is, and take guidance from "
            "sampling.guide_by_null_texts"
        )


def _check_pictures(latents: Latents) -> None:
    if latents.data.ndim != 4:
        raise UserError(
            f"sampling.null_text: wanted the latents of a picture, [1, C, H, W], got {list(latents.data.shape)}"
        )
    count = latents.data.shape[0]
    if count != 1:
        raise UserError(
            f"sampling.null_text: wanted one picture, got {count}: each has nulls of its own. flow.map inverts "
            "them one by one"
        )
    if latents.mask is not None:
        raise UserError(
            "sampling.null_text: the latents have a mask, and an inversion keeps nothing of it; take them from "
            "models.encode, and put the mask on when sampling"
        )


def _check_texts(conditioning: Conditioning, negative: Conditioning) -> None:
    for name, each in (("conditioning", conditioning), ("negative", negative)):
        if isinstance(each, CombinedConditioning) or each.context is None:
            raise UserError(f"sampling.null_text: {name}: wanted the encoding of one text, by models.encode_text")
        if each.context.shape[0] != 1:
            raise UserError(f"sampling.null_text: {name}: wanted one text, got {each.context.shape[0]}")
    assert conditioning.context is not None and negative.context is not None
    if conditioning.context.shape != negative.context.shape:
        got = [list(each.context.shape[1:]) for each in (conditioning, negative) if each.context is not None]
        raise UserError(
            f"sampling.null_text: the texts' encodings differ in shape, {got[0]} and {got[1]}; encode "
            "both by one model"
        )
