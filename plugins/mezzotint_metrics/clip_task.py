"""A classifier of clips in training: batches, loss, and what it gets right of clips that it does not train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from mezzotint import Image, UserError, Weights
from mezzotint_models import pack_network, start_network
from mezzotint_training import Part, Task, rows, sheet_of

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ClipClassifierTask"]


class ClipClassifierTask(Task):
    """Figures: for each head its accuracy. The last tenth of the clips, at most 256, is never trained on.

    An answer is right if it is one of the things in the clip.
    """

    def __init__(
        self, settings: Mapping[str, Any], noise: float, names: Mapping[str, Sequence[str]], reader: Any,
        seed: int, batch: int,
    ) -> None:  # fmt: skip
        if len(reader) < 10:
            raise UserError(f"metrics.learn_clips: wanted at least 10 clips to train on, got {len(reader)}")
        self.reader, self.count, self.seed, self.noise = reader, batch, seed, noise
        self.names = {name: list(classes) for name, classes in names.items()}
        self.network = start_network("metrics.clip_classifier", {**settings, "heads": self.names})
        self.modules: Mapping[str, nn.Module] = {"network": self.network}
        self.parts = (Part("network", ("network",)),)
        self.held = min(256, len(reader) // 10)
        self._held_rows: dict[str, Tensor] | None = None

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        return self.items(rows(len(self.reader) - self.held, self.count, self.seed, step, rank))

    def items(self, items: Sequence[int]) -> dict[str, Tensor]:
        """ "levels" [N, F, 3, H, W] uint8, and for each head [N, classes] float32: a share for each thing."""
        found = [self._read(item) for item in items]
        return {name: torch.stack([one[name] for one in found]) for name in found[0]}

    def loss(
        self, batch: Mapping[str, Tensor], part: str, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        clips = batch["levels"].float() / 127.5 - 1
        level = self.noise * torch.rand(len(clips), 1, 1, 1, 1, generator=generator, device=clips.device)
        noisy = clips + level * torch.randn(clips.shape, generator=generator, device=clips.device)
        return self.judged(self.network(noisy).logits, batch)

    def judged(
        self, logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the heads' cross entropies, and which share of the batch each one names right."""
        losses = [cross_entropy(logits[name].float(), batch[name]) for name in self.names]
        return torch.stack(losses).sum(), {
            name: self.right(logits, batch, name).float().mean() for name in self.names
        }

    def right(self, logits: Mapping[str, Tensor], batch: Mapping[str, Tensor], name: str) -> Tensor:
        """[B] bool."""
        answers = logits[name].detach().argmax(1, keepdim=True)
        return batch[name].gather(1, answers)[:, 0] > 0

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Loss and accuracies on clean clips that are not trained on."""
        batch, logits = self._held_out()
        loss, figures = self.judged(logits, batch)
        return {"loss": loss.item(), **{name: value.item() for name, value in figures.items()}}

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        """Clips that are not trained on, a row each; framed green where the first head is right, else red."""
        batch, logits = self._held_out()
        right = self.right(logits, batch, next(iter(self.names)))[:8]
        clips = batch["levels"][:8].float() / 255
        colours = torch.tensor([[0.85, 0.1, 0.1], [0.1, 0.7, 0.2]], device=clips.device)[right.long()]
        for edge in (slice(None, 2), slice(-2, None)):
            clips[..., edge, :] = colours[:, None, :, None, None]
            clips[..., edge] = colours[:, None, :, None, None]
        return sheet_of(clips.flatten(0, 1), clips.shape[1], 1)

    def weights(self) -> Weights:
        return pack_network(self.network, clip_classifier={"classes": self.names})

    def _held_out(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if self._held_rows is None:
            first = len(self.reader) - self.held
            self._held_rows = self.items(range(first, len(self.reader)))
        device = next(self.network.parameters()).device
        batch = {name: value.to(device) for name, value in self._held_rows.items()}
        parts = [self.network(part.float() / 127.5 - 1).logits for part in batch["levels"].split(32)]
        return batch, {name: torch.cat([part[name] for part in parts]) for name in self.names}

    def _read(self, item: int) -> dict[str, Tensor]:
        found = self.reader[item]
        missing = [name for name in ("clip", "classes") if name not in found]
        if missing:
            raise UserError(
                f"metrics.learn_clips: item {item} has no {missing[0]!r}; smallworld.clip_dataset gives such"
            )
        levels = torch.from_numpy(np.array(found["clip"]))
        frames = self.network.config["frames"]
        if levels.ndim != 4 or levels.shape[-1] != 3 or levels.dtype != torch.uint8 or len(levels) != frames:
            raise UserError(
                f"metrics.learn_clips: item {item}: wanted a clip [{frames}, H, W, 3] uint8, got "
                f"{list(levels.shape)} {levels.dtype}; give both as many frames"
            )
        shares = {name: self._shares(found["classes"], name, item) for name in self.names}
        return {"levels": levels.permute(0, 3, 1, 2), **shares}

    def _shares(self, classes: Mapping[str, Sequence[int]], name: str, item: int) -> Tensor:
        given, known = list(classes.get(name, ())), len(self.names[name])
        if not given or not all(0 <= number < known for number in given):
            raise UserError(f"metrics.learn_clips: item {item}: its {name} is {given}, wanted 0 to {known - 1}")
        made = torch.zeros(known)
        for number in given:
            made[number] += 1 / len(given)
        return made
