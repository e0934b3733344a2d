"""Features: what a network says of each picture, as rows of numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mezzotint import Port, UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Features", "rows_of", "same_network", "write_features"]


@dataclass(frozen=True, eq=False)
class Features(Port):
    """One row per picture. data: [N, D], any float dtype. network: what made them; only equal ones compare."""

    data: Tensor
    network: str = ""


def rows_of(features: Features, node: str, least: int = 1) -> Tensor:
    """The rows as float64 on the CPU, where every figure here is computed.

    Raises: UserError: not [N, D], fewer than `least` rows, or a number that is not finite.
    """
    data = features.data
    if data.ndim != 2 or data.shape[1] == 0:
        raise UserError(f"{node}: wanted features [N, D], got {list(data.shape)}")
    if data.shape[0] < least:
        raise UserError(f"{node}: wanted at least {least} samples, got {data.shape[0]}")
    rows = data.detach().double().cpu()
    broken = (~rows.isfinite()).any(dim=1).nonzero()
    if len(broken):
        raise UserError(f"{node}: the features of {len(broken)} samples are not finite, first of {int(broken[0])}")
    return rows


def same_network(node: str, one: str, other: str, width: int, other_width: int) -> None:
    """Raises: UserError: features of two networks, or of two widths."""
    if width != other_width:
        raise UserError(f"{node}: features {width} and {other_width} wide; both must come from one network")
    if one and other and one != other:
        raise UserError(f"{node}: features of {one!r} and of {other!r}; both must come from one network")


def write_features(features: Features, info: Any = None) -> list[bytes]:
    """A safetensors file with the tensor `features`."""
    from safetensors.torch import save

    # One key of metadata: the library writes several in the order of a hash map.
    meta = {"mezzotint": json.dumps({"network": features.network})}
    return [save({"features": features.data.detach().cpu().contiguous()}, meta)]
