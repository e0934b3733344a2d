"""Pictures and captions of a data set as CLIP's embeddings, by realised encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mezzotint import UserError
from mezzotint_unclip.checks import text_embedding

__all__ = ["embed_images", "embed_texts"]


@torch.no_grad()
def embed_images(model: Any, items: Sequence[Mapping[str, Any]]) -> Tensor:
    """[N, D] float32 on the CPU, of length 1, of items' "image" [H, W, 3] uint8, all of one size.

    Raises: UserError: an item without a picture.
    """
    for item in items:
        if "image" not in item:
            raise UserError(f"wanted items with an image, got {', '.join(sorted(item)) or 'nothing'}")
    pixels = torch.from_numpy(np.stack([np.asarray(item["image"]) for item in items])).float() / 255
    return model.embed(pixels).float().cpu()


@torch.no_grad()
def embed_texts(model: Any, texts: list[str], where: str) -> tuple[Tensor, Tensor]:
    """States of the words [N, L, W] and embeddings [N, D], float32 on the CPU.

    Raises: UserError: an encoder that gives none of length 1, as CLIP's does.
    """
    context, pooled = text_embedding(model.condition(texts), where)
    return context.cpu(), pooled.cpu()
