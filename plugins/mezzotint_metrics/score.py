"""The Inception score: how sure a classifier is of each picture, and how many classes it sees in all of them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Context, Report, UserError, node
from mezzotint_metrics.features import Features, rows_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["inception_score", "score_of"]


@node("metrics.inception_score")
def inception_score(
    ctx: Context,
    logits: Features,
    *,
    splits: Annotated[int, Field(ge=1, le=1000)] = 10,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Report:
    """Inception score of a classifier's logits: exp of the mean divergence KL(p(y|x) || p(y)), mean over splits.

    logits: [N, K], before the softmax, of any classifier of K classes.
    splits: the shuffled samples are cut into this many parts, each scored alone.
    seed: of the shuffle.

    returns: "inception_score", between 1 and K, and "std" over the splits. Source: Salimans et al. 2016.
    Raises: UserError: fewer samples than splits, one class only, numbers that are not finite.
    """
    import torch

    rows = rows_of(logits, "metrics.inception_score")
    count, classes = rows.shape
    if classes < 2:
        raise UserError("metrics.inception_score: wanted the logits of at least 2 classes, got 1")
    if count < splits:
        raise UserError(f"metrics.inception_score: {count} samples are too few for {splits} splits")
    order = ctx.noise(seed).normal((1, count))[0].argsort().cpu()
    edges = [part * count // splits for part in range(splits + 1)]
    values = torch.tensor([score_of(rows[order[a:b]]) for a, b in pairwise(edges)], dtype=torch.float64)
    return Report(
        {
            "inception_score": values.mean().item(),
            "std": values.std(correction=0).item(),
            "splits": splits,
            "samples": count,
            "classes": classes,
            "network": logits.network,
        }
    )


def score_of(logits: Tensor) -> float:
    """The score of one split. In logarithms throughout: a probability of 0 is no special case."""
    log_p = logits.log_softmax(dim=1)
    log_mean = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_mean)).sum(dim=1).mean().exp().item()
