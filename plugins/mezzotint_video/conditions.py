"""What a model of clips is told besides words: the frame rate, and side channels that lie beside its latents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzotint import Conditioning, Latents, UserError, node

__all__ = ["condition"]


@node("video.condition")
def condition(
    conditioning: Conditioning,
    side: Latents | None = None,
    *,
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None,
    noise: Annotated[float, Field(ge=0, le=1)] | None = None,
) -> Conditioning:
    """Tell a model of clips its frame rate, and give it side channels. What guidance compares with wants the same.

    conditioning: the words.
    side: clips [B, C, F, h, w] as large as the latents: a structure, known frames, a smaller clip.
    fps: frames per second; without it a clip lasts one second.
    noise: how much noise the side channels were given, 0 none, 1 nothing else.

    Raises: UserError: side channels of pictures.
    """
    import torch

    changes = {}
    if side is not None:
        if side.data.ndim != 5:
            raise UserError(f"video.condition: side wants clips [B, C, F, h, w], got {list(side.data.shape)}")
        changes["concat"] = side.data
    if fps is not None:
        changes["fps"] = torch.tensor([float(fps)])
    if noise is not None:
        changes["low_res_level"] = torch.tensor([float(noise)])
    return conditioning.replace(**changes)
