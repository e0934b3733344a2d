"""Frame consistency: how alike neighbouring frames of a clip are."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from mezzotint import Context, ImageEncoder, Report, Video, node
from mezzotint_metrics.video_features import clips_of, embedded

__all__ = ["frame_consistency"]


@node("metrics.frame_consistency", device=True)
def frame_consistency(
    ctx: Context,
    video: Video,
    encoder: ImageEncoder | None = None,
    *,
    batch: Annotated[int, Field(ge=1, le=1024)] = 64,
) -> Report:
    """How alike each frame is to the next: by an encoder's embeddings, and by pixels.

    video: [B, F, H, W, 3], of at least 2 frames.
    encoder: of models.image_encoder; without it there are only the figures of pixels.
    batch: frames that the encoder sees at once.

    returns: "consistency", the mean cosine of the embeddings of neighbouring frames, in per cent (null without an
    encoder); "difference", the mean absolute difference of their pixels, of a range of 1; "psnr", in decibels, of
    each clip's mean squared difference (null where nothing changes at all); and "rows", the same of each clip, for
    metrics.bootstrap. A still picture is the most consistent clip of all: read it beside what moves.
    Source: Esser et al. 2023, section 4.3, and Wu et al. 2023, for the cosine.
    Raises: UserError: no clip, clips of one frame, frames without three channels.
    """
    from torch.nn.functional import cosine_similarity

    clips = clips_of(video, "metrics.frame_consistency", 2)
    changes = clips.double().diff(dim=1).flatten(1)
    differences, errors = changes.abs().mean(dim=1).tolist(), changes.square().mean(dim=1).tolist()
    cosines: list[float | None] = [None] * len(clips)
    if encoder is not None:
        seen = embedded(ctx, encoder, clips, batch).double()
        cosines = (100 * cosine_similarity(seen[:, 1:], seen[:, :-1], dim=2).mean(dim=1)).tolist()
    rows: list[dict[str, Any]] = [
        {"consistency": cosine, "difference": difference, "psnr": -10 * math.log10(error) if error > 0 else None}
        for cosine, difference, error in zip(cosines, differences, errors, strict=True)
    ]
    means = {name: _mean([row[name] for row in rows]) for name in ("consistency", "difference", "psnr")}
    return Report({**means, "clips": len(clips), "frames": clips.shape[1], "rows": rows})


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
