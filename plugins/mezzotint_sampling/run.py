"""A sampling run: levels, model, noise and one sampler, from the first state or from any later one.

Everything that all samplers share is here, so that none of them has it: the prediction's kind,
guidance, noise, clipping, the known region, and events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from mezzotint import NoiseLevel, Sigmas, UserError
from mezzotint_kernels import Coefficients, StepResult, noise_step
from mezzotint_sampling.mask_path import mask_at
from mezzotint_sampling.options import checked_options
from mezzotint_sampling.path import quotient
from mezzotint_sampling.protocol import Sampler, State, evaluation_count
from mezzotint_sampling.samplers import SAMPLERS
from mezzotint_sampling.schedule import level_of
from mezzotint_sampling.variance import learned_noise

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Conditioning, Predictor
    from mezzotint_kernels import Draw
    from mezzotint_sampling.noise import Numbers

__all__ = [
    "KINDS",
    "Region",
    "check_direction",
    "check_kind",
    "clean_row",
    "levels_of",
    "prepared",
    "run",
    "sampler_named",
]

KINDS = ("eps", "v", "x0", "flow")
"""What models predict; `clean_row` says how the clean picture follows."""


@dataclass(frozen=True, eq=False)
class Region:
    """Inpainting: where `mask` is 0 the run keeps `known`, exactly so at the clean end.

    mask: [B, K, ...] in 0..1; one of K = 1 broadcasts to the sample, of several each holds for a Kth of the run.
    known: of the sample's shape, clean.
    """

    mask: Tensor
    known: Tensor


def run(
    sampler: str | Sampler,
    predictor: Predictor,
    conditioning: Conditioning | None,
    x: Tensor,
    sigmas: Sigmas,
    noise: Numbers,
    *,
    state: State | None = None,
    on_state: Callable[[State, int], None] | None = None,
    region: Region | None = None,
    clip: float | None = None,
    hooks: Any = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Take x from the first level of `sigmas` to the last one, and give it back.

    x: [B, C, ...], at the first level; float64 is computed in float64, all else in float32.
    noise: the numbers of stochastic samplers and of the known region; draw k + 1 is evaluation k's.
    state: go on from here; x is then not looked at. The rest must be as it was.
    on_state: called with each new state and the number of evaluations in the whole run.
    clip: bounds the clean picture to -clip..clip, for models of pixels.
    hooks: `before_step` and `after_step` are called on it.
    name: of the sampler in messages; its own unless given.
    options: the sampler's own, such as eta.
    Raises: UserError: unknown sampler or option, levels that the sampler cannot take, a model and
        levels that do not go together, or a model whose answer is not finite.
    """
    generator = sampler_named(sampler) if isinstance(sampler, str) else sampler
    name = name or (sampler if isinstance(sampler, str) else getattr(sampler, "__name__", str(sampler)))
    levels, known = prepared(name, generator, sigmas, options or {}, predictor.schedule.prediction)
    total = evaluation_count(generator, levels, **known)
    now = state if state is not None else State(0, x)
    check = partial(check_kind, name, generator)
    advance = _Advance(predictor, conditioning, noise, region, clip, hooks, check, now.step, total)
    for following in generator(advance, levels, now, **known):
        now = following
        if now.step != advance.done:
            raise RuntimeError(f"sampler {name!r} yielded step {now.step} after {advance.done} evaluations")
        if on_state is not None:
            on_state(now, total)
    return now.x


def prepared(
    name: str, sampler: Sampler, sigmas: Sigmas, options: Mapping[str, Any], kind: str
) -> tuple[tuple[NoiseLevel, ...], dict[str, Any]]:
    """The levels and options of a run, checked without a model: all of this fits the sampler.

    kind: what the model says that it predicts.
    Raises: UserError: as `run` does.
    """
    levels = levels_of(sigmas)
    check_direction(name, sampler, levels)
    check_kind(name, sampler, kind)
    return levels, checked_options(name, sampler, options)


def levels_of(sigmas: Sigmas) -> tuple[NoiseLevel, ...]:
    """The levels of a run, numbered. The last one is where it ends; no model is evaluated there."""
    steps = len(sigmas.sigmas) - 1
    if steps < 1:
        raise UserError(f"sigmas must have at least 2 levels; got {steps + 1}")
    rows = zip(sigmas.alphas, sigmas.sigmas, sigmas.times, strict=True)
    return tuple(NoiseLevel(*row, step=i, steps=steps) for i, row in enumerate(rows))


def clean_row(kind: str, level: NoiseLevel) -> tuple[float, float]:
    """(ax, am) with x0 = ax * x + am * prediction, from x = alpha x0 + sigma eps.

    eps; v = alpha eps - sigma x0 (Salimans and Ho 2022, appendix D); x0; flow = eps - x0.
    Raises: UserError: eps at alpha = 0, where it says nothing about the picture.
    """
    alpha, sigma = level.alpha, level.sigma
    if kind == "eps":
        if alpha == 0:
            raise UserError(
                "a model that predicts eps cannot be run from pure noise (alpha = 0, zero terminal "
                "SNR): its x0 is undefined there. Use a v or x0 model, or start at a later level"
            )
        return 1 / alpha, -sigma / alpha
    if kind == "v":
        return alpha / (alpha**2 + sigma**2), -sigma / (alpha**2 + sigma**2)
    if kind == "flow":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    if kind == "x0":
        return 0.0, 1.0
    raise UserError(f"unknown kind of prediction {kind!r}; known: {', '.join(KINDS)}")


