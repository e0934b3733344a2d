"""Depth beside a clip's latents: the structure that is kept while the content is drawn anew (Gen-1).

Every place of the latents sees the depth at 4x4 places, and how coarse that was made: training takes away more or
less of it, so that a run can say how closely the structure is to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Latents, UserError, Video, node

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["COARSEST", "DepthSide", "condition_on_depth", "depth_channels"]

PLACES = 4  # of the depth, along each side of a place of the latents
COARSEST = 7

WHERE = "video.condition_on_depth"


class DepthSide:
    """The depth of every frame, made coarse by a level that is drawn evenly from 0 to 7, and that level.

    Source: Esser et al. 2023, "Structure and content-guided video synthesis with diffusion models" (Gen-1),
    section 3.3. There the depth goes through the autoencoder; here its pixels are taken as channels.
    """

    noisy = False
    whole = False

    def channels(self, latents: int) -> int:
        return PLACES**2 + 1

    def remembered(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """An item's depth [1, F, H, W] uint8. Raises: UserError: none, or one of other frames."""
        import numpy as np
        import torch

        if "depth" not in item:
            raise UserError(
                f"video.learn_motion: side 'depth' wants items with a depth, got {', '.join(sorted(item))}; "
                "smallworld.clip_dataset gives such"
            )
        depth = torch.from_numpy(np.array(item["depth"]))
        if depth.shape != levels.shape[:3] or depth.dtype != torch.uint8:
            raise UserError(
                f"video.learn_motion: wanted a depth {list(levels.shape[:3])} uint8, as large as its clip, got "
                f"{list(depth.shape)} {depth.dtype}"
            )
        return {"depth": depth[None]}

    def draw(self, rows: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, None]:
        import torch

        depth, device = rows["depth"], generator.device
        levels = torch.randint(COARSEST + 1, (len(depth),), generator=generator, device=device)
        height, width = rows["latents"].shape[-2:]
        return depth_channels(depth.float() / 255, levels, (height, width)), None


def depth_channels(depth: Tensor, levels: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, F, 17, h, w] in -1..1: 4x4 places of the depth, and the level, for each place of the latents.

    depth: [B, F, H, W] in 0..1, of any size. levels: [B] in 0..7. size: (h, w).
    """
    import torch
    from torch.nn import functional

    height, width = size[0] * PLACES, size[1] * PLACES
    # Frame by frame, and of one scale: what is the same in two frames stays the same.
    if depth.shape[2:] != (height, width):
        depth = functional.interpolate(depth, (height, width), mode="bilinear", antialias=True)
    made = torch.stack([coarse(one, int(level)) for one, level in zip(depth, levels, strict=True)])
    places = functional.pixel_unshuffle(made.unsqueeze(2), PLACES)
    told = (levels.to(depth) / COARSEST).view(-1, 1, 1, 1, 1).expand(-1, depth.shape[1], 1, *size)
    return torch.cat([places, told], dim=2) * 2 - 1


def coarse(depth: Tensor, level: int) -> Tensor:
    """[F, H, W] of the same: averaged to 2^(-level / 2) of its sides, and enlarged smoothly again."""
    from torch.nn import functional

    if not level:
        return depth
    height, width = (max(round(side / 2 ** (level / 2)), 1) for side in depth.shape[1:])
    small = functional.adaptive_avg_pool2d(depth.unsqueeze(1), (height, width))
    large: Tensor = functional.interpolate(small, tuple(depth.shape[1:]), mode="bilinear")
    return large.squeeze(1)


@node("video.condition_on_depth")
def condition_on_depth(
    conditioning: Conditioning,
    depth: Video,
    like: Latents,
    *,
    level: Annotated[int, Field(ge=0, le=COARSEST)] = 0,
    normalise: bool = False,
) -> Conditioning:
    """Give a model of clips the depth of every frame: the structure that it keeps.

    For models that were trained with side "depth". What guidance compares with wants the same: it differs in the
    content alone.

    conditioning: the content.
    depth: [B or 1, F, H, W, C] in 0..1, near is bright: of smallworld.depth, or pictures of any other estimator.
    Of several channels it is their mean.
    like: latents [B, C, F, h, w] of the size that is made. The depth is brought to four times their sides.
    level: how coarse it is made: 0 keeps outlines, 7 hardly more than where things are.
    normalise: take the farthest place of each clip for 0 and the nearest for 1, over all frames at once, as
    estimators of relative depth want it; the small world's depth has a scale of its own.

    Source: Esser et al. 2023, "Structure and content-guided video synthesis with diffusion models", section 3.3.
    Raises: UserError: latents of pictures, another number of frames or of clips, sides of another proportion,
    numbers out of 0..1.
    """
    import torch

    if like.data.ndim != 5:
        raise UserError(f"{WHERE}: like wants the latents of a clip [B, C, F, h, w], got {list(like.data.shape)}")
    batch, _, frames, height, width = like.data.shape
    got, data = list(depth.data.shape), depth.data.float()
    if data.ndim != 5 or data.shape[0] not in (1, batch) or data.shape[1] != frames:
        raise UserError(
            f"{WHERE}: the clip to make is {batch} of {frames} frames, the depth {got}; wanted "
            f"[{batch} or 1, {frames}, H, W, C]"
        )
    if data.shape[2] * width != data.shape[3] * height:
        raise UserError(
            f"{WHERE}: the depth is {got[2]}x{got[3]}, which is not of the proportions of latents "
            f"{height}x{width}; image.load_video crops it with width, height and fit"
        )
    if not data.isfinite().all() or (not normalise and (data.min() < 0 or data.max() > 1)):
        raise UserError(
            f"{WHERE}: wanted depth in 0..1, got {data.min():.3g} to {data.max():.3g}; normalise takes other "
            "scales"
        )
    flat = data.mean(-1)
    if normalise:
        low, high = flat.amin((1, 2, 3), keepdim=True), flat.amax((1, 2, 3), keepdim=True)
        flat = (flat - low) / (high - low).clamp(min=1e-6)
    made = depth_channels(flat, torch.full((len(flat),), level), (height, width))
    return conditioning.replace(concat=made.transpose(1, 2).contiguous())
