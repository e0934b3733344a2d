"""What can be measured of planes and of clips that were made one after another."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mezzotint import Autoencoder, Context, Report, UserError, Video, node
from mezzotint_video.triplane_nodes import plane_model

__all__ = ["check_planes", "seams"]


@node("video.check_planes", device=True)
def check_planes(ctx: Context, autoencoder: Autoencoder, video: Video) -> Report:
    """How much smaller three planes are than the clip's features, and how near the clip comes back.

    autoencoder: of video.plane_autoencoder.
    video: clips that it was not trained on, with as many frames as it holds.

    returns: "psnr" in decibels, the mean over the clips, "psnr_worst", and "psnr_mean_frame", of each clip's mean
        frame in place of all its frames; "numbers" of the planes and "numbers_dense" of a block with as many
        channels; "third_difference", the largest mixed third difference of what the decoder sees, as a share of
        its spread: 0 for a sum of three functions of two variables each, which the decoder then departs from.
    Raises: UserError: another autoencoder, clips of another length or shape.
    Source: Yu et al. 2023 (PVDM), section 3.1.
    """
    import torch
    from torch.nn.functional import avg_pool3d

    from mezzotint_video.triplane import unstack_planes
    from mezzotint_video.triplane_autoencoder_task import psnr

    model = plane_model(ctx, autoencoder, "video.check_planes")
    found: dict[str, list[float]] = {"psnr": [], "still": [], "third": []}
    with torch.no_grad():
        for number, clip in enumerate(video.data):
            latents = model.encode(clip[None])
            back, step = model.decode(latents), clip.shape[1] // model.size
            small = avg_pool3d(clip[None].movedim(-1, 1), (1, step, step)).movedim(1, -1).to(back)
            found["psnr"].append(psnr(small, back).item())
            found["still"].append(psnr(small, small.mean(1, keepdim=True).expand_as(small)).item())
            dtype = next(model.module.parameters()).dtype
            seen = model.module.summed(unstack_planes((latents / model.scale).to(dtype))).float()
            mixed = seen.diff(dim=1).diff(dim=2).diff(dim=3)
            found["third"].append((mixed.abs().max() / seen.std()).item())
            ctx.progress(number + 1, len(video.data))
    channels, (planes, dense) = autoencoder.channels, model.module.counts
    return Report(
        {
            "psnr": _mean(found["psnr"]),
            "psnr_worst": min(found["psnr"]),
            "psnr_mean_frame": _mean(found["still"]),
            "numbers": channels * planes,
            "numbers_dense": channels * dense,
            "third_difference": max(found["third"]),
            "clips": [round(value, 2) for value in found["psnr"]],
        }
    )


@node("video.seams")
def seams(video: Video, *, length: Annotated[int, Field(ge=1, le=65536)] = 8) -> Report:
    """Whether a clip that was made piece by piece jumps where the pieces meet.

    video: [B, F, H, W, C].
    length: frames of a piece.

    returns: mean absolute differences of neighbouring frames: "inside" pieces, "at_seams", their "ratio" (1 is a
        seam that cannot be told from any other place), and "apart", between frames of different clips of the batch
        (what a cut would be; null for one clip).
    Raises: UserError: no seam, since the clip is no longer than a piece, or pieces of one frame.
    """
    data = video.data
    frames = data.shape[1]
    if frames <= length or length < 2:
        raise UserError(
            f"video.seams: wanted clips longer than a piece, and pieces of 2 frames or more; got {frames} frames "
            f"in pieces of {length}"
        )
    steps = data.diff(dim=1).abs().mean((0, 2, 3, 4))
    at = [place - 1 for place in range(length, frames, length)]
    rest = [place for place in range(frames - 1) if place not in at]
    inside, between = _mean(steps[rest].tolist()), _mean(steps[at].tolist())
    apart = (data - data.roll(1, 0)).abs().mean().item() if len(data) > 1 else None
    ratio = between / inside if inside else None
    found: dict[str, Any] = {"inside": inside, "at_seams": between, "ratio": ratio, "apart": apart}
    return Report(found)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
