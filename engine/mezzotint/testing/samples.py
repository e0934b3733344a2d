"""A small value of each port. The same arguments give the same numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mezzotint.ports import Conditioning, Dataset, Image, Latents, Mask, Noise, Report, Sigmas, Video, Weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "fake_conditioning",
    "fake_dataset",
    "fake_image",
    "fake_latents",
    "fake_mask",
    "fake_noise",
    "fake_report",
    "fake_sigmas",
    "fake_video",
    "fake_weights",
]


def _uniform(*shape: int, seed: int) -> Tensor:
    import torch

    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _normal(*shape: int, seed: int) -> Tensor:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fake_image(batch: int = 1, height: int = 16, width: int = 16, channels: int = 3, *, seed: int = 0) -> Image:
    """Pictures of uniform noise, [batch, height, width, channels]."""
    return Image(_uniform(batch, height, width, channels, seed=seed))


def fake_video(
    batch: int = 1,
    frames: int = 3,
    height: int = 16,
    width: int = 16,
    channels: int = 3,
    *,
    fps: float = 8.0,
    seed: int = 0,
) -> Video:
    """Clips of uniform noise, [batch, frames, height, width, channels]."""
    return Video(_uniform(batch, frames, height, width, channels, seed=seed), fps)


def fake_mask(batch: int = 1, height: int = 16, width: int = 16, *, frames: int | None = None) -> Mask:
    """Masks whose right half is 1, [batch, height, width], or per frame."""
    import torch

    shape = (batch, height, width) if frames is None else (batch, frames, height, width)
    data = torch.zeros(shape)
    data[..., width // 2 :] = 1.0
    return Mask(data)


def fake_latents(
    batch: int = 1, channels: int = 4, height: int = 8, width: int = 8, *, frames: int | None = None, seed: int = 0
) -> Latents:
    """Normal latents in the space "testing", [batch, channels, height, width], or with frames before height."""
    shape = (batch, channels, height, width) if frames is None else (batch, channels, frames, height, width)
    return Latents(_normal(*shape, seed=seed), space="testing", downscale=8)


def fake_conditioning(batch: int = 1, length: int = 4, width: int = 8, *, seed: int = 0) -> Conditioning:
    """A context [batch, length, width] with its mask, and the pooled vector [batch, width]."""
    import torch

    context = _normal(batch, length, width, seed=seed)
    return Conditioning(context=context, mask=torch.ones(batch, length), pooled=context.mean(1))


def fake_sigmas(steps: int = 4) -> Sigmas:
    """A variance-preserving schedule of `steps` steps: an arc from almost pure noise to (1, 0)."""
    angles = [0.99 * math.pi / 2 * (steps - i) / steps for i in range(steps + 1)]
    return Sigmas(
        alphas=tuple(math.cos(a) for a in angles),
        sigmas=tuple(math.sin(a) for a in angles),
        times=tuple(999.0 * a / (math.pi / 2) for a in angles),
    )


def fake_noise(seed: int = 0) -> Noise:
    """The engine's own noise, in a stream of its own."""
    return Noise(seed, stream="testing")


def fake_weights(*, seed: int = 0, target: str = "testing") -> Weights:
    """A full set of one matrix and one bias."""
    return Weights({"weight": _normal(4, 4, seed=seed), "bias": _normal(4, seed=seed + 1)}, target=target)


class FakePictures:
    """The reader "testing.pictures": uniform noise, [side, side, 3] uint8, with numbered captions."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return self.dataset.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        side = self.dataset.config["side"]
        pixels = (_uniform(side, side, 3, seed=index) * 255).byte().numpy()
        return {"image": pixels, "caption": f"picture {index}"}


def fake_dataset(length: int = 4, side: int = 16) -> Dataset:
    """A data set of `FakePictures`; `ctx.open_dataset` reads it."""
    return Dataset("testing.pictures", {"side": side}, length)


def fake_report(**data: Any) -> Report:
    """A report of the given figures."""
    return Report(data or {"loss": 0.5, "steps": 2})
