"""The numbers of a `Noise` value: those that a run starts from, and those of each of its steps.

Draw 0 is the start; draw k + 1 belongs to model evaluation k. The known region of inpainting has
numbers of its own. A step asks for the noise `between` its two levels, which most sources take to
be the draw's; the path of `mezzotint_sampling.brownian` has its increment there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch

from mezzotint import Noise, UserError
from mezzotint_kernels import Draw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from mezzotint import NoiseLevel

__all__ = ["CounterNumbers", "GeneratorNumbers", "Numbers", "frame_normals", "numbers_of", "starting_point"]

_STREAM = "sampling.noise"


class Numbers(Protocol):
    """Standard normal numbers of one run, addressed by draw: any draw, in any order."""

    def at(self, draw: int) -> Tensor | Draw:
        """The numbers of a draw."""

    def known(self, draw: int) -> Tensor | Draw:
        """Those of the known region."""

    def between(self, draw: int, here: NoiseLevel, there: NoiseLevel) -> Tensor | Draw:
        """Those of the noise that the step from `here` to `there` adds, of unit variance."""


class CounterNumbers:
    """Counter-based numbers: the same on every device, in any batch, fresh or resumed.

    shape: of the sample, [B, ...]; needed where the frames of a clip are correlated.
    """

    def __init__(
        self, noise: Noise, shape: Sequence[int] | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self._noise = noise
        self._shape = shape
        self._device = device

    def at(self, draw: int) -> Tensor | Draw:
        return self._draw(draw, "")

    def known(self, draw: int) -> Tensor | Draw:
        return self._draw(draw, ".known")

    def between(self, draw: int, here: NoiseLevel, there: NoiseLevel) -> Tensor | Draw:
        return self.at(draw)

    def _draw(self, draw: int, use: str) -> Tensor | Draw:
        noise = self._noise
        if noise.frames in ("mixed", "progressive", "residual"):
            if self._shape is None:
                raise ValueError(f"noise with {noise.frames} frames needs the shape of the sample; got None")
            return frame_normals(noise, self._shape, draw, use, self._device)
        return Draw(noise.seed, draw, _stream(noise, use), noise.frames == "shared")


class GeneratorNumbers:
    """What `torch.Generator("cpu")` gives, one generator a sample, seeded with seed + i.

    The start is bit-equal to diffusers with a list of generators (and to ComfyUI for one picture);
    later draws go on from there, as a diffusers scheduler's do. A draw that lies behind is reached
    by starting again, so a resumed run gets the same numbers.
    """

    def __init__(self, noise: Noise, shape: tuple[int, ...], device: str | torch.device) -> None:
        self._noise = noise
        self._shape = shape
        self._device = device
        self._known = CounterNumbers(noise, shape, device)
        self._restart()

    def at(self, draw: int) -> Tensor:
        if draw < self._next:
            self._restart()
        while self._next < draw:
            self._draw()
        return self._draw()

    def known(self, draw: int) -> Tensor | Draw:
        return self._known.known(draw)

    def between(self, draw: int, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        return self.at(draw)

    def _restart(self) -> None:
        self._next = 0
        self._generators = [
            torch.Generator("cpu").manual_seed(self._noise.seed + i) for i in range(self._shape[0])
        ]

    def _draw(self) -> Tensor:
        self._next += 1
        drawn = _frames_related(self._noise, self._shape, self._randn)
        return drawn.expand(self._shape).to(self._device)

    def _randn(self, shape: Sequence[int], shared: bool) -> Tensor:
        return torch.stack([torch.randn(tuple(shape[1:]), generator=g) for g in self._generators])


class CopiedNumbers:
    """The numbers of a smaller batch of `shape`, each sample's `copies` times in a row."""

    def __init__(self, numbers: Numbers, shape: tuple[int, ...], copies: int, device: str | torch.device) -> None:
        self._numbers = numbers
        self._shape = shape
        self._copies = copies
        self._device = device

    def at(self, draw: int) -> Tensor:
        return self._copied(self._numbers.at(draw))

    def known(self, draw: int) -> Tensor:
        return self._copied(self._numbers.known(draw))

    def between(self, draw: int, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        return self._copied(self._numbers.between(draw, here, there))

    def _copied(self, numbers: Tensor | Draw) -> Tensor:
        if isinstance(numbers, Draw):
            numbers = numbers.normals(self._shape, device=self._device)
        return numbers.repeat_interleave(self._copies, dim=0)


def numbers_of(noise: Noise, shape: tuple[int, ...], device: str | torch.device = "cpu") -> Numbers:
    """The numbers of a noise value for a run on tensors of `shape`, [B, ...].

    Raises: UserError: a batch that is no multiple of the noise's copies.
    """
    if noise.copies > 1:
        if shape[0] % noise.copies:
            raise UserError(f"noise with {noise.copies} copies wants batches of a multiple, got {shape[0]}")
        some = (shape[0] // noise.copies, *shape[1:])
        return CopiedNumbers(numbers_of(noise.replace(copies=1), some, device), some, noise.copies, device)
    if noise.kind == "torch":
        return GeneratorNumbers(noise, shape, device)
    if noise.kind == "brownian":
        from mezzotint_sampling.brownian import BrownianNumbers

        return BrownianNumbers(noise, shape, device)
    return CounterNumbers(noise, shape, device)


def frame_normals(
    noise: Noise, shape: Sequence[int], step: int, use: str = "", device: str | torch.device = "cpu"
) -> Tensor:
    """Counter-based normals [B, ...] float32 whose frames relate as `noise` says.

    step: a 32-bit number. use: is added to the stream's name, and keeps uses of one noise apart.
    """

    def drawn(wanted: Sequence[int], shared: bool) -> Tensor:
        stream = _stream(noise, use + ".shared" * shared)
        return Draw(noise.seed, step, stream).normals(tuple(wanted), device=device)

    return _frames_related(noise, shape, drawn).expand(tuple(shape))


def starting_point(latents: Tensor, level: NoiseLevel, numbers: Numbers) -> Tensor:
    """alpha * latents + sigma * noise at `level`, in the dtype of the latents.

    Latents that are zero throughout hold no picture. A picture of unit variance is assumed in their
    place, so the start is sqrt(alpha^2 + sigma^2) * noise: variance 1 in a variance-preserving
    schedule, as in diffusers and ComfyUI.
    """
    noise = numbers.at(0)
    if isinstance(noise, Draw):
        noise = noise.normals(latents.shape, device=latents.device)
    noise = noise.to(latents)
    if not torch.any(latents):
        return noise * math.hypot(level.alpha, level.sigma)
    return latents * level.alpha + noise * level.sigma


def _frames_related(noise: Noise, shape: Sequence[int], drawn: Callable[[Sequence[int], bool], Tensor]) -> Tensor:
    """Numbers of `shape`, or of one frame if all are to have that one's.

    drawn: gives independent numbers of a shape; its second argument asks for the part that frames
    share. Source of the two mixtures: Ge et al. 2023, "Preserve your own correlation",
    with alpha^2 / (1 + alpha^2) = correlation in the mixed model, its square in the progressive one.
    A picture is a clip of one frame, and the first frame of every longer one.
    """
    one = [*shape[:2], 1, *shape[3:]] if len(shape) == 5 else list(shape)
    if noise.frames == "shared":
        return drawn(one, False)
    own = drawn(shape, False)
    root, rest = math.sqrt(noise.correlation), math.sqrt(1 - noise.correlation)
    if noise.frames == "mixed":
        return drawn(one, True) * root + own * rest
    if noise.frames == "residual" and len(shape) == 5:
        return _around_the_middle(drawn(one, True), own, root, rest)
    if noise.frames == "progressive" and len(shape) == 5:
        return _chained(own, noise.correlation)
    return own


def _around_the_middle(shared: Tensor, own: Tensor, root: float, rest: float) -> Tensor:
    """The decomposition of Luo et al. 2023, "VideoFusion", eq. 6: the base frame's noise, and residuals to it."""
    made = shared * root + own * rest
    middle = own.shape[2] // 2
    return torch.cat([made[:, :, :middle], shared, made[:, :, middle + 1 :]], dim=2)


def _chained(own: Tensor, correlation: float) -> Tensor:
    """Each frame follows from the one before: eps_f = c eps_(f-1) + sqrt(1 - c^2) own_f."""
    fresh = math.sqrt(1 - correlation**2)
    frames = [own[:, :, 0]]
    for frame in own.unbind(2)[1:]:
        frames.append(frames[-1] * correlation + frame * fresh)
    return torch.stack(frames, dim=2)


def _stream(noise: Noise, use: str) -> str:
    return (noise.stream or _STREAM) + use
