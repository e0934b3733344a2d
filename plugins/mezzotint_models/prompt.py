"""Prompts: texts to conditioning."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field

from mezzotint import Conditioning, Context, TextEncoder, UserError, node

__all__ = ["EncodesText", "encode_text"]


class EncodesText(Protocol):
    """A realised text encoder.

    room: tokens that it reads of one text, besides its own marks. layers: those that `clip_skip` may leave out.
    """

    room: int
    layers: int

    def lost(self, text: str) -> str:
        """The end of a text that is cut because it is too long; empty if it fits."""
        ...

    def condition(self, texts: list[str], clip_skip: int = 0) -> Conditioning:
        """Context [B, L, D], pooled [B, D], and a mask [B, L] if some tokens do not count."""
        ...


@node("models.encode_text", device=True)
def encode_text(
    ctx: Context,
    encoder: TextEncoder,
    *,
    text: str | list[str],
    clip_skip: Annotated[int, Field(ge=0, le=11)] = 0,
    too_long: Literal["error", "cut"] = "error",
) -> Conditioning:
    """Encode a prompt, or one prompt per sample of a batch, padded to the model's own length.

    encoder: of the checkpoint that samples.
    text: what to make. An empty text is the usual null prompt of guidance.
    clip_skip: layers of CLIP's text model to leave out at the end; the final layer norm stays.
    too_long: what to do with a prompt that has more tokens than the model reads; "cut" drops the end.

    returns: context [B, L, D] and pooled [B, D] in the encoder's own type, and a mask [B, L], 1 for tokens that
    count, if the encoder has one: Stable Diffusion's has none.
    Raises: UserError: a prompt is too long and `too_long` is "error"; no prompt at all; too many layers left
    out.
    """
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise UserError("models.encode_text: wanted at least one prompt, got an empty list")
    model = ctx.realise(encoder)
    if clip_skip and clip_skip >= model.layers:
        raise UserError(
            f"models.encode_text: clip_skip must be below {model.layers}, the encoder's layers; got {clip_skip}"
            if model.layers
            else f"models.encode_text: this encoder is not CLIP's and has no clip_skip; got {clip_skip}, wanted 0"
        )
    if too_long == "error":
        for one in texts:
            _refuse_long(model, one)
    found: Conditioning = model.condition(texts, clip_skip)
    return found


def _refuse_long(model: EncodesText, text: str) -> None:
    lost = model.lost(text)
    if lost:
        raise UserError(
            f"models.encode_text: the model reads {model.room} tokens, and {lost!r} at the end of the prompt "
            'would be lost. Shorten it, or set too_long to "cut"'
        )
