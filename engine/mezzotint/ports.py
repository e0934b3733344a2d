"""The port types that come with the engine. Layouts are the ecosystem's: see each class.

Channels first and -1..1 exist only inside models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mezzotint.values import Port, Recipe, Value

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Autoencoder",
    "Conditioning",
    "Dataset",
    "Denoiser",
    "Image",
    "ImageEncoder",
    "Latents",
    "Mask",
    "Noise",
    "NoiseSchedule",
    "Report",
    "Sigmas",
    "TextEncoder",
    "Video",
    "Weights",
]


@dataclass(frozen=True, eq=False)
class Image(Port):
    """Pictures. data: [B, H, W, C] float32 in 0..1 with C = 1, 3 or 4."""

    data: Tensor


@dataclass(frozen=True, eq=False)
class Video(Port):
    """Clips. data: [B, F, H, W, C] float32 in 0..1; fps: frames per second."""

    data: Tensor
    fps: float


@dataclass(frozen=True, eq=False)
class Mask(Port):
    """Masks. data: [B, H, W] or [B, F, H, W] float32 in 0..1; 1 means: change here."""

    data: Tensor


@dataclass(frozen=True, eq=False)
class Latents(Port):
    """Latents in the denoiser's scaled space.

    data: [B, C, H, W] or [B, C, F, H, W], any float dtype.
    space: which space that is: the autoencoder's fingerprint, or "pixels".
    downscale: pixels per latent along one side.
    mask: [B, K, H, W] or None; where it is 0 a sampler keeps `data` (inpainting). K = 1 holds for the whole run;
    several hold for a Kth of the run's steps each, the first for the noisiest.
    """

    data: Tensor
    space: str = ""
    downscale: int = 8
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Conditioning(Port):
    """What a denoiser is told besides the noisy latents. Absent parts are None.

    context: [B, L, D] or per frame [B, F, L, D]; mask: [B, L] with 1 for tokens that count; pooled: [B, D];
    label: [B] int64; concat: [B, C, H, W] extra input channels; low_res: [B, C, H, W] with low_res_level [B];
    fps: [B]; layout: JSON; extra: tensors of a plugin's own.
    """

    context: Tensor | None = None
    mask: Tensor | None = None
    pooled: Tensor | None = None
    label: Tensor | None = None
    concat: Tensor | None = None
    low_res: Tensor | None = None
    low_res_level: Tensor | None = None
    fps: Tensor | None = None
    layout: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sigmas(Port):
    """Noise levels of a sampling run, from noisy to clean: one more entry than there are steps.

    x = alpha * x0 + sigma * eps at each entry, and `times` is the model's own time there. Variance-preserving,
    variance-exploding and flow schedules are cases of it; zero terminal SNR is alpha = 0. The last entry of a full
    schedule is (1, 0).
    """

    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    times: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Noise(Port):
    """A source of noise, as a description.

    kind: "philox" (counter-based: the same numbers on every device, in any batch), "torch" (the CPU generator
    that diffusers and ComfyUI start from) or "brownian" (counter-based too; a step has the increment of
    one path over it: a finer run follows the same path). seed: sample i of a batch uses seed + i // copies, so
    that `copies` neighbours have the same numbers. stream: keeps uses apart. frames: how the frames of a video
    relate; "mixed" and "progressive" have this `correlation` of any two frames, or of two neighbours; "residual"
    is mixed, but the middle frame has what all share, alone.
    """

    seed: int
    kind: Literal["philox", "torch", "brownian"] = "philox"
    stream: str = ""
    frames: Literal["independent", "shared", "mixed", "progressive", "residual"] = "independent"
    correlation: float = 0.5
    copies: int = 1


@dataclass(frozen=True, eq=False)
class NoiseSchedule(Value):
    """The forward process that a denoiser was trained on, and what it predicts.

    kind: "linear" or "scaled_linear" (betas from beta_start to beta_end over train_steps), "cosine"
    (squaredcos_cap_v2), or "flow" (x = (1 - t) x0 + t eps). zero_terminal_snr: rescaled after Lin et al. 2023.
    """

    kind: Literal["linear", "scaled_linear", "cosine", "flow"] = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    train_steps: int = 1000
    prediction: Literal["eps", "v", "x0", "flow"] = "eps"
    zero_terminal_snr: bool = False
    shift: float = 1.0


@dataclass(frozen=True, eq=False)
class Denoiser(Recipe):
    """A noise-predicting model, and all that is wrapped around it: guidance is a patch too.

    schedule: its forward process. channels: of its latents. space, downscale: as in `Latents`.
    sample_size: the side, in latents, that it was trained at.
    """

    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    channels: int = 4
    sample_size: int = 64
    space: str = ""
    downscale: int = 8


@dataclass(frozen=True, eq=False)
class TextEncoder(Recipe):
    """A tokenizer and a text model."""


@dataclass(frozen=True, eq=False)
class ImageEncoder(Recipe):
    """A model from pictures to embeddings."""


@dataclass(frozen=True, eq=False)
class Autoencoder(Recipe):
    """A model between pixels and latents.

    channels: of the latents. downscale: pixels per latent along one side.
    space: names the latent space. scale, shift: latents = (encoded - shift) * scale.
    """

    channels: int = 4
    downscale: int = 8
    space: str = ""
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True, eq=False)
class Weights(Port):
    """Trained numbers: a whole model, a difference to one, or a few rows.

    tensors: name to tensor. kind: "full", "difference", "low_rank" or "rows". target: what they belong to.
    """

    tensors: Mapping[str, Any]
    kind: Literal["full", "difference", "low_rank", "rows"] = "full"
    target: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Dataset(Port):
    """A data set as a description: which reader makes item i, and its settings (JSON)."""

    reader: str
    config: Mapping[str, Any] = field(default_factory=dict)
    length: int = 0


@dataclass(frozen=True, eq=False)
class Report(Port):
    """Figures of an evaluation or a training run, as JSON."""

    data: Mapping[str, Any]
