"""Sampling: noise, noise levels, samplers and guidance, as Mezzotint nodes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mezzotint import hookimpl

if TYPE_CHECKING:
    from mezzotint_sampling.augmentation import noised_low_res
    from mezzotint_sampling.combined import Part, parts_of, share_of
    from mezzotint_sampling.run import clean_row
    from mezzotint_sampling.schedule import alphas_cumprod, index_of
    from mezzotint_sampling.within import check_sampling, sample_from_noise
    from mezzotint_sampling.wrapped import Wrapped, as_kind, clean, finished

__all__ = [
    "ClassifierFree", "Part", "Wrapped", "alphas_cumprod", "as_kind", "check_sampling", "clean", "clean_row",
    "compared_with", "finished", "index_of", "noised_low_res", "parts_of", "register_nodes", "register_ports",
    "register_samplers", "sample_from_noise", "share_of",
]  # fmt: skip

_HOME = {
    "Part": "combined", "Wrapped": "wrapped", "alphas_cumprod": "schedule", "as_kind": "wrapped",
    "clean": "wrapped", "clean_row": "run", "finished": "wrapped", "index_of": "schedule",
    "noised_low_res": "augmentation", "parts_of": "combined", "share_of": "combined",
    "check_sampling": "within", "sample_from_noise": "within",
    "ClassifierFree": "guidance", "compared_with": "guidance",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    """The nodes of this plugin."""
    from mezzotint_sampling import (
        distance,
        guidance_clip,
        guidance_edit,
        guidance_nodes,
        interpolation,
        mask_path,
        nodes,
        null_text_node,
        sampler_node,
        shown,
        sigma_nodes,
        told,
    )

    for function in (
        nodes.sigmas, sigma_nodes.sigmas_from_list, sigma_nodes.split_sigmas, sigma_nodes.join_sigmas,
        sigma_nodes.skip_steps,
        nodes.noise, nodes.empty_latents, nodes.guide,
        guidance_nodes.guidance_schedule, guidance_nodes.guide_by_attention, guidance_nodes.guide_by_classifier,
        guidance_clip.guide_by_clip, guidance_edit.guide_edit, mask_path.change_map, mask_path.shrinking_mask,
        guidance_nodes.threshold, guidance_nodes.limit_condition, guidance_nodes.combine_conditions,
        sampler_node.sample, sampler_node.invert, distance.distance, told.condition,
        shown.condition_on_low_res, shown.condition_on_known, shown.keep_known,
        null_text_node.null_text, null_text_node.guide_by_null_texts, interpolation.interpolate_conditions,
    ):  # fmt: skip
        register(function)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    """The ports of this plugin, the patches that a recipe can carry, and what they are made of."""
    from mezzotint_sampling import (
        combined,
        guidance_attention,
        guidance_clip,
        guidance_edit,
        guidance_gradient,
        guidance_threshold,
    )
    from mezzotint_sampling.guidance import ClassifierFree
    from mezzotint_sampling.guidance_schedule import GuidanceSchedule
    from mezzotint_sampling.null_text import NullText, NullTexts
    from mezzotint_sampling.shown import KeepKnown

    for kind in (
        GuidanceSchedule, ClassifierFree, guidance_attention.PerturbedAttention, guidance_attention.SelfAttention,
        guidance_gradient.ClassifierGuidance, guidance_clip.ClipGuidance, guidance_edit.EditGuidance,
        guidance_threshold.Threshold,
        combined.Part, combined.CombinedConditioning, KeepKnown, NullTexts, NullText,
    ):  # fmt: skip
        register(kind)


@hookimpl
def register_samplers(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """The bundled samplers."""
    from mezzotint_sampling.samplers import SAMPLERS

    for name, sampler in SAMPLERS.items():
        register(name, sampler)
