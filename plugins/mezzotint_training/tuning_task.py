"""The task of `training.tune`: the diffusion loss with most of the network held still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import UserError, Weights
from mezzotint_models import build_network, pack_network
from mezzotint_training.diffusion_task import DiffusionTask

if TYPE_CHECKING:
    from mezzotint import Conditioning, Context
    from mezzotint_training.tuning import TuningObjective

__all__ = ["TuningTask", "open_tuning"]


class Told(nn.Module):
    """diffusers' U-Net as the diffusion task calls a network: (x, times, conditioning)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, times: Tensor, told: Conditioning) -> Tensor:
        mask = None if told.mask is None else told.mask.bool()
        if torch.is_grad_enabled() and not x.requires_grad:
            # torch's GroupNorm, channels last on a CPU, crashes in backward if its weight wants a gradient and its
            # input none, as behind layers that are held still.
            x = x.detach().requires_grad_()
        out: Tensor = self.network(
            x, times, encoder_hidden_states=told.context, encoder_attention_mask=mask, return_dict=False
        )[0]
        return out


class TuningTask(DiffusionTask):
    """As its base; the weights are the differences of the tuned tensors, and the conditioner's parts."""

    def __init__(self, objective: TuningObjective, unet: Told, *rest: Any) -> None:
        self.start = {
            name: parameter.detach().clone()
            for name, parameter in unet.network.named_parameters()
            if parameter.requires_grad
        }
        super().__init__(objective, unet, *rest)

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """As its base, squeezed into the noisier end of the schedule."""
        least, steps = self.objective.from_level, len(self.process)
        return (least * steps + (1 - least) * super().times(count, generator)).long().clamp(max=steps - 1)

    def weights(self) -> dict[str, Weights]:
        now = dict(self.unet.network.named_parameters())
        changes = {name: now[name].detach().cpu() - value for name, value in self.start.items()}
        made = self.objective
        record = {"of": made.denoiser.source.uri, "layers": list(made.layers)}
        meta = self.conditions.meta() if self.conditions else {}
        changed = Weights(changes, target="differences", meta={"class": "differences", "tuned": record, **meta})
        return {"tuned": changed, **(self.conditions.parts() if self.conditions else {})}


def open_tuning(objective: TuningObjective, ctx: Context, reader: Any, seed: int, batch: int) -> TuningTask:
    """A copy of the denoiser's network, of which only the named layers learn."""
    # The pool's own is lent to others too.
    network = build_network(pack_network(ctx.realise(objective.denoiser).module))
    width = getattr(network.config, "cross_attention_dim", None)
    if not isinstance(width, int):
        raise UserError("training.tune: wanted a diffusers UNet2DConditionModel, which attends to a context")
    names = [name for name, _ in network.named_parameters()]
    unknown = [layer for layer in objective.layers if not any(layer in name for name in names)]
    if unknown:
        raise UserError(f"training.tune: no name of the denoiser's tensors has {unknown[0]!r}; {_kinds(names)}")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(layer in name for layer in objective.layers))
    made = objective.reading({"context": width, "out_channels": network.config.out_channels})
    conditions = made.conditioner.open(ctx, reader, seed)
    encoder = None if made.autoencoder is None else ctx.realise(made.autoencoder)
    with torch.random.fork_rng(devices=[]):
        return TuningTask(made, Told(network), conditions, encoder, reader, seed, batch)


def _kinds(names: list[str]) -> str:
    kinds = sorted({word for name in names for word in name.split(".") if not word.isdigit()})
    return f"the words in them are {', '.join(kinds)}"
