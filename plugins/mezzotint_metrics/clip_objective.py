"""`metrics.learn_clips`: the network whose features clips are compared in, as something to train."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import UserError, node
from mezzotint_training import Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_metrics.clip_task import ClipClassifierTask

__all__ = ["ClipClassifierObjective", "learn_clips"]

Width = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]


@dataclass(frozen=True, eq=False)
class ClipClassifierObjective(Objective):
    """A classifier of clips. network: its settings, but for the classes, which the data set names.

    noise: largest standard deviation of the noise on a clip, of a range of 2.
    """

    network: dict[str, Any] = field(default_factory=dict)
    noise: float = 0.0

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> ClipClassifierTask:
        from mezzotint_metrics.clip_task import ClipClassifierTask

        names = dict(getattr(reader, "class_names", {}))
        if not names:
            raise UserError("metrics.learn_clips: the data set names no classes; smallworld.clip_dataset does")
        return ClipClassifierTask(self.network, self.noise, names, reader, seed, batch)


@node("metrics.learn_clips")
def learn_clips(
    *,
    frames: Annotated[int, Field(ge=2, le=128)] = 8,
    size: Annotated[int, Field(ge=8, le=1024)] = 32,
    patch: Annotated[int, Field(ge=1, le=64)] = 2,
    channels: Annotated[list[Width], Field(min_length=1, max_length=8)] = [32, 64, 96],  # noqa: B006
    width: Width = 96,
    hidden: Width = 32,
    narrow: Annotated[int, Field(ge=0, le=4096)] = 16,
    noise: Annotated[float, Field(ge=0, le=2)] = 0.1,
) -> ClipClassifierObjective:
    """Cross entropy of what clips show: of the moving small world the motion, the shape and the colour.

    The weights are for metrics.video_features. A clip with two things is to be said to show either, half and half.

    frames: of each clip; the data set gives as many.
    size: side to which frames are averaged down.
    patch: side of what becomes one place of the network's grid.
    channels: of its levels, each half as large as the one before.
    width: of a frame's vector.
    hidden: of the last hidden layer, and so of the features.
    narrow: channels in which a frame's grid is told place by place, beside its mean and its maximum over all
        places; 0 tells the whole grid and neither.
    noise: clips get noise of a standard deviation between 0 and this, of pixels in -1..1, so that the network also
        reads what models make.

    Items need "clip" and "classes", and the data set names of all classes.
    Raises: UserError: a size that patches and levels do not divide; when training starts, no classes.
    """
    scale = patch * 2 ** (len(channels) - 1)
    if size % scale:
        raise UserError(
            f"metrics.learn_clips: {len(channels)} levels over patches of {patch} need a size that {scale} "
            f"divides, got {size}"
        )
    settings = {"frames": frames, "size": size, "patch": patch, "channels": list(channels), "width": width}
    return ClipClassifierObjective({**settings, "hidden": hidden, "narrow": narrow}, noise)
