"""Masks that change along a run: how strongly each place may change, and thin regions that begin wide.

Latents carry K masks, [B, K, H, W], each for a Kth of the steps. No torch until a node runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Latents, NoiseLevel, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["change_map", "mask_at", "shrinking_mask"]


def mask_at(mask: Tensor, level: NoiseLevel) -> Tensor:
    """The mask [B, 1, ...] that holds for a sample which has come to `level`, out of [B, K, ...]."""
    count = mask.shape[1]
    if count == 1:
        return mask
    # Whole numbers: the last level has the last mask, and with K = steps each level its own.
    at = max(-(-level.step * count // level.steps), 1) - 1
    return mask[:, at : at + 1]


@node("sampling.change_map", version=1)
def change_map(latents: Latents, *, levels: Annotated[int, Field(ge=1, le=1000)] = 20) -> Latents:
    """Read a soft mask as strengths: how much of the run each place may change in (differential diffusion).

    latents: a picture with a mask from models.set_mask (cover false keeps its shades). Where that is 1 the whole
        run counts, where it is 0.3 its last 30 per cent, as if strength were 0.3 times the run's there; at 0 the
        picture stays. Until its time comes, a place is the picture's own, noised to the level of the run.
    levels: how many strengths are told apart; the number of steps is enough.

    Source: Levin and Fried 2023, "Differential Diffusion: giving each pixel its strength", algorithm 1.
    Raises: UserError: latents without a mask, one with values outside 0..1, and one that is 0 throughout.
    """
    import torch

    strength = _given(latents, "sampling.change_map")
    if strength.min() < 0 or strength.max() > 1:
        raise UserError(
            f"sampling.change_map: strengths are 0..1, got {float(strength.min()):g}..{float(strength.max()):g}; "
            "divide the map by its largest value"
        )
    # After k of K parts of the run, 1 - k / K of it is left: a place is free if that is less than its strength.
    left = torch.arange(levels - 1, -1, -1).view(1, -1, *[1] * (strength.dim() - 2))
    free = strength.double().cpu() * levels > left + 1e-4
    return latents.replace(mask=free.float().to(strength.device))


@node("sampling.shrinking_mask", version=1)
def shrinking_mask(latents: Latents, *, grow: Annotated[int, Field(ge=0, le=64)] = 2) -> Latents:
    """Let a thin region begin wide: noisy steps may change its surroundings too, the last ones itself alone.

    A region of a latent or two gives a model no room to place a thing in. The masks are nested, and the last
    one, which says what comes back unchanged, is the mask given.

    latents: a picture with a mask from models.set_mask.
    grow: latents by which the first mask is larger on all sides; it falls by one in equal parts of the run. 0
        keeps the mask.

    Source: Avrahami et al. 2023, "Blended Latent Diffusion", section 4.3.
    Raises: UserError: latents without a mask, or one that is 0 throughout.
    """
    import torch
    from torch.nn.functional import max_pool2d

    mask = _given(latents, "sampling.shrinking_mask")
    planes = mask.float().flatten(0, -3).unsqueeze(1)
    grown = [max_pool2d(planes, 2 * by + 1, stride=1, padding=by) for by in range(grow, -1, -1)]
    return latents.replace(mask=torch.cat([g.view(mask.shape) for g in grown], dim=1))


def _given(latents: Latents, where: str) -> Tensor:
    """The one mask that latents have, [B, 1, ...]."""
    mask = latents.mask
    if mask is None:
        raise UserError(f"{where}: the latents have no mask; models.set_mask says which of them may change")
    if mask.shape[1] != 1:
        raise UserError(
            f"{where}: the latents have {mask.shape[1]} masks, one for each part of the run; take those of "
            "models.set_mask, which are one"
        )
    if not mask.any():
        raise UserError(f"{where}: the mask is 0 throughout, so nothing would change; make it white where it may")
    return mask
