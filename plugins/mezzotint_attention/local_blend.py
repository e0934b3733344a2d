"""Local blend: an edit keeps its source's picture wherever the chosen words do not look.

Hertz et al. 2022, section 4, and the paper's code. The maps of the words are gathered over heads, layers and the
steps so far; where neither the source's nor the edit's reach the threshold, the edit's sample is the source's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mezzotint import NoiseLevel, Rows
from mezzotint_attention.injection import Evaluation, Injection, Opened
from mezzotint_attention.sites import Sites

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Attend, AttentionCall, Context, Predictor

__all__ = ["LocalBlend", "blended", "word_maps"]


@dataclass(frozen=True, eq=False)
class LocalBlend(Injection):
    """Edits outside of which, as their words' attention says, the source's picture stays.

    Sample i of the run has prompt i % P; the first one is the source of the others.
    words: [P, T] float32, 1 for the tokens of each prompt that say where.
    threshold: of a map's maximum, 0..1, above which a place is part of the edit.
    begin: the part of the run, 0..1, after which samples are blended; maps are gathered from its start.
    It watches the largest maps that `sites` allows.
    """

    sites: Sites = field(default_factory=lambda: Sites(kinds=("cross",), largest=16))
    order: int = 50
    words: Tensor | None = None
    threshold: float = 0.3
    begin: float = 0.2
    title: ClassVar[str] = "local blend"

    def open(self, model: Predictor, ctx: Context) -> Opened:
        return _Blending(self, model)


class _Blending(Opened):
    """total: [B * F, h, w] float32, the words' maps added up over layers and steps, the mean over heads."""

    def __init__(self, blend: LocalBlend, model: Any) -> None:
        self.blend = blend
        self.model = model
        self.total: Tensor | None = None
        self.rows: Rows | None = None
        self.side = 0

    def begin(self, evaluation: Evaluation) -> bool:
        self.rows = evaluation.rows
        side = max(evaluation.x.shape[-2:])
        sites = self.blend.sites.of(self.model, side)
        self.side = -(-side // 2 ** min(site.level for site in sites))
        return True

    def attend(self, call: AttentionCall, attend: Attend) -> Tensor:
        if call.size is not None and max(call.size) == self.side:
            self._gather(call, attend)
        return attend(call)

    def _gather(self, call: AttentionCall, attend: Attend) -> None:
        assert self.rows is not None and self.blend.words is not None and call.size is not None
        prompts = self.blend.words.shape[0]
        words = self.blend.words[[sample % prompts for sample in self.rows.samples]]
        maps = word_maps(call, attend, words.repeat_interleave(self.rows.frames, dim=0))
        own = [own for own in self.rows.own for _ in range(self.rows.frames)]
        seen = maps[own].reshape(-1, *call.size)
        self.total = seen if self.total is None else self.total + seen

    def after_step(self, x: Tensor, level: NoiseLevel) -> Tensor:
        assert self.blend.words is not None
        if self.total is None or level.progress <= self.blend.begin:
            return x
        return blended(x, self.total, self.blend.words.shape[0], self.blend.threshold)

    def remembered(self) -> dict[str, Tensor]:
        return {} if self.total is None else {"total": self.total}

    def remember(self, tensors: dict[str, Tensor]) -> None:
        self.total = tensors.get("total")


def word_maps(call: AttentionCall, attend: Attend, words: Tensor) -> Tensor:
    """How much each place looks at some words, the mean over heads: [R, N] float32.

    words: [R, T], a factor for each row's tokens. The maps are those that `attend` uses, edits included: attention
    is linear in the values, and here the words' factors are the values. No other map is written down.
    """
    import torch

    value = torch.zeros_like(call.value)
    value[..., 0] = words.to(call.value)[:, None]
    return attend(replace(call, value=value))[..., 0].float().mean(1)


def blended(x: Tensor, maps: Tensor, prompts: int, threshold: float) -> Tensor:
    """The samples, each edit's replaced by its source's where neither map is above the threshold.

    x: [B, C, H, W] or [B, C, F, H, W]. maps: [B * F, h, w]. Each map is widened by one place, enlarged to the
    sample's size and divided by its maximum; words of a clip have one maximum in all of its frames.
    """
    from torch.nn import functional

    wide = functional.max_pool2d(maps[:, None], 3, stride=1, padding=1)
    large = functional.interpolate(wide, size=tuple(x.shape[-2:]), mode="nearest")
    batch, frames = x.shape[0], x.shape[2] if x.dim() == 5 else 1
    large = large.view(batch // prompts, prompts, frames, 1, *x.shape[-2:])
    peak = large.amax((2, 3, 4, 5), keepdim=True).clamp_min(1e-12)
    inside = large / peak > threshold
    where = (inside | inside[:, :1]).view(batch, frames, 1, *x.shape[-2:])
    source = x[[row - row % prompts for row in range(batch)]]
    return x.where(where[:, 0] if x.dim() == 4 else where.transpose(1, 2), source)
