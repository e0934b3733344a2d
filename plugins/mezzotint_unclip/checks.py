"""Whether a conditioning is the embedding that is wanted: an image's or a text's, of one width, of length 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mezzotint import Conditioning, UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["embedding_of", "image_embedding", "text_embedding"]

_OFF_THE_SPHERE = 0.02  # half precision is within 0.002


def embedding_of(value: Conditioning, where: str, width: int | None = None) -> Tensor:
    """The pooled embedding [B, D], float32.

    Raises: UserError: none, of another width, not finite, or not of length 1 (not CLIP's, then).
    """
    pooled = value.pooled
    if pooled is None:
        raise UserError(
            f"{where}: wanted an embedding (pooled), got a conditioning without one; models.encode_image makes it "
            "of pictures, models.encode_text with CLIP's encoder of texts"
        )
    if pooled.ndim != 2:
        raise UserError(f"{where}: wanted embeddings [B, D], got shape {list(pooled.shape)}")
    if width is not None and pooled.shape[1] != width:
        raise UserError(
            f"{where}: wanted embeddings {width} wide, got {pooled.shape[1]}: they are of another CLIP than "
            "the one that this model was trained on"
        )
    pooled = pooled.float()
    if not pooled.isfinite().all():
        raise UserError(f"{where}: the embedding has numbers that are not finite")
    lengths = pooled.norm(dim=-1)
    worst = lengths[(lengths - 1).abs().argmax()].item()
    if abs(worst - 1) > _OFF_THE_SPHERE:
        raise UserError(
            f"{where}: wanted embeddings of length 1, got one of length {worst:.3g}: it is no CLIP embedding (a "
            "text encoder without CLIP's projection gives others)"
        )
    return pooled


def image_embedding(value: Conditioning, where: str, width: int | None = None) -> Tensor:
    """As `embedding_of`. Raises: UserError: also for a text's."""
    if value.context is not None:
        raise UserError(
            f"{where}: wanted an image's embedding, got a text's (it has states of words); a prior makes the "
            "one of the other"
        )
    return embedding_of(value, where, width)


def text_embedding(
    value: Conditioning, where: str, width: int | None = None, words: int | None = None, length: int | None = None
) -> tuple[Tensor, Tensor]:
    """States of the words [B, L, words] and the pooled embedding [B, width], float32.

    Raises: UserError: an image's embedding, or a text of another encoder.
    """
    if value.context is None:
        raise UserError(
            f"{where}: wanted a text (states of words and their pooled embedding), got "
            + ("an image's embedding" if value.pooled is not None else "neither")
            + "; models.encode_text with CLIP's encoder makes one"
        )
    context = value.context.float()
    got = f"{context.shape[1]} states {context.shape[2]} wide" if context.ndim == 3 else list(context.shape)
    fits = context.ndim == 3 and words in (None, context.shape[2]) and length in (None, context.shape[1])
    if not fits:
        raise UserError(
            f"{where}: wanted {length or 'L'} states of words {words or 'D'} wide, got {got}: they are of another "
            "text encoder than the one that this model was trained on"
        )
    return context, embedding_of(value, where, width)
