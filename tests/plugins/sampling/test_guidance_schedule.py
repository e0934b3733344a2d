"""Guidance along a run: the factor at each level, and that nothing is asked or changed where it is off."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mezzotint import Conditioning, Noise, NoiseLevel, NoiseSchedule, UserError
from mezzotint.testing import check_node
from mezzotint_kernels import normals
from mezzotint_sampling.guidance import ClassifierFreePredictor
from mezzotint_sampling.guidance_nodes import guidance_schedule
from mezzotint_sampling.guidance_schedule import GuidanceSchedule, strength
from mezzotint_sampling.levels import levels_from
from mezzotint_sampling.noise import CounterNumbers
from mezzotint_sampling.run import run

POSITIVE = Conditioning(context=normals(1, (1, 4, 8)))
NEGATIVE = Conditioning(context=normals(2, (1, 4, 8)))


def level(step: int = 0, steps: int = 5, ratio: float = 1.0) -> NoiseLevel:
    alpha = 1 / math.hypot(1, ratio)
    return NoiseLevel(alpha, ratio * alpha, 500.0, step, steps)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [("constant", [2.0] * 5), ("linear", [2.0, 1.75, 1.5, 1.25, 1.0]),
     ("cosine", [1.5 + 0.5 * math.cos(math.pi * k / 4) for k in range(5)])],
)  # fmt: skip
def test_shapes_go_from_first_to_last(shape: Any, wanted: list[float]) -> None:
    schedule = GuidanceSchedule(shape, first=2.0, last=1.0)
    assert [schedule.at(level(k)) for k in range(5)] == pytest.approx(wanted)


def test_factors_are_one_for_each_step() -> None:
    schedule = GuidanceSchedule(factors=(1.0, 0.0, 0.5))
    assert [schedule.at(level(k, 3)) for k in range(3)] == [1.0, 0.0, 0.5]
    with pytest.raises(UserError, match="has factors for 3 steps; the run has 5"):
        schedule.at(level(0, 5))


def test_a_corrector_at_a_noisy_end_has_the_last_steps_factor(random_model: Any) -> None:
    sigmas = levels_from(NoiseSchedule(), [10, 3, 1], end=False)
    model = random_model()
    guided = ClassifierFreePredictor(model, NEGATIVE, 3.0, strengths=GuidanceSchedule(factors=(0.0, 1.0)))
    run("heun", guided, POSITIVE, normals(1, (1, 3, 4, 4)), sigmas, CounterNumbers(Noise(seed=0)))
    assert model.batches == [1, 2, 2, 2]


def test_the_interval_is_open_below_and_closed_above() -> None:
    schedule = GuidanceSchedule(sigma_low=0.5, sigma_high=2.0)
    found = [schedule.at(NoiseLevel(1.0, ratio, 0.0)) for ratio in (0.4, 0.5, 0.6, 2.0, 2.1)]
    assert found == [0, 0, 1, 1, 0]
    assert schedule.at(NoiseLevel(0.0, 1.0, 0.0)) == 0
    assert GuidanceSchedule().at(NoiseLevel(0.0, 1.0, 0.0)) == 1


def test_the_whole_scale_and_none_are_exact() -> None:
    for factor, wanted in ((1.0, 7.3), (0.0, 1.0)):
        assert strength(level(), 7.3, GuidanceSchedule(first=factor), off=1.0) == wanted
    assert strength(level(), 7.3, None, off=1.0) == 7.3
    assert strength(level(), 7.0, GuidanceSchedule(first=0.5), off=1.0) == 4.0
    assert strength(level(), 7.0, GuidanceSchedule(first=0.5), off=0.0) == 3.5


def test_outside_the_interval_the_negative_is_not_asked_and_no_bit_changes(random_model: Any) -> None:
    model, x = random_model(), normals(1, (2, 3, 4, 4))
    guided = ClassifierFreePredictor(model, NEGATIVE, 7.5, strengths=GuidanceSchedule(sigma_low=2.0))
    found = guided.predict(x, level(ratio=1.0), POSITIVE)
    assert model.batches == [2]
    assert torch.equal(found.combined(), random_model().predict(x, level(ratio=1.0), POSITIVE).combined())
    inside = guided.predict(x, level(ratio=3.0), POSITIVE)
    assert inside.weights == (7.5, -6.5)


def test_oscillating_guidance_weighs_step_by_step(random_model: Any) -> None:
    x = normals(1, (2, 3, 4, 4))
    schedule = GuidanceSchedule(factors=(1.0, 0.0, 1.0, 0.5))
    guided = ClassifierFreePredictor(random_model(), NEGATIVE, 15.0, strengths=schedule)
    weights = [guided.predict(x, level(k, 4), POSITIVE).weights for k in range(4)]
    assert weights == [(15.0, -14.0), (1.0,), (15.0, -14.0), (8.0, -7.0)]


def test_the_node_keeps_what_every_node_promises() -> None:
    made = check_node(guidance_schedule, factors=[1.0, 0.0], sigma_low=0.2, sigma_high=3.0)
    assert made["guidance_schedule"].factors == (1.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma_low": 2.0, "sigma_high": 2.0}, "sigma_high must be above sigma_low; got 2 and 2"),
        ({"shape": "linear", "factors": [1.0]}, "take the place of a shape"),
        ({"factors": []}, "take the place of a shape; got both, or none"),
    ],
)
def test_schedules_that_cannot_be_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        guidance_schedule(**arguments)
