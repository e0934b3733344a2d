"""The nodes of the moving small world: clips with their captions, and the data set."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from mezzotint import Dataset, UserError, Video, node
from mezzotint_smallworld.moving import MOTIONS

__all__ = ["CLIP_READER", "Clips", "clip_dataset", "clips"]

CLIP_READER = "smallworld.clips"
"""The reader of the data sets that `smallworld.clip_dataset` describes."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Things = Literal[1, 2] | None
Split = Literal["train", "test"]
Frames = Annotated[int, Field(ge=1, le=64)]
Motions = list[str] | None


class Clips(NamedTuple):
    """video: [count, F, 64, 64, 3].
    captions: one per clip.
    """

    video: Video
    captions: list[str]


@node("smallworld.clips")
def clips(
    *,
    seed: Seed = 0,
    count: Annotated[int, Field(ge=1, le=4096)] = 1,
    frames: Frames = 8,
    things: Things = None,
    motions: Motions = None,
    split: Split = "train",
) -> Clips:
    """Draw clips of the small world, one second long, with captions that say everything in the usual order.

    seed: clip i is the scene of seed + i.
    count: how many.
    frames: of each clip, and so its frames per second.
    things: objects per clip; without it one or two.
    motions: which there are, of still, left, right, up, down, clockwise, anticlockwise, growing, shrinking,
    bouncing and changing (its colour); all of them if null.
    split: "test" has only combinations of colour, shape and motion that "train" never has.

    Raises: UserError: a motion that there is none of.
    """
    import numpy
    import torch

    from mezzotint_smallworld.motion_captions import full_motion_caption
    from mezzotint_smallworld.motion_draw import draw_clip
    from mezzotint_smallworld.moving import sample_moving_scene

    chosen = _motions("smallworld.clips", motions)
    scenes = [sample_moving_scene(seed + i, things=things, motions=chosen, split=split) for i in range(count)]
    drawn = numpy.stack([draw_clip(scene, frames).video for scene in scenes])
    video = Video(torch.from_numpy(drawn).float() / 255, float(frames))
    return Clips(video, [full_motion_caption(scene) for scene in scenes])


@node("smallworld.clip_dataset")
def clip_dataset(
    *,
    seed: Seed = 0,
    count: Annotated[int, Field(ge=1, le=10**9)] = 100_000,
    frames: Frames = 8,
    things: Things = None,
    motions: Motions = None,
    split: Split = "train",
    fps: list[Annotated[float, Field(gt=0, le=240)]] | None = None,
) -> Dataset:
    """The moving small world as a data set, drawn when it is read.

    Captions are varied and leave words out, as people do. Each item also has its first frame as "image" and its
    depth.

    seed: clip i is the scene of seed + i.
    count: how many clips.
    frames: of each clip.
    things, motions, split: as in smallworld.clips.
    fps: frame rates, one of which each clip has: it shows the first frames / fps seconds of what happens. The
    number of frames if null, which shows all of it.

    Raises: UserError: a motion that there is none of; a rate at which a clip would outlast its second.
    """
    chosen = _motions("smallworld.clip_dataset", motions)
    slow = [rate for rate in fps or () if rate < frames]
    if slow or fps == []:
        raise UserError(
            f"smallworld.clip_dataset: what happens lasts one second, so {frames} frames need rates of {frames} "
            f"or more, got fps {fps}"
        )
    config = {"seed": seed, "frames": frames, "things": things, "motions": chosen, "split": split, "fps": fps}
    return Dataset(reader=CLIP_READER, config=config, length=count)


def _motions(who: str, motions: Motions) -> list[str]:
    if motions is None:
        return list(MOTIONS)
    unknown = [name for name in motions if name not in MOTIONS]
    if unknown or not motions:
        raise UserError(f"{who}: wanted motions of {', '.join(MOTIONS)}, got {motions}")
    return list(motions)
