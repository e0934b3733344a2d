"""The denoiser: diffusers' UNet2DConditionModel behind the engine's predictor protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, Context, Denoiser, NoiseLevel, NoiseSchedule, Prediction, UserError
from mezzotint_models.attention import AttentionLayers
from mezzotint_models.weights import load_module, nbytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from mezzotint import AttentionSite, Injector

__all__ = ["UNetPredictor", "load_unet", "rows"]


class UNetPredictor:
    """A realised denoiser. `module` is the U-Net itself, for patches; `inject` is for those that change attention.

    A clip [B, C, F, H, W] is seen as B * F pictures; temporal layers, where a patch adds them, undo that.
    Gradients flow to x and to the conditioning where those ask for them; the weights are frozen.
    """

    def __init__(self, module: nn.Module, schedule: NoiseSchedule) -> None:
        self.module = module
        self.schedule = schedule
        self._layers = AttentionLayers(module)

    @property
    def attention_sites(self) -> tuple[AttentionSite, ...]:
        """Where attention is computed, in the order of the network's modules."""
        return self._layers.sites

    def inject(self, injector: Injector, sites: Iterable[AttentionSite]) -> AbstractContextManager[None]:
        """Put `injector` at these sites, over what is there already, while the block runs.

        Raises: UserError: no site, or one that is not this denoiser's.
        """
        return self._layers.inject(injector, sites)

    def uninjected(self) -> AbstractContextManager[None]:
        """No injector anywhere while the block runs, for what an injector asks of its own."""
        return self._layers.cleared()

    @property
    def nbytes(self) -> int:
        return nbytes(self.module)

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """One evaluation. x: [B, C, H, W] or [B, C, F, H, W] of any float type, which the output keeps.

        conditioning: context [B or 1, L, D], or [B or 1, F, L, D] for a clip; mask, concat and label where
        the network was made for them.
        Raises: UserError: no context, or one of another width or batch size.
        """
        if x.ndim == 5:
            batch, channels, frames, height, width = x.shape
            flat = x.transpose(1, 2).reshape(batch * frames, channels, height, width)
            out = self._evaluate(flat, level, self._inputs(conditioning, batch, frames))
            out = out.unflatten(0, (batch, frames)).transpose(1, 2)
        else:
            out = self._evaluate(x, level, self._inputs(conditioning, x.shape[0], 1))
        # Twice the channels: the second half says what the variance is.
        first, *rest = out.split(x.shape[1], dim=1)
        variance = rest[0] if rest else None
        return Prediction((first,), (1.0,), self.schedule.prediction, variance=variance)

    def _evaluate(self, x: Tensor, level: NoiseLevel, inputs: dict[str, Tensor]) -> Tensor:
        import torch

        dtype = next(self.module.parameters()).dtype
        # Contiguous: the last bits of a convolution depend on the memory layout, which a stored value does
        # not keep.
        sample = x.to(dtype).contiguous()
        concat = inputs.pop("concat", None)
        if concat is not None:
            sample = torch.cat([sample, concat], dim=1)
        wanted = self.module.config.in_channels
        if sample.shape[1] != wanted:
            raise UserError(f"the denoiser takes {wanted} channels, got {sample.shape[1]}")
        self._layers.at(level, (sample.shape[-2], sample.shape[-1]))
        time = torch.tensor(level.time, dtype=torch.float32, device=x.device)
        return self.module(sample, time, return_dict=False, **inputs)[0].to(x.dtype)

    def _inputs(self, conditioning: Conditioning | None, batch: int, frames: int) -> dict[str, Tensor]:
        """The network's arguments out of the record, one row per picture."""
        if conditioning is None or conditioning.context is None:
            raise UserError("the denoiser is told what to make by a text: its conditioning has no context")
        context = conditioning.context
        width = self.module.config.cross_attention_dim
        if isinstance(width, int) and context.shape[-1] != width:
            raise UserError(
                f"the denoiser reads texts {width} wide, the conditioning's context is {context.shape[-1]}"
            )
        parameter = next(self.module.parameters())
        fields = {
            "encoder_hidden_states": context,
            "encoder_attention_mask": conditioning.mask,
            "class_labels": conditioning.label,
            "concat": conditioning.concat,
        }
        inputs = {}
        for name, value in fields.items():
            if value is not None:
                per_frame = name == "encoder_hidden_states" and value.ndim == 4
                value = rows(value, batch, frames, per_frame, name).to(parameter.device).contiguous()
                inputs[name] = value.to(parameter.dtype) if value.is_floating_point() else value
        return inputs


def rows(value: Tensor, batch: int, frames: int, per_frame: bool, name: str) -> Tensor:
    """`value` with B * F rows, given 1 or B (with a frame axis if `per_frame`)."""
    if value.shape[0] not in (1, batch):
        raise UserError(f"the conditioning has {value.shape[0]} rows ({name}), the latents {batch}")
    value = value.expand(batch, *value.shape[1:])
    if per_frame:
        if value.shape[1] != frames:
            raise UserError(f"the conditioning has {value.shape[1]} frames, the latents {frames}")
        return value.flatten(0, 1)
    return value.repeat_interleave(frames, dim=0) if frames > 1 else value


def load_unet(recipe: Denoiser, ctx: Context) -> UNetPredictor:
    """Loader `models.unet`."""
    from diffusers import UNet2DConditionModel

    config = dict(recipe.config["model"])
    convert = _from_original if recipe.config["layout"] == "original" else None
    module = load_module(recipe, "unet", lambda: UNet2DConditionModel.from_config(config), ctx, convert)
    return UNetPredictor(module, recipe.schedule)


def _from_original(tensors: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    return convert_ldm_unet_checkpoint(dict(tensors), dict(module.config))