def check_direction(name: str, sampler: Sampler, levels: tuple[NoiseLevel, ...]) -> None:
    """Raises: UserError: levels that are not noise levels, or do not go the sampler's way."""
    for level in levels:
        numbers = (level.alpha, level.sigma, level.time)
        if not all(math.isfinite(n) for n in numbers) or level.alpha < 0 or level.sigma < 0:
            raise UserError(
                f"noise level {level.step} must have a finite alpha and sigma of at least 0 and a "
                f"finite time; got {numbers}"
            )
    up = getattr(sampler, "rising", False)
    for here, there in pairwise(levels):
        low, high = (here, there) if up else (there, here)
        if low.alpha == 0 or high.sigma == 0 or quotient(high, low) >= 1:
            raise UserError(
                f"sampler {name!r} needs sigmas that {'rise' if up else 'fall'} at every step; step "
                f"{there.step} goes from (alpha {here.alpha:.6g}, sigma {here.sigma:.6g}) to "
                f"(alpha {there.alpha:.6g}, sigma {there.sigma:.6g})"
            )


def check_kind(name: str, sampler: Sampler, kind: str) -> None:
    """Raises: UserError: a kind of prediction that nobody knows, or that the sampler does not take."""
    known = getattr(sampler, "kinds", KINDS)
    if kind not in known:
        raise UserError(
            f"sampler {name!r} does not know models that predict {kind!r}; it takes: {', '.join(known)}"
        )


def sampler_named(name: str, others: Mapping[str, Sampler] | None = None) -> Sampler:
    """The sampler of that name: a bundled one, or one of `others`, which plugins have registered.

    Raises: UserError: there is none; it names the nearest.
    """
    for table in (SAMPLERS, others or {}):
        if name in table:
            return table[name]
    known = sorted({*SAMPLERS, *(others or ())})
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
    raise UserError(f"unknown sampler {name!r}{hint}")


class _Advance:
    """One model evaluation and the step that follows from it; counts the evaluations."""

    def __init__(
        self,
        predictor: Predictor,
        conditioning: Conditioning | None,
        noise: Numbers,
        region: Region | None,
        clip: float | None,
        hooks: Any,
        check_kind: Callable[[str], None],
        done: int,
        total: int,
    ) -> None:
        self.predictor = predictor
        self.conditioning = conditioning
        self.noise = noise
        self.region = region
        self.clip = clip
        self.hooks = hooks
        self.check_kind = check_kind
        self.done = done
        self.total = total
        self.after_step = getattr(predictor, "after_step", None)

    def __call__(
        self,
        x: Tensor,
        here: NoiseLevel,
        there: NoiseLevel,
        row: Coefficients,
        history: tuple[Tensor, ...] = (),
        *,
        since: NoiseLevel | None = None,
        spread: tuple[float, float] | None = None,
    ) -> StepResult:
        if self.hooks is not None:
            self.hooks.before_step(step=self.done, steps=self.total, x=x, level=here)
        with torch.no_grad():
            prediction = self.predictor.predict(x, here, self.conditioning)
            self.check_kind(prediction.kind)
            noise = self._noise(row, since or here, there)
            if spread is not None and noise is not None:
                noise = learned_noise(noise, prediction, x, spread)
            result = noise_step(
                x,
                prediction.outputs,
                self._completed(row, prediction.kind, here, there),
                weights=prediction.weights,
                rescale=prediction.rescale,
                history=history,
                noise=noise,
                **self._known(there),
            )
        self._check_finite(result.x0, here)
        if self.after_step is not None:
            result = replace(result, x=self.after_step(result.x, there))
        if self.hooks is not None:
            self.hooks.after_step(step=self.done, steps=self.total, x=result.x, x0=result.x0)
        self.done += 1
        return result

    def level(self, ratio: float, here: NoiseLevel) -> NoiseLevel:
        found = level_of(self.predictor.schedule, ratio)
        return replace(here, alpha=found.alpha, sigma=found.sigma, time=found.time)

    def _noise(self, row: Coefficients, since: NoiseLevel, there: NoiseLevel) -> Tensor | Draw | None:
        """The numbers for the noise of a row; none if it has none.

        A path of noise leads down: a way up (a restart) has numbers of its own each time.
        """
        if not row.cz:
            return None
        if there.alpha == 0 or quotient(since, there) >= 1:
            return self.noise.at(self.done + 1)
        return self.noise.between(self.done + 1, since, there)

    def _check_finite(self, x0: Tensor, here: NoiseLevel) -> None:
        if not torch.isfinite(x0).all():
            raise UserError(
                f"the denoiser gave NaN or infinity at evaluation {self.done + 1} of {self.total} "
                f"(alpha {here.alpha:.4g}, sigma {here.sigma:.4g}, time {here.time:g}); a dtype with too "
                "small a range (float16) or damaged weights are the usual causes"
            )

    def _completed(self, row: Coefficients, kind: str, here: NoiseLevel, there: NoiseLevel) -> Coefficients:
        """The sampler's row with what does not depend on the sampler."""
        ax, am = clean_row(kind, here)
        row = replace(row, ax=ax, am=am, k0=there.alpha, kz=there.sigma)
        return row if self.clip is None else replace(row, lo=-self.clip, hi=self.clip)

    def _known(self, there: NoiseLevel) -> dict[str, Any]:
        """The known region, noised to the level that the step goes to with numbers of its own."""
        if self.region is None:
            return {}
        numbers = self.noise.known(self.done + 1) if there.sigma > 0 else None
        return {
            "mask": mask_at(self.region.mask, there),
            "known": self.region.known,
            "known_noise": numbers,
        }
