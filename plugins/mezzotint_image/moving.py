"""A clip as one of Pillow's moving pictures, whose frames are made when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image as Pillow

from mezzotint_image.pixels import to_pillow

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["moving"]


class _Moving(Pillow.Image):
    """As Pillow's own readers are: `seek` puts a frame in the picture's place."""

    def __init__(self, clip: Tensor) -> None:
        super().__init__()
        self._clip = clip
        self.n_frames = len(clip)
        self.is_animated = self.n_frames > 1
        self.seek(0)

    def seek(self, frame: int) -> None:
        if not 0 <= frame < self.n_frames:
            raise EOFError("no more frames")
        shown = to_pillow(self._clip[frame])
        self.im, self._mode, self._size = shown.im, shown.mode, shown.size
        self._frame = frame

    def tell(self) -> int:
        return self._frame


def moving(clip: Tensor) -> Pillow.Image:
    """A clip [F, H, W, C], 0..1, of which one frame at a time is a picture of 8 bits."""
    return _Moving(clip)
