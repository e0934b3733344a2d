"""Ways into a realised denoiser for nodes and injectors that ask it something of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mezzotint import UserError
from mezzotint_attention.injection import Injected
from mezzotint_attention.sites import Sites

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mezzotint import Attend, AttentionCall, AttentionSite

__all__ = ["bare", "found", "inside_guidance", "limited", "reading", "uninjected"]


def inside_guidance(model: Any) -> Any:
    """The predictor with all injections and no guidance: one evaluation of it is one of the network."""
    while not isinstance(model, Injected):
        model = model.model
    return model


def found(model: Any, kind: type) -> Any:
    """What the injection of that kind opened, of all that are on the denoiser."""
    while not (isinstance(model, Injected) and isinstance(model.opened, kind)):
        model = model.model
    return model.opened


def limited(sites: Sites | None, usual: Sites, where: str) -> Sites:
    """The layers that a node was given, of the kinds that it works at; the usual ones if it was given none.

    Raises: UserError: layers of another kind.
    """
    if sites is None:
        return usual
    others = [kind for kind in sites.kinds if kind not in usual.kinds]
    if others:
        raise UserError(f"{where} works at layers of kind {' or '.join(usual.kinds)}; sites asks for {others[0]}")
    return replace(sites, kinds=sites.kinds or usual.kinds)


def bare(model: Any) -> Any:
    """The realised denoiser under its injections."""
    while isinstance(model, Injected):
        model = model.model
    return model


@contextmanager
def reading(model: Any, sites: Sequence[AttentionSite]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """While the block runs, keeps the keys and values [B, H, M, D] of the sites' last call, by their names.

    No other injector works meanwhile.
    """
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(call: AttentionCall, attend: Attend) -> Tensor:
        kept[call.site.name] = call.key, call.value
        return attend(call)

    with uninjected(model), model.inject(keep, sites):
        yield kept


def uninjected(model: Any) -> AbstractContextManager[None]:
    """No injector on the realised denoiser while the block runs."""
    without = getattr(model, "uninjected", None)
    return nullcontext() if without is None else without()
