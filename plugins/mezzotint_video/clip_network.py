"""A denoiser's network with temporal layers, as training calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import UserError
from mezzotint_video.places import Attached, unet_of
from mezzotint_video.temporal_layers import TemporalLayers

if TYPE_CHECKING:
    from mezzotint import Conditioning
    from mezzotint_video.temporal_layers import Clip

__all__ = ["ClipNetwork", "tuned_names"]


class ClipNetwork(nn.Module):
    """A U-Net of pictures, and the layers that lie behind its own; both learn where they ask for gradients.

    image: diffusers' network, or one of ours around it. Nothing of it learns but what `tuned_names` names.
    """

    def __init__(self, image: nn.Module, layers: TemporalLayers) -> None:
        super().__init__()
        self.image, self.layers = image, layers
        self.attached = Attached(unet_of(image), layers)

    def forward(self, x: Tensor, times: Tensor, told: Conditioning, clip: Clip) -> Tensor:
        """[B, F + images, C, H, W] of the same shape. times: [B]. told: a row for each of the B * (F + images)."""
        batch, frames = x.shape[:2]
        flat = x.flatten(0, 1)
        flat = flat.contiguous(memory_format=torch.channels_last) if flat.shape[1] > 1 else flat
        if torch.is_grad_enabled():
            # torch's GroupNorm, channels last on a CPU, crashes in backward if its weight wants a gradient and its
            # input none.
            flat = flat.detach().requires_grad_()
        at = times.repeat_interleave(frames)
        told = self._retold(told, clip)
        with self.attached.on(), self.attached.over(clip):
            if self.image is unet_of(self.image):
                mask = None if told.mask is None else told.mask.bool()
                out = self.image(
                    flat, at, encoder_hidden_states=told.context, encoder_attention_mask=mask, return_dict=False
                )[0]
            else:
                out = self.image(flat, at, told)
        made: Tensor = out.float().unflatten(0, (batch, frames))
        return made

    def _retold(self, told: Conditioning, clip: Clip) -> Conditioning:
        """Of each frame the words that it is told, of single pictures those that they were."""
        words = self.layers.retold(clip)
        if words is None or told.context is None:
            return told
        rows = told.context.unflatten(0, (clip.batch, clip.frames + clip.images))
        return told.replace(context=torch.cat([words, rows[:, clip.frames :]], dim=1).flatten(0, 1))


def tuned_names(network: Any, wanted: tuple[str, ...], node: str) -> list[str]:
    """Let those of a network's tensors learn whose names contain one of these, and no other; their names.

    Raises: UserError: one that no name contains.
    """
    names = [name for name, _ in network.named_parameters()]
    for word in wanted:
        if not any(word in name for name in names):
            kinds = sorted({part for name in names for part in name.split(".") if not part.isdigit()})
            raise UserError(
                f"{node}: no name of the denoiser's tensors has {word!r}; the words are {', '.join(kinds)}"
            )
    chosen = []
    for name, parameter in network.named_parameters():
        learns = any(word in name for word in wanted)
        parameter.requires_grad_(learns)
        if learns:
            chosen.append(name)
    return chosen
