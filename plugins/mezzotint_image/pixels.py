"""Between the ports' float tensors and Pillow's 8-bit pictures. Rounded, never truncated."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from PIL import Image as Pillow
    from torch import Tensor

__all__ = ["from_pillow", "to_bytes", "to_pillow"]


def to_bytes(data: Tensor) -> numpy.ndarray:
    """uint8 array of the same shape: 0..1 to 0..255, rounded to the nearest; what is outside is clamped."""
    import torch

    scaled = data.detach().float().mul(255).nan_to_num(0).round().clamp(0, 255)
    return scaled.to("cpu", torch.uint8).contiguous().numpy()


def to_pillow(picture: Tensor) -> Pillow.Image:
    """One picture [H, W, C] or mask [H, W] as a Pillow image of mode L, RGB or RGBA."""
    from PIL import Image as Pillow

    array = to_bytes(picture)
    return Pillow.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def from_pillow(picture: Pillow.Image) -> Tensor:
    """[H, W, C] float32 in 0..1 of a picture of mode L, RGB or RGBA."""
    import numpy
    import torch

    array = numpy.array(picture)
    tensor = torch.from_numpy(array[..., None] if array.ndim == 2 else array)
    return tensor.float().div_(255)
