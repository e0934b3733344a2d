"""The two priors as objectives, and the nodes that make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import UserError, node
from mezzotint_training import Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_unclip.pairs import Pairs
    from mezzotint_unclip.prior_tasks import AutoregressiveTask, DiffusionTask

__all__ = [
    "AutoregressivePriorObjective",
    "DiffusionPriorObjective",
    "autoregressive_objective",
    "diffusion_objective",
]

Count = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False)
class DiffusionPriorObjective(Objective):
    """A diffusion prior; fields as in `unclip.diffusion_objective`."""

    width: int = 96
    layers: int = 4
    heads: int = 4
    drop: float = 0.1

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> DiffusionTask:
        from mezzotint_unclip.diffusion_prior import DiffusionPrior
        from mezzotint_unclip.prior_tasks import DiffusionTask

        model = DiffusionPrior(**_sizes(reader), width=self.width, layers=self.layers, heads=self.heads)
        return DiffusionTask(model, reader, batch, seed, self.drop)


@dataclass(frozen=True, eq=False)
class AutoregressivePriorObjective(Objective):
    """An autoregressive prior; fields as in `unclip.autoregressive_objective`."""

    components: int = 24
    buckets: int = 64
    similarities: int = 8
    width: int = 96
    layers: int = 4
    heads: int = 4
    drop: float = 0.1

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> AutoregressiveTask:
        from mezzotint_unclip.autoregressive_prior import AutoregressivePrior
        from mezzotint_unclip.prior_tasks import AutoregressiveTask

        model = AutoregressivePrior(
            **_sizes(reader), components=self.components, buckets=self.buckets, similarities=self.similarities,
            width=self.width, layers=self.layers, heads=self.heads,
        )  # fmt: skip
        task = AutoregressiveTask(model, reader, batch, seed, self.drop)
        known = len(reader) - task.held
        model.fit(reader.image[:known], reader.text[:known])
        return task


@node("unclip.diffusion_objective")
def diffusion_objective(
    *, width: Count = 96, layers: Count = 4, heads: Count = 4, drop: Share = 0.1
) -> DiffusionPriorObjective:
    """Train the diffusion prior of unCLIP: a causal transformer that predicts the clean image embedding.

    It learns from the data set of `unclip.pairs`.

    width, layers, heads: of the transformer.
    drop: share of the texts that are left out, each by itself, for guidance.

    Raises: UserError: a width that the heads do not divide; another data set.
    Source: Ramesh et al. 2022 (unCLIP), section 2.2.
    """
    _check(width, heads)
    return DiffusionPriorObjective(width, layers, heads, drop)


@node("unclip.autoregressive_objective")
def autoregressive_objective(
    *,
    components: Count = 24,
    buckets: Annotated[int, Field(ge=2, le=65536)] = 64,
    similarities: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 8,
    width: Count = 96,
    layers: Count = 4,
    heads: Count = 4,
    drop: Share = 0.1,
) -> AutoregressivePriorObjective:
    """Train the autoregressive prior of unCLIP: a causal transformer that writes an image embedding as codes.

    It learns from the data set of `unclip.pairs`.

    components: principal components of the embeddings that are written, those of the largest variance first.
    buckets: values that each can have.
    similarities: values of the dot product with the text's embedding, equally frequent; an even number.
    width, layers, heads: of the transformer.
    drop: share of the texts that are left out, each by itself, for guidance.

    Raises: UserError: a width that the heads do not divide; more components than an embedding has numbers;
        another data set.
    Source: Ramesh et al. 2022 (unCLIP), section 2.2.
    """
    _check(width, heads)
    return AutoregressivePriorObjective(components, buckets, similarities, width, layers, heads, drop)


def _check(width: int, heads: int) -> None:
    if width % heads:
        raise UserError(f"the width must be a multiple of the heads; got {width} and {heads}")


def _sizes(reader: Pairs) -> dict[str, int]:
    """Of the networks, from what they learn."""
    from mezzotint_unclip.pairs import Pairs

    if not isinstance(reader, Pairs):
        raise UserError("a prior learns from pairs of embeddings: give it the data set of unclip.pairs")
    if len(reader) < 20:
        raise UserError(f"wanted at least 20 pairs to train a prior on, got {len(reader)}")
    length, words = reader.context.shape[1:]
    return {"embedding": reader.image.shape[1], "text": words, "length": length}
