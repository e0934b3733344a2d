"""Contrastive pre-training: pictures and captions into one space, where those that belong together are near.

Radford et al. 2021, "Learning transferable visual models from natural language supervision" (CLIP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Context, node
from mezzotint_training.objective import Objective

if TYPE_CHECKING:
    from mezzotint_training.contrastive_task import ContrastiveTask

__all__ = ["ContrastiveObjective", "contrastive"]

Count = Annotated[int, Field(ge=1, le=10**6)]


@dataclass(frozen=True, eq=False)
class ContrastiveObjective(Objective):
    """Two towers and the loss between them; fields as in `training.contrastive`."""

    size: int = 64
    patch: int = 8
    width: int = 128
    layers: int = 4
    text_width: int = 128
    text_layers: int = 3
    heads: int = 4
    embedding: int = 64
    locked: Literal["none", "text", "image"] = "none"

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> ContrastiveTask:
        from mezzotint_training.contrastive_task import ContrastiveTask
        from mezzotint_training.pairs import PairBatches

        pairs = PairBatches(reader, self.size, batch, seed)
        config = self.config(len(pairs.tokenizer), pairs.tokenizer.model_max_length)
        return ContrastiveTask(config, pairs, self.locked)

    def config(self, vocabulary: int, length: int) -> dict[str, Any]:
        """The settings of transformers' CLIPModel."""
        text = {
            "hidden_size": self.text_width, "intermediate_size": 4 * self.text_width, "vocab_size": vocabulary,
            "num_hidden_layers": self.text_layers, "num_attention_heads": self.heads,
            "max_position_embeddings": length, "projection_dim": self.embedding,
            "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1,
        }  # fmt: skip
        vision = {
            "hidden_size": self.width, "intermediate_size": 4 * self.width, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "image_size": self.size, "patch_size": self.patch,
            "projection_dim": self.embedding,
        }  # fmt: skip
        return {"text_config": text, "vision_config": vision, "projection_dim": self.embedding}


@node("training.contrastive")
def contrastive(
    *,
    size: Annotated[int, Field(ge=8, le=1024)] = 64,
    patch: Annotated[int, Field(ge=1, le=64)] = 8,
    width: Count = 128,
    layers: Count = 4,
    text_width: Count = 128,
    text_layers: Count = 3,
    heads: Count = 4,
    embedding: Count = 64,
    locked: Literal["none", "text", "image"] = "none",
) -> ContrastiveObjective:
    """CLIP: in a batch, each picture finds its caption among all captions, and each caption its picture.

    Symmetric cross entropy of the cosines over a temperature that is learnt from 0.07 on and stays above 0.01. The
    larger the batch the harder the task. Two pictures of which one caption is true teach something false: captions
    that leave much out need smaller batches.

    size: side of the pictures in pixels; larger ones are averaged down.
    patch: side of the patches that the picture tower reads.
    width, layers: of the picture tower.
    text_width, text_layers: of the text tower.
    heads: of the attention in both.
    embedding: width of the common space.
    locked: a tower that stays as `init` has it, with its projection, while the other learns.
    Source: Radford et al. 2021, section 2.3; Zhai et al. 2022 ("LiT") for a locked tower.
    """
    return ContrastiveObjective(size, patch, width, layers, text_width, text_layers, heads, embedding, locked)
