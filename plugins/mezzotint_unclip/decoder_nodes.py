"""The node that tells unCLIP's decoder what to make: an image embedding, a text, either or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Conditioning, Context, Recipe, Source, UserError, Weights, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["condition_decoder"]


@node("unclip.condition_decoder", device=True)
def condition_decoder(
    ctx: Context,
    text: Conditioning,
    image: Conditioning | None = None,
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    part: Annotated[str, Field(max_length=200)] = "",
) -> Conditioning:
    """What unCLIP's decoder is told: an image embedding and a text, as it was trained to be told them.

    text: by the text encoder that the decoder was trained with (not CLIP's); that of no words says nothing.
    image: an embedding of the picture to make, by a prior or by CLIP; none is the null that guidance moves
        away from.
    weights: the decoder's, what training gave; in its place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several could be meant.

    returns: context [B, tokens + L, D] and pooled [B, P].
    Raises: UserError: a text of another encoder, a text's embedding in place of an image's, embeddings of another
        width, numbers of rows that do not go together, weights of another network.
    Source: Ramesh et al. 2022 (unCLIP), section 2.1.
    """
    import torch

    from mezzotint_models import network_of, recipe_for
    from mezzotint_unclip.checks import image_embedding
    from mezzotint_unclip.decoder_condition import DecoderCondition

    _, recipe = recipe_for("image_condition", weights, source, part, node="unclip.condition_decoder")
    recipe["config"]["dtype"] = "float32"
    network = network_of(Recipe(**recipe, loader=""), ctx)
    if not isinstance(network, DecoderCondition):
        raise UserError(f"unclip.condition_decoder: wanted a decoder's weights, got a {type(network).__name__}")
    width = network.config["embedding"]
    if image is None:
        embedding = torch.zeros(1, width)
    else:
        embedding = image_embedding(image, "unclip.condition_decoder: image", width)
    count = max(len(embedding), 0 if text.context is None else len(text.context))
    with torch.no_grad():
        return network(
            _rows(embedding.to(ctx.device), count, "image"),
            torch.full((count,), image is None, device=ctx.device),
            text.replace(**{
                name: _rows(value.to(ctx.device), count, "text")
                for name in ("context", "pooled", "mask")
                if (value := getattr(text, name)) is not None
            }),
        )  # fmt: skip


def _rows(value: Tensor, count: int, name: str) -> Tensor:
    if len(value) not in (1, count):
        raise UserError(
            f"unclip.condition_decoder: {name} has {len(value)} rows, wanted 1 or {count}, as the other has"
        )
    return value.expand(count, *value.shape[1:])
