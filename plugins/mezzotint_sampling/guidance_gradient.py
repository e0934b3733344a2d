"""Guidance by the gradient of a log-density: a classifier's, a comparison with a text's, any.

`GradientGuidance` is the base: a patch says what `log_density` of a sample is, and the rest is here.

    eps <- eps - scale * sigma * grad            the DDIM form, for any sampler
    mean <- mean + scale * variance * grad       the ancestral form, exactly so for `ddpm`

Source: Dhariwal and Nichol 2021, algorithms 2 and 1. Both are a shift of the clean picture that the
sampler sees, by sigma^2 / alpha * grad, and by sigma'^2 / alpha' * grad with the next level's numbers: what
`ddpm`, with its smaller variance, takes for the mean's shift of variance * grad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mezzotint import Conditioning, NoiseLevel, Patch, Prediction, Recipe, Sigmas, UserError
from mezzotint_sampling.guidance_schedule import GuidanceSchedule, strength
from mezzotint_sampling.wrapped import Wrapped, clean, finished, unguided

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor

    LogDensity = Callable[[Tensor, NoiseLevel], Tensor]

__all__ = ["ClassifierGuidance", "GradientGuidance", "GradientPredictor"]


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientGuidance(Patch):
    """Guidance by grad log_density with respect to the noisy sample. Subclasses give `log_density`.

    scale: 0 is no guidance. of: what the density is of: "x", the noisy sample; or "x0", the clean
    picture that the model predicts, with the gradient through the model ("x0") or with its noise
    held constant ("x0_fixed": cheaper, no gradient of the network).
    form: "ddim", or "ancestral", which needs the `sigmas` of the run. schedule: of the scale.
    """

    scale: float = 1.0
    of: Literal["x", "x0", "x0_fixed"] = "x"
    form: Literal["ddim", "ancestral"] = "ddim"
    sigmas: Sigmas | None = None
    schedule: GuidanceSchedule | None = None

    def log_density(self, ctx: Context) -> LogDensity:
        """Realise what is needed, and give the function: ([B, C, ...], level) to [B], differentiable."""
        raise NotImplementedError

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        if self.form == "ancestral" and self.sigmas is None:
            raise UserError("the ancestral form of guidance needs the sigmas of the run")
        yield GradientPredictor(model, self.log_density(ctx), self)


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassifierGuidance(GradientGuidance):
    """Towards what a classifier calls `labels`: log_density = log p(label | x).

    classifier: a recipe; realised, it is called as classifier(x, level) and gives logits [B, classes].
    labels: one for all samples, or one for each.
    """

    classifier: Recipe
    labels: tuple[int, ...]

    def log_density(self, ctx: Context) -> LogDensity:
        import torch

        model = ctx.realise(self.classifier)

        def of_labels(x: Tensor, level: NoiseLevel) -> Tensor:
            logits = model(x, level)
            if logits.dim() != 2 or logits.shape[0] != x.shape[0]:
                raise UserError(f"the classifier gave {tuple(logits.shape)}; wanted ({x.shape[0]}, classes)")
            labels = torch.tensor(self._for(x.shape[0], logits.shape[1]), device=logits.device)
            return torch.log_softmax(logits.float(), dim=-1).gather(1, labels[:, None])[:, 0]

        return of_labels

    def _for(self, batch: int, classes: int) -> list[int]:
        """A label for each sample, also where guidance under this one put batches one after the other."""
        if batch % len(self.labels):
            raise UserError(f"got {len(self.labels)} labels for a batch of {batch}; wanted 1 or {batch}")
        for label in self.labels:
            if not 0 <= label < classes:
                raise UserError(f"the classifier knows the labels 0 to {classes - 1}; got {label}")
        return [*self.labels] * (batch // len(self.labels))


class GradientPredictor(Wrapped):
    """Adds the gradient as one more output, weighted so that the clean picture moves as it should."""

    def __init__(self, model: Predictor, log_density: LogDensity, settings: GradientGuidance) -> None:
        super().__init__(model)
        self.log_density = log_density
        self.settings = settings

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """At strength 0, and without a picture (alpha = 0), the model's own prediction."""
        scale = strength(level, self.settings.scale, self.settings.schedule, off=0.0)
        if scale != 0 and level.alpha > 0:
            scale *= self._variance(level)
        if scale == 0 or level.alpha == 0:
            return super().predict(x, level, conditioning)
        given, gradient = self._evaluated(x, level, conditioning)
        from mezzotint_sampling.run import clean_row

        weight = scale / clean_row(given.kind, level)[1]
        return replace(given, outputs=(*given.outputs, gradient), weights=(*given.weights, weight))

    def unguided(self, level: NoiseLevel) -> Any:
        return unguided(self.model, level)

    def _evaluated(
        self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None
    ) -> tuple[Prediction, Tensor]:
        """The model's prediction and the gradient of the density, both cut off from what made them."""
        import torch

        of = self.settings.of
        with torch.enable_grad():
            sample = x.detach().requires_grad_()
            if of == "x0":
                given = self.model.predict(sample, level, conditioning)
                seen = clean(given.kind, level, sample, finished(given))
            else:
                with torch.no_grad():
                    given = self.model.predict(x, level, conditioning)
                seen = sample if of == "x" else _noise_removed(given, level, x, sample)
            density = self.log_density(seen, level)
            if density.shape != x.shape[:1]:
                raise UserError(
                    f"log_density gave {tuple(density.shape)}; wanted one number a sample, ({x.shape[0]},)"
                )
            # The sum, not the mean: a sample's gradient does not depend on who else is in the batch.
            (gradient,) = torch.autograd.grad(density.sum(), sample)
        variance = None if given.variance is None else given.variance.detach()
        outputs = tuple(output.detach() for output in given.outputs)
        return replace(given, outputs=outputs, variance=variance), gradient.to(outputs[0])

    def _variance(self, level: NoiseLevel) -> float:
        """How far a gradient of 1 moves the clean picture."""
        sigmas = self.settings.sigmas
        if self.settings.form == "ddim" or sigmas is None:
            return level.sigma**2 / level.alpha
        if level.step == level.steps:
            raise UserError(
                "the ancestral form of guidance is for samplers that evaluate once a step, as ddpm does"
            )
        if level.steps + 1 != len(sigmas.sigmas) or sigmas.sigmas[level.step] != level.sigma:
            raise UserError(
                f"the sigmas of the ancestral form are not the run's: theirs is {sigmas.sigmas[level.step]:g} "
                f"at step {level.step + 1} of {len(sigmas.sigmas) - 1}, the run's {level.sigma:g} of {level.steps}"
                if level.step < len(sigmas.sigmas)
                else f"the sigmas of the ancestral form have {len(sigmas.sigmas) - 1} steps, the run {level.steps}"
            )
        return sigmas.sigmas[level.step + 1] ** 2 / sigmas.alphas[level.step + 1]


def _noise_removed(given: Prediction, level: NoiseLevel, x: Tensor, sample: Tensor) -> Tensor:
    """The clean picture as a function of the sample, its noise a constant."""
    eps = (x - level.alpha * clean(given.kind, level, x, finished(given))) / level.sigma
    return (sample - level.sigma * eps) / level.alpha
