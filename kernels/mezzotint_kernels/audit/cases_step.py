"""What the audit compiles of the sampling step and its normals, of pictures and clips, with every feature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.coefficients import Coefficients
from mezzotint_kernels.philox import Draw
from mezzotint_kernels.philox_launch import normals_arguments
from mezzotint_kernels.step import MOMENTS_BLOCK
from mezzotint_kernels.step_launch import factor_arguments, moments_arguments, step_arguments
from mezzotint_kernels.tiles import Tile

__all__ = ["cases"]

_STEP = "mezzotint_kernels._triton.step"
_IMAGE = (4, 4, 64, 64)
_CLIP = (2, 4, 16, 64, 64)
_PIXELS = (2, 3, 256, 256)
_DDIM = Coefficients(cg=0.3, c0=0.9, ax=1.1, am=-0.4)
_DDPM = Coefficients(cx=0.6, c0=0.4, cz=0.1, ax=1.1, am=-0.4, lo=-1.0, hi=1.0)
_DPM = Coefficients(cx=0.5, c0=0.4, ch=(0.2,), ax=1.1, am=-0.4)
_FULL = Coefficients(
    cx=0.7, cg=-0.2, c0=0.4, ch=(0.3, -0.1, 0.05), cz=0.6, ax=1.3, am=-0.8, lo=-1.0, hi=1.0, k0=0.9, kz=0.35
)


@dataclass(frozen=True)
class Use:
    """One step: x's shape and dtype, the model's dtype, how many outputs, the row, and what else it is given."""

    what: str
    shape: tuple[int, ...]
    row: Coefficients
    outputs: int = 2
    dtype: torch.dtype = torch.float32
    model: torch.dtype = torch.float16
    blend: bool = False
    rescale: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.what}, {'x'.join(map(str, self.shape))}"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def tensor(self, dtype: torch.dtype | None = None, *, channels: int | None = None) -> Tensor:
        shape = self.shape if channels is None else (self.shape[0], channels, *self.shape[2:])
        return torch.empty(shape, dtype=dtype or self.dtype, device="meta")

    def arguments(self, tile: Tile, arch: str) -> dict[str, Any]:
        """As the launcher has them, the factor of the rescaling too."""
        given: dict[str, Any] = {
            "weights": (2.0, -1.5, 0.3, 0.2)[: self.outputs], "rescale": self.rescale,
            "history": [self.tensor() for _ in self.row.ch], "noise": Draw(1) if self.row.cz else None,
            "mask": self.tensor(torch.bool, channels=1) if self.blend else None,
            "known": self.tensor() if self.blend else None, "known_noise": Draw(2), "out_dtype": None,
            "next_dtype": None,
        }  # fmt: skip
        models = [self.tensor(self.model) for _ in range(self.outputs)]
        found = step_arguments(tile, self.tensor(), models, self.row, **given | dict(self.options))
        if self.rescale:
            found["p_factor"] = torch.empty(self.shape[0], device="meta")
        return found


_USES = (
    Use("DDIM", _IMAGE, _DDIM),
    Use("DDIM, float16 throughout", _IMAGE, _DDIM, dtype=torch.float16),
    Use("DDPM, noise in registers", _IMAGE, _DDPM),
    Use("DPM-Solver++ 2M, rescaled guidance", _IMAGE, _DPM, rescale=0.7),
    Use("DDPM on pixels, next input", _PIXELS, Coefficients(cx=0.6, c0=0.4, cz=0.1, ax=1.1, am=-0.4),
        options={"next_dtype": torch.float16}),
    Use("Euler ancestral on a clip", _CLIP, Coefficients(cx=0.5, c0=0.5, cz=0.2, am=-9.0, ax=1.0)),
    Use("everything, on a clip", _CLIP, _FULL, 4, blend=True, rescale=0.7, options={"next_dtype": torch.float16}),
    Use("everything, frames of an odd size", (2, 4, 16, 31, 31), _FULL, 4, model=torch.float32, blend=True),
)  # fmt: skip


def cases() -> list[Case]:
    """Steps of all kinds, the sums for rescaled guidance, and normals alone."""
    normals = [_normals(shape, dtype) for shape in (_IMAGE, _CLIP) for dtype in (torch.float32, torch.float16)]
    return [*map(_step, _USES), *(_moments(use) for use in _USES if use.rescale), _factor(_USES[3]), *normals]


def _step(use: Use) -> Case:
    fewest = _step_bytes(use)
    return Case(
        op="noise_step",
        label=use.label,
        kernel="noise_step",
        head_dim=0,
        function=f"{_STEP}:_step_kernel",
        arguments=use.arguments,
        grid=lambda tile: use.shape[0] * -(-use.size // use.shape[0] // tile.rows),
        has_dot=False,
        reproducible=True,
        fewest_bytes=fewest,
        # Beside the tensors, each program reads its row of 20 numbers, which stays in the caches.
        moved_bytes=lambda tile: fewest + _mask_again(use),
        eager_bytes=_eager_bytes(use),
        ci=use == _USES[2],
    )


def _arrays(use: Use) -> int:
    """Bytes of x, the outputs, the history and the known picture."""
    narrow = use.size * use.dtype.itemsize
    return narrow * (1 + len(use.row.ch) + use.blend) + use.size * use.model.itemsize * use.outputs


def _step_bytes(use: Use) -> int:
    mask = use.size // use.shape[1] if use.blend else 0
    return _arrays(use) + mask + 2 * use.size * use.dtype.itemsize + _next_bytes(use)


def _next_bytes(use: Use) -> int:
    return use.size * 2 if "next_dtype" in use.options else 0


def _mask_again(use: Use) -> int:
    """The mask is asked for once a channel, and all but the first time the L2 cache has it. One byte: a float32
    mask would make it 1.08 times the fewest bytes here, in what is asked of that cache and not of memory."""
    return use.size - use.size // use.shape[1] if use.blend else 0


def _eager_bytes(use: Use) -> int:
    """Of the reference on a GPU: a product reads and writes 4 bytes, a sum in place reads 8 and writes 4."""
    wide = [
        use.outputs * (use.model != torch.float32),
        (1 + len(use.row.ch) + use.blend) * (use.dtype != torch.float32),
    ]
    casts = (wide[0] * (use.model.itemsize + 4) + wide[1] * (use.dtype.itemsize + 4)) * use.size
    row = use.row
    terms = use.outputs + sum(map(bool, (row.ax, row.am, row.cx, row.cg, row.c0, row.cz, *row.ch)))
    sums = terms - 3
    if use.blend:
        terms, sums = terms + 4, sums + 2
    clamp = 16 if row.lo != -math.inf else 0
    ends = 2 * (4 + use.dtype.itemsize) if use.dtype != torch.float32 else 0
    following = 8 + 6 if "next_dtype" in use.options else 0
    return casts + use.size * (8 * terms + 12 * sums + clamp + ends + following)


def _moments(use: Use) -> Case:
    per_sample = use.size // use.shape[0]
    return Case(
        op="noise_step",
        label=f"moments for rescaling, {use.outputs} outputs, {'x'.join(map(str, use.shape))}",
        kernel="guidance_moments",
        head_dim=0,
        function=f"{_STEP}:_moments_kernel",
        arguments=lambda tile, arch: moments_arguments(use.arguments(tile, arch), use.shape[0]),
        grid=lambda tile: use.shape[0] * -(-per_sample // MOMENTS_BLOCK),
        has_dot=False,
        reproducible=True,
        fewest_bytes=use.size * use.model.itemsize * use.outputs,
    )


def _factor(use: Use) -> Case:
    parts = -(-use.size // use.shape[0] // MOMENTS_BLOCK)

    def arguments(tile: Tile, arch: str) -> dict[str, Any]:
        step = use.arguments(tile, arch)
        return factor_arguments(step, moments_arguments(step, use.shape[0]))

    return Case(
        op="noise_step",
        label=f"factor for rescaling, {parts} blocks",
        kernel="guidance_moments",
        head_dim=0,
        function=f"{_STEP}:_factor_kernel",
        arguments=arguments,
        grid=lambda tile: use.shape[0],
        has_dot=False,
        reproducible=True,
        fewest_bytes=use.shape[0] * parts * 16,
    )


def _normals(shape: tuple[int, ...], dtype: torch.dtype) -> Case:
    size = math.prod(shape)
    return Case(
        op="normals",
        label=f"{'x'.join(map(str, shape))}, {str(dtype).removeprefix('torch.')}",
        kernel="normals",
        head_dim=0,
        function="mezzotint_kernels._triton.philox:_normals_kernel",
        arguments=partial(_normals_arguments, shape, dtype),
        grid=lambda tile: shape[0] * -(-size // shape[0] // tile.rows),
        has_dot=False,
        reproducible=True,
        fewest_bytes=size * dtype.itemsize,
        ci=shape == _IMAGE and dtype == torch.float32,
    )


def _normals_arguments(shape: tuple[int, ...], dtype: torch.dtype, tile: Tile, arch: str) -> Mapping[str, Any]:
    return normals_arguments(tile, torch.empty(shape, dtype=dtype, device="meta"), 1, 0, 0)
