"""The diffusion prior: from a text to the embedding of a picture of it, by diffusion with a causal transformer.

After Ramesh et al. 2022 (unCLIP), section 2.2: the sequence is the words, the text's embedding, the time, the
noised image embedding and a learned query, whose output is the clean embedding. The transformer is diffusers'
PriorTransformer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import PriorTransformer
from torch import Tensor, nn

from mezzotint import Conditioning, Context, Denoiser, NoiseLevel, NoiseSchedule, Prediction, UserError
from mezzotint_unclip.checks import text_embedding

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DiffusionPrior", "PriorPredictor", "load_prior"]


class DiffusionPrior(nn.Module):
    """The network. Its embeddings are scaled by sqrt(D), so that each number has a variance near 1.

    embedding: D. text: width of the words' states. length: how many there are.
    width, layers, heads: of the transformer.
    """

    def __init__(
        self, *, embedding: int = 64, text: int = 128, length: int = 32,
        width: int = 96, layers: int = 4, heads: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % heads:
            raise UserError(f"the width must be a multiple of the heads; got {width} and {heads}")
        self.config: Mapping[str, Any] = {
            "embedding": embedding, "text": text, "length": length,
            "width": width, "layers": layers, "heads": heads,
        }  # fmt: skip
        self.text_in = nn.Linear(text, width)
        self.transformer = PriorTransformer(
            num_attention_heads=heads, attention_head_dim=width // heads, num_layers=layers,
            embedding_dim=embedding, num_embeddings=length, additional_embeddings=4, encoder_hid_proj_type=None,
            clip_embed_dim=embedding,
        )  # fmt: skip
        # diffusers starts these at zero, where the norm of the query's first state has an enormous slope.
        for parameter in (self.transformer.positional_embedding, self.transformer.prd_embedding):
            nn.init.normal_(parameter, std=0.02)
        # In the file too: a network is built without memory and then filled.
        self.transformer.register_buffer("causal_attention_mask", self.transformer.causal_attention_mask)
        # They whiten embeddings in diffusers' pipelines; ours are only scaled.
        self.transformer.clip_mean.requires_grad_(False)
        self.transformer.clip_std.requires_grad_(False)

    @property
    def scale(self) -> float:
        """Of embeddings of length 1 to what is noised."""
        return float(self.config["embedding"]) ** 0.5

    def forward(self, x: Tensor, times: Tensor, context: Tensor, text: Tensor) -> Tensor:
        """The clean scaled embedding [B, D].

        x: [B, D], scaled and noised. times: [B]. context: [B, length, text width]. text: [B, D], of length 1.
        """
        # Without a mask of the words diffusers leaves out the causal one, too.
        mask = torch.ones(context.shape[:2], dtype=torch.bool, device=x.device)
        words = self.text_in(context)
        predicted: Tensor = self.transformer(x, times, text * self.scale, words, mask, return_dict=False)[0]
        return predicted


class PriorPredictor:
    """The prior behind the engine's predictor protocol: x is [B, D, 1, 1]."""

    def __init__(self, module: DiffusionPrior, schedule: NoiseSchedule) -> None:
        self.module, self.schedule = module, schedule

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.module.parameters(), *self.module.buffers()))

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """One evaluation. conditioning: a text of the CLIP that the prior was trained on.

        Raises: UserError: no text, an image's embedding in its place, or a text of another encoder.
        """
        if conditioning is None:
            raise UserError("the prior is told what to make by a text, got no conditioning")
        config = self.module.config
        context, text = text_embedding(
            conditioning, "the prior", config["embedding"], config["text"], config["length"]
        )  # fmt: skip
        batch = x.shape[0]
        times = torch.full((batch,), level.time, device=x.device)
        rows = (context.to(x).expand(batch, -1, -1), text.to(x).expand(batch, -1))
        made = self.module(x.flatten(1), times, *rows)
        return Prediction((made[:, :, None, None].to(x),), (1.0,), self.schedule.prediction)


def load_prior(recipe: Denoiser, ctx: Context) -> PriorPredictor:
    """Loader `unclip.prior`."""
    from mezzotint_models import network_of

    return PriorPredictor(network_of(recipe, ctx), recipe.schedule)
