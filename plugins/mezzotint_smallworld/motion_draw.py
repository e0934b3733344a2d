"""Drawing of moving scenes: clips, with the depth and the masks that belong to them.

Depth follows the size that is seen: things are taken to be of one true size, so that half the radius is twice as
far. What grows comes nearer. Its scale is that of the world and not of the clip: nothing flickers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mezzotint_smallworld.draw import coverage, ground
from mezzotint_smallworld.moving import NEAREST, MovingScene, frames_of
from mezzotint_smallworld.scene import FRAME, Thing

__all__ = ["DrawnClip", "draw_clip"]


class DrawnClip(NamedTuple):
    """video: [F, 64, 64, 3] uint8.
    depth: [F, 64, 64] uint8, 0 the ground, 255 the nearest that there is; at outlines mixed as the colours are.
    masks: [F, things, 64, 64] uint8, 255 where a pixel is covered whole.
    """

    video: NDArray[np.uint8]
    depth: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def draw_clip(scene: MovingScene, frames: int, seconds: float = 1.0) -> DrawnClip:
    """Draw a moving scene. frames, seconds: as in `moving.frames_of`, which raises for both."""
    stills = frames_of(scene, frames, seconds)
    bare = Image.fromarray(ground(scene.background))
    video = np.empty((frames, FRAME, FRAME, 3), dtype=np.uint8)
    depth = np.zeros((frames, FRAME, FRAME), dtype=np.uint8)
    masks = np.zeros((frames, len(scene.things), FRAME, FRAME), dtype=np.uint8)
    for index, still in enumerate(stills):
        picture = bare.copy()
        for which, thing in enumerate(still.things):
            mask, (left, top) = _outline(thing.shape, thing.centre, thing.radius, thing.angle)
            right, bottom = left + mask.width, top + mask.height
            picture.paste(thing.rgb, (left, top, right, bottom), mask)
            covered = np.asarray(mask)
            masks[index, which, top:bottom, left:right] = covered
            near = min(thing.radius / NEAREST, 1.0)
            seen = depth[index, top:bottom, left:right]
            seen[:] = np.maximum(seen, np.rint(near * covered).astype(np.uint8))
        video[index] = np.asarray(picture)
    return DrawnClip(video, depth, masks)


@lru_cache(maxsize=64)
def _outline(
    shape: str, centre: tuple[float, float], radius: float, angle: float
) -> tuple[Image.Image, tuple[int, int]]:
    # Still things, and those that only change their colour, are drawn once a clip.
    return coverage(Thing(shape, "", "", None, centre, radius, (0, 0, 0), angle))
