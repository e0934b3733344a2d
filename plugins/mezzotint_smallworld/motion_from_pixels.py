"""`smallworld.check_clips` and `smallworld.depth`: what pixels of clips say of motion and of nearness."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Report, UserError, Video, node
from mezzotint_smallworld.moving import NEAREST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mezzotint_smallworld.motion_checker import ClipReading

__all__ = ["check_clips", "depth"]

BLUR = 1.0  # pixels of a Gaussian's deviation for each level of a depth's coarseness


@node("smallworld.check_clips")
def check_clips(video: Video, *, prompts: str | list[str]) -> Report:
    """Read clips of the small world and compare them with their prompts.

    video: [B, F, 64, 64, 3].
    prompts: one for all clips, or one for each.

    returns: "score", per cent right by aspect (null where no prompt asks): "object" (shape, colour and number),
    "background", "layout" (size, place and relation in the first frame), "motion", "speed", "all"; and
    "consistency", per cent of the frames that go with the others of their clip. For each clip under "clips" its
    prompt, what is right and wrong, its consistency, and what was seen.
    Raises: UserError: another size, no frames, another number of prompts, a prompt outside the grammar of clips.
    """
    from mezzotint_smallworld.captions import CaptionError
    from mezzotint_smallworld.motion_captions import parse_motion
    from mezzotint_smallworld.motion_checker import judge_clip, read_clip, summary

    pixels = _pixels("smallworld.check_clips", video)
    asked = [prompts] * len(pixels) if isinstance(prompts, str) else list(prompts)
    if len(asked) != len(pixels):
        raise UserError(f"smallworld.check_clips: {len(asked)} prompts for {len(pixels)} clips")
    try:
        wanted = [parse_motion(prompt) for prompt in asked]
    except CaptionError as error:
        raise UserError(f"smallworld.check_clips: {error}") from error
    readings = [read_clip(clip, video.fps) for clip in pixels]
    verdicts = [judge_clip(reading, goal) for reading, goal in zip(readings, wanted, strict=True)]
    rows = [
        {
            "prompt": prompt,
            "right": dataclasses.asdict(verdict),
            "consistency": 100.0 * reading.consistency,
            "seen": _seen(reading),
        }
        for prompt, verdict, reading in zip(asked, verdicts, readings, strict=True)
    ]
    return Report({"score": summary(readings, verdicts), "clips": rows})


@node("smallworld.depth")
def depth(video: Video, *, level: Annotated[int, Field(ge=0, le=7)] = 0) -> Video:
    """Estimate how near everything is in clips of the small world, from their pixels.

    The ground is 0. Things are taken to be of one true size, so the larger one looks the nearer it is: 1 for the
    largest that there is, half of it for half its radius. The scale is the same in all frames and all clips, and
    each thing's size follows a line over the clip, so nothing flickers. Exact for drawn clips but for outlines; it
    stands in for a depth network, which knows other pictures than these.

    video: [B, F, 64, 64, 3].
    level: how coarse, 0 sharp, 7 hardly more than where things are: a blur of as many pixels (t_s of Gen-1).

    returns: [B, F, 64, 64, 1].
    Raises: UserError: frames of another size, no frames.
    """
    import numpy
    import torch

    pixels = _pixels("smallworld.depth", video)
    found = numpy.stack([_depth_of(clip, BLUR * level) for clip in pixels])
    return Video(torch.from_numpy(found)[..., None].float().to(video.data.device), video.fps)


def _depth_of(clip: NDArray[np.uint8], blur: float) -> NDArray[np.float64]:
    import numpy
    from scipy import ndimage

    from mezzotint_smallworld.motion_tracks import fitted, read_frames

    found = numpy.zeros(clip.shape[:3])
    for track in read_frames(clip).tracks:
        near = numpy.clip(fitted(track.frames.astype(float), track.radii) / NEAREST, 0, 1)
        found[track.frames] = numpy.maximum(found[track.frames], near[:, None, None] * track.coverages)
    return ndimage.gaussian_filter(found, (0, blur, blur), mode="nearest") if blur else found


def _pixels(who: str, video: Video) -> NDArray[np.uint8]:
    shape = tuple(video.data.shape)
    if len(shape) != 5 or shape[2:] != (64, 64, 3):
        raise UserError(f"{who}: reads clips [B, F, 64, 64, 3], got {list(shape)}")
    if not shape[0] or not shape[1]:
        raise UserError(f"{who}: wanted at least one clip of at least one frame, got {list(shape)}")
    if not video.fps > 0:
        raise UserError(f"{who}: frames per second must be more than 0, got {video.fps}")
    return video.data.float().mul(255).round().clamp(0, 255).byte().cpu().numpy()


def _seen(reading: ClipReading) -> dict[str, Any]:
    return {
        "background": dataclasses.asdict(reading.background),
        "things": [_rounded(dataclasses.asdict(thing)) for thing in reading.things],
        "objects by frame": list(reading.frames.counts),
    }


def _rounded(thing: dict[str, Any]) -> dict[str, Any]:
    measures = {name: round(thing[name], 2) for name in ("turn", "growth")}
    return {**thing, **measures, "velocity": [round(part, 2) for part in thing["velocity"]]}
