"""Starting from weights that were trained before: all of them, or what fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mezzotint import UserError, Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["start_from"]

NAMED = 20
"""So many names of what did not fit are reported."""


def start_from(modules: Mapping[str, nn.Module], init: Weights, *, partial: bool) -> dict[str, Any]:
    """Put numbers into modules. partial: what fits by name and shape; modules and tensors may be missing.

    returns: by module "taken" and "of", numbers of tensors, and if some are missing their names as "fresh".

    Raises: UserError: a network is missing, or its tensors are others; with `partial`, nothing fits at all.
    """
    given = _given(modules, init)
    if partial:
        report = {name: _take(module, given.get(name, {})) for name, module in modules.items()}
        if not any(one["taken"] for one in report.values()):
            have = ", ".join(given) if init.target == "parts" else init.target or "something unnamed"
            raise UserError(f"init: no tensor fits {', '.join(modules)}, got those of {have}")
        return report
    for name, module in modules.items():
        if name not in given:
            have = ", ".join(given) or init.target or "something unnamed"
            raise UserError(
                f"init: wanted weights of {', '.join(modules)}, got those of {have}; partial_init takes what fits"
            )
        try:
            module.load_state_dict(dict(given[name]))
        except RuntimeError as error:
            raise UserError(
                f"init: the weights of {name!r} do not fit; partial_init takes what does: {error}"
            ) from error
    return {name: {"taken": len(given[name]), "of": len(given[name])} for name in modules}


def _given(modules: Mapping[str, nn.Module], init: Weights) -> dict[str, Mapping[str, Tensor]]:
    """Tensors by module. One network alone is that of the only module."""
    from mezzotint_training.checkpoint import split

    if init.target == "parts":
        return {name: part.tensors for name, part in split(init).items()}
    return {next(iter(modules)): init.tensors} if len(modules) == 1 else {}


def _take(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    own = module.state_dict()
    fits = {name: tensors[name] for name, value in own.items() if _fits(tensors.get(name), value)}
    module.load_state_dict(fits, strict=False)
    fresh = [name for name in own if name not in fits]
    return {"taken": len(fits), "of": len(own), **({"fresh": fresh[:NAMED]} if fresh else {})}


def _fits(given: Tensor | None, own: Tensor) -> bool:
    return given is not None and given.shape == own.shape
