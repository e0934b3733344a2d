"""A second loss for temporal layers: what they read of a caption names its motion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import UserError

if TYPE_CHECKING:
    from mezzotint_video.temporal_layers import TemporalLayers

__all__ = ["MotionNames"]

CAPTIONS = 64  # of a step


class MotionNames:
    """A linear head on the layers' reader of words. A step of clips holds a few captions, one of these many.

    Raises: UserError: a data set that does not know its clips' motions.
    """

    def __init__(self, reader: Any, conditions: Any, layers: TemporalLayers) -> None:
        if not hasattr(reader, "worded") or "motion" not in getattr(reader, "class_names", {}):
            raise UserError(
                "video.learn_motion: this data set does not name its clips' motions; leave out named, or take "
                "smallworld.clip_dataset"
            )
        assert layers.told is not None
        self.reader, self.conditions, self.told = reader, conditions, layers.told
        self.head = nn.Linear(layers.told.read_width, len(reader.class_names["motion"]))

    def loss(self, generator: torch.Generator) -> Tensor:
        """Cross-entropy, of the first thing's motion."""
        device = generator.device
        chosen = torch.randint(2**31, (CAPTIONS,), generator=generator, device=device).tolist()
        items = [self.reader.worded(item) for item in chosen]
        rows = [self.conditions.read([item]) for item in items]
        told = self.conditions(
            {name: torch.cat([row[name] for row in rows]).to(device) for name in rows[0]},
            torch.zeros(CAPTIONS, dtype=torch.bool, device=device),
        )
        read = self.told.read(told.context.unsqueeze(1))[:, 0]
        names = torch.tensor([item["classes"]["motion"][0] for item in items], device=device)
        return nn.functional.cross_entropy(self.head(read), names)
