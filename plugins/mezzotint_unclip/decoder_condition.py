"""What the decoder is told: an image embedding in front of, and added to, what GLIDE's text transformer says.

After Ramesh et al. 2022 (unCLIP), section 2.1: the embedding is projected and added to the time embedding, and
projected to four more tokens of context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint import Conditioning, UserError

__all__ = ["DecoderCondition"]


class DecoderCondition(nn.Module):
    """From an image embedding and a text's conditioning to the decoder's.

    embedding: D. context: width of the tokens. pooled: width of the vector for the time embedding. tokens: how
    many the embedding makes.
    """

    def __init__(self, *, embedding: int = 64, context: int = 128, pooled: int = 128, tokens: int = 4) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = {
            "embedding": embedding, "context": context, "pooled": pooled, "tokens": tokens,
        }  # fmt: skip
        self.null = nn.Parameter(torch.zeros(embedding))
        self.to_tokens = nn.Linear(embedding, tokens * context)
        self.to_pooled = nn.Linear(embedding, pooled)
        # So that a decoder that starts as GLIDE hears the text at first as GLIDE does.
        nn.init.zeros_(self.to_pooled.weight)
        nn.init.zeros_(self.to_pooled.bias)

    def forward(self, image: Tensor, dropped: Tensor, text: Conditioning) -> Conditioning:
        """The decoder's conditioning, B rows.

        image: [B, D], of length 1. dropped: [B] bool; there the learnt null takes its place. text: context
        [B, L, context], pooled [B, pooled], and a mask [B, L] if its encoder has one.
        Raises: UserError: a text of another encoder.
        """
        context, pooled = text.context, text.pooled
        if context is None or pooled is None:
            raise UserError(
                "the decoder reads a text's tokens and its pooled vector; the text's conditioning lacks one"
            )
        for name, got in (("context", context.shape[-1]), ("pooled", pooled.shape[-1])):
            if got != self.config[name]:
                raise UserError(
                    f"the decoder was trained with texts whose {name} is {self.config[name]} wide, got {got}: "
                    "encode the text with the text encoder that the decoder was trained with"
                )
        scaled = torch.where(dropped[:, None], self.null, image.to(self.null) * len(self.null) ** 0.5)
        tokens = self.to_tokens(scaled).unflatten(-1, (self.config["tokens"], -1))
        mask = text.mask
        if mask is not None:
            mask = torch.cat((mask.new_ones(len(mask), tokens.shape[1]), mask), dim=1)
        return Conditioning(
            context=torch.cat((tokens, context.to(tokens)), dim=1), mask=mask,
            pooled=pooled.to(tokens) + self.to_pooled(scaled),
        )  # fmt: skip
