"""Several conditions in one picture: each holds in its place, for its time, with its weight.

The model is asked once for each, in one batch where they fit together, and the predictions are averaged:
sum of weight * mask * prediction over sum of weight * mask, place by place. Regional prompting at the level
of predictions, as in MultiDiffusion (Bar-Tal et al. 2023) and composable diffusion (Liu et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, NoiseLevel, Prediction, UserError, Value
from mezzotint_sampling.wrapped import Wrapped, finished, halves

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Predictor

__all__ = [
    "CombinedConditioning",
    "CombinedPredictor",
    "Part",
    "check_windows",
    "combining",
    "parts_of",
    "share_of",
]


@dataclass(frozen=True, eq=False)
class Part(Value):
    """A condition and where, when and how much it counts.

    mask: [B or 1, 1, H, W] or [B or 1, 1, F, H, W] in 0..1, of any size: it is averaged to the
    latents'. area: (x, y, width, height), each 0..1 of the picture. Both given, both hold.
    start, end: the part of the run, 0..1, in which it counts.
    """

    conditioning: Conditioning
    weight: float = 1.0
    mask: Any = None
    area: tuple[float, float, float, float] | None = None
    start: float = 0.0
    end: float = 1.0

    def active(self, level: NoiseLevel) -> bool:
        return self.start <= level.progress < self.end or (self.end >= 1 and level.progress >= 1)


@dataclass(frozen=True, eq=False)
class CombinedConditioning(Conditioning):
    """Conditions in one: a denoiser alone does not know it, `CombinedPredictor` does."""

    parts: tuple[Part, ...] = ()


def parts_of(conditioning: Conditioning) -> tuple[Part, ...]:
    """A condition's parts; a plain one is one part that holds everywhere."""
    return conditioning.parts if isinstance(conditioning, CombinedConditioning) else (Part(conditioning),)


def check_windows(parts: Sequence[Part]) -> None:
    """Raises: UserError: a time of the run in which no part counts."""
    reached = 0.0
    for part in sorted(parts, key=lambda p: p.start):
        if part.start > reached:
            break
        reached = max(reached, part.end)
    if reached < 1:
        raise UserError(
            f"no condition holds after {reached:g} of the run; let one have the end 1, and each begin "
            "before those before it end"
        )


def combining(model: Predictor) -> Any:
    """A predictor that knows combined conditionings: the model, if it is wrapped already."""
    return model if isinstance(model, Wrapped) else CombinedPredictor(model)


class CombinedPredictor(Wrapped):
    """The innermost of all wrapped predictors: asks the model for the parts of each conditioning."""

    def __init__(self, model: Predictor) -> None:
        self.model = model
        self.schedule = model.schedule

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        if not isinstance(conditioning, CombinedConditioning):
            return super().predict(x, level, conditioning)
        return self.predict_many(x, level, (conditioning,))[0]

    def predict_many(
        self, x: Tensor, level: NoiseLevel, conditionings: Sequence[Conditioning]
    ) -> list[Prediction]:
        """One prediction for each conditioning; parts of equal form share one evaluation."""
        parts = [_active(conditioning, level) for conditioning in conditionings]
        predictions = self._each(x, level, [part.conditioning for some in parts for part in some])
        made, at = [], 0
        for some in parts:
            made.append(_averaged(some, predictions[at : at + len(some)], x))
            at += len(some)
        return made

    def _each(self, x: Tensor, level: NoiseLevel, conditionings: Sequence[Conditioning]) -> list[Prediction]:
        """A prediction for each plain conditioning, in their order."""
        from torch import cat

        from mezzotint_sampling.conditioning import for_batch, stacked

        rows = [for_batch(conditioning, x.shape[0]) for conditioning in conditionings]
        found: dict[int, Prediction] = {}
        while len(found) < len(rows):
            rest = [i for i in range(len(rows)) if i not in found]
            group = [i for i in rest if i == rest[0] or stacked(rows[rest[0]], rows[i]) is not None]
            if len(group) == 1:
                found[group[0]] = self.model.predict(x, level, rows[group[0]])
                continue
            together = stacked(*(rows[i] for i in group))
            assert together is not None
            batch = self.model.predict(cat([x] * len(group)), level, together)
            found.update(zip(group, halves(batch, len(group)), strict=True))
        return [found[i] for i in range(len(rows))]


def _active(conditioning: Conditioning, level: NoiseLevel) -> list[Part]:
    active = [part for part in parts_of(conditioning) if part.active(level)]
    if not active:
        raise UserError(f"no condition holds at step {level.step + 1} of {level.steps}")
    return active


def _averaged(parts: Sequence[Part], predictions: Sequence[Prediction], x: Tensor) -> Prediction:
    """The weighted mean, place by place; where nothing lies, of all parts as if they had no masks."""
    if len(parts) == 1:
        return predictions[0]
    import torch

    plain = torch.tensor([part.weight for part in parts], dtype=x.dtype, device=x.device)
    shares = torch.stack([share_of(part, x).expand(x.shape[0], 1, *x.shape[2:]) for part in parts])
    plain = plain.view(-1, *[1] * x.dim()).expand_as(shares)
    shares = torch.where(shares.sum(0, keepdim=True) > 0, shares, plain)
    shares = shares / shares.sum(0, keepdim=True)
    total = sum(finished(p) * share for p, share in zip(predictions, shares, strict=True))
    return replace(predictions[0], outputs=(total,), weights=(1.0,), rescale=0.0)


def share_of(part: Part, x: Tensor) -> Tensor:
    """weight * mask * area at each place, [B or 1, 1, ...] with as many axes as x."""
    import torch

    share = torch.full((1, 1, *[1] * (x.dim() - 2)), part.weight, dtype=x.dtype, device=x.device)
    if part.mask is not None:
        share = share * _reduced(part.mask.to(x), x)
    if part.area is not None:
        left, top, width, height = part.area
        row, column = (
            _covered(size, begin, length, x)
            for size, begin, length in ((x.shape[-2], top, height), (x.shape[-1], left, width))
        )
        share = share * row[:, None] * column
    return share


def _covered(size: int, begin: float, length: float, x: Tensor) -> Tensor:
    """How much of each of `size` places lies within begin..begin + length of the whole."""
    import torch

    place = torch.arange(size, dtype=x.dtype, device=x.device)
    low, high = begin * size, (begin + length) * size
    return (torch.clamp(place + 1, max=high) - torch.clamp(place, min=low)).clamp(0, 1)


def _reduced(mask: Tensor, x: Tensor) -> Tensor:
    """The mask at the latents' size, with a frame axis if they have one."""
    from torch.nn import functional

    flat = mask.movedim(1, -3).flatten(0, -4)
    small = functional.interpolate(flat, size=tuple(x.shape[-2:]), mode="area")
    if mask.dim() == 4:
        return small.unsqueeze(2) if x.dim() == 5 else small
    return small.view(mask.shape[0], mask.shape[2], 1, *small.shape[-2:]).movedim(1, 2)
