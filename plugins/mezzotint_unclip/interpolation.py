"""Nodes that move in the space of image embeddings: between two pictures, and by what two texts differ in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mezzotint import Conditioning, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["interpolate", "text_difference"]

Share = Annotated[float, Field(ge=0, le=1)]


@node("unclip.interpolate")
def interpolate(
    first: Conditioning,
    second: Conditioning,
    *,
    at: Annotated[list[Share], Field(min_length=1, max_length=4096)] | Share = 0.5,
    path: Literal["circle", "line"] = "circle",
) -> Conditioning:
    """Image embeddings on the way from one to another, each of length 1.

    first, second: one image embedding each, of the same CLIP.
    at: how far along, 0 is the first and 1 the second, both exact; a list makes one embedding for each.
    path: circle goes along the great circle at an even pace; line goes straight and is brought back to length 1.

    returns: pooled [N, D].
    Raises: UserError: embeddings of texts, of different widths, several at a time, or exactly opposite ones.
    Source: Ramesh et al. 2022 (unCLIP), section 3.2.
    """
    import torch

    from mezzotint_unclip.checks import image_embedding
    from mezzotint_unclip.great_circle import slerp, straight

    ends = [_one(image_embedding(first, "unclip.interpolate: first"), "first")]
    width = ends[0].shape[-1]
    ends.append(_one(image_embedding(second, "unclip.interpolate: second", width), "second"))
    _refuse_opposite(ends[0], ends[1], "unclip.interpolate")
    shares = torch.tensor(at if isinstance(at, list) else [at])
    move = slerp if path == "circle" else straight
    return Conditioning(pooled=move(ends[0].expand(len(shares), -1), ends[1].expand(len(shares), -1), shares))


@node("unclip.text_difference")
def text_difference(
    image: Conditioning,
    before: Conditioning,
    after: Conditioning,
    *,
    at: Annotated[list[Share], Field(min_length=1, max_length=4096)] | Share = 0.25,
) -> Conditioning:
    """Move an image's embedding by what changes from one text to another: an edit in words.

    image: embedding of the picture to change, one.
    before: a text that describes it now, by CLIP.
    after: a text that describes what it shall become.
    at: how far along the great circle from the picture to the normalised difference of the texts; 0 is the
        picture, and beyond about 0.5 little of it is left.

    returns: pooled [N, D], one for each entry of `at`.
    Raises: UserError: a text where the image is wanted or the other way round, texts that say the same,
        embeddings of different widths.
    Source: Ramesh et al. 2022 (unCLIP), section 3.3.
    """
    import torch
    from torch.nn.functional import normalize

    from mezzotint_unclip.checks import image_embedding, text_embedding
    from mezzotint_unclip.great_circle import slerp

    start = _one(image_embedding(image, "unclip.text_difference: image"), "image")
    width = start.shape[-1]
    _, old = text_embedding(before, "unclip.text_difference: before", width)
    _, new = text_embedding(after, "unclip.text_difference: after", width)
    step = _one(new, "after") - _one(old, "before")
    if step.norm() < 1e-4:
        raise UserError(
            "unclip.text_difference: the two texts have one embedding; there is no difference to follow"
        )
    towards = normalize(step, dim=-1)
    _refuse_opposite(start, towards, "unclip.text_difference")
    shares = torch.tensor(at if isinstance(at, list) else [at])
    return Conditioning(pooled=slerp(start.expand(len(shares), -1), towards.expand(len(shares), -1), shares))


def _one(embedding: Tensor, name: str) -> Tensor:
    if embedding.shape[0] != 1:
        raise UserError(f"{name}: wanted one embedding, got {embedding.shape[0]}; flow.map takes them one by one")
    return embedding


def _refuse_opposite(first: Tensor, second: Tensor, where: str) -> None:
    if (first + second).norm() < 1e-4:
        raise UserError(
            f"{where}: the ends are exactly opposite, and every great circle leads from one to the other"
        )
