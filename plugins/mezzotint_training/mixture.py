"""Several data sets as one, in shares: easy pictures and hard ones, one world and another."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mezzotint import Context, Dataset, UserError, node

__all__ = ["MixedReader", "mix", "open_mixture"]

READER = "training.mix"
PERIOD = 100
"""Items after which the pattern of data sets begins anew: shares are whole per cents."""


class MixedReader:
    """Items of several readers in turn; whatever else is asked, the first one answers."""

    def __init__(self, readers: list[Any], counts: list[int], length: int) -> None:
        self.readers, self.counts, self.length = readers, counts, length
        self.order = _order(counts)

    def __len__(self) -> int:
        return self.length

    def place(self, index: int) -> tuple[int, int]:
        """Which reader, and which of its items."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        block, place = divmod(index, PERIOD)
        which = self.order[place]
        return which, block * self.counts[which] + self.order[:place].count(which)

    def __getitem__(self, index: int) -> dict[str, Any]:
        which, row = self.place(index)
        item: dict[str, Any] = self.readers[which][row]
        return item

    def caption(self, index: int) -> str:
        """The caption alone."""
        which, row = self.place(index)
        text: str = self.readers[which].caption(row)
        return text

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "readers" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.readers[0], name)


@node("training.mix")
def mix(datasets: list[Dataset], *, shares: list[Annotated[float, Field(gt=0)]] | None = None) -> Dataset:
    """Several data sets as one, in shares. No item comes twice; it ends where the first of them ends.

    datasets: of the same kind of items. What is more than items (a tokenizer, names of classes) is the first's.
    shares: how much of each, in whole per cents of their sum; equal shares, if null.

    Raises: UserError: no data set, another number of shares, or one below a hundredth.
    """
    given = shares or [1.0] * len(datasets)
    if not datasets or len(given) != len(datasets):
        raise UserError(f"training.mix: {len(datasets)} data sets and {len(given)} shares; give one for each")
    counts = _counts(given)
    if min(counts) < 1:
        raise UserError(f"training.mix: shares are whole per cents of their sum, at least one; got {given}")
    config = {"datasets": list(datasets), "counts": counts}
    return Dataset(READER, config, _length([dataset.length for dataset in datasets], counts))


def open_mixture(dataset: Dataset, ctx: Context) -> MixedReader:
    """The loader of reader "training.mix"."""
    readers = [ctx.open_dataset(one) for one in dataset.config["datasets"]]
    return MixedReader(readers, list(dataset.config["counts"]), dataset.length)


def _counts(shares: list[float]) -> list[int]:
    """Whole numbers that add up to `PERIOD`, by largest remainders."""
    exact = [share * PERIOD / sum(shares) for share in shares]
    counts = [int(value) for value in exact]
    late = sorted(range(len(exact)), key=lambda k: counts[k] - exact[k])
    for which in late[: PERIOD - sum(counts)]:
        counts[which] += 1
    return counts


def _order(counts: list[int]) -> list[int]:
    """Which data set each item of a period is of, spread evenly."""
    moments = [((row + 0.5) / count, which) for which, count in enumerate(counts) for row in range(count)]
    return [which for _, which in sorted(moments)]


def _length(lengths: list[int], counts: list[int]) -> int:
    """Items until the first data set has no more."""
    order, ends = _order(counts), []
    for which, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        blocks, rest = divmod(length, count)
        places = [place for place, other in enumerate(order) if other == which]
        ends.append(blocks * PERIOD + places[rest])
    return min(ends)
