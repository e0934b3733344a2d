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
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint_kernels.dispatch import choose

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_NORMAL", "Draw", "normals", "normals_reference", "philox4x32", "sample_keys", "stream_id"]

MAX_NORMAL = 5.7682
"""No number is larger in size: the smallest uniform is 2^-24, and sqrt(-2 log 2^-24) = 5.768."""

_MASK = 0xFFFFFFFF
_FACTORS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_DRAWN = (torch.float16, torch.bfloat16, torch.float32)
_CPU_COUNTERS = 1 << 14
"""Counters handled at once on a CPU."""


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
    Raises: ValueError: the shape has no batch dimension, the dtype is no float, a seed tensor is not
        integers [B], or step or stream does not fit.
    """
    if len(shape) == 0 or min(shape) < 0:
        raise ValueError(
            f"shape must have a batch dimension, [B, ...], and sizes of 0 or more; got {tuple(shape)}"
        )
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a float dtype; got {dtype}")
    if not 0 <= step <= _MASK:
        raise ValueError(f"step must be in 0..2^32-1; got {step}")
    number = stream_id(stream)
    if not torch.compiler.is_compiling():
        drawn = dtype if dtype in _DRAWN else torch.float32
        choice = choose("normals", torch.empty(0, dtype=drawn, device=device), obstacle=_obstacle(shape))
        if choice.backend != "torch":
            from mezzotint_kernels.philox_launch import launch_normals

            out = torch.empty(tuple(shape), dtype=drawn, device=device)
            return launch_normals(choice.tile, out, seed, step, number).to(dtype)
    return normals_reference(seed, shape, step=step, stream=number, device=device, dtype=dtype)


def normals_reference(
    seed: int | Tensor,
    shape: Sequence[int],
    *,
    step: int = 0,
    stream: str | int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """`normals` in plain torch, on any device."""
    batch, frames, size = _layout(shape)
    keys = sample_keys(seed, batch, torch.device(device))
    rows = _rows(keys, frames, size, step, stream_id(stream)).to(dtype)
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
    c0, c1, c2, c3, k0, k1 = torch.broadcast_tensors(*counter, *key)
    even, odd = torch.stack((c0, c2)), torch.stack((c1, c3))
    _philox(even, odd, torch.stack((k0, k1)), rounds)
    return even[0], odd[0], even[1], odd[1]


def _philox(even: Tensor, odd: Tensor, key: Tensor, rounds: int = 10) -> None:
    """Counters to words, in place: even (c0, c2) and odd (c1, c3), int64 [2, ...]; key [2, ...] broadcasts."""
    ones = [1] * (even.dim() - 1)
    factor = torch.tensor(_FACTORS, device=even.device).view(2, *ones)
    weyl = torch.tensor(_WEYL, device=even.device).view(2, *ones)
    number = torch.arange(rounds, device=even.device).view(rounds, 1, *ones)
    product = torch.empty_like(even)
    (c0, c2), (c1, c3), (left, right) = even.unbind(), odd.unbind(), product.unbind()
    for round_key in ((key + number * weyl) & _MASK).unbind():
        # The product wraps modulo 2^64 in int64; both halves are still right.
        torch.mul(even, factor, out=product)
        torch.bitwise_xor(odd, round_key, out=even)
        torch.bitwise_and(right, _MASK, out=c1)
        torch.bitwise_and(left, _MASK, out=c3)
        product >>= 32
        c0 ^= right
        c2 ^= left
        even &= _MASK


def _obstacle(shape: Sequence[int]) -> str | None:
    size = math.prod(shape[1:])
    return f"{size} numbers a sample; the kernel takes 2^30" if size > 2**30 else None


def _layout(shape: Sequence[int]) -> tuple[int, int, int]:
    """Batch size, frames, and numbers in one frame of one sample."""
    size = 1
    for length in shape[1:]:
        size *= length
    frames = shape[2] if len(shape) == 5 else 1
    return shape[0], frames, size // max(frames, 1)


def sample_keys(seed: int | Tensor, batch: int, device: torch.device) -> Tensor:
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


def _rows(keys: Tensor, frames: int, size: int, step: int, stream: int) -> Tensor:
    """Normals [B * F, size], one row a frame of a sample."""
    device = keys.device
    words = (size + 3) // 4
    out = torch.empty((len(keys) * frames, 4 * words), device=device)
    if out.numel() == 0:
        return out
    key = keys.repeat_interleave(frames)
    key = torch.stack((key & _MASK, (key >> 32) & _MASK))[:, :, None]
    frame = torch.arange(frames, device=device).repeat(len(keys))[:, None]
    # On a CPU in pieces, so that the intermediate tensors stay in its cache.
    most = _CPU_COUNTERS if device.type == "cpu" else out.numel()
    high, wide = max(1, most // words), min(words, most)
    for top in range(0, len(out), high):
        rows = slice(top, top + high)
        for left in range(0, words, wide):
            word = torch.arange(left, min(left + wide, words), device=device)
            even = torch.empty((2, len(frame[rows]), len(word)), dtype=torch.int64, device=device)
            odd = torch.empty_like(even)
            even[0], even[1], odd[0], odd[1] = word, step, frame[rows], stream
            _philox(even, odd, key[:, rows])
            piece = out[rows, 4 * left : 4 * (left + wide)]
            _box_muller(even, odd, piece.view(len(piece), len(word), 2, 2).permute(3, 2, 0, 1))
    return out[:, :size]


def _box_muller(radius_bits: Tensor, angle_bits: Tensor, out: Tensor) -> None:
    """Words, [2, ...] each, to normals, written to out [2, 2, ...]: cosines first."""
    radius = _log_uniform(radius_bits).mul_(-2.0)
    # Through float64: float32 sqrt on a CPU is not correctly rounded in every build of torch.
    radius = radius.double().sqrt_().float()
    cosine, sine = _cosine_sine(angle_bits.to(torch.int32))
    torch.mul(radius, cosine, out=out[0])
    torch.mul(radius, sine, out=out[1])


def _log_uniform(bits: Tensor) -> Tensor:
    """log(u) in float32, u = (2 k + 1) / 2^24, k the top 23 of 32 bits. After Cephes' logf."""
    # Exact: k has 23 bits and the half fills the 24th.
    u = (bits >> 9).to(torch.float32).mul_(2.0**-23).add_(2.0**-24)
    pattern = u.view(torch.int32)
    # The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    exponent = (pattern - 0x3F3504F3) >> 23
    e = exponent.to(torch.float32)
    pattern -= exponent << 23
    f = u.sub_(1.0)
    z = f * f
    y = f * _LOG[0]
    for coefficient in _LOG[1:-1]:
        y.add_(coefficient).mul_(f)
    y.add_(_LOG[-1]).mul_(f).mul_(z)
    y += e * -2.12194440e-4
    y -= z.mul_(0.5)
    return f.add_(y).add_(e.mul_(0.693359375))


def _cosine_sine(bits: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of a uniform angle, by Cephes' polynomials; bits: int32.

    The top two of 32 bits are the quadrant, the next 24 the place in it.
    """
    t = ((bits & 0x3FFFFFFF) >> 6).sub_(0x800000).to(torch.float32)
    t *= 9.362675e-08  # (pi / 2) 2^-24: t lies in [-pi/4, pi/4)
    w = t * t
    s = (w * _SIN[0]).add_(_SIN[1]).mul_(w).add_(_SIN[2]).mul_(w).mul_(t).add_(t)
    c = (w * _COS[0]).add_(_COS[1]).mul_(w).add_(_COS[2]).mul_(w).mul_(w)
    c.sub_(w.mul_(0.5)).add_(1.0)
    # Selects by bits: odd quadrants exchange the two, and the sign bit comes from the quadrant.
    s, c = s.view(torch.int32), c.view(torch.int32)
    exchange = (s ^ c).bitwise_and_((bits << 1) >> 31)
    c ^= exchange
    s ^= exchange
    c ^= (bits + 0x40000000) & -0x80000000
    s ^= bits & -0x80000000
    return c.view(torch.float32), s.view(torch.float32)


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
