"""Precision and recall of a set of features, by nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Context, Report, node
from mezzotint_metrics.features import Features, rows_of, same_network

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["precision_recall"]

_PAIRS_AT_ONCE = 1 << 24


@node("metrics.precision_recall")
def precision_recall(
    ctx: Context, real: Features, generated: Features, *, neighbours: Annotated[int, Field(ge=1, le=1000)] = 3
) -> Report:
    """Improved precision and recall: how much of each set lies within the other one's manifold.

    real: [N, D] of the reference set.
    generated: [M, D] of what is judged.
    neighbours: a set's manifold is a ball around each sample that reaches to its k-th nearest neighbour.

    returns: "precision", the share of generated samples within the real manifold (are they good?), and "recall",
    the share of real ones within the generated (is all of it covered?). Source: Kynkäänniemi et al. 2019, eq. 1
    and 2.
    Raises: UserError: not more samples than neighbours, features of two networks, numbers that are not finite.
    """
    a = rows_of(real, "metrics.precision_recall", neighbours + 1)
    b = rows_of(generated, "metrics.precision_recall", neighbours + 1)
    same_network("metrics.precision_recall", real.network, generated.network, a.shape[1], b.shape[1])
    precision = _share_within(b, a, _radii(a, neighbours))
    ctx.progress(1, 2)
    recall = _share_within(a, b, _radii(b, neighbours))
    ctx.progress(2, 2)
    return Report(
        {
            "precision": precision,
            "recall": recall,
            "neighbours": neighbours,
            "real": len(a),
            "generated": len(b),
            "network": real.network or generated.network,
        }
    )


def _distances(points: Tensor, others: Tensor) -> Tensor:
    import torch

    # Through a matrix product equal points would lie 1e-7 apart, and outside of a radius of 0.
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points: Tensor, neighbours: int) -> Tensor:
    import torch

    step = max(1, _PAIRS_AT_ONCE // len(points))
    # The nearest of all is the point itself.
    found = [_distances(part, points).kthvalue(neighbours + 1, dim=1).values for part in points.split(step)]
    return torch.cat(found)


def _share_within(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    step = max(1, _PAIRS_AT_ONCE // len(centres))
    inside = sum(int((_distances(part, centres) <= radii).any(dim=1).sum()) for part in points.split(step))
    return inside / len(points)
