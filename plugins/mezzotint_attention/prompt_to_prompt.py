"""Prompt-to-prompt: an edited prompt's picture takes over where the source prompt's picture looked.

Hertz et al. 2022. A source and its edits are neighbours in one batch, with the same noise. In cross-attention an
edit looks where the source's words drew the source; in self-attention its places look at each other as the
source's do. Only rows that are told the prompts take part: what guidance compares with is left as it is. Edits of
maps are folded into the values (`mezzotint_kernels.p2p_attention`), so that no map is ever written down.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from mezzotint import Rows, UserError
from mezzotint_attention.injection import Evaluation, Injection, Opened
from mezzotint_attention.sites import Sites

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mezzotint import Attend, AttentionCall, Context, Predictor

__all__ = ["CrossEdit", "EditTables", "SelfEdit", "source_rows"]


@dataclass(frozen=True, eq=False)
class CrossEdit(Injection):
    """Cross-attention maps of edits made from their source's: replaced, refined, re-weighted.

    Sample i of the run has prompt i % P; the first one is the source of the others.
    mapping: [P, T, T], from tokens of the source to those of the prompt. share: [P, T], 1 for tokens that take the
    source's map, 0 for those that keep their own. weight: [P, T], factors of the tokens' maps.
    until: [P, T], where in the run, 0..1, this ends for each token. All float32.
    edited: for each prompt whether it is an edit at all: what is not, takes the plain path.
    """

    sites: Sites = field(default_factory=lambda: Sites(kinds=("cross",)))
    mapping: Tensor | None = None
    share: Tensor | None = None
    weight: Tensor | None = None
    until: Tensor | None = None
    edited: tuple[bool, ...] = ()
    claims: ClassVar[tuple[str, ...]] = ("maps",)
    title: ClassVar[str] = "prompt-to-prompt in cross-attention"

    def open(self, model: Predictor, ctx: Context) -> Opened:
        return _Crossing(self)


@dataclass(frozen=True, eq=False)
class SelfEdit(Injection):
    """Self-attention of edits with their source's queries and keys: its maps, with their own values.

    edited: as in `CrossEdit`.
    """

    sites: Sites = field(default_factory=lambda: Sites(kinds=("self",), largest=16))
    edited: tuple[bool, ...] = ()
    claims: ClassVar[tuple[str, ...]] = ("maps",)
    title: ClassVar[str] = "prompt-to-prompt in self-attention"

    def open(self, model: Predictor, ctx: Context) -> Opened:
        return _Copying(self)


@dataclass(frozen=True, eq=False)
class EditTables:
    """What `p2p_attention` wants to know of each row of a batch.

    source: the row of its source, or its own. mapping: [R, T, T]; share, weight: [R, T].
    """

    source: list[int]
    mapping: Tensor
    share: Tensor
    weight: Tensor

    @classmethod
    def at(cls, edit: CrossEdit, rows: Rows, progress: float, like: Tensor) -> EditTables:
        """The tables of one evaluation, on the device of `like`."""
        import torch

        assert edit.mapping is not None and edit.share is not None
        assert edit.weight is not None and edit.until is not None
        source = source_rows(rows, edit.edited)
        prompts = [
            sample % len(edit.edited) if own else 0 for sample, own in zip(rows.samples, rows.own, strict=True)
        ]
        prompts = [prompt for prompt in prompts for _ in range(rows.frames)]
        holds = (progress < edit.until) | ((edit.until >= 1) & torch.tensor(progress >= 1))
        found = (
            edit.mapping[prompts],
            (edit.share * holds)[prompts],
            torch.where(holds, edit.weight, 1.0)[prompts],
        )
        return cls(source, *(table.to(like.device) for table in found))


class _Crossing(Opened):
    def __init__(self, edit: CrossEdit) -> None:
        self.edit = edit
        self.tables: EditTables | None = None

    def begin(self, evaluation: Evaluation) -> bool:
        if not _edits_in(evaluation.rows, self.edit.edited):
            return False
        self.tables = EditTables.at(self.edit, evaluation.rows, evaluation.level.progress, evaluation.x)
        return True

    def attend(self, call: AttentionCall, attend: Attend) -> Tensor:
        from mezzotint_kernels import p2p_attention

        assert self.tables is not None
        tokens = self.tables.share.shape[1]
        if call.key.shape[2] != tokens:
            raise UserError(
                f"prompt-to-prompt was made for prompts of {tokens} tokens; the conditioning has "
                f"{call.key.shape[2]}: encode the prompts with the text encoder that it was given"
            )
        if call.bias is not None:
            raise UserError(
                f"prompt-to-prompt does not work where places have a bias of their own: {call.site.name}"
            )
        return p2p_attention(
            call.query,
            call.key,
            call.value,
            self.tables.source,
            mapping=self.tables.mapping,
            alpha=self.tables.share,
            c=self.tables.weight,
            key_bias=call.key_bias,
            scale=call.scale,
        )


class _Copying(Opened):
    def __init__(self, edit: SelfEdit) -> None:
        self.edit = edit
        self.source: list[int] = []

    def begin(self, evaluation: Evaluation) -> bool:
        self.source = source_rows(evaluation.rows, self.edit.edited)
        return _edits_in(evaluation.rows, self.edit.edited)

    def attend(self, call: AttentionCall, attend: Attend) -> Tensor:
        query, key = (_taken(x, self.source) for x in (call.query, call.key))
        return attend(replace(call, query=query, key=key))


def source_rows(rows: Rows, edited: Sequence[bool]) -> list[int]:
    """For each row in attention the row of its source, which is told the same way; its own for all but edits.

    rows: of B evaluated samples; B * frames numbers are given. edited: for each prompt whether it is an edit.
    Raises: UserError: the run has a number of samples that the prompts do not divide, or samples come without
        their source.
    """
    prompts = len(edited)
    if (max(rows.samples) + 1) % prompts:
        raise UserError(
            f"prompt-to-prompt has {prompts} prompts, a source and its edits, and the run {max(rows.samples) + 1} "
            f"samples; wanted a multiple of {prompts}: a batch of {prompts} for each seed, with the same noise"
        )
    found = []
    for row, (sample, own) in enumerate(zip(rows.samples, rows.own, strict=True)):
        back = sample % prompts if own and edited[sample % prompts] else 0
        source = row - back
        if source < 0 or rows.samples[source] != sample - back or not rows.own[source] == own:
            raise UserError("prompt-to-prompt: an edit is evaluated without its source; keep them in one batch")
        found.append(source)
    return [source * rows.frames + frame for source in found for frame in range(rows.frames)]


def _edits_in(rows: Rows, edited: Sequence[bool]) -> bool:
    """Whether any row is one of an edit."""
    return any(own and edited[s % len(edited)] for s, own in zip(rows.samples, rows.own, strict=True))


def _taken(x: Tensor, rows: list[int]) -> Tensor:
    """Rows of [B, H, N, D], laid out in memory as x is: the last bits of what follows depend on that."""
    return x.transpose(1, 2)[rows].transpose(1, 2)
