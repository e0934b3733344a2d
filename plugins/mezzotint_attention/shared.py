"""Samples that look at each other: one style for a whole batch, by the self-attention of a reference among them.

Each sample attends to its own places and to the reference's in one softmax, and its queries and keys take on the
reference's statistics. Hertz et al. 2023, "Style aligned image generation via shared attention", sec. 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mezzotint import Denoiser, UserError, node
from mezzotint_attention.injection import Injection, Opened, inject
from mezzotint_attention.looking import limited
from mezzotint_attention.sites import Sites

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Attend, AttentionCall, Context, Predictor, Rows
    from mezzotint_attention.injection import Evaluation

__all__ = ["SharedAttention", "aligned", "share", "table_of"]

Part01 = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class SharedAttention(Injection):
    """Every sample of a run also attends to the sample `reference`, which is left as it would be alone.

    strength: how often the reference's places count in the softmax, 1 as often as the sample's own; 0 is off.
    align: whether queries and keys take on the mean and the deviation of the reference's, over its places.
    """

    sites: Sites = field(default_factory=lambda: Sites(kinds=("self",)))
    reference: int = 0
    strength: float = 1.0
    align: bool = True
    claims: ClassVar[tuple[str, ...]] = ("maps",)
    title: ClassVar[str] = "attention.share"

    def open(self, model: Predictor, ctx: Context) -> Opened:
        return _Sharing(self)


class _Sharing(Opened):
    def __init__(self, settings: SharedAttention) -> None:
        self.settings = settings
        self.table: Tensor | None = None

    def begin(self, evaluation: Evaluation) -> bool:
        reference = self.settings.reference
        if reference not in evaluation.rows.samples:
            raise UserError(
                f"attention.share: sample {reference} is the reference, and the batch has "
                f"{len(set(evaluation.rows.samples))}; give a number from 0"
            )
        self.table = table_of(evaluation.rows, reference)
        return self.settings.strength > 0 and bool((self.table[:, 1] >= 0).any())

    def attend(self, call: AttentionCall, attend: Attend) -> Tensor:
        import torch

        from mezzotint_kernels import attention_indexed

        if call.bias is not None or call.key_bias is not None or call.key.shape[2] != call.query.shape[2]:
            raise UserError(
                f"attention.share works at self-attention without a mask; {call.site.name!r} is another"
            )
        assert self.table is not None
        query, key = call.query, call.key
        if self.settings.align:
            rows = torch.where(self.table[:, 1] >= 0, self.table[:, 1], self.table[:, 0]).to(query.device)
            mine = (rows == torch.arange(len(rows), device=query.device)).view(-1, 1, 1, 1)
            query, key = (torch.where(mine, x, aligned(x, x[rows])) for x in (query, key))
        logs = torch.zeros(self.table.shape)
        logs[:, 1] = math.log(self.settings.strength)
        return attention_indexed(query, key, call.value, self.table, log_weight=logs, scale=call.scale)


def table_of(rows: Rows, reference: int) -> Tensor:
    """[rows * frames, 2]: each row and its reference's, of the same kind and frame; -1 for the reference itself.

    A row that is told what its sample is told looks at the reference's such row, and what guidance compares with
    at what it is compared with there.
    """
    import torch

    at: dict[bool, list[int]] = {True: [], False: []}
    order: dict[bool, dict[int, int]] = {True: {}, False: {}}
    for row, (sample, own) in enumerate(zip(rows.samples, rows.own, strict=True)):
        if sample == reference:
            at[own].append(row)
    table = []
    for row, (sample, own) in enumerate(zip(rows.samples, rows.own, strict=True)):
        # Guidance may ask several times: the n-th row of a sample goes with the n-th of the reference.
        number = order[own].get(sample, 0)
        order[own][sample] = number + 1
        there = at[own][number] if sample != reference and number < len(at[own]) else -1
        for frame in range(rows.frames):
            table.append([row * rows.frames + frame, there * rows.frames + frame if there >= 0 else -1])
    return torch.tensor(table)


def aligned(x: Tensor, reference: Tensor, eps: float = 1e-5) -> Tensor:
    """x [B, H, N, D] with the mean and deviation over N of the reference's (adaptive instance normalisation)."""

    def moments(values: Tensor) -> tuple[Tensor, Tensor]:
        wide = values.float() if values.dtype.itemsize < 4 else values
        return wide.mean(2, keepdim=True), (wide.var(2, keepdim=True, unbiased=False) + eps).sqrt()

    mean, deviation = moments(x)
    wanted_mean, wanted = moments(reference)
    return ((x - mean) / deviation * wanted + wanted_mean).to(x.dtype)


@node("attention.share")
def share(
    denoiser: Denoiser,
    sites: Sites | None = None,
    *,
    reference: Annotated[int, Field(ge=0, le=4095)] = 0,
    strength: Annotated[float, Field(ge=0, le=100)] = 1.0,
    align: bool = True,
    start: Part01 = 0.0,
    end: Part01 = 1.0,
) -> Denoiser:
    """One style for a batch: every picture also looks at one of them, by shared self-attention.

    denoiser: the model, guided or not.
    sites: layers to share; null takes all self-attention.
    reference: which picture of the batch the others follow, from 0; it comes out as it would alone.
    strength: how much the reference's places count against a picture's own; 0 is off, and every bit as without.
    align: give queries and keys the reference's mean and deviation too, which makes the likeness stronger.
    start: from which part of the run on, 0 the noisiest end.
    end: up to which.

    Raises: UserError: a window that is none; when it runs, a reference beyond the batch, and layers that are not
    self-attention.
    """
    if not strength:
        return denoiser
    chosen = limited(sites, Sites(kinds=("self",)), "attention.share")
    return inject(
        denoiser,
        SharedAttention(sites=chosen, reference=reference, strength=strength, align=align, start=start, end=end),
    )
