"""What an injector is: a patch that works at chosen attention layers, for a window of a sampling run.

A plugin derives a frozen dataclass from `Injection` and says in `open` what happens; what changes while a run goes
on lives in the object that `open` gives, and never in the patch. Injections of a recipe stack by their `order`:
lower ones are nearer to the plain attention, and of one order the first added is. They sit inside of all guidance,
so that one evaluation is one call of the network, and see whose row each row of it is (`mezzotint.Rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from mezzotint import Conditioning, Denoiser, NoiseLevel, Patch, Prediction, Rows, UserError
from mezzotint_attention.sites import Sites

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Attend, AttentionCall, AttentionSite, Context, Predictor

__all__ = ["Evaluation", "Injection", "Opened", "inject"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation of the denoiser, as an injector sees it.

    x: [B, C, H, W] or [B, C, F, H, W], the whole batch. level: its noise level, with step and steps.
    rows: whose row each of the B is. conditioning: of all rows.
    """

    x: Tensor
    level: NoiseLevel
    rows: Rows
    conditioning: Conditioning | None


class Opened:
    """An injection on a realised denoiser, for one use of it. Derive from it; all but `attend` may be left out."""

    def begin(self, evaluation: Evaluation) -> bool:
        """Called before each evaluation within the window. False: this one is left as it is."""
        return True

    def attend(self, call: AttentionCall, attend: Attend) -> Tensor:
        """The attention's output [B, H, N, D] at a chosen layer; `attend(call)` is what would be without this."""
        return attend(call)

    def finish(self) -> None:
        """Called after each evaluation that began."""

    def after_step(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """The new sample of the run, at the level that the step went to; also outside of the window."""
        return x

    def remembered(self) -> dict[str, Tensor]:
        """What was gathered so far and is needed to go on later."""
        return {}

    def remember(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `remembered` gave."""


@dataclass(frozen=True, eq=False)
class Injection(Patch):
    """An injector as a patch on a denoiser's recipe.

    sites: where. start, end: the part of the run in which it works, 0 the noisiest end and 1 the clean one; the
    first step has progress 0 and the last one 1, and an end of 1 takes that in.
    order: higher ones lie outside of lower ones: 0 for what decides which maps are used, 50 for what watches them,
    100 for what adds terms.
    claims: what it takes for itself where it works. Two injections that claim the same at one layer and time are
    refused: "maps" says that the attention's weights are decided here.
    """

    sites: Sites = field(default_factory=Sites)
    start: float = 0.0
    end: float = 1.0
    order: int = 0
    mutates: ClassVar[bool] = True
    claims: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = ""

    def open(self, model: Predictor, ctx: Context) -> Opened:
        """What works at the sites, for one use of the denoiser `model`, of which nothing may be changed here."""
        raise NotImplementedError

    def active(self, level: NoiseLevel) -> bool:
        """Whether the window holds at this level."""
        return self.start <= level.progress < self.end or (self.end >= 1 and level.progress >= 1)

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        """Raises: UserError: no such layers, or a conflict with an injection that is there already."""
        yield Injected(model, self, ctx)


class Injected:
    """A predictor whose attention an injection works in. Outside of the window it is the model itself."""

    def __init__(self, model: Any, injection: Injection, ctx: Context) -> None:
        self.model = model
        self.schedule = model.schedule
        self.injection = injection
        self.chosen = injection.sites.of(model)
        self.taken: tuple[tuple[Injection, frozenset[str]], ...] = getattr(model, "taken", ())
        _refuse_conflict(injection, self.chosen, self.taken)
        self.taken = (*self.taken, (injection, frozenset(site.name for site in self.chosen)))
        self.opened = injection.open(model, ctx)

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """The model's prediction, with the injection in its attention where and when it works."""
        prediction: Prediction
        if self.injection.active(level):
            rows = Rows.of(conditioning, x.shape[0], x.shape[2] if x.ndim == 5 else 1)
            if self.opened.begin(Evaluation(x, level, rows, conditioning)):
                with ExitStack() as after:
                    after.callback(self.opened.finish)
                    after.enter_context(self.model.inject(self.opened.attend, self._sites(x)))
                    prediction = self.model.predict(x, level, conditioning)
                return prediction
        prediction = self.model.predict(x, level, conditioning)
        return prediction

    def after_step(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """The new sample through this injection, and then through those outside of it, which call this first."""
        within = getattr(self.model, "after_step", None)
        return self.opened.after_step(x if within is None else within(x, level), level)

    def remembered(self) -> dict[str, Tensor]:
        """This injection's tensors and those of the ones inside, by their depth."""
        within = self.model.remembered() if hasattr(self.model, "remembered") else {}
        return {**within, **{f"{len(self.taken)}/{name}": t for name, t in self.opened.remembered().items()}}

    def remember(self, tensors: dict[str, Tensor]) -> None:
        """Give all injections back what they had."""
        mine = f"{len(self.taken)}/"
        self.opened.remember({name.removeprefix(mine): t for name, t in tensors.items() if name.startswith(mine)})
        if hasattr(self.model, "remember"):
            self.model.remember(tensors)

    def _sites(self, x: Tensor) -> list[AttentionSite]:
        if not self.injection.sites.largest:
            return self.chosen
        return self.injection.sites.of(self.model, max(x.shape[-2:]))


def inject(denoiser: Denoiser, injection: Injection) -> Denoiser:
    """The denoiser with an injection, inside of its guidance, and in its order among other injections.

    Raises: UserError: a window that is none.
    """
    if not 0 <= injection.start <= injection.end <= 1:
        raise UserError(
            f"an injector works from start to end, both in 0..1 and start first; got {injection.start:g} to "
            f"{injection.end:g}"
        )
    there = [patch for patch in denoiser.patches if isinstance(patch, Injection)]
    # Layers that are added come first: injections may work in them.
    layers = [patch for patch in denoiser.patches if patch.innermost]
    others = [patch for patch in denoiser.patches if not isinstance(patch, Injection) and not patch.innermost]
    # The innermost predictor puts its function there last, and so it is the outermost one in the attention.
    stacked = sorted([injection, *there], key=lambda one: -one.order)
    return denoiser.replace(patches=(*layers, *stacked, *others))


def _refuse_conflict(
    injection: Injection,
    chosen: Sequence[AttentionSite],
    taken: Sequence[tuple[Injection, frozenset[str]]],
) -> None:
    names = {site.name for site in chosen}
    for other, theirs in taken:
        both = set(injection.claims) & set(other.claims)
        together = injection.start < other.end and other.start < injection.end
        if both and together and names & theirs:
            start, end = max(injection.start, other.start), min(injection.end, other.end)
            raise UserError(
                f"{_title(injection)} and {_title(other)} both decide the attention's "
                f"{' and '.join(sorted(both))} at {min(names & theirs)}{_more(len(names & theirs) - 1)}, "
                f"from {start:g} to {end:g} of the run: give them other layers (sites) or another time "
                "(start and end), or leave one of them out"
            )


def _more(count: int) -> str:
    return f" and {count} more layers" if count else ""


def _title(injection: Injection) -> str:
    return injection.title or type(injection).__name__
