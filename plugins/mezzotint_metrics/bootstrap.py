"""How sure a mean is: bootstrap intervals, also of the difference of two systems on the same prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Context, Report, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bootstrap"]

_NUMBERS_AT_ONCE = 1 << 20


@node("metrics.bootstrap")
def bootstrap(
    ctx: Context,
    report: Report,
    versus: Report | None = None,
    *,
    figure: str,
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95,
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 2000,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Report:
    """The mean of a figure over its samples, with a bootstrap percentile interval.

    report: has the figure of each sample: a list under its name, or a list of rows in which it stands, such as
        metrics.prompt_accuracy gives. True and false count as 1 and 0; null is left out.
    versus: the same figure of another system on the same samples, in the same order. The interval is then that
        of the mean difference, resampled in pairs: what is hard for both does not blur it.
    figure: its name.
    confidence: share of resamples within the interval.
    resamples: how many.
    seed: of them.

    returns: "mean", "low", "high", "samples"; with `versus` these are of report - versus, and "significant" says
    whether 0 lies outside. Source: Efron and Tibshirani 1993, chapter 13.
    Raises: UserError: no such figure, fewer than 2 samples, reports of other lengths, numbers not finite.
    """
    import torch

    values = _figures(report, figure)
    if versus is not None:
        others = _figures(versus, figure)
        if len(values) != len(others):
            raise UserError(
                f"metrics.bootstrap: {len(values)} and {len(others)} samples; a paired comparison is of the "
                "same ones"
            )
        values = [None if a is None or b is None else a - b for a, b in zip(values, others, strict=True)]
    known = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    if len(known) < 2:
        raise UserError(f"metrics.bootstrap: wanted at least 2 samples with {figure!r}, got {len(known)}")
    means = _resampled(ctx, known, resamples, seed)
    tail = (1 - confidence) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    found: dict[str, Any] = {"figure": figure, "mean": known.mean().item(), "low": low, "high": high}
    found |= {"samples": len(known), "confidence": confidence, "resamples": resamples}
    if versus is not None:
        found["significant"] = not low <= 0 <= high
    return Report(found)


def _resampled(ctx: Context, known: Tensor, resamples: int, seed: int) -> Tensor:
    """Means of samples drawn with replacement. Normal numbers become even ones through their distribution."""
    import torch

    count, found = len(known), []
    portion = min(resamples, max(1, _NUMBERS_AT_ONCE // count))
    for step in range(math.ceil(resamples / portion)):
        drawn = torch.special.ndtr(ctx.noise(seed).normal((1, portion, count), step=step)[0].double())
        picks = (drawn * count).long().clamp(max=count - 1).cpu()
        found.append(known[picks].mean(dim=1))
        ctx.progress(min((step + 1) * portion, resamples), resamples)
    return torch.cat(found)[:resamples]


def _figures(report: Report, name: str) -> list[float | None]:
    data = report.data
    found = data.get(name)
    if not _is_list(found):
        lists = [rows for rows in data.values() if _is_list(rows) and any(_has(row, name) for row in rows)]
        if not lists:
            raise UserError(f"metrics.bootstrap: the report has no figure {name!r} for each sample")
        found = [row.get(name) if isinstance(row, Mapping) else None for row in lists[0]]
    return [_number(value, name) for value in found]


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        raise UserError(f"metrics.bootstrap: {name!r} must be numbers, got {value!r}")
    return float(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _has(row: Any, name: str) -> bool:
    return isinstance(row, Mapping) and name in row
