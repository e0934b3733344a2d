"""How well pictures and texts agree, by the embeddings of a network that knows both."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzotint import Report, UserError, node
from mezzotint_metrics.features import Features, rows_of

__all__ = ["clip_score"]


@node("metrics.clip_score")
def clip_score(
    image: Features, text: Features, *, scale: Annotated[float, Field(gt=0, le=1000)] = 100.0
) -> Report:
    """CLIPScore: scale * max(cos, 0) of each picture's embedding with its text's, and their mean.

    image: [N, D], any length of vectors.
    text: [N, D], or [1, D] for one text to all pictures; of the same space.
    scale: 100 is usual; 2.5 is that of Hessel et al. 2021.

    returns: "clip_score", and "scores", one per picture, which metrics.bootstrap takes.
    Raises: UserError: another number of texts, another width, numbers that are not finite, a vector of zeros.
    """
    import torch

    pictures, texts = rows_of(image, "metrics.clip_score"), rows_of(text, "metrics.clip_score")
    if pictures.shape[1] != texts.shape[1]:
        raise UserError(
            f"metrics.clip_score: the pictures' embeddings are {pictures.shape[1]} wide, the texts' "
            f"{texts.shape[1]}; both must lie in one space"
        )
    if len(texts) not in (1, len(pictures)):
        raise UserError(f"metrics.clip_score: {len(texts)} texts for {len(pictures)} pictures")
    if not (pictures.norm(dim=1).all() and texts.norm(dim=1).all()):
        raise UserError("metrics.clip_score: an embedding of zeros has no direction")
    scores = scale * torch.cosine_similarity(pictures, texts, dim=1, eps=0.0).clamp(min=0)
    return Report({"clip_score": scores.mean().item(), "scores": scores.tolist(), "scale": scale})
