"""The denoiser of PVDM: one network of pictures for all three planes, which meet in attention between its blocks.

Yu et al. 2023, section 3.2 and figure 3: a 2-D network is shared by the planes, and after its blocks the places of
all planes attend to each other as one line of tokens. The paper's network is a U-Net; planes of 8x8 places have
nothing left to halve, so the blocks here keep the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from mezzotint import Conditioning, UserError
from mezzotint_kernels import attention
from mezzotint_video.triplane import Planes, stack_planes, unstack_planes

__all__ = ["PlaneBlock", "PlaneDenoiser", "PlanesMeet"]


class PlaneBlock(nn.Module):
    """A residual block over one plane [B, width, rows, columns]; `told` shifts and scales what is normalised."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.GroupNorm(groups, width), nn.GroupNorm(groups, width)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.told = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, plane: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(silu(told))[:, :, None, None].chunk(2, dim=1)
        inner = self.first(silu(self.first_norm(plane)))
        return plane + self.second(silu(self.second_norm(inner) * (1 + scale) + shift))


class PlanesMeet(nn.Module):
    """Attention of the places of all planes, one line of tokens [B, N, width], to each other and to the text."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.text = nn.Linear(context, 2 * width) if context else None
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        query, key, value = self.query_key_value(self.norm(tokens)).chunk(3, dim=-1)
        if self.text is not None and context is not None:
            text_key, text_value = self.text(context).chunk(2, dim=-1)
            key, value = torch.cat([key, text_key], dim=1), torch.cat([value, text_value], dim=1)
        split = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        mixed: Tensor = tokens + self.out(attention(*split).transpose(1, 2).flatten(2))
        return mixed


class PlaneDenoiser(nn.Module):
    """x: planes stacked as rows, [B, channels, side + 2 frames, side]; the output is of the same shape.

    blocks: how many, each followed by a meeting of the planes where `meet`. context: width of a text's tokens, 0
    for none. previous: whether it is shown the planes of the clip before, or zeros, as `concat`.
    """

    def __init__(
        self, *, channels: int = 8, side: int = 8, frames: int = 8, width: int = 96, blocks: int = 4,
        heads: int = 4, context: int = 0, previous: bool = True, meet: bool = True, groups: int = 8,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % heads or width % groups or width % 2:
            raise ValueError(
                f"width {width} must be a multiple of 2, of the heads {heads} and the groups {groups}"
            )
        self.config: Mapping[str, Any] = {
            "channels": channels, "side": side, "frames": frames, "width": width, "blocks": blocks, "heads": heads,
            "context": context, "previous": previous, "meet": meet, "groups": groups,
        }  # fmt: skip
        self.entrance = nn.Conv2d(channels * (2 if previous else 1), width, 3, padding=1)
        self.places = nn.Parameter(torch.randn(width, side + 2 * frames, side) * 0.02)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.said = nn.Linear(context, width) if context else None
        self.blocks = nn.ModuleList(PlaneBlock(width, groups) for _ in range(blocks))
        self.meetings = nn.ModuleList(PlanesMeet(width, heads, context) for _ in range(blocks if meet else 0))
        self.exit_norm = nn.GroupNorm(groups, width)
        self.exit = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def forward(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """time: a scalar or [B], in the schedule's own steps.

        conditioning: context [B, L, D] where the network has one; concat [B, channels, rows, side], the planes of
        the clip before; none are zeros, which is what a first clip is told.
        Raises: UserError: planes, a context or a clip before of another shape.
        """
        told = Conditioning() if conditioning is None else conditioning
        self._check(x, told)
        vector = self.time(sinusoid(time.expand(len(x)), self.config["width"]).to(x.dtype))
        if self.said is not None and told.context is not None:
            vector = vector + self.said(told.context.mean(1))
        if self.config["previous"]:
            x = torch.cat([x, torch.zeros_like(x) if told.concat is None else told.concat], dim=1)
        planes = list(unstack_planes(x))
        planes = self.shared(self.entrance, planes)
        planes = [a + b for a, b in zip(planes, unstack_planes(self.places[None]), strict=True)]
        for number, block in enumerate(self.blocks):
            planes = self.shared(block, planes, vector)
            if self.config["meet"]:
                planes = self.met(self.meetings[number], planes, told.context)
        planes = self.shared(self.exit, [silu(plane) for plane in self.shared(self.exit_norm, planes)])
        return stack_planes(Planes(*planes))

    @staticmethod
    def shared(layer: nn.Module, planes: list[Tensor], vector: Tensor | None = None) -> list[Tensor]:
        """The same layer over each plane; planes of one size go through it side by side, as one batch."""
        if len({plane.shape for plane in planes}) == 1:
            given = () if vector is None else (vector.repeat(len(planes), 1),)
            return list(layer(torch.cat(planes), *given).chunk(len(planes)))
        return [layer(plane, *(() if vector is None else (vector,))) for plane in planes]

    @staticmethod
    def met(meeting: nn.Module, planes: list[Tensor], context: Tensor | None) -> list[Tensor]:
        tokens = torch.cat([plane.flatten(2) for plane in planes], dim=2).transpose(1, 2)
        parts = meeting(tokens, context).transpose(1, 2).split([plane[0, 0].numel() for plane in planes], dim=2)
        return [part.reshape(plane.shape) for part, plane in zip(parts, planes, strict=True)]

    def _check(self, x: Tensor, told: Conditioning) -> None:
        config = self.config
        wanted = [config["channels"], config["side"] + 2 * config["frames"], config["side"]]
        if list(x.shape[1:]) != wanted:
            raise UserError(
                f"the denoiser of planes wants [B, {wanted[0]}, {wanted[1]}, {wanted[2]}], got {list(x.shape)}"
            )
        if told.concat is not None and (told.concat.shape[1:] != x.shape[1:] or not config["previous"]):
            what = f"planes {wanted} of the clip before" if config["previous"] else "nothing"
            raise UserError(f"the denoiser of planes wants {what} as concat, got {list(told.concat.shape[1:])}")
        if told.context is not None and told.context.shape[-1] != config["context"]:
            raise UserError(
                f"the denoiser of planes reads texts of width {config['context']}, got {told.context.shape[-1]}"
            )


def sinusoid(time: Tensor, width: int) -> Tensor:
    """[B, width] of cosines, then sines, their wavelengths 2 pi to 20000 pi."""
    rates = torch.exp(
        -torch.arange(width // 2, device=time.device) * (torch.log(torch.tensor(1e4)) / (width // 2))
    )
    angles = time[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)
