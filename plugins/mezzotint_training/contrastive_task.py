"""Two towers in training: CLIP's loss, its figures and its sheet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import Image, Weights
from mezzotint_training.objective import Part, Task
from mezzotint_training.pairs import contrastive_loss, found_first

if TYPE_CHECKING:
    from mezzotint_training.pairs import PairBatches

__all__ = ["ContrastiveTask"]

Figures = dict[str, Tensor]
LARGEST_SCALE = 100.0
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ContrastiveTask(Task):
    """CLIP in training. Figures: top1, how many pictures find their caption in the batch; scale."""

    def __init__(self, config: dict[str, Any], pairs: PairBatches, locked: str = "none") -> None:
        from transformers import CLIPConfig, CLIPModel

        self.config, self.pairs = config, pairs
        self.clip = CLIPModel(CLIPConfig(**config, logit_scale_init_value=math.log(1 / 0.07)))
        stays = {"text": ("text_model", "text_projection"), "image": ("vision_model", "visual_projection")}
        for name in stays.get(locked, ()):
            self.clip.get_submodule(name).requires_grad_(False)
        self.modules: dict[str, nn.Module] = {"clip": self.clip}
        self.parts = (Part("clip", ("clip",)),)

    def batch(self, step: int, rank: int) -> tuple[Tensor, Tensor]:
        return self.pairs(step, rank)

    def embed(self, pictures: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, D] of length 1. pictures: [B, 3, size, size] uint8; ids: [B, L]."""
        mean, deviation = (pictures.new_tensor(c, dtype=torch.float32).view(3, 1, 1) for c in (MEAN, DEVIATION))
        # What follows the end mark is padding, which no token that counts can see.
        end = int((ids == ids[0, -1]).int().argmax(1).max()) + 1
        text = self.clip.get_text_features(ids[:, :end]).pooler_output
        image = self.clip.get_image_features((pictures.float() / 255 - mean) / deviation).pooler_output
        return nn.functional.normalize(image.float(), dim=1), nn.functional.normalize(text.float(), dim=1)

    def loss(self, batch: tuple[Tensor, Tensor], part: str, generator: torch.Generator) -> tuple[Tensor, Figures]:
        image, text = self.embed(*batch)
        scale = self.clip.logit_scale.exp()
        nearest = (image @ text.T).detach().argmax(1)
        right = (nearest == torch.arange(len(image), device=image.device)).float().mean()
        return contrastive_loss(image, text, scale), {"top1": right, "scale": scale.detach()}

    @torch.no_grad()
    def after(self, part: str) -> None:
        self.clip.logit_scale.clamp_(max=math.log(LARGEST_SCALE))

    def weights(self) -> Weights:
        from mezzotint_training.checkpoint import pack

        return pack(
            self.clip, "CLIPModel", self.config,
            text_encoder={"tokenizer": self.pairs.files, "kind": "clip"},
            image_encoder={
                "size": self.config["vision_config"]["image_size"], "mean": list(MEAN), "std": list(DEVIATION)
            },
        )  # fmt: skip

    def _held_out(self, most: int) -> tuple[Tensor, Tensor, Tensor]:
        pictures, ids = (rows.to(self.clip.device) for rows in self.pairs.held_out(most))
        return pictures, *self.embed(pictures, ids)

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Retrieval among the held-out pairs, both ways."""
        _, image, text = self._held_out(256)
        by_image, by_text = found_first(image, text)
        loss = contrastive_loss(image, text, self.clip.logit_scale.exp()).item()
        return {"loss": loss, "image_to_text": by_image, "text_to_image": by_text}

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        """Held-out pictures, under each the caption among all of theirs that is nearest."""
        from mezzotint_image import contact_sheet

        pictures, image, text = self._held_out(64)
        captions = self.pairs.captions(64)
        nearest = (image @ text.T).argmax(1).tolist()[:24]
        labels = [f"{'' if row == at else 'wrong: '}{captions[row]}" for at, row in enumerate(nearest)]
        shown = Image(pictures[:24].permute(0, 2, 3, 1).float().cpu() / 255)
        return contact_sheet([shown], columns=8, labels=labels, cell=max(96, pictures.shape[-1]))
