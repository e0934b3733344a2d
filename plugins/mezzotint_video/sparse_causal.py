"""Sparse-causal attention: each frame looks at the first one and at the one before it, in place of itself.

So one thing stays one thing from frame to frame, for the price of two pictures (Wu et al. 2022, "Tune-A-Video",
section 3.2, eq. 4). Keys and values are named by number; nothing is copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from mezzotint import Denoiser, UserError, node
from mezzotint_attention import Injection, Opened, Sites, inject

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Attend, AttentionCall, Context, Predictor
    from mezzotint_attention import Evaluation

__all__ = ["SparseCausal", "causal_table", "sparse_causal", "through"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SparseCausal(Injection):
    """Self-attention of frame i over frames 0 and i - 1; of a picture, itself."""

    sites: Sites = field(default_factory=lambda: Sites(kinds=("self",)))
    claims: ClassVar[tuple[str, ...]] = ("maps",)
    title: ClassVar[str] = "video.sparse_causal"

    def open(self, model: Predictor, ctx: Context) -> Opened:
        return _Opened()


class _Opened(Opened):
    def __init__(self) -> None:
        self.rows, self.frames = 0, 1

    def begin(self, evaluation: Evaluation) -> bool:
        self.rows, self.frames = len(evaluation.rows.samples), evaluation.rows.frames
        return self.frames > 1

    def attend(self, call: AttentionCall, attend: Attend) -> Tensor:
        return through(call, self.rows, self.frames)


def causal_table(rows: int, frames: int) -> tuple[Tensor, Tensor]:
    """([rows * frames, 2] int64, float32 of the same shape): the frames that each looks at, of its own row.

    A frame that would be named twice, the first by itself and by the second, counts twice: the second part is the
    logarithm of how often.
    """
    import torch

    from mezzotint_kernels import deduplicate

    frame = torch.arange(frames)
    first = torch.arange(rows)[:, None] * frames
    # The frame before the first one is the first one: -1 would be the last of the clip before.
    named = torch.stack([first.expand(rows, frames), first + (frame - 1).clamp(min=0)], dim=2)
    return deduplicate(named.flatten(0, 1))


def through(call: AttentionCall, rows: int, frames: int) -> Tensor:
    """The call of rows * frames pictures, with the keys and values of frames 0 and i - 1.

    Raises: UserError: it is not self-attention of that many pictures.
    """
    from mezzotint_kernels import attention_indexed

    if call.bias is not None or call.key_bias is not None or call.key.shape[2] != call.query.shape[2]:
        raise UserError(
            f"video.sparse_causal works at self-attention without a mask; {call.site.name!r} is another"
        )
    if call.query.shape[0] != rows * frames:
        raise UserError(
            f"video.sparse_causal: {call.site.name!r} has {call.query.shape[0]} pictures, wanted {rows} clips of "
            f"{frames} frames"
        )
    table, counts = causal_table(rows, frames)
    return attention_indexed(call.query, call.key, call.value, table, log_weight=counts, scale=call.scale)


@node("video.sparse_causal")
def sparse_causal(denoiser: Denoiser, sites: Sites | None = None) -> Denoiser:
    """Let each frame of a clip look at the first frame and at the one before it, in place of at itself.

    denoiser: the model of clips, guided or not. Of pictures, and of clips that stand still, it is what it was.
    sites: layers to work at; null takes all self-attention.

    Raises: UserError: when it runs, layers that are not self-attention, and another injector that decides the
    same maps.
    """
    return inject(denoiser, SparseCausal(sites=sites or Sites(kinds=("self",))))
