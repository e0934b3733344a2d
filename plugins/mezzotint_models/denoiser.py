"""Denoisers out of weights: a file that says what it is, or a value that came along an edge."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mezzotint import (
    Conditioning,
    Context,
    Denoiser,
    NoiseLevel,
    NoiseSchedule,
    Prediction,
    Source,
    UserError,
    Weights,
    node,
)
from mezzotint_models.packed import Part, network_of, recipe_for, record_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from mezzotint import AttentionSite, Injector

__all__ = ["NetworkPredictor", "denoiser", "load_network"]


@node("models.denoiser")
def denoiser(weights: Weights | None = None, *, source: Source | None = None, part: Part = "") -> Denoiser:
    """A denoiser that a training graph made, from its file or from the value itself.

    weights: what training gave; in its place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several are denoisers.
    Raises: UserError: both or neither are given; no denoiser in there, or several; a damaged or foreign file.
    """
    meta, recipe = recipe_for("denoiser", weights, source, part, node="models.denoiser")
    record = record_of(meta, "denoiser")
    try:
        return Denoiser(
            **recipe,
            loader="models.network",
            schedule=schedule_of(record),
            channels=_natural(record, "channels"),
            sample_size=_natural(record, "sample_size"),
            space=str(record["space"]),
            downscale=_natural(record, "downscale"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"models.denoiser: the weights' record 'denoiser' is damaged: {error!r}") from error


def schedule_of(record: Mapping[str, Any]) -> NoiseSchedule:
    """The forward process in a role record. Raises: KeyError, TypeError, ValueError: it is none."""
    fields = dict(record["schedule"])
    schedule = NoiseSchedule(**fields)
    numbers = (schedule.beta_start, schedule.beta_end, schedule.shift)
    if schedule.kind not in ("linear", "scaled_linear", "cosine", "flow"):
        raise ValueError(f"schedule {schedule.kind!r}")
    if schedule.prediction not in ("eps", "v", "x0", "flow"):
        raise ValueError(f"prediction {schedule.prediction!r}")
    if not isinstance(schedule.train_steps, int) or not 1 <= schedule.train_steps <= 100_000:
        raise ValueError(f"train_steps {schedule.train_steps!r}")
    if not all(isinstance(number, int | float) and 0 < number < 1e6 for number in numbers):
        raise ValueError(f"betas and shift {numbers}")
    return schedule


def _natural(record: Mapping[str, Any], key: str) -> int:
    value = record[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65536:
        raise ValueError(f"{key} {value!r}")
    return value


class NetworkPredictor:
    """A realised denoiser. `module` is the network, `module(x, time, conditioning)`, for patches.

    A clip [B, C, F, H, W] is seen as B * F pictures. Gradients flow to x and to the conditioning where those ask
    for them; the weights are frozen.
    """

    def __init__(self, module: nn.Module, schedule: NoiseSchedule) -> None:
        self.module = module
        self.schedule = schedule
        self._layers = getattr(module, "attention", None)

    @property
    def attention_sites(self) -> tuple[AttentionSite, ...]:
        """Where attention is computed, in the order of the network's modules."""
        return self._layers.sites if self._layers is not None else ()

    def inject(self, injector: Injector, sites: Iterable[AttentionSite]) -> AbstractContextManager[None]:
        """Put `injector` at these sites, over what is there already, while the block runs.

        Raises: UserError: no site, or one that is not this denoiser's.
        """
        if self._layers is None:
            raise UserError("the denoiser has no attention that could be changed")
        return self._layers.inject(injector, sites)

    def uninjected(self) -> AbstractContextManager[None]:
        """No injector anywhere while the block runs, for what an injector asks of its own."""
        return nullcontext() if self._layers is None else self._layers.cleared()

    @property
    def nbytes(self) -> int:
        from mezzotint_models.weights import nbytes

        return nbytes(self.module)

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """One evaluation. x: [B, C, H, W] or [B, C, F, H, W] of any float type, which the output keeps.

        conditioning: what the network was made for, each part with B rows or one.
        Raises: UserError: a part is absent, of another width or batch size, or unknown to the network.
        """
        import torch

        clip = x.ndim == 5
        batch, frames = x.shape[0], x.shape[2] if clip else 1
        flat = x.transpose(1, 2).flatten(0, 1) if clip else x
        if self._layers is not None:
            self._layers.at(level, (flat.shape[-2], flat.shape[-1]))
        dtype = next(self.module.parameters()).dtype
        time = torch.tensor(level.time, dtype=torch.float32, device=x.device)
        # Contiguous: the last bits of a convolution depend on the memory layout, which a stored value does not
        # keep.
        out = self.module(flat.to(dtype).contiguous(), time, self._rows(conditioning, batch, frames)).to(x.dtype)
        out = out.unflatten(0, (batch, frames)).transpose(1, 2) if clip else out
        # Twice the channels: the second half says what the variance is.
        first, *rest = out.split(x.shape[1], dim=1)
        return Prediction((first,), (1.0,), self.schedule.prediction, variance=rest[0] if rest else None)

    def _rows(self, conditioning: Conditioning | None, batch: int, frames: int) -> Conditioning | None:
        """The record with one row per picture, where the network is and of its type."""
        from mezzotint_models.unet import rows

        if conditioning is None:
            return None
        parameter, made = next(self.module.parameters()), {}
        for name in _TENSORS:
            value = getattr(conditioning, name)
            if value is not None:
                per_frame = name == "context" and value.ndim == 4
                value = rows(value, batch, frames, per_frame, name).to(parameter.device).contiguous()
                made[name] = value.to(parameter.dtype) if value.is_floating_point() else value
        return dataclasses.replace(conditioning, **made)


_TENSORS = ("context", "mask", "pooled", "label", "concat", "low_res", "low_res_level")


def load_network(recipe: Denoiser, ctx: Context) -> Any:
    """Loader `models.network`: the predictor of a packed denoiser."""
    from diffusers import UNet2DConditionModel

    from mezzotint_models.unet import UNetPredictor

    network = network_of(recipe, ctx)
    kind = UNetPredictor if isinstance(network, UNet2DConditionModel) else NetworkPredictor
    return kind(network, recipe.schedule)
