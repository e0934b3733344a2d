"""What the motion model of VIDM is told of the frame that it makes: the first, the one before, the flow, the time.

Training and sampling both go through `told_frame`, so that nothing is scaled in one way here and in another there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint import Conditioning, UserError
from mezzotint_video.frame_flow import block_flow

__all__ = ["FRAME_VECTOR", "PastFrames", "channels_for", "frame_vector", "told_frame"]

OCTAVES = 4
FRAME_VECTOR = 4 * OCTAVES
"""Numbers that `frame_vector` gives for a frame."""
REACH = 8
"""Places along each axis over which the flow is looked for; it is divided by this."""


@dataclass(frozen=True)
class PastFrames:
    """What has been of a clip when one frame is made.

    first, previous: [B, C, h, w], the first frame and the one before. time: [B], that of the frame to be made, in
    seconds since the first. step: [B], the time since the frame before.
    """

    first: Tensor
    previous: Tensor
    time: Tensor
    step: Tensor


def channels_for(channels: int) -> int:
    """How many side channels a model of `channels` latents has: first frame, previous frame, flow."""
    return 2 * channels + 2


def frame_vector(time: Tensor, step: Tensor) -> Tensor:
    """[B, FRAME_VECTOR] in -1..1: sines and cosines of the two, the slowest a quarter turn in a second."""
    turns = torch.stack([time, step], dim=1).float()[..., None] * 2.0 ** torch.arange(OCTAVES, device=time.device)
    angles = (turns * (math.pi / 2)).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def told_frame(told: Conditioning, past: PastFrames, rows: int | None = None) -> Conditioning:
    """What is told of words, and of the frame: `concat` [rows, 2 C + 2, h, w], `pooled` [rows, D + FRAME_VECTOR].

    told: context [1 or B or rows, L, D]. Of the words, `pooled` has the mean of their states: of words that the
    encoder never learnt, these say more than its own pooled vector.
    rows: B unless given, or a multiple of it: guidance puts equal batches one after the other.
    Raises: UserError: no words, or another number of rows.
    """
    count = past.first.shape[0]
    rows = count if rows is None else rows
    if told.context is None:
        raise UserError("the motion model is told what happens by a text: its conditioning has no context")
    words = told.context.float().mean(1)
    if rows % count or rows % words.shape[0]:
        raise UserError(f"the motion model has {count} clips and {words.shape[0]} texts for a batch of {rows}")
    flow = block_flow(past.first, past.previous, REACH) / REACH
    concat = torch.cat([past.first, past.previous, flow.to(past.first)], dim=1)
    vector = frame_vector(past.time, past.step)
    words = words.repeat(rows // words.shape[0], 1)
    return told.replace(
        concat=concat.repeat(rows // count, 1, 1, 1),
        pooled=torch.cat([vector.repeat(rows // count, 1).to(words), words], dim=1),
    )
