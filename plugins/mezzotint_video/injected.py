"""A temporal attention layer's computation through injectors, in the shape that all attention sites share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mezzotint import AttentionCall, AttentionSite, Injector, NoiseLevel

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint_video.temporal_attention import Through

__all__ = ["computed"]


def computed(site: AttentionSite, stack: tuple[Injector, ...], level: NoiseLevel) -> Through:
    """What computes [B, F, P, H, D] as calls of [B * P, H, F, D]: each place is a row, each frame a token."""

    def through(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        batch, _, places = query.shape[:3]
        rows = [part.permute(0, 2, 3, 1, 4).flatten(0, 1) for part in (query, key, value)]
        call = AttentionCall(site, *rows, level, None if bias is None else bias.unsqueeze(0).to(query.dtype))
        return _down(stack, call).unflatten(0, (batch, places)).permute(0, 3, 1, 2, 4)

    return through


def _down(stack: tuple[Injector, ...], call: AttentionCall) -> Tensor:
    """The last injector first, down to plain attention."""
    if not stack:
        from mezzotint_kernels import attention

        return attention(call.query, call.key, call.value, bias=call.bias, scale=call.scale)
    *covered, last = stack
    return last(call, lambda inner: _down(tuple(covered), inner))
