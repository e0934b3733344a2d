"""A trainer inside a node: progress, previews, saved state, cancelling, validation, and the rows of the report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mezzotint import Cancelled, Context, Image, UserError
from mezzotint_training.figures import Diverged, Means
from mezzotint_training.randomness import step_generator
from mezzotint_training.trainer import Trainer

__all__ = ["Session"]

Row = dict[str, float]


@dataclass
class Session:
    """One run of a trainer, which a stop at any step does not change.

    curve: mean figures of every `log_every` steps.
    validated: figures of every `validate_every` steps (0 is never), by `validate` with the averaged weights.
    patience: validations without a lower "loss" after which training stops, and the best averages so far
    come back; 0 is never.
    """

    ctx: Context
    trainer: Trainer
    preview: Callable[[], Image] | None = None
    validate: Callable[[torch.Generator], Mapping[str, float]] | None = None
    log_every: int = 50
    validate_every: int = 0
    patience: int = 0
    save_seconds: float = 60.0
    curve: list[Row] = field(default_factory=list)
    validated: list[Row] = field(default_factory=list)

    def run(self) -> None:
        """Train to the end, from the last saved state if there is one.

        Raises: UserError: a figure is not finite; the last good state is saved. Cancelled.
        """
        self._means, self._best, self._best_loss, self._since = Means(), {}, math.inf, 0
        self._kept_step: int | None = None
        state = self.ctx.resume()
        if state is not None:
            self._restore(state)
        self._saved, self._cost = -math.inf, 0.0
        steps = self.trainer.recipe.steps
        while self.trainer.step < steps and not self.stopped_early:
            self._advance()
            # A preview takes the time of many steps.
            shown = self.preview is not None and self.trainer.step % min(self.log_every, steps) == 0
            try:
                self.ctx.progress(self.trainer.step, steps, self._look if shown else None)
            except Cancelled:
                self._save()
                raise
            # The first steps are saved often, large states seldom: saving takes a hundredth of the time.
            if time.monotonic() - self._saved > min(self.save_seconds, 100 * self._cost):
                self._save()
        self._take_best()

    @property
    def stopped_early(self) -> bool:
        """Whether validation has stopped getting better."""
        return 0 < self.patience <= self._since

    def _advance(self) -> None:
        trainer = self.trainer
        try:
            self._means.add(trainer.advance())
        except Diverged as error:
            if error.whole:
                self._save()
            kept = "none was saved" if self._kept_step is None else f"that of step {self._kept_step} is kept"
            raise UserError(
                f"training stopped: {error}; last good state: {kept}. Try a lower learning rate, a longer warm-up "
                "or a smaller clip"
            ) from error
        if trainer.step % min(self.log_every, trainer.recipe.steps) == 0:
            means = {name: round(value, 6) for name, value in self._means.take().items()}
            self.curve.append({"step": trainer.step, **means})
        if self.validate is not None and self.validate_every and trainer.step % self.validate_every == 0:
            self._validate(self.validate)

    def _validate(self, validate: Callable[[torch.Generator], Mapping[str, float]]) -> None:
        trainer = self.trainer
        with trainer.averaged(), torch.no_grad():
            figures = validate(step_generator(trainer.recipe.seed, -1, device=trainer.device))
        if not figures:
            return
        self.validated.append({"step": trainer.step, **{name: float(value) for name, value in figures.items()}})
        if not self.patience:
            return
        if "loss" not in figures:
            raise UserError(f"early stop watches 'loss'; this objective validates {', '.join(figures)}")
        self._since += 1
        if figures["loss"] < self._best_loss:
            self._best_loss, self._since = float(figures["loss"]), 0
            averages = zip(trainer.parameters, trainer.average, strict=True)
            self._best = {name: value.clone() for name, value in (*averages, *trainer.rest().items())}

    def _take_best(self) -> None:
        if self._best:
            with torch.no_grad():
                averages = zip(self.trainer.parameters, self.trainer.average, strict=True)
                for name, value in (*averages, *self.trainer.rest().items()):
                    value.copy_(self._best[name])

    def _look(self) -> Image:
        assert self.preview is not None
        with self.trainer.averaged(), torch.no_grad():
            return self.preview()

    def _save(self) -> None:
        started = time.monotonic()
        tensors, meta = self.trainer.state()
        saved = self.ctx.save_state(
            {
                "tensors": tensors, "meta": meta, "curve": list(self.curve), "validated": list(self.validated),
                "means": self._means.state(),
                "best": self._best, "best_loss": self._best_loss, "since": self._since,
            }
        )  # fmt: skip
        self._saved = time.monotonic()
        # On a full disk the older state stays, and the next try has time.
        self._cost = self._saved - started if saved else math.inf
        if saved:
            self._kept_step = self.trainer.step

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.trainer.restore(state["tensors"], state["meta"])
        self.curve, self.validated = list(state["curve"]), list(state["validated"])
        self._means, self._best = Means(state["means"]), dict(state["best"])
        self._best_loss, self._since = float(state["best_loss"]), int(state["since"])
        self._kept_step = self.trainer.step
