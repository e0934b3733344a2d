"""Objective that starts the text encoder: say what each caption says, from its own states.

Cross entropy of linear heads on the pooled state (all attributes) and on each noun's token (shape,
colour, size). No picture is needed, so it takes a minute, and the denoiser then finds meanings that
are linearly separable instead of random word vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from mezzotint_training.trainer import Figures

TextBatch = tuple[Tensor, Tensor]


def make_text_encoder(
    vocabulary: int, *, width: int = 128, layers: int = 2, heads: int = 4, length: int = 32
) -> CLIPTextModel:
    """A small CLIPTextModel. vocabulary: number of tokens; the last is the end of text."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=length,
            hidden_act="quick_gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


class TextObjective:
    """Batch: token ids [B, L] int64, classes [B, A] int64. Figures: share of captions wholly right."""

    def __init__(
        self,
        model: CLIPTextModel,
        noun_ids: Tensor,
        class_counts: Sequence[int],
        noun_classes: Sequence[Sequence[int]],
    ) -> None:
        """class_counts: classes of each of the A attributes, which are read from the pooled state.

        noun_ids: ids of the words that name a shape. noun_classes: which attributes are the first
        such word's own, and which the second's; they are read from that word's state too.
        """
        self.model, self.noun_ids = model, noun_ids
        self.noun_classes = noun_classes
        width = model.config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in class_counts)
        self.noun_heads = nn.ModuleList(nn.Linear(width, class_counts[column]) for column in noun_classes[0])

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"text": self.model, "heads": self.heads, "noun_heads": self.noun_heads}

    def loss(self, batch: TextBatch, generator: torch.Generator) -> tuple[Tensor, Figures]:
        ids, classes = batch
        output = self.model(ids)
        loss = output.pooler_output.new_zeros(())
        right = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        for column, head in enumerate(self.heads):
            logits = head(output.pooler_output)
            loss = loss + functional.cross_entropy(logits, classes[:, column])
            right &= logits.argmax(-1) == classes[:, column]
        noun_loss = self._noun_loss(ids, classes, output.last_hidden_state)
        figures = {"right": right.float().mean(), "nouns": noun_loss.detach()}
        return loss + noun_loss, figures

    def _noun_loss(self, ids: Tensor, classes: Tensor, states: Tensor) -> Tensor:
        is_noun = torch.isin(ids, self.noun_ids.to(ids.device))
        second = is_noun & (is_noun.cumsum(-1) == 2)
        loss = states.new_zeros(())
        for mask, columns in zip((is_noun & ~second, second), self.noun_classes, strict=True):
            rows, places = mask.nonzero(as_tuple=True)
            if len(rows) == 0:
                continue
            for head, column in zip(self.noun_heads, columns, strict=True):
                logits = head(states[rows, places])
                loss = loss + functional.cross_entropy(logits, classes[rows, column])
        return loss
