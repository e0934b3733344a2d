"""The Fréchet distance between two sets of features, taken as Gaussians."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mezzotint import Report, node
from mezzotint_metrics.features import same_network
from mezzotint_metrics.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["fid", "frechet", "fvd"]


@node("metrics.fid")
def fid(real: Statistics, generated: Statistics) -> Report:
    """Fréchet distance of features: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); FID, if Inception made them.

    real: of the reference set.
    generated: of what is judged; of the same network.

    returns: "fid"; "mean" and "covariance", its two parts; the counts, and whose features they are. Its bias is
    about c / N, and with fewer samples than the features are wide the covariance has lost its rank
    ("full_rank" false): compare only figures of equal counts and one network. Source: Heusel et al. 2017.
    Raises: UserError: features of two networks.
    """
    return _report("fid", real, generated)


@node("metrics.fvd")
def fvd(real: Statistics, generated: Statistics) -> Report:
    """Fréchet video distance: that of metrics.fid, of features of whole clips.

    real: of the reference set.
    generated: of what is judged; of the same network, from clips of as many frames.

    returns: "fvd", and the rest as in metrics.fid, with the same bias. Published figures are in features of
    metrics.i3d_features; those of metrics.video_features or metrics.frame_features compare only with each other.
    Source: Unterthiner et al. 2018.
    Raises: UserError: features of two networks.
    """
    return _report("fvd", real, generated)


def _report(name: str, real: Statistics, generated: Statistics) -> Report:
    same_network(f"metrics.{name}", real.network, generated.network, len(real.mean), len(generated.mean))
    means, covariances = frechet(real, generated)
    return Report(
        {
            name: means + covariances,
            "mean": means,
            "covariance": covariances,
            "real": real.count,
            "generated": generated.count,
            "network": real.network or generated.network,
            "full_rank": min(real.count, generated.count) > len(real.mean),
        }
    )


def frechet(one: Statistics, other: Statistics) -> tuple[float, float]:
    """The two parts of the distance, of the means and of the covariances, in float64.

    With S = L L^T, the trace of (S1 S2)^(1/2) is the sum of the singular values of L1^T L2: no square root of a
    matrix that is not symmetric, no imaginary parts, and covariances without full rank are no special case.
    """
    import torch

    means = (one.mean - other.mean).square().sum().item()
    cross = torch.linalg.svdvals(_factor(one.covariance).mT @ _factor(other.covariance)).sum()
    covariances = one.covariance.trace() + other.covariance.trace() - 2 * cross
    return means, max(0.0, covariances.item())


def _factor(covariance: Tensor) -> Tensor:
    import torch

    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    return vectors * values.clamp(min=0).sqrt()
