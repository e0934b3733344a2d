"""Words that change from frame to frame: each frame of a clip is told something of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mezzotint import Conditioning, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["words_over_time"]


@node("video.words_over_time")
def words_over_time(
    words: Annotated[list[Conditioning], Field(min_length=1)],
    *,
    frames: Annotated[int, Field(ge=1, le=4096)] = 8,
    places: list[Annotated[int, Field(ge=0, le=65535)]] | None = None,
    between: Literal["mix", "step"] = "mix",
) -> Conditioning:
    """What a clip is told, frame by frame, from what it is told at a few of its frames.

    Before the first place and after the last one nothing changes. Tokens are mixed one by one, so prompts of one
    structure ("a red circle ...", "a blue circle ...") change in the word that differs.

    words: texts by one encoder, in the order of time.
    frames: of the clip.
    places: the frames at which each is said in full, rising; without them evenly spread over the clip.
    between: mix changes them evenly from place to place, step at once in the middle of the way.

    returns: context [B, F, L, D]; what is not a token comes from the first of them.
    Raises: UserError: places that do not fit; texts of different encoders or numbers.
    """
    import torch

    where = _places(places, len(words), frames)
    contexts = _contexts(words)
    rows = []
    for frame in range(frames):
        low = max([i for i, place in enumerate(where) if place <= frame], default=0)
        high = min(low + 1, len(where) - 1)
        way = (frame - where[low]) / max(where[high] - where[low], 1)
        share = min(max(way, 0.0), 1.0) if between == "mix" else float(way > 0.5)
        # The same numbers, and not nearly, where a text is said in full.
        rows.append(contexts[low] if share == 0 else torch.lerp(contexts[low], contexts[high], share))
    return words[0].replace(context=torch.stack(rows, dim=1))


def _places(places: Sequence[int] | None, count: int, frames: int) -> list[int]:
    if places is None:
        return [round(i * (frames - 1) / max(count - 1, 1)) for i in range(count)]
    rising = all(a < b for a, b in pairwise(places))
    if len(places) != count or not rising or places[-1] >= frames:
        raise UserError(
            f"video.words_over_time: {count} texts at the frames {list(places)} of {frames}; wanted as many "
            f"rising numbers below {frames}"
        )
    return list(places)


def _contexts(words: Sequence[Conditioning]) -> list[Tensor]:
    found: list[Tensor] = []
    for number, one in enumerate(words):
        if one.context is None or one.context.ndim != 3:
            got = "none" if one.context is None else list(one.context.shape)
            raise UserError(f"video.words_over_time: text {number} has tokens {got}; wanted [B, L, D]")
        if found and one.context.shape != found[0].shape:
            raise UserError(
                f"video.words_over_time: text {number} has tokens {list(one.context.shape)}, the first one "
                f"{list(found[0].shape)}; wanted texts by one encoder, as many of each"
            )
        found.append(one.context)
    return found
