"""The autoregressive prior: from a text to the codes of an image embedding, one after the other.

After Ramesh et al. 2022 (unCLIP), section 2.2: the prefix is the words, the text's embedding, and how similar the
image is to be to it. The transformer is transformers' GPT-2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import GPT2Config, GPT2Model

from mezzotint import UserError
from mezzotint_unclip.codes import Codes, Similarity

__all__ = ["AutoregressivePrior"]


class AutoregressivePrior(nn.Module):
    """The network, and the codes that it writes in.

    embedding: D. text: width of the words' states. length: how many there are. components: codes of an embedding.
    buckets: values of a code. similarities: values of the dot product, and one more that means unknown.
    width, layers, heads: of the transformer.
    """

    def __init__(
        self, *, embedding: int = 64, text: int = 128, length: int = 32, components: int = 24, buckets: int = 64,
        similarities: int = 8, width: int = 96, layers: int = 4, heads: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % heads:
            raise UserError(f"the width must be a multiple of the heads; got {width} and {heads}")
        self.config: Mapping[str, Any] = {
            "embedding": embedding, "text": text, "length": length, "components": components, "buckets": buckets,
            "similarities": similarities, "width": width, "layers": layers, "heads": heads,
        }  # fmt: skip
        self.codes = Codes(embedding, components, buckets)
        self.similarity = Similarity(similarities)
        self.text_in = nn.Linear(text, width)
        self.embedding_in = nn.Linear(embedding, width)
        self.similarity_in = nn.Embedding(similarities + 1, width)
        # No dropout: the networks are small, and the data are drawn as they are needed.
        self.transformer = GPT2Model(
            GPT2Config(
                vocab_size=buckets, n_positions=length + 2 + components,
                n_embd=width, n_layer=layers, n_head=heads,
                activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                use_cache=False, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
        self.code_out = nn.Linear(width, buckets)

    @property
    def unknown(self) -> int:
        """The similarity that says nothing."""
        return int(self.config["similarities"])

    def fit(self, images: Tensor, texts: Tensor) -> None:
        """Components, bounds and quantiles of pairs of embeddings, both [N, D]."""
        self.codes.fit(images)
        self.similarity.fit((images * texts).sum(-1))

    def forward(self, context: Tensor, text: Tensor, similarity: Tensor, codes: Tensor) -> Tensor:
        """Logits [B, k + 1, buckets] of each code from those before it, given the first k of them.

        context: [B, length, text width]. text: [B, D], of length 1. similarity: [B] int64. codes: [B, k] int64.
        """
        scale = float(self.config["embedding"]) ** 0.5
        prefix = (
            self.text_in(context),
            self.embedding_in(text * scale)[:, None],
            self.similarity_in(similarity)[:, None],
        )
        written = torch.cat((*prefix, self.transformer.wte(codes)), dim=1)
        states = self.transformer(inputs_embeds=written).last_hidden_state
        return self.code_out(states[:, context.shape[1] + 1 :])

    def loss(self, context: Tensor, text: Tensor, similarity: Tensor, codes: Tensor) -> Tensor:
        """Cross-entropy of each code [B, components], in nats."""
        logits = self(context, text, similarity, codes[:, :-1])
        return cross_entropy(logits.transpose(1, 2), codes, reduction="none")

    @torch.no_grad()
    def sample(
        self, context: Tensor, text: Tensor, uniform: Callable[[int], Tensor], *,
        null: tuple[Tensor, Tensor] | None = None, guidance: float = 1.0, temperature: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Image embeddings [B, D] of length 1, as similar to the text as the upper half of what was fitted.

        uniform: numbers [B] in 0..1, for the similarity (0) and for each code (from 1 on). null: context and text
        that say nothing, with which guidance compares: logits = null + guidance * (logits - null). temperature: 0
        takes the likeliest.
        """
        half = self.unknown // 2
        similarity = half + (uniform(0) * half).long().clamp(0, half - 1)
        codes = torch.empty((len(text), 0), dtype=torch.long, device=text.device)
        blank = torch.full_like(similarity, self.unknown)
        for place in range(int(self.config["components"])):
            logits = self(context, text, similarity, codes)[:, -1]
            if null is not None and guidance != 1:
                without = self(null[0].expand_as(context), null[1].expand_as(text), blank, codes)[:, -1]
                logits = without + guidance * (logits - without)
            chosen = _chosen(logits, temperature, uniform(place + 1))
            codes = torch.cat((codes, chosen[:, None]), dim=1)
        return normalize(self.codes.decode(codes), dim=-1)


def _chosen(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """[B] int64, by the inverse of the cumulative distribution."""
    if temperature == 0:
        return logits.argmax(-1)
    summed = (logits.double() / temperature).softmax(-1).cumsum(-1)
    wanted = uniform.to(summed).clamp(0, 1)[:, None] * summed[:, -1:]
    return torch.searchsorted(summed, wanted).squeeze(-1).clamp_max(logits.shape[-1] - 1)
