"""Guidance by gradients: Bayes' rule where the densities are known, both of the papers' forms, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint import Conditioning, Noise, NoiseLevel, Prediction, Recipe, Sigmas, Source, UserError
from mezzotint.testing import check_node, fake_context, fake_sigmas, tiny_denoiser
from mezzotint_kernels import normals
from mezzotint_sampling.guidance import ClassifierFreePredictor
from mezzotint_sampling.guidance_gradient import ClassifierGuidance, GradientGuidance, GradientPredictor
from mezzotint_sampling.guidance_nodes import guide_by_classifier
from mezzotint_sampling.noise import numbers_of
from mezzotint_sampling.run import clean_row, levels_of, run
from mezzotint_sampling.sigmas import make_sigmas
from mezzotint_sampling.wrapped import clean, finished

SHAPE = (2, 3, 4, 4)
LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=1, steps=4)
MEANS, SPREAD = (-0.7, 0.9), 0.4
CLASSIFIER = Recipe(source=Source("test:classifier", "", "1"), loader="test.classifier")


def class_logits(x: Tensor, level: NoiseLevel) -> Tensor:
    """log p(x | class) of two Gaussian classes, up to what they have in common: the exact classifier."""
    variance = level.alpha**2 * SPREAD**2 + level.sigma**2
    return torch.stack([-((x - level.alpha * m) ** 2).flatten(1).sum(1) / (2 * variance) for m in MEANS], 1)


class Mixture:
    """The exact denoiser of an even mixture of the two classes, each sample of one class throughout."""

    def __init__(self, kind: str, gaussian: Callable[..., Any]) -> None:
        self.parts = [gaussian(kind, mean, SPREAD) for mean in MEANS]
        self.schedule = self.parts[0].schedule

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        shares = class_logits(x, level).softmax(1)
        shares = shares.view(*shares.shape, *[1] * (x.dim() - 1)).unbind(1)
        outputs = [part.predict(x, level, None) for part in self.parts]
        total = sum(share * p.outputs[0] for share, p in zip(shares, outputs, strict=True))
        return Prediction((total,), (1.0,), outputs[0].kind)


@dataclass(frozen=True, eq=False, kw_only=True)
class Towards(GradientGuidance):
    """-(x - goal)^2 / 2, summed over a sample."""

    goal: float = 0.5

    def log_density(self, ctx: Any) -> Any:
        return lambda x, level: -((x - self.goal) ** 2).flatten(1).sum(1) / 2


def guided(model: Any, patch: GradientGuidance) -> GradientPredictor:
    ctx = fake_context(loaders={"test.classifier": lambda recipe, ctx: class_logits})
    with patch.apply(model, ctx) as found:
        assert isinstance(found, GradientPredictor)
        return found


def x64(seed: int = 1) -> Tensor:
    return normals(seed, SHAPE).double()


@pytest.mark.parametrize("kind", ["eps", "v", "x0", "flow"])
def test_a_classifier_makes_the_mixture_the_class(kind: str, gaussian: Any) -> None:
    """Bayes: score of the mixture + grad log p(class | x) = score of the class, exactly."""
    patch = ClassifierGuidance(classifier=CLASSIFIER, labels=(1, 0))
    found = guided(Mixture(kind, gaussian), patch).predict(x64(), LEVEL, None)
    wanted = [gaussian(kind, MEANS[label], SPREAD).predict(x64(), LEVEL, None).outputs[0] for label in (1, 0)]
    got = found.combined()
    # The test classifier computes in float64, its log-softmax in float32.
    torch.testing.assert_close(got, torch.stack((wanted[0][0], wanted[1][1])), rtol=1e-5, atol=1e-5)


def test_the_noise_shifts_by_sigma_times_the_gradient(random_model: Any) -> None:
    model = random_model()
    found = guided(model, Towards(scale=2.5)).predict(x64(), LEVEL, None)
    wanted = model.predict(x64(), LEVEL, None).outputs[0] - 2.5 * LEVEL.sigma * (0.5 - x64())
    torch.testing.assert_close(found.combined(), wanted)


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_the_ancestral_form_moves_ddpms_mean_by_variance_times_gradient(kind: str, random_model: Any) -> None:
    model, x = random_model(kind), x64()
    sigmas = make_sigmas(model.schedule, 5)
    states: list[list[Tensor]] = []
    for predictor in (model, guided(model, Towards(scale=3.0, form="ancestral", sigmas=sigmas))):
        kept: list[Tensor] = []
        first = Sigmas(sigmas.alphas, sigmas.sigmas, sigmas.times)
        run(
            "ddpm", predictor, None, x, first, numbers_of(Noise(3), SHAPE),
            on_state=lambda state, total, kept=kept: kept.append(state.x),
        )  # fmt: skip
        states.append(kept)
    here, there = levels_of(sigmas)[:2]
    beta = 1 - (here.alpha / there.alpha) ** 2
    variance = beta * there.sigma**2 / here.sigma**2
    shift = states[1][0] - states[0][0]
    torch.testing.assert_close(shift, 3.0 * variance * (0.5 - x), rtol=1e-6, atol=1e-9)


def test_both_forms_agree_up_to_the_quotient_of_the_papers(random_model: Any) -> None:
    model = random_model()
    sigmas = make_sigmas(model.schedule, 50)
    here, there = levels_of(sigmas)[20:22]
    shifts = [
        guided(model, Towards(scale=1.0, form=form, sigmas=sigmas)).predict(x64(), here, None).weights[1]
        for form in ("ddim", "ancestral")
    ]
    beta = 1 - (here.alpha / there.alpha) ** 2
    variance = beta * there.sigma**2 / here.sigma**2
    assert shifts[0] / shifts[1] == pytest.approx(beta / (math.sqrt(1 - beta) * variance))


def test_the_gradient_of_a_clean_picture_goes_through_the_model(gaussian: Any) -> None:
    model, x = gaussian(), x64()
    x0 = clean("eps", LEVEL, x, finished(model.predict(x, LEVEL, None)))
    slope = LEVEL.alpha * model.std**2 / (LEVEL.alpha**2 * model.std**2 + LEVEL.sigma**2)
    through = guided(model, Towards(of="x0")).predict(x, LEVEL, None)
    torch.testing.assert_close(through.outputs[1], slope * (0.5 - x0))
    fixed = guided(model, Towards(of="x0_fixed")).predict(x, LEVEL, None)
    torch.testing.assert_close(fixed.outputs[1], (0.5 - x0) / LEVEL.alpha)
    assert not through.outputs[0].requires_grad


def test_the_clean_picture_of_a_guided_model_is_the_guided_one(random_model: Any) -> None:
    model, x = random_model(), x64()
    positive, negative = (Conditioning(context=normals(s, (1, 4, 8)).double()) for s in (1, 2))
    cfg = ClassifierFreePredictor(model, negative, 4.0)
    found = guided(cfg, Towards(of="x0_fixed")).predict(x, LEVEL, positive)
    x0 = clean("eps", LEVEL, x, cfg.predict(x, LEVEL, positive).combined())
    torch.testing.assert_close(found.outputs[-1], (0.5 - x0) / LEVEL.alpha)
    assert found.weights[:2] == (4.0, -3.0)


@pytest.mark.parametrize("of", ["x", "x0", "x0_fixed"])
def test_a_samples_gradient_does_not_depend_on_the_batch(of: Any, random_model: Any) -> None:
    both = guided(random_model(), Towards(of=of)).predict(x64(), LEVEL, None).outputs[1]
    alone = guided(random_model(), Towards(of=of)).predict(x64()[1:], LEVEL, None).outputs[1]
    torch.testing.assert_close(both[1:], alone)


def test_under_no_grad_there_is_a_gradient_and_none_is_left(random_model: Any) -> None:
    with torch.no_grad():
        found = guided(random_model(), Towards(of="x0")).predict(x64(), LEVEL, None)
    assert not any(output.requires_grad for output in found.outputs)


@pytest.mark.parametrize(
    ("scale", "level"), [(0.0, LEVEL), (2.0, NoiseLevel(0.0, 1.0, 999.0))], ids=["scale 0", "pure noise"]
)
def test_off_no_bit_changes_and_nothing_is_asked_for(scale: float, level: NoiseLevel, random_model: Any) -> None:
    class Never(Towards):
        def log_density(self, ctx: Any) -> Any:
            return lambda x, level: 1 / 0

    model = random_model("v")
    found = guided(model, Never(scale=scale)).predict(x64(), level, None)
    assert found.weights == (1.0,)
    assert torch.equal(found.outputs[0], model.predict(x64(), level, None).outputs[0])


def test_labels_go_round_in_a_doubled_batch(gaussian: Any) -> None:
    patch = ClassifierGuidance(classifier=CLASSIFIER, labels=(1, 0))
    assert patch._for(4, 2) == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((0, 1, 0), "got 3 labels for a batch of 2; wanted 1 or 2"),
        ((2,), "the classifier knows the labels 0 to 1; got 2"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels: Any, message: str, random_model: Any) -> None:
    patch = ClassifierGuidance(classifier=CLASSIFIER, labels=labels)
    with pytest.raises(UserError, match=message):
        guided(random_model(), patch).predict(x64(), LEVEL, None)


def test_densities_of_another_shape_are_refused(random_model: Any) -> None:
    class Flat(Towards):
        def log_density(self, ctx: Any) -> Any:
            return lambda x, level: x.sum()

    with pytest.raises(UserError, match=r"log_density gave \(\); wanted one number a sample, \(2,\)"):
        guided(random_model(), Flat()).predict(x64(), LEVEL, None)
    ctx = fake_context(loaders={"test.classifier": lambda recipe, ctx: lambda x, level: x.flatten(1).sum(1)})
    with (
        ClassifierGuidance(classifier=CLASSIFIER, labels=(0,)).apply(random_model(), ctx) as model,
        pytest.raises(UserError, match=r"the classifier gave \(2,\); wanted \(2, classes\)"),
    ):
        model.predict(x64(), LEVEL, None)


def test_the_ancestral_form_wants_the_runs_own_sigmas(random_model: Any) -> None:
    model = random_model()
    with pytest.raises(UserError, match="the ancestral form of guidance needs the sigmas of the run"):
        guided(model, Towards(form="ancestral"))
    patch = Towards(form="ancestral", sigmas=make_sigmas(model.schedule, 3))
    with pytest.raises(UserError, match="the sigmas of the ancestral form are not the run's"):
        guided(model, patch).predict(x64(), LEVEL, None)
    beyond = NoiseLevel(LEVEL.alpha, LEVEL.sigma, LEVEL.time, step=3, steps=3)  # a corrector's, at a noisy end
    with pytest.raises(UserError, match="samplers that evaluate once a step"):
        guided(model, patch).predict(x64(), beyond, None)


def test_the_node_keeps_what_every_node_promises() -> None:
    made = check_node(
        guide_by_classifier, denoiser=tiny_denoiser(), classifier=CLASSIFIER, sigmas=fake_sigmas(), label=[0, 1],
        form="ancestral",
    )  # fmt: skip
    (patch,) = made["denoiser"].patches
    assert patch.labels == (0, 1)
    with pytest.raises(UserError, match="needs the sigmas of the run"):
        guide_by_classifier(tiny_denoiser(), CLASSIFIER, label=0, form="ancestral")
    with pytest.raises(UserError, match="got an empty list"):
        guide_by_classifier(tiny_denoiser(), CLASSIFIER, label=[])


def test_the_row_of_every_kind_has_a_slope() -> None:
    assert all(clean_row(kind, LEVEL)[1] != 0 for kind in ("eps", "v", "x0", "flow"))
