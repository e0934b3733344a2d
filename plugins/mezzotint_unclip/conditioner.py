"""How the decoder is told of an item while it is trained: its picture's embedding, and often its caption too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Context, ImageEncoder, TextEncoder, UserError, node
from mezzotint_training import Conditioner, Conditions

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Weights

__all__ = ["EmbeddingConditioner", "condition_on_embedding"]

Share = Annotated[float, Field(ge=0, le=1)]
_TEXT = ("context", "pooled", "mask")


@dataclass(frozen=True, eq=False)
class EmbeddingConditioner(Conditioner):
    """Fields as in `unclip.condition_on_embedding`."""

    image_encoder: ImageEncoder
    text_encoder: TextEncoder
    tokens: int = 4
    drop_image: float = 0.1
    drop_text: float = 0.5

    def open(self, ctx: Context, reader: Any, seed: int) -> EmbeddingConditions:
        from mezzotint_unclip.decoder_condition import DecoderCondition
        from mezzotint_unclip.embedding import embed_images

        pictures, words = ctx.realise(self.image_encoder), ctx.realise(self.text_encoder)
        empty = _encoded(words, "")
        model = DecoderCondition(
            embedding=embed_images(pictures, [reader[0]]).shape[1], context=empty["context"].shape[-1],
            pooled=empty["pooled"].shape[-1], tokens=self.tokens,
        )  # fmt: skip
        return EmbeddingConditions(model, pictures, words, empty, (self.drop_image, self.drop_text))


class EmbeddingConditions(Conditions):
    """Items' pictures as embeddings and captions as tokens and one vector, each encoded once.

    The network that makes the decoder's conditioning of both learns along with the decoder.
    """

    def __init__(
        self, model: Any, pictures: Any, words: Any, empty: dict[str, Tensor], drops: tuple[float, float]
    ) -> None:
        self.model, self.modules, self.drops = model, {"image": model}, drops
        self.pictures, self.words, self.empty = pictures, words, empty

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        import torch

        from mezzotint_unclip.embedding import embed_images

        for item in items:
            if not isinstance(item.get("caption"), str):
                raise UserError(
                    f"unclip.condition_on_embedding: the items have no caption, but {', '.join(sorted(item))}"
                )
        # One by one: what comes of an item must not depend on its company.
        told = [_encoded(self.words, item["caption"]) for item in items]
        image = torch.cat([embed_images(self.pictures, [item]) for item in items])
        return {"embedding": image, **{name: torch.cat([one[name] for one in told]) for name in self.empty}}

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        import torch

        told = {}
        for name, null in self.empty.items():
            value = rows[name]
            where = dropped[:, 1].view(-1, *[1] * (value.ndim - 1))
            told[name] = torch.where(where, null.to(value), value)
        conditioning: Conditioning = self.model(rows["embedding"], dropped[:, 0], Conditioning(**told))
        return conditioning

    def parts(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        return {"image": pack_network(self.model, image_condition={"embedding": self.model.config["embedding"]})}


@node("unclip.condition_on_embedding")
def condition_on_embedding(
    image_encoder: ImageEncoder,
    text_encoder: TextEncoder,
    *,
    tokens: Annotated[int, Field(ge=1, le=64)] = 4,
    drop_image: Share = 0.1,
    drop_text: Share = 0.5,
) -> EmbeddingConditioner:
    """Tell a denoiser its picture's embedding, and half of the time the caption: the decoder of unCLIP.

    The embedding is projected and added to the time embedding, and to tokens in front of the text's. The
    architecture needs context and pooled as wide as the text encoder's. Both encoders stay as they are.

    image_encoder: CLIP's, whose embeddings a prior predicts.
    text_encoder: with a pooled vector, such as GLIDE's.
    tokens: that the embedding makes.
    drop_image: share of the items whose embedding becomes a learnt null.
    drop_text: share whose caption becomes the empty one; each of the two by itself.

    Source: Ramesh et al. 2022 (unCLIP), section 2.1.
    """
    return EmbeddingConditioner(image_encoder, text_encoder, tokens, drop_image, drop_text)


def _encoded(words: Any, text: str) -> dict[str, Tensor]:
    """One text alone, on the CPU, in half precision: a data set's texts stay in memory."""
    import torch

    with torch.no_grad():
        found = words.condition([text])
    if found.context is None or found.pooled is None:
        raise UserError(
            "unclip.condition_on_embedding: wanted a text encoder with tokens and a pooled vector, such as GLIDE's"
        )
    values = {name: getattr(found, name) for name in _TEXT if getattr(found, name) is not None}
    return {name: v.detach().cpu().half() if v.is_floating_point() else v.cpu() for name, v in values.items()}
