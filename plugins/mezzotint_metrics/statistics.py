"""Mean, covariance and count of features: all that the Fréchet distance needs, gathered batch after batch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint import Port, UserError, node
from mezzotint_metrics.features import Features, rows_of, same_network

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Statistics", "load_statistics", "merged", "statistics", "write_statistics"]


@dataclass(frozen=True, eq=False)
class Statistics(Port):
    """Of a set of features. mean: [D] float64; covariance: [D, D] float64, divided by count - 1.

    count: samples, at least 2. network: what made the features.
    """

    mean: Tensor
    covariance: Tensor
    count: int
    network: str = ""


@node("metrics.statistics")
def statistics(features: list[Features], earlier: Statistics | None = None) -> Statistics:
    """Gather features into mean, covariance and count, in float64, one batch at a time.

    features: batches of one network's features, [N, D] each.
    earlier: statistics to add these samples to.

    As a graph's output they are a safetensors file, which metrics.load_statistics reads: a reference set need
    not be computed twice. Sums of squares about each batch's own mean are merged (Chan, Golub and LeVeque
    1979), so a large mean costs no digits.
    Raises: UserError: fewer than 2 samples in all, numbers that are not finite, or features of two networks.
    """
    found = _moments(earlier) if earlier is not None else None
    network = earlier.network if earlier is not None else ""
    for batch in features:
        rows = rows_of(batch, "metrics.statistics")
        mean = rows.mean(dim=0)
        moments = (len(rows), mean, (rows - mean).mT @ (rows - mean))
        if found is not None:
            same_network("metrics.statistics", network, batch.network, len(found[1]), rows.shape[1])
        found = moments if found is None else merged(found, moments)
        network = network or batch.network
    count = found[0] if found is not None else 0
    if found is None or count < 2:
        raise UserError(f"metrics.statistics: wanted at least 2 samples, got {count}")
    return Statistics(found[1], found[2] / (count - 1), count, network)


Moments = tuple[int, "Tensor", "Tensor"]


def merged(one: Moments, other: Moments) -> Moments:
    """Count, mean and sum of squares about the mean, of two sets taken together."""
    count = one[0] + other[0]
    shift = other[1] - one[1]
    between = shift.outer(shift) * (one[0] * other[0] / count)
    return count, one[1] + shift * (other[0] / count), one[2] + other[2] + between


def _moments(known: Statistics) -> Moments:
    return known.count, known.mean, known.covariance * (known.count - 1)


def write_statistics(value: Statistics, info: Any = None) -> list[bytes]:
    """A safetensors file with `mean` and `covariance`; count and network in its header."""
    from safetensors.torch import save

    meta = {"mezzotint": json.dumps({"count": value.count, "network": value.network})}
    tensors = {"mean": value.mean, "covariance": value.covariance}
    return [save({name: each.cpu().contiguous() for name, each in tensors.items()}, meta)]


@node("metrics.load_statistics")
def load_statistics(path: Path) -> Statistics:
    """Read statistics that an earlier run wrote.

    path: a safetensors file, made by a graph with metrics.statistics as an output.
    Raises: UserError: no such file, or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            known = json.loads((file.metadata() or {})["mezzotint"])
            mean, covariance = file.get_tensor("mean").double(), file.get_tensor("covariance").double()
            count, network = int(known["count"]), str(known["network"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"metrics.load_statistics: {path} holds no statistics: {error}") from error
    width = mean.shape[0] if mean.ndim == 1 else 0
    finite = bool(mean.isfinite().all() and covariance.isfinite().all())
    if not width or tuple(covariance.shape) != (width, width) or count < 2 or not finite:
        raise UserError(f"metrics.load_statistics: the statistics in {path} are damaged")
    return Statistics(mean, covariance, count, network)
