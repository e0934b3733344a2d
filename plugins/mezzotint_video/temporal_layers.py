"""The temporal layers of a U-Net, as one network beside it: what turns a model of pictures into one of clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import UserError
from mezzotint_video.frame_words import FrameWords, WordReader
from mezzotint_video.pseudo3d import TemporalConvolution
from mezzotint_video.temporal_attention import Position, TemporalAttention, Through

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clip", "TemporalLayers"]

RATES = 16


@dataclass(frozen=True, eq=False)
class Clip:
    """What the layers know of an evaluation: B clips of F frames, which lie as B * F pictures one after the other.

    images: pictures behind each clip's frames that are none of its frames; they pass every layer as they are.
    apart: whether each frame is taken by itself; a clip of one frame is. What lies beside it is read all the same.
    fps: [B], frames per second. context: [B, L, D] or [B, F, L, D], what the denoiser is told in words.
    side: [B, F, C, H, W]. level: [B], how much noise `side` was given, in 0..1.
    seconds: [B, F], when each frame is; from 0 at the rate of `fps` if None.
    """

    batch: int
    frames: int
    images: int = 0
    apart: bool = False
    fps: Tensor | None = None
    context: Tensor | None = None
    side: Tensor | None = None
    level: Tensor | None = None
    seconds: Tensor | None = None

    @property
    def passes(self) -> bool:
        """Whether it is pictures by themselves, which no layer touches."""
        return self.apart or (self.frames < 2 and self.seconds is None)


class TemporalLayers(nn.Module):
    """Layers that go behind layers of a U-Net, by the names of those.

    convolutions, attentions: [name of a layer, channels there], each. head, position, causal, window: as in
    TemporalAttention; head: at most. kernel: frames that a convolution sees.
    context: width of the text that is read; 0 reads none. modulation: width of what each frame is told: where it
    lies in time, how many make a second, what the text says of the motion, how noisy the side channels are.
    side: further channels of the input, [name of the first layer, its output channels, side channels], or nothing;
        for a network that sees patches, so many times as a patch has places.
    noisy_side: whether their noise level is told.
    embedding: [name of the layer that embeds the time step, its width], or nothing: what a frame is told is added
        there too, and so reaches each residual block.
    words: blocks of the network that says the words anew for each frame (FrameWords); 0 is none.
    follows: whether the heads of temporal attention follow what moves (MovingHeads).
    reader: blocks of the network that reads the text for what each frame is told (WordReader); 0 reads by token.

    Whatever the settings, the layers do nothing at first: the model of pictures is untouched (Singer et al. 2022).
    """

    def __init__(
        self,
        *,
        convolutions: Sequence[Sequence[Any]] = (),
        attentions: Sequence[Sequence[Any]] = (),
        head: int = 32,
        position: Position = "relative",
        causal: bool = False,
        window: int = 1,
        kernel: int = 3,
        context: int = 0,
        modulation: int = 128,
        side: Sequence[Any] = (),
        noisy_side: bool = False,
        embedding: Sequence[Any] = (),
        words: int = 0,
        follows: bool = False,
        reader: int = 0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "convolutions": [list(one) for one in convolutions], "attentions": [list(one) for one in attentions],
            "head": head, "position": position, "causal": causal, "window": window, "kernel": kernel,
            "context": context, "modulation": modulation, "side": list(side), "noisy_side": noisy_side,
            "embedding": list(embedding), "words": words, "follows": follows, "reader": reader,
        }  # fmt: skip
        self.convolutions = nn.ModuleDict(
            {_key(name): TemporalConvolution(int(width), kernel) for name, width in convolutions}
        )
        self.attentions = nn.ModuleDict(
            {
                _key(name): TemporalAttention(
                    int(width), math.gcd(int(width), head), position, causal, window, modulation, follows
                )
                for name, width in attentions
            }
        )
        self.told = FrameModulation(modulation, context, noisy_side, reader=reader) if modulation else None
        self.side = nn.Conv2d(int(side[2]), int(side[1]), 3, padding=1) if side else None
        if self.side is not None:
            nn.init.zeros_(self.side.weight)
            nn.init.zeros_(self.side.bias)  # type: ignore[arg-type]

        self.embedding = nn.Linear(modulation, int(embedding[1])) if embedding and modulation else None
        if self.embedding is not None:
            nn.init.zeros_(self.embedding.weight)
            nn.init.zeros_(self.embedding.bias)
        self.words = FrameWords(context, 4 * RATES, words) if words and context else None

    @property
    def names(self) -> list[str]:
        """The layers of the U-Net that these lie behind, each once."""
        first = [str(self.config[kind][0]) for kind in ("embedding", "side") if self.config[kind]]
        behind = [str(name) for kind in ("convolutions", "attentions") for name, _ in self.config[kind]]
        return list(dict.fromkeys([*first, *behind]))

    def modulation(self, clip: Clip) -> Tensor | None:
        """[B, F, modulation], once for an evaluation."""
        return None if self.told is None else self.told(clip)

    def retold(self, clip: Clip) -> Tensor | None:
        """[B, F, L, D], the words of each frame, where the layers change them; once for an evaluation."""
        if self.words is None or clip.context is None or clip.passes:
            return None
        told: Tensor = self.words(clip.context, when(clip, clip.context.device))
        return told

    def behind(
        self, name: str, h: Tensor, clip: Clip, told: Tensor | None, through: Callable[[str], Through | None]
    ) -> Tensor:
        """h [B * (F + images), C, H, W], the output of the U-Net's layer `name`, after what lies behind it; or the
        time step's embedding [B * (F + images), D].

        told: of `modulation`. through: for an attention's name, what computes it in place of the kernel.
        """
        key, rows = _key(name), h.unflatten(0, (clip.batch, clip.frames + clip.images))
        frames = rows[:, : clip.frames]
        if self.embedding is not None and name == self.config["embedding"][0]:
            frames = frames if told is None else frames + self.embedding(told).to(frames.dtype)
        if self.config["side"] and name == self.config["side"][0]:
            frames = frames + self._side(clip, frames)
        apart = clip.apart or clip.frames < 2
        if key in self.convolutions and not apart:
            frames = self.convolutions[key](frames)
        if key in self.attentions and not apart:
            height, width = frames.shape[3:]
            places = frames.flatten(3).transpose(2, 3)  # [B, F, P, C]
            added = self.attentions[key](places, (height, width), told, through(name))
            frames = frames + added.transpose(2, 3).unflatten(3, (height, width))
        if clip.images:
            frames = torch.cat([frames, rows[:, clip.frames :]], dim=1)
        return frames.flatten(0, 1)

    def _side(self, clip: Clip, frames: Tensor) -> Tensor:
        assert self.side is not None
        height, width = frames.shape[3:]
        patch = 1 if clip.side is None else max(clip.side.shape[-2] // height, 1)
        channels = self.side.in_channels // patch**2
        wanted = (clip.batch, clip.frames, channels, height * patch, width * patch)
        if clip.side is None or tuple(clip.side.shape) != wanted:
            got = "none" if clip.side is None else list(clip.side.shape)
            raise UserError(f"these temporal layers read side channels {list(wanted)} under `concat`; got {got}")
        # A network that sees patches sees the side channels in the same ones.
        side = nn.functional.pixel_unshuffle(clip.side.flatten(0, 1), patch)
        made: Tensor = self.side(side.to(frames.dtype))
        return made.unflatten(0, (clip.batch, clip.frames))


class FrameModulation(nn.Module):
    """What each frame is told, [B, F, width]: its time, the frame rate, and what the words say of the motion.

    The text is read by learnt queries: which word tells the motion, and where it stands, is for them to find.
    Source: frame-rate conditioning after Singer et al. 2022, section 3.2.3; the rest is ours.
    """

    def __init__(self, width: int, context: int, noisy_side: bool, queries: int = 4, reader: int = 0) -> None:
        super().__init__()
        self.context, self.read_width = context, queries * 32
        self.reader = WordReader(context, reader, queries) if context and reader else None
        self.queries = nn.Parameter(torch.randn(queries, 32)) if context and not reader else None
        if context and not reader:
            self.to_k = nn.Linear(context, 32, bias=False)
            self.to_v = nn.Linear(context, 32, bias=False)
        self.noisy_side = noisy_side
        known = 4 * RATES + (2 * RATES if noisy_side else 0) + (queries * 32 if context else 0)
        self.mix = nn.Sequential(nn.Linear(known, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, clip: Clip) -> Tensor:
        weight = self.mix[0].weight
        ones = torch.ones(clip.batch, device=weight.device)
        known = [when(clip, weight.device)]
        if self.noisy_side:
            level = ones * 0 if clip.level is None else clip.level.to(ones).expand(clip.batch)
            known.append(_waves(level[:, None]).expand(-1, clip.frames, -1))
        if self.context:
            known.append(self._read(clip).expand(-1, clip.frames, -1))
        told: Tensor = self.mix(torch.cat(known, dim=-1).to(weight.dtype))
        return told

    def _read(self, clip: Clip) -> Tensor:
        """[B, F or 1, queries * 32]: one for all frames, or one for each where their words differ."""
        if clip.context is None or clip.context.shape[-1] != self.context:
            got = "none" if clip.context is None else f"{clip.context.shape[-1]} wide"
            raise UserError(f"these temporal layers read a text {self.context} wide; got {got}")
        context = clip.context if clip.context.ndim == 4 else clip.context.unsqueeze(1)
        return self.read(context)

    def read(self, context: Tensor) -> Tensor:
        """context [B, F or 1, L, D] to [B, F or 1, queries * 32]."""
        if self.reader is not None:
            found: Tensor = self.reader(context)
            return found
        context = context.to(self.to_k.weight.dtype)
        logits = torch.einsum("qd,bfld->bfql", self.queries, self.to_k(context)) * 32**-0.5
        return (logits.softmax(-1) @ self.to_v(context)).flatten(2)


def when(clip: Clip, device: Any) -> Tensor:
    """[B, F, 4 * RATES]: the time of each frame, and how many make a second."""
    ones = torch.ones(clip.batch, device=device)
    fps = ones * clip.frames if clip.fps is None else clip.fps.to(ones).expand(clip.batch)
    if clip.seconds is None:
        seconds = torch.arange(clip.frames, device=device) / fps[:, None]
    else:
        seconds = clip.seconds.to(ones)
    return torch.cat([_waves(seconds), _waves(fps.log2()[:, None] / 8).expand(-1, clip.frames, -1)], dim=-1)


def _waves(x: Tensor) -> Tensor:
    """[..., 2 * RATES]: sine and cosine of numbers of the order of 1, from a half turn to many."""
    rates = math.pi * 2 ** (torch.arange(RATES, device=x.device) / 2 - 1)
    angles = x.float().unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _key(name: str) -> str:
    # A name of a module in a dictionary has no points.
    return name.replace(".", "-")
