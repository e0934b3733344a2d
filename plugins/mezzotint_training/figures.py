"""Figures of training steps: their means, and the error when one is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["Diverged", "Means"]


class Diverged(ArithmeticError):
    """A loss or a gradient is not finite.

    step: how many steps were right. whole: whether the trainer still holds the state after them, no part having
    stepped since.
    """

    def __init__(self, step: int, figure: str, value: float, whole: bool) -> None:
        super().__init__(f"{figure} is {value} in step {step + 1}")
        self.step, self.whole = step, whole


class Means:
    """Running means of figures since the last row; a figure need not come in every step."""

    def __init__(self, sums: Mapping[str, Sequence[float]] | None = None) -> None:
        self.sums = {name: (float(total), int(count)) for name, (total, count) in (sums or {}).items()}

    def add(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def take(self) -> dict[str, float]:
        """The means so far; the next ones begin anew."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means

    def state(self) -> dict[str, list[float]]:
        """What the first argument takes."""
        return {name: list(entry) for name, entry in self.sums.items()}
