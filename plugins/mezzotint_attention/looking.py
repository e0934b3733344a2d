"""A denoiser that a node evaluates to look at its attention, and not to sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mezzotint_attention.injection import Injected, Injection

if TYPE_CHECKING:
    from mezzotint import Context, Denoiser

__all__ = ["bare", "looked_at"]


def looked_at(ctx: Context, denoiser: Denoiser) -> Any:
    """The denoiser realised with its injections and what changes its weights, and without guidance around it."""
    kept = tuple(patch for patch in denoiser.patches if isinstance(patch, Injection) or not _guides(patch))
    return ctx.realise(denoiser.replace(patches=kept))


def _guides(patch: Any) -> bool:
    """Whether a patch comes from the plugin of samplers: guidance asks the same model in other ways."""
    return type(patch).__module__.startswith("mezzotint_sampling.")


def bare(model: Any) -> Any:
    """The realised denoiser under its injections: to ask it something of one's own."""
    while isinstance(model, Injected):
        model = model.model
    return model
