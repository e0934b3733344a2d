"""Models whose answers are known in closed form, or are a fixed function; a context with one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint import (
    Conditioning,
    Denoiser,
    NoiseLevel,
    NoiseSchedule,
    Prediction,
    Source,
)
from mezzotint.testing import FakeContext, fake_context


def prediction_of(kind: str, x: Tensor, x0: Tensor, level: NoiseLevel) -> Tensor:
    """The output of a model of that kind whose clean picture is x0, by the definitions."""
    eps = (x - level.alpha * x0) / level.sigma
    return {
        "eps": eps,
        "x0": x0,
        "v": level.alpha * eps - level.sigma * x0,
        "flow": eps - x0,
    }[kind]


class GaussianPredictor:
    """The exact denoiser of data N(mean, std^2), and the exact flow of its probability-flow ODE."""

    def __init__(self, kind: str = "eps", mean: float = 0.3, std: float = 0.5) -> None:
        self.schedule = NoiseSchedule(prediction=kind)  # type: ignore[arg-type]
        self.kind, self.mean, self.std = kind, mean, std
        self.evaluations = 0

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        self.evaluations += 1
        variance = level.alpha**2 * self.std**2 + level.sigma**2
        x0 = self.mean + level.alpha * self.std**2 / variance * (x - level.alpha * self.mean)
        return Prediction((prediction_of(self.kind, x, x0, level),), (1.0,), self.kind)  # type: ignore[arg-type]

    def exact(self, x: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """Along the ODE, x - alpha * mean scales with the standard deviation of its marginal."""
        spread = [math.hypot(at.alpha * self.std, at.sigma) for at in (here, there)]
        return there.alpha * self.mean + spread[1] / spread[0] * (x - here.alpha * self.mean)


class RandomPredictor:
    """A fixed nonlinear function of x, time and context: stands for a network without training."""

    def __init__(self, kind: str = "eps") -> None:
        self.schedule = NoiseSchedule(prediction=kind)  # type: ignore[arg-type]
        self.kind = kind
        self.batches: list[int] = []

    def output(self, x: Tensor, time: float, context: Tensor | None = None) -> Tensor:
        shifted = torch.roll(x, 1, dims=-1) + 0.5 * torch.roll(x, 1, dims=-2)
        out = 0.8 * torch.tanh(x) + 0.3 * torch.sin(shifted + time / 300)
        if context is not None:
            weight = context.to(x).mean(dim=(1, 2)).view(-1, *[1] * (x.dim() - 1))
            out = out + weight * torch.cos(x)
        return out

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        self.batches.append(x.shape[0])
        context = None if conditioning is None else conditioning.context
        return Prediction((self.output(x, level.time, context),), (1.0,), self.kind)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def gaussian() -> type[GaussianPredictor]:
    return GaussianPredictor


@pytest.fixture
def random_model() -> type[RandomPredictor]:
    return RandomPredictor


@pytest.fixture
def context() -> Callable[..., FakeContext]:
    """A context whose only model is the one given."""

    def made(model: Any, **options: Any) -> FakeContext:
        return fake_context(loaders={"test.model": lambda recipe, ctx: model}, **options)

    return made


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser(source=Source("test:model", "", "0"), loader="test.model", channels=3, space="s")
