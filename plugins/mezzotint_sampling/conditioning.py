"""Putting conditionings together: one for a whole batch, and several in one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mezzotint import Conditioning
from mezzotint_sampling.combined import CombinedConditioning

__all__ = ["ROW", "compared", "for_batch", "numbered", "stacked"]

ROW = "row"
"""Name of the part of `extra` that says whose row one is, for injectors; see `mezzotint.Rows`."""


def for_batch(conditioning: Conditioning, batch: int) -> Conditioning:
    """The conditioning for `batch` samples: tensors of one row are repeated, others kept.

    Rows for a part of a batch are repeated too: guidance puts equal batches one after the other.
    """

    def repeated(tensor: Tensor) -> Tensor:
        rows = tensor.shape[0]
        if rows == 1 and batch > 1:
            return tensor.expand(batch, *tensor.shape[1:])
        if rows and rows < batch and batch % rows == 0:
            return tensor.repeat(batch // rows, *[1] * (tensor.dim() - 1))
        return tensor

    if isinstance(conditioning, CombinedConditioning):
        parts = conditioning.parts
        return conditioning.replace(
            parts=tuple(part.replace(conditioning=for_batch(part.conditioning, batch)) for part in parts)
        )
    return _mapped(conditioning, repeated)


def stacked(*conditionings: Conditioning) -> Conditioning | None:
    """All in one batch, one after the other; None if their parts do not fit together.

    They fit if they have the same parts, of the same shapes and dtypes, and equal layouts. What is
    combined of several conditions does not fit.
    """
    first, *others = conditionings
    if any(isinstance(c, CombinedConditioning) for c in conditionings):
        return None
    if any(c.layout != first.layout or c.extra.keys() != first.extra.keys() for c in others):
        return None
    fields = {f.name: [getattr(c, f.name) for c in conditionings] for f in _tensor_fields()}
    extra = {name: [c.extra[name] for c in conditionings] for name in first.extra}
    if not all(_fit(values[0], v) for values in (*fields.values(), *extra.values()) for v in values[1:]):
        return None
    changes = {name: _joined(values) for name, values in fields.items()}
    return first.replace(**changes, extra={name: _joined(values) for name, values in extra.items()})


def numbered(conditioning: Conditioning, batch: int) -> Conditioning:
    """The conditioning for `batch` samples, each row with the number of its sample."""
    return _noted(conditioning, torch.arange(batch))


def compared(conditioning: Conditioning, numbers: Tensor) -> Conditioning:
    """What guidance compares with, for rows of those numbers: sample i's is -1 - i then."""
    return _noted(conditioning, torch.where(numbers >= 0, -1 - numbers, numbers))


def _noted(conditioning: Conditioning, numbers: Tensor) -> Conditioning:
    made = for_batch(conditioning, len(numbers))
    if isinstance(made, CombinedConditioning):
        return made.replace(
            parts=tuple(part.replace(conditioning=_noted(part.conditioning, numbers)) for part in made.parts)
        )
    return made.replace(extra={**made.extra, ROW: numbers})


def _tensor_fields() -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(Conditioning) if f.name not in ("layout", "extra")]


def _mapped(conditioning: Conditioning, change: Callable[[Tensor], Tensor]) -> Conditioning:
    def applied(value: Any) -> Any:
        return change(value) if isinstance(value, Tensor) and value.dim() > 0 else value

    changes = {f.name: applied(getattr(conditioning, f.name)) for f in _tensor_fields()}
    extra: Mapping[str, Any] = {name: applied(v) for name, v in conditioning.extra.items()}
    return conditioning.replace(**changes, extra=extra)


def _fit(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b)


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    return torch.cat(list(values)) if isinstance(first, Tensor) and first.dim() > 0 else first
