"""`video.start_frames`: what a motion model begins from, which is a denoiser of pictures."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mezzotint import Source, UserError, Weights, node
from mezzotint_models import Architecture

__all__ = ["start_frames"]


@node("video.start_frames")
def start_frames(
    architecture: Architecture, *, source: Source, scale: Annotated[float, Field(gt=0, le=100)] = 0.33
) -> Weights:
    """Weights for a motion model out of a denoiser of pictures; for training.train's partial_init.

    It begins by seeing the sum of the frame before and the noisy change as the picture that its trunk knows to
    read, and by saying that nothing changes.

    architecture: as video.learn_frames wants it, the widths of its levels those of the denoiser of pictures.
    source: the checkpoint with that denoiser, such as bundled:smallworld.
    scale: of the changes, as in video.learn_frames.

    Raises: UserError: a checkpoint whose latents have other channels, or that has no U-Net; an architecture with
        other side channels.
    """
    import torch

    from mezzotint_models import trunk_tensors
    from mezzotint_video.frame_told import channels_for

    tensors = {name: tensor.float() for name, tensor in trunk_tensors(source).items()}
    first, channels = tensors.get("network.conv_in.weight"), architecture.channels
    if first is None or first.shape[1] != channels * architecture.patch**2:
        raise UserError(
            f"video.start_frames: wanted a checkpoint with a U-Net of {channels} channels, got {source.uri}"
        )
    if architecture.config.get("extra") != channels_for(channels):
        raise UserError(
            f"video.start_frames: wanted models.unet with extra {channels_for(channels)}, as video.learn_frames "
            f"does, got {architecture.config.get('extra')}"
        )
    # The side channels: first frame, previous frame, flow; each takes patch^2 places.
    side = torch.zeros(first.shape[0], architecture.config["extra"] * architecture.patch**2, *first.shape[2:])
    side[:, first.shape[1] : 2 * first.shape[1]] = first
    tensors["network.conv_in.side"] = side
    tensors["network.conv_in.weight"] = first * scale
    for name in ("network.conv_out.weight", "network.conv_out.bias"):
        tensors[name] = torch.zeros_like(tensors[name])
    config: dict[str, Any] = {"class": architecture.cls, "config": dict(architecture.config)}
    return Weights(
        tensors={f"unet/{name}": tensor.contiguous() for name, tensor in tensors.items()},
        target="parts",
        meta={"parts": {"unet": {"target": architecture.cls, "meta": config}}},
    )
