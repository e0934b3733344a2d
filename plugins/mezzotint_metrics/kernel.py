"""The kernel distance between two sets of features: the maximum mean discrepancy of a cubic kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Context, Report, UserError, node
from mezzotint_metrics.features import Features, rows_of, same_network

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["kid", "squared_discrepancy"]


@node("metrics.kid")
def kid(
    ctx: Context,
    real: Features,
    generated: Features,
    *,
    subsets: Annotated[int, Field(ge=1, le=10_000)] = 100,
    subset_size: Annotated[int, Field(ge=2, le=1_000_000)] | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Report:
    """Kernel distance of features: the unbiased squared MMD with the kernel (x y / D + 1)^3, mean over subsets.

    real: [N, D] of the reference set.
    generated: [M, D] of what is judged.
    subsets: how many pairs of random subsets.
    subset_size: samples in each; without it 1000, or half of the smaller set if that is less.
    seed: of the subsets.

    returns: "kid", the mean, and "std" over the subsets. Unbiased at every size, so it can be negative: prefer
    it to metrics.fid where samples are few. Source: Binkowski et al. 2018.
    Raises: UserError: fewer samples than a subset has, features of two networks, numbers that are not finite.
    """
    import torch

    a, b = rows_of(real, "metrics.kid", 2), rows_of(generated, "metrics.kid", 2)
    same_network("metrics.kid", real.network, generated.network, a.shape[1], b.shape[1])
    fewest = min(len(a), len(b))
    size = subset_size or min(1000, max(2, fewest // 2))
    if size > fewest:
        raise UserError(f"metrics.kid: subset_size is {size}, but there are only {fewest} samples")
    found = []
    for number in range(1 if size == len(a) == len(b) else subsets):
        chosen = [
            rows[ctx.noise(seed, f"kid/{name}").normal((1, len(rows)), step=number)[0].argsort()[:size].cpu()]
            for name, rows in (("real", a), ("generated", b))
        ]
        found.append(squared_discrepancy(*chosen))
        ctx.progress(number + 1, subsets)
    values = torch.tensor(found, dtype=torch.float64)
    return Report(
        {
            "kid": values.mean().item(),
            "std": values.std(correction=0).item(),
            "subsets": len(found),
            "subset_size": size,
            "real": len(a),
            "generated": len(b),
            "network": real.network or generated.network,
        }
    )


def squared_discrepancy(a: Tensor, b: Tensor) -> float:
    """The unbiased estimate, [N, D] and [M, D]: no sample meets itself (Gretton et al. 2012, eq. 3)."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.mT / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        k = kernel(x, x)
        return (k.sum() - k.trace()) / (len(x) * (len(x) - 1))

    return (within(a) + within(b) - 2 * kernel(a, b).mean()).item()
