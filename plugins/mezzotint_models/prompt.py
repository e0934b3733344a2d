"""Prompts: texts to conditioning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mezzotint import Conditioning, Context, TextEncoder, UserError, node

if TYPE_CHECKING:
    from mezzotint_models.clip_text import ClipText

__all__ = ["encode_text"]


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
    clip_skip: layers of the text model to leave out at the end; the final layer norm stays.
    too_long: what to do with a prompt that has more tokens than the model reads; "cut" drops the end.

    returns: context [B, L, D] and pooled [B, D] in the encoder's own type; no mask, as Stable Diffusion has
    none.
    Raises: UserError: a prompt is too long and `too_long` is "error"; no prompt at all; too many layers left
    out.
    """
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise UserError("models.encode_text: wanted at least one prompt, got an empty list")
    model = ctx.realise(encoder)
    layers = model.module.config.num_hidden_layers
    if clip_skip >= layers:
        raise UserError(
            f"models.encode_text: clip_skip must be below {layers}, the encoder's layers; got {clip_skip}"
        )
    if too_long == "error":
        for one in texts:
            _refuse_long(model, one)
    context, pooled = model.encode(texts, clip_skip)
    return Conditioning(context=context, pooled=pooled)


def _refuse_long(model: ClipText, text: str) -> None:
    lost = model.lost(text)
    if lost:
        raise UserError(
            f"models.encode_text: the model reads {model.length - 2} tokens, and {lost!r} at the end of the "
            "prompt "
            'would be lost. Shorten it, or set too_long to "cut"'
        )
