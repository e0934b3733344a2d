"""Which items make which batch: shuffled epochs without an end, as a function of the batch's number."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from mezzotint import UserError

__all__ = ["rows"]


def rows(length: int, batch: int, seed: int, step: int, rank: int = 0, world: int = 1) -> list[int]:
    """The items of batch number `step`: `batch` indices below `length`.

    Batches are cut from one sequence of shuffled epochs, so two batches of n are one of 2n. Replicas take turns.

    Raises: UserError: the data set is empty.
    """
    if length < 1:
        raise UserError("the data set is empty: nothing to train on")
    start = (step * world + rank) * batch
    return [int(_epoch(length, seed, n // length)[n % length]) for n in range(start, start + batch)]


@lru_cache(maxsize=8)
def _epoch(length: int, seed: int, epoch: int) -> Any:
    return np.random.default_rng((seed, epoch)).permutation(length)
