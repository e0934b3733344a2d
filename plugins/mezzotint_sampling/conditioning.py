"""Putting conditionings together: one for a whole batch, and two in one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mezzotint import Conditioning

__all__ = ["for_batch", "stacked"]


def for_batch(conditioning: Conditioning, batch: int) -> Conditioning:
    """The conditioning for `batch` samples: tensors of one row are repeated, others kept."""

    def repeated(tensor: Tensor) -> Tensor:
        if tensor.shape[0] == 1 and batch > 1:
            return tensor.expand(batch, *tensor.shape[1:])
        return tensor

    return _mapped(conditioning, repeated)


def stacked(first: Conditioning, second: Conditioning) -> Conditioning | None:
    """Both in one batch, `first` before `second`; None if their parts do not fit together.

    They fit if they have the same parts, of the same shapes and dtypes, and equal layouts.
    """
    if first.layout != second.layout or first.extra.keys() != second.extra.keys():
        return None
    pairs = {f.name: (getattr(first, f.name), getattr(second, f.name)) for f in _tensor_fields()}
    extra = {name: (value, second.extra[name]) for name, value in first.extra.items()}
    if not all(_fit(a, b) for a, b in (*pairs.values(), *extra.values())):
        return None
    changes = {name: _joined(a, b) for name, (a, b) in pairs.items()}
    return first.replace(**changes, extra={name: _joined(a, b) for name, (a, b) in extra.items()})


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


def _joined(a: Any, b: Any) -> Any:
    return torch.cat((a, b)) if isinstance(a, Tensor) and a.dim() > 0 else a
