"""Counter-based normal numbers: the same bits on every device, in any batch, fresh or resumed.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") makes random words
from a key and a counter; Box and Muller's transform makes normals from them. Beside selects and bit
operations, only what IEEE 754 rounds correctly is used (+, -, *, sqrt), so that a GPU kernel can
repeat the numbers to the last bit.

    key       the sample's own 64-bit seed: seed + i for sample i of a batch
    counter   (element // 4 within one frame, frame, step, stream)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_NORMAL", "Draw", "normals", "philox4x32", "stream_id"]

MAX_NORMAL = 5.7682
"""No number is larger in size: the smallest uniform is 2^-24, and sqrt(-2 log 2^-24) = 5.768."""

_MASK = 0xFFFFFFFF
_WEYL = (0x9E3779B9, 0xBB67AE85)
_CPU_COUNTERS = 1 << 14
"""Counters handled at once on a CPU, so that the intermediate tensors stay in its cache."""


@dataclass(frozen=True)
class Draw:
    """Noise as a description: which numbers to draw, for whoever draws them.

    A kernel draws them in registers. seed, step, stream: as in `normals`.
    shared_frames: every frame of a clip gets the numbers of frame 0.
    """

    seed: int | Tensor
    step: int = 0
    stream: str | int = 0
    shared_frames: bool = False

    def normals(
        self,
        shape: Sequence[int],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The numbers, as a tensor of `shape`."""
        drawn = list(shape)
        if self.shared_frames and len(drawn) == 5:
            drawn[2] = 1
        numbers = normals(self.seed, drawn, step=self.step, stream=self.stream, device=device, dtype=dtype)
        return numbers.expand(tuple(shape))


def normals(
    seed: int | Tensor,
    shape: Sequence[int],
    *,
    step: int = 0,
    stream: str | int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal numbers of `shape`, [B, ...]; the same bits on every device.

    seed: 64 bits (negative numbers and larger ones wrap). An int keys sample i of the batch with
        seed + i; an integer tensor [B] gives each sample its own key as it is.
    shape: [B, ...]. In [B, C, F, H, W] frame f gets the numbers that frame f of any longer clip
        gets, and a clip of one frame those of the picture [B, C, H, W].
    step, stream: 32 bits each; a stream named by a string is its `stream_id`.
    dtype: drawn as float32 and rounded once; every |z| < `MAX_NORMAL`.
    Raises: ValueError: the shape has no batch dimension, a seed tensor is not integers [B], or
        step or stream does not fit.
    """
    if len(shape) == 0:
        raise ValueError("shape must have a batch dimension, [B, ...]; got ()")
    if not 0 <= step <= _MASK:
        raise ValueError(f"step must be in 0..2^32-1; got {step}")
    batch, frames, size = _layout(shape)
    keys = _keys(seed, batch, torch.device(device))
    words = (size + 3) // 4
    rows = _rows(keys, frames, words, step, stream_id(stream))[:, :size].to(dtype)
    if len(shape) == 5:
        _, channels, _, height, width = shape
        return rows.view(batch, frames, channels, height, width).transpose(1, 2).contiguous()
    return rows.reshape(tuple(shape))


def stream_id(stream: str | int) -> int:
    """The 32-bit number of a stream: a name's is the start of its SHA-256; a number is itself."""
    if isinstance(stream, str):
        return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4], "little")
    if not 0 <= stream <= _MASK:
        raise ValueError(f"stream must be in 0..2^32-1; got {stream}")
    return stream


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor], rounds: int = 10
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32: four random 32-bit words a counter.

    All tensors are int64 and hold values in 0..2^32-1; they broadcast.
    Source: Salmon et al. 2011, section 3.3; equal to Random123's `philox4x32`.
    """
    c0, c1, c2, c3 = counter
    low, high = (_round_keys(k, step, rounds) for k, step in zip(key, _WEYL, strict=True))
    for k0, k1 in zip(low, high, strict=True):
        # The product wraps modulo 2^64 in int64; both halves are still right.
        left, right = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = ((right >> 32) & _MASK) ^ c1 ^ k0, right & _MASK
        c2, c3 = ((left >> 32) & _MASK) ^ c3 ^ k1, left & _MASK
    return c0, c1, c2, c3


def _round_keys(key: Tensor, step: int, rounds: int) -> tuple[Tensor, ...]:
    """One half of the key for each round: a Weyl sequence, worked out at once."""
    number = torch.arange(rounds, device=key.device).view(-1, *[1] * key.dim())
    return ((key + number * step) & _MASK).unbind()


def _layout(shape: Sequence[int]) -> tuple[int, int, int]:
    """Batch size, frames, and numbers in one frame of one sample."""
    size = 1
    for length in shape[1:]:
        size *= length
    frames = shape[2] if len(shape) == 5 else 1
    return shape[0], frames, size // max(frames, 1)


def _keys(seed: int | Tensor, batch: int, device: torch.device) -> Tensor:
    """The 64-bit key of each sample, as int64 bit patterns [B]."""
    if isinstance(seed, Tensor):
        if seed.shape != (batch,) or seed.is_floating_point():
            raise ValueError(
                f"a seed tensor must hold integers and have shape ({batch},); "
                f"got {seed.dtype} of shape {tuple(seed.shape)}"
            )
        return seed.to(device=device, dtype=torch.int64)
    wrapped = [(seed + i) % 2**64 for i in range(batch)]
    signed = [key - 2**64 if key >= 2**63 else key for key in wrapped]
    return torch.tensor(signed, dtype=torch.int64, device=device)


def _rows(keys: Tensor, frames: int, words: int, step: int, stream: int) -> Tensor:
    """Normals [B * F, 4 * words], one row a frame of a sample."""
    device = keys.device
    key = keys.repeat_interleave(frames)[:, None]
    frame = torch.arange(frames, device=device).repeat(len(keys))[:, None]
    word = torch.arange(words, device=device)[None, :]
    step_word = torch.tensor(step, device=device)
    stream_word = torch.tensor(stream, device=device)
    chunk = max(1, _CPU_COUNTERS // max(words, 1)) if device.type == "cpu" else max(len(key), 1)
    parts = [
        _box_muller(*philox4x32((word, f, step_word, stream_word), (k & _MASK, (k >> 32) & _MASK)))
        for k, f in zip(torch.split(key, chunk), torch.split(frame, chunk), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _box_muller(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Words, each [rows, words], to normals [rows, 4 * words]: a and b make two, c and d two."""
    radius_bits = torch.stack((a, c), dim=-1)
    angle_bits = torch.stack((b, d), dim=-1)
    log_u = _log_uniform(radius_bits)
    # Through float64: float32 sqrt on a CPU is not correctly rounded in every build of torch.
    radius = torch.sqrt((log_u * -2.0).double()).float()
    cosine, sine = _cosine_sine(angle_bits)
    return torch.stack((radius * cosine, radius * sine), dim=-1).flatten(1)


