"""Prompt accuracy: whether pictures and clips of the small world show what their prompts say."""

from __future__ import annotations

from typing import Any

from mezzotint import Image, Report, UserError, Video, node

__all__ = ["prompt_accuracy", "video_accuracy"]


@node("metrics.prompt_accuracy")
def prompt_accuracy(images: list[Image], *, prompts: list[str]) -> Report:
    """How many pictures of the small world are right, by the checker that reads them from their pixels.

    images: [B, 64, 64, 3] each.
    prompts: one for each picture; or one for each of `images`, of which every picture then answers to it.

    returns: "accuracy", per cent of pictures with everything right; "score", the same by aspect (null where no
    prompt asks); and "rows", one per picture: its prompt, and true, false or null by aspect, for
    metrics.bootstrap.
    Raises: UserError: no picture, another size, another number of prompts, a prompt outside of its grammar.
    """
    import torch

    from mezzotint_smallworld import check

    counts = [image.data.shape[0] for image in images]
    if not sum(counts):
        raise UserError("metrics.prompt_accuracy: wanted at least one picture, got none")
    asked = list(prompts)
    if len(asked) == len(images):
        asked = [prompt for prompt, count in zip(asked, counts, strict=True) for _ in range(count)]
    if len(asked) != sum(counts):
        raise UserError(f"metrics.prompt_accuracy: {len(asked)} prompts for {sum(counts)} pictures")
    if wrong := next((list(i.data.shape) for i in images if tuple(i.data.shape[1:]) != (64, 64, 3)), None):
        raise UserError(f"metrics.prompt_accuracy: reads pictures [B, 64, 64, 3], got {wrong}; image.resize helps")
    pixels = torch.cat([image.data.float().cpu() for image in images])
    found = check(Image(pixels), prompts=asked).data
    score = dict(found["score"])
    rows: list[dict[str, Any]] = [{"prompt": each["prompt"], **each["right"]} for each in found["pictures"]]
    return Report({"accuracy": score["all"], "score": score, "rows": rows})


@node("metrics.video_accuracy")
def video_accuracy(video: Video, *, prompts: list[str]) -> Report:
    """How many clips of the small world are right, by the checker that reads motion from their pixels.

    video: [B, F, 64, 64, 3].
    prompts: one for each clip.

    returns: "accuracy", per cent of clips with everything right; "score", the same by aspect: "object" (shape,
    colour, number), "background", "layout", "motion" and "speed" (null where no prompt asks), and "consistency",
    per cent of the frames that go with the others of their clip; and "rows", one per clip: its prompt, and true,
    false or null by aspect, for metrics.bootstrap.
    Raises: UserError: no clip, no frames, another size, another number of prompts, a prompt outside its grammar.
    """
    from mezzotint_smallworld import check_clips

    if video.data.ndim != 5 or not len(video.data):
        raise UserError(f"metrics.video_accuracy: wanted clips [B, F, 64, 64, 3], got {list(video.data.shape)}")
    found = check_clips(video, prompts=prompts).data
    score = dict(found["score"])
    rows: list[dict[str, Any]] = [
        {"prompt": each["prompt"], "consistency": each["consistency"], **each["right"]} for each in found["clips"]
    ]
    return Report({"accuracy": score["all"], "score": score, "rows": rows})
