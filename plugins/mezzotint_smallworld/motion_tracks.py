"""Objects followed over a clip's frames: where each is, how large, in what colour and how far turned.

Each frame is read on its own by checker.py; what is alike and near in the next frame is the same object. A turn is
found by the outline's polar picture around its centroid, shifted against that of the first frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from mezzotint_smallworld.checker import (
    SAME_SHAPE,
    Reading,
    SeenGround,
    describe,
    measure,
    nearest_shape,
    objects,
)
from mezzotint_smallworld.moving import ROUND

__all__ = ["ReadFrames", "Track", "fitted", "read_frames"]

Floats = NDArray[np.float64]

MOST: Final = 3  # objects that are followed, the largest
LASTING: Final = 0.6  # share of the frames that an object is found in
LOST: Final = 30.0  # cost from which two objects of two frames are not the same one
BEARINGS: Final = 120  # directions of the polar picture, 3 degrees apart
TURN_AT_ONCE: Final = 32.0  # degrees between two frames; a star looks the same after 72
ROUND_ENOUGH: Final = 0.004  # variance over bearings below which an outline shows no turn


@dataclass(frozen=True, slots=True)
class Track:
    """One object over the frames in which it was found.

    frames: [N] their numbers. centres: [N, 2] (x, y) of the middle of its box, pixels. radii: [N] nominal, pixels.
    colours: [N, 3] 0..255. angles: [N] degrees clockwise from the first. shape: the commonest name, None if most
    are too far from all known. shapes: the name in each frame, the turn undone. coverages: [N, 64, 64] in 0..1.
    """

    frames: NDArray[np.int64]
    centres: Floats
    radii: Floats
    colours: Floats
    angles: Floats
    shape: str | None
    shapes: tuple[str | None, ...]
    coverages: Floats


@dataclass(frozen=True, slots=True)
class ReadFrames:
    """grounds: of each frame. counts: objects and blots in each. first: the first frame as a
    picture of what is followed.

    tracks: largest first.
    """

    grounds: tuple[SeenGround, ...]
    counts: tuple[int, ...]
    first: Reading
    tracks: tuple[Track, ...]


@dataclass(frozen=True, slots=True)
class _Blob:
    coverage: Floats
    colour: Floats
    centroid: tuple[float, float]
    area: float


def read_frames(clip: ArrayLike) -> ReadFrames:
    """Find and follow a clip's objects. clip: [F, 64, 64, 3] uint8.

    Raises: ValueError: no frames, frames of another size or dtype.
    """
    frames = np.asarray(clip)
    if frames.ndim != 4 or not len(frames):
        raise ValueError(
            f"read_frames: wanted a clip [F, 64, 64, 3] of at least one frame, got {list(frames.shape)}"
        )
    found = [objects(frame) for frame in frames]
    blobs = [[_blob(*one) for one in seen] for _, seen in found]
    counts = [len(seen) for seen in blobs]
    chains = _follow(blobs, min(MOST, int(np.median(counts))))
    # A blot here and there is no object; it is in `counts`.
    chains = [chain for chain in chains if len(chain) >= LASTING * len(blobs)]
    shown = [(blob.coverage, blob.colour) for chain in chains for index, blob in chain if index == 0]
    tracks = [_track(chain) for chain in chains]
    return ReadFrames(
        tuple(ground for ground, _ in found),
        tuple(counts),
        describe(found[0][0], sorted(shown, key=lambda blob: -blob[0].sum())),
        tuple(sorted(tracks, key=lambda track: -track.radii.mean())),
    )


def fitted(times: Floats, values: Floats, other: Floats | None = None) -> Floats:
    """Least-squares values, [N] or [N, D] as given: a line at the times, or a line and a share of `other`."""
    columns = [np.ones_like(times), times, *([] if other is None else [other])]
    design = np.stack(columns, axis=1)
    found: Floats = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return found


def _blob(coverage: Floats, colour: Floats) -> _Blob:
    y, x = (float(part) + 0.5 for part in ndimage.center_of_mass(coverage))
    return _Blob(coverage, colour, (x, y), float(coverage.sum()))


def _follow(blobs: Sequence[Sequence[_Blob]], count: int) -> list[list[tuple[int, _Blob]]]:
    """The objects of each frame in chains of (frame, object), from a frame that has as many as there are."""
    if not count:
        return []
    start = next(index for index, seen in enumerate(blobs) if len(seen) >= count)
    chains = [[(start, blob)] for blob in blobs[start][:count]]
    for order, end in ((range(start + 1, len(blobs)), -1), (range(start - 1, -1, -1), 0)):
        for index in order:
            seen: list[_Blob | None] = [*blobs[index][: MOST + 1], *[None] * count]
            last = [chain[end][1] for chain in chains]
            best = min(permutations(seen, count), key=lambda chosen: sum(map(_cost, last, chosen)))
            for chain, blob in zip(chains, best, strict=True):
                if blob is not None:
                    chain.insert(0 if end == 0 else len(chain), (index, blob))
    return chains


def _cost(before: _Blob, after: _Blob | None) -> float:
    if after is None:
        return LOST
    far = np.hypot(before.centroid[0] - after.centroid[0], before.centroid[1] - after.centroid[1])
    other = np.linalg.norm(before.colour - after.colour) / 8
    return float(far + other + 15 * abs(np.log(before.area / after.area)))


def _track(chain: Sequence[tuple[int, _Blob]]) -> Track:
    blobs = [blob for _, blob in chain]
    first, _ = nearest_shape(blobs[0].coverage)
    angles = np.zeros(len(blobs)) if first in ROUND else _angles([_polar(blob) for blob in blobs])
    named = [nearest_shape(blob.coverage, angle) for blob, angle in zip(blobs, angles, strict=True)]
    shapes = [name if miss <= SAME_SHAPE else None for name, miss in named]
    usual = max(sorted(set(shapes), key=str), key=shapes.count)
    measured = [
        measure(blob.coverage, usual or name, angle)
        for blob, (name, _), angle in zip(blobs, named, angles, strict=True)
    ]
    return Track(
        np.array([index for index, _ in chain]),
        np.array([centre for centre, _ in measured]),
        np.array([radius for _, radius in measured]),
        np.stack([blob.colour for blob in blobs]),
        angles,
        usual,
        tuple(shapes),
        np.stack([blob.coverage for blob in blobs]),
    )


def _polar(blob: _Blob) -> Floats:
    """Coverage at 24 distances from the centroid in BEARINGS directions, clockwise, at one scale for all sizes."""
    bearings = np.radians(np.arange(BEARINGS) * 360 / BEARINGS)
    reach = np.linspace(0.1, 1.1, 24)[:, None] * np.sqrt(blob.area)
    x, y = (part - 0.5 for part in blob.centroid)
    where = np.stack([y + reach * np.sin(bearings), x + reach * np.cos(bearings)])
    shown: Floats = ndimage.map_coordinates(blob.coverage, where, order=1) * np.sqrt(reach / reach[-1])
    return shown


def _angles(polars: Sequence[Floats]) -> Floats:
    """Degrees clockwise of each against the first: the best shift near that of the frame before."""
    first = np.fft.rfft(polars[0], axis=1)
    if polars[0].var(axis=1).mean() < ROUND_ENOUGH:
        return np.zeros(len(polars))
    step = 360 / BEARINGS
    angles = [0.0]
    for polar in polars[1:]:
        match = np.fft.irfft(np.conj(first) * np.fft.rfft(polar, axis=1), BEARINGS, axis=1).sum(0)
        near = round(angles[-1] / step) + np.arange(-int(TURN_AT_ONCE / step), int(TURN_AT_ONCE / step) + 1)
        best = int(near[match[near % BEARINGS].argmax()])
        low, high, right = match[(best - 1) % BEARINGS], match[best % BEARINGS], match[(best + 1) % BEARINGS]
        bend = low - 2 * high + right
        angles.append((best + (0.5 * (low - right) / bend if bend < 0 else 0.0)) * step)
    return np.array(angles)
