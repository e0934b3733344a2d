"""A denoiser without a network: the exact one for data that are Gaussian. For tests of samplers, guidance, graphs.

For x0 ~ N(m, s²) and x = alpha x0 + sigma eps the best guess of x0 is
m + alpha s² / (alpha² s² + sigma²) (x - alpha m).
This module is a plugin: the node `testing.denoiser`, the loaders `testing.gaussian` and `testing.pictures`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint.hookspecs import hookimpl
from mezzotint.nodes import node
from mezzotint.ports import Denoiser, NoiseSchedule
from mezzotint.predictor import NoiseLevel, Prediction
from mezzotint.testing.samples import FakePictures
from mezzotint.values import Source

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint.context import Context
    from mezzotint.ports import Conditioning
    from mezzotint.values import Recipe

__all__ = ["GaussianPredictor", "denoiser", "tiny_denoiser"]


class GaussianPredictor:
    """Knows that its data are N(mean, std²). A conditioning's context, if any, moves the mean by its own mean."""

    def __init__(self, mean: float, std: float, schedule: NoiseSchedule) -> None:
        self.mean = mean
        self.std = std
        self.schedule = schedule

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """The exact prediction, in the schedule's own kind."""
        mean: Any = self.mean
        if conditioning is not None and conditioning.context is not None:
            shift = conditioning.context.flatten(1).mean(1).to(x)
            mean = mean + shift.reshape(-1, *[1] * (x.ndim - 1))
        alpha, sigma = level.alpha, level.sigma
        spread = alpha**2 * self.std**2 + sigma**2
        x0 = mean + alpha * self.std**2 / max(spread, 1e-20) * (x - alpha * mean)
        eps = sigma / max(spread, 1e-20) * (x - alpha * mean)
        kind = self.schedule.prediction
        outputs = {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "flow": eps - x0}
        return Prediction((outputs[kind],), (1.0,), kind)


def tiny_denoiser(
    mean: float = 0.0,
    std: float = 1.0,
    *,
    channels: int = 4,
    sample_size: int = 8,
    schedule: NoiseSchedule | None = None,
) -> Denoiser:
    """The recipe of a `GaussianPredictor`, realised without files. Its latents lie in the space "testing"."""
    return Denoiser(
        source=Source("testing:gaussian", "", f"gaussian-{mean!r}-{std!r}"),
        loader="testing.gaussian",
        config={"mean": mean, "std": std},
        schedule=schedule or NoiseSchedule(),
        channels=channels,
        sample_size=sample_size,
        space="testing",
    )


@node("testing.denoiser")
def denoiser(
    *,
    mean: float = 0.0,
    std: Annotated[float, Field(gt=0)] = 1.0,
    channels: Annotated[int, Field(ge=1)] = 4,
    prediction: Literal["eps", "v", "x0"] = "eps",
) -> Denoiser:
    """The exact denoiser of Gaussian data, for tests.

    mean: of the data.
    std: their standard deviation.
    channels: of the latents.
    prediction: what it predicts.
    """
    return tiny_denoiser(mean, std, channels=channels, schedule=NoiseSchedule(prediction=prediction))


def load_gaussian(recipe: Recipe, ctx: Context) -> GaussianPredictor:
    """The loader `testing.gaussian`."""
    assert isinstance(recipe, Denoiser)
    return GaussianPredictor(recipe.config["mean"], recipe.config["std"], recipe.schedule)


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    """The node `testing.denoiser`."""
    register(denoiser)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """The loader `testing.gaussian`, and the reader of `fake_dataset`."""
    register("testing.gaussian", load_gaussian)
    register("testing.pictures", lambda dataset, ctx: FakePictures(dataset))
