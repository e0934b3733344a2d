"""Between two texts: a conditioning on the straight line from one to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Conditioning, UserError, node
from mezzotint_sampling.combined import CombinedConditioning

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["interpolate_conditions"]

At = Annotated[float, Field(ge=-10, le=10)]


@node("sampling.interpolate_conditions")
def interpolate_conditions(
    first: Conditioning,
    second: Conditioning,
    *,
    at: Annotated[list[At], Field(min_length=1, max_length=4096)] | At = 0.5,
) -> Conditioning:
    """A conditioning between two, or beyond the second: (1 - at) first + at second, token by token.

    first, second: of one text each, by the same encoder.
    at: 0 is the first and 1 the second, both exact; above 1 goes on beyond it. A list makes one row for each.

    returns: context [N, L, D], and pooled [N, D] if both have one.
    Raises: UserError: equal ends, several texts, encodings of different shape, only one with a pooled vector.
    Source: Kawar et al. 2023 (Imagic), eq. 3.
    """
    import torch

    a, b = _text(first, "first"), _text(second, "second")
    _check_alike(first, second)
    if torch.equal(a, b) and _same(first.pooled, second.pooled):
        raise UserError(
            "sampling.interpolate_conditions: first and second are equal, and nothing lies between them; is the "
            "target the text that the picture was described by?"
        )
    shares = at if isinstance(at, list) else [at]
    pooled = None
    if first.pooled is not None and second.pooled is not None:
        pooled = _between(first.pooled, second.pooled, shares)
    return first.replace(context=_between(a, b, shares), pooled=pooled)


def _between(a: Tensor, b: Tensor, shares: list[float]) -> Tensor:
    """[N, ...] like a. Each share weighs both ends, so that those come out exactly."""
    import torch

    made = [((1 - t) * a.float() + t * b.float()).to(a) for t in shares]
    return torch.cat(made)


def _text(conditioning: Conditioning, name: str) -> Tensor:
    context = conditioning.context
    if isinstance(conditioning, CombinedConditioning) or context is None:
        raise UserError(
            f"sampling.interpolate_conditions: {name}: wanted the encoding of a text, by models.encode_text"
        )
    if context.shape[0] != 1:
        raise UserError(f"sampling.interpolate_conditions: {name}: wanted one text, got {context.shape[0]}")
    return context


def _check_alike(first: Conditioning, second: Conditioning) -> None:
    assert first.context is not None and second.context is not None
    if first.context.shape != second.context.shape:
        got = list(first.context.shape[1:]), list(second.context.shape[1:])
        raise UserError(
            f"sampling.interpolate_conditions: the encodings differ in shape, {got[0]} and {got[1]}; encode both "
            "by one model"
        )
    if not _same(first.mask, second.mask) or (first.pooled is None) != (second.pooled is None):
        raise UserError(
            "sampling.interpolate_conditions: the encodings have other tokens that count, or only one has a "
            "pooled vector; encode both by one model"
        )


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    import torch

    return a is b or (a is not None and b is not None and torch.equal(a, b))
