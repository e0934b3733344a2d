"""Classifiers out of weights: what a noisy picture shows, at every noise level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mezzotint import Context, NoiseLevel, NoiseSchedule, Recipe, Source, UserError, Weights, node
from mezzotint_models.packed import Part, meta_of, network_of, recipe_for, record_of
from mezzotint_models.weights import nbytes

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Classifier", "NoisyModel", "classifier", "load_classifier"]


@dataclass(frozen=True, eq=False)
class Classifier(Recipe):
    """A model from noisy samples to logits. classes: their names, in the order of the logits."""

    classes: tuple[str, ...] = ()


@node("models.classifier")
def classifier(weights: Weights | None = None, *, source: Source | None = None, part: Part = "") -> Classifier:
    """A classifier of noisy pictures that a training graph made; sampling.guide_by_classifier takes it.

    weights: what training gave; in its place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several are classifiers.
    Raises: UserError: both or neither are given; no classifier in there, or several; a damaged or foreign file.
    """
    meta, recipe = recipe_for("classifier", weights, source, part, node="models.classifier")
    record = record_of(meta, "classifier")
    classes = record.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError("models.classifier: the weights' record 'classifier' does not name its classes")
    return Classifier(**recipe, loader="models.noisy_classifier", classes=tuple(classes))


class NoisyModel:
    """A realised network of noisy samples: model(x, level) gives [B, outputs] float32.

    Gradients flow to the samples; the weights are frozen.

    schedule: of its training. It may guide a denoiser of another one: the same noise is another time there.
    """

    def __init__(
        self, module: nn.Module, config: Mapping[str, Any], schedule: NoiseSchedule | None = None
    ) -> None:
        self.module, self.config, self.schedule = module, config, schedule

    @property
    def nbytes(self) -> int:
        return nbytes(self.module)

    def __call__(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """x: [B, C, size, size] as the level says. Raises: UserError: samples of another size."""
        import torch

        size, channels = self.config["size"], self.config["in_channels"]
        if tuple(x.shape[1:]) != (channels, size, size):
            raise UserError(
                f"the network that judges noisy samples reads [B, {channels}, {size}, {size}], got "
                f"{list(x.shape)}; it guides denoisers of this size"
            )
        parameter = next(self.module.parameters())
        times = torch.tensor([self.time(level)], dtype=torch.float32, device=parameter.device)
        made: Tensor = self.module(x.to(parameter.device, parameter.dtype).contiguous(), times)
        return made.float()

    def time(self, level: NoiseLevel) -> float:
        """The time of its own schedule at which sigma / alpha is the level's, between two steps if need be."""
        if self.schedule is None or self.schedule.kind == "flow":
            return level.time
        import numpy as np

        from mezzotint_sampling import alphas_cumprod

        products = alphas_cumprod(self.schedule)
        place = 2 * (np.log(max(level.sigma, 1e-9)) - np.log(max(level.alpha, 1e-9)))
        return float(np.interp(place, np.log1p(-products) - np.log(products), np.arange(len(products))))


def load_classifier(recipe: Classifier, ctx: Context) -> NoisyModel:
    """Loader `models.noisy_classifier`."""
    network = network_of(recipe, ctx)
    if type(network).__name__ != "NoisyEncoder":
        raise UserError(f"{recipe.source.uri}: a {type(network).__name__} is no classifier of noisy pictures")
    return NoisyModel(network, network.config, schedule_in(record_of(meta_of(recipe), "classifier")))


def schedule_in(record: Mapping[str, Any]) -> NoiseSchedule | None:
    """The schedule that a record names, or None. Raises: UserError: it is damaged."""
    from mezzotint_models.denoiser import schedule_of

    if "schedule" not in record:
        return None
    try:
        return schedule_of(record)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the record's schedule is damaged: {error!r}") from error
