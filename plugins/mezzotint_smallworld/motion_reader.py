"""The moving small world as training data: clips by index, drawn when they are read."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mezzotint_smallworld.moving import MOTIONS
from mezzotint_smallworld.scene import COLOURS, SHAPES

if TYPE_CHECKING:
    from mezzotint import Context, Dataset
    from mezzotint_smallworld.moving import MovingScene

__all__ = ["ClipReader", "open_clips"]


class ClipReader:
    """Items of a data set that `smallworld.clip_dataset` describes.

    frames: how many each clip has. class_names: what the items' "classes" are, in the order of their numbers.
    """

    class_names: ClassVar = {"motion": MOTIONS, "shape": SHAPES, "colour": tuple(COLOURS)}

    def __init__(self, config: Mapping[str, Any], length: int) -> None:
        self.config = config
        self.length = length
        self.frames = int(config["frames"])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One clip.

        "clip": [F, 64, 64, 3] uint8. "fps": float. "caption": str, varied. "image": [64, 64, 3] uint8, its first
        frame. "depth": [F, 64, 64] uint8, 0 the ground and 255 the nearest. "classes": by the names of
        `class_names` a number for each thing.
        """
        from mezzotint_smallworld.motion_captions import motion_caption
        from mezzotint_smallworld.motion_draw import draw_clip

        scene, seed = self.scene(index)
        fps = self.fps(index)
        drawn = draw_clip(scene, self.frames, self.frames / fps if self.frames > 1 else 1.0)
        return {
            "clip": drawn.video, "fps": fps, "caption": motion_caption(scene, seed), "image": drawn.video[0],
            "depth": drawn.depth, "classes": self._classes(scene),
        }  # fmt: skip

    def _classes(self, scene: MovingScene) -> dict[str, list[int]]:
        """Of each thing the motion, and the shape and the colour of the first frame."""
        said = [
            {"motion": one.motion, "shape": one.thing.shape, "colour": one.thing.colour} for one in scene.things
        ]
        return {name: [known.index(each[name]) for each in said] for name, known in self.class_names.items()}

    def worded(self, index: int) -> dict[str, Any]:
        """The caption and the classes of a clip alone, without drawing; beyond the end there are more."""
        from mezzotint_smallworld.motion_captions import motion_caption

        scene, seed = self.scene(index)
        return {"caption": motion_caption(scene, seed), "classes": self._classes(scene)}

    def caption(self, index: int) -> str:
        """The caption alone, without drawing."""
        from mezzotint_smallworld.motion_captions import motion_caption

        return motion_caption(*self.scene(index))

    def fps(self, index: int) -> float:
        """Frames per second of a clip: one of the data set's rates."""
        seed = int(self.config["seed"]) + index
        rates = self.config["fps"] or [self.frames]
        return float(random.Random(f"fps/{seed}").choice(rates))

    def scene(self, index: int) -> tuple[MovingScene, int]:
        """What a clip shows, and its seed."""
        from mezzotint_smallworld.moving import sample_moving_scene

        seed = int(self.config["seed"]) + index
        named = {name: self.config[name] for name in ("things", "motions", "split")}
        return sample_moving_scene(seed, **named), seed


def open_clips(dataset: Dataset, ctx: Context) -> ClipReader:
    """The loader of reader "smallworld.clips"."""
    return ClipReader(dataset.config, dataset.length)