def _log_uniform(bits: Tensor) -> Tensor:
    """log(u) in float32, u = (2 k + 1) / 2^24, k the top 23 of 32 bits. After Cephes' logf."""
    u = ((bits >> 9) * 2 + 1).to(torch.float32) * 2.0**-24
    pattern = u.view(torch.int32)
    # The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    exponent = (pattern - 0x3F3504F3) >> 23
    f = (pattern - (exponent << 23)).view(torch.float32) - 1.0
    z = f * f
    y = f * _LOG[0] + _LOG[1]
    for coefficient in _LOG[2:]:
        y = y * f + coefficient
    e = exponent.to(torch.float32)
    y = y * f * z + e * -2.12194440e-4
    y = y - z * 0.5
    return (f + y) + e * 0.693359375


def _cosine_sine(bits: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of a uniform angle, by Cephes' polynomials.

    The top two of 32 bits are the quadrant, the next 24 the place in it.
    """
    place = (((bits & 0x3FFFFFFF) >> 6) - 0x800000).to(torch.float32)
    t = place * 9.362675e-08  # (pi / 2) 2^-24: t lies in [-pi/4, pi/4)
    w = t * t
    s = ((w * _SIN[0] + _SIN[1]) * w + _SIN[2]) * w * t + t
    c = ((w * _COS[0] + _COS[1]) * w + _COS[2]) * w * w - w * 0.5 + 1.0
    quadrant = bits >> 30
    odd = (quadrant & 1) == 1
    cosine, sine = torch.where(odd, s, c), torch.where(odd, c, s)
    cosine = torch.where((quadrant == 1) | (quadrant == 2), -cosine, cosine)
    return cosine, torch.where(quadrant >= 2, -sine, sine)


_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
