"""The task of `video.tune_on_clip`: the loss of `MotionTask` on one clip, under sparse-causal attention."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint_models import AttentionLayers
from mezzotint_video.clip_network import ClipNetwork
from mezzotint_video.motion_task import MotionTask, open_task
from mezzotint_video.places import attention_places, unet_of
from mezzotint_video.sparse_causal import through
from mezzotint_video.temporal_layers import Clip, TemporalLayers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mezzotint import Attend, AttentionCall, Conditioning, Context, Video
    from mezzotint_video.one_shot import OneShotObjective

__all__ = ["OneShotTask", "open_one_shot"]

VALIDATED = 4


class OneShotTask(MotionTask):
    """Every batch is the one clip, at several levels of noise. start: the validation's error before training."""

    objective: OneShotObjective

    def __init__(
        self, objective: OneShotObjective, ctx: Context, reader: Any, network: nn.Module, seed: int, batch: int
    ) -> None:
        self.count = batch
        super().__init__(objective, ctx, reader, network, seed, batch)
        self.network = CausalNetwork(network, self.network.layers)
        self.modules = {"network": self.network, **self.conditions.modules}
        self.start_loss = self._error()

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        return self._rows(self.count)

    def held(self, most: int) -> dict[str, Tensor]:
        device = next(self.network.parameters()).device
        return {name: value.to(device) for name, value in self._rows(1).items()}

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Errors of the target on the clip itself with fixed noise, now and before training."""
        return {"loss": self._error(), "loss_at_first": self.start_loss}

    def layers(self, unet: Any) -> TemporalLayers:
        """Temporal attention alone: frames are told nothing but their place."""
        position: Any = self.objective.position
        return TemporalLayers(attentions=attention_places(unet), position=position, modulation=0)

    @torch.no_grad()
    def _error(self) -> float:
        rows = self._rows(VALIDATED)
        device = next(self.network.parameters()).device
        rows = {name: value.to(device) for name, value in rows.items()}
        base = (torch.arange(VALIDATED, device=device) + 0.5) / VALIDATED
        times = (base * len(self.process)).long()
        kept = torch.zeros(VALIDATED, dtype=torch.bool, device=device)
        return self.errors(rows, times, kept, torch.Generator(device).manual_seed(self.seed)).mean().item()

    def _rows(self, count: int) -> dict[str, Tensor]:
        return self.clips.items([0] * count)


class CausalNetwork(ClipNetwork):
    """A network of clips whose self-attention is sparse-causal."""

    def __init__(self, image: nn.Module, layers: TemporalLayers) -> None:
        super().__init__(image, layers)
        # A network of ours has taken its attention over already.
        self.attention = getattr(image, "attention", None) or AttentionLayers(unet_of(image))

    def forward(self, x: Tensor, times: Tensor, told: Conditioning, clip: Clip) -> Tensor:
        with self.causal(x.shape[0], x.shape[1]):
            return super().forward(x, times, told, clip)

    @contextmanager
    def causal(self, batch: int, frames: int) -> Iterator[None]:
        """Self-attention looks at frames 0 and i - 1 while the block runs."""

        def attend(call: AttentionCall, plain: Attend) -> Tensor:
            return through(call, batch, frames)

        with self.attention.inject(attend, [site for site in self.attention.sites if site.kind == "self"]):
            yield


class OneClip:
    """A reader whose items are one clip. It says ten, as many as a data set of clips has at least."""

    def __init__(self, video: Video, caption: str) -> None:
        levels = (video.data[0].float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        self.item = {"clip": levels, "fps": float(video.fps), "caption": caption}

    def __len__(self) -> int:
        return 10

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        return self.item


def open_one_shot(objective: OneShotObjective, ctx: Context, seed: int, batch: int) -> OneShotTask:
    """A copy of the denoiser's network with new temporal attention, as the task of that one clip."""
    task = open_task(OneShotTask, objective, ctx, OneClip(objective.video, objective.caption), seed, batch)
    assert isinstance(task, OneShotTask)
    return task
