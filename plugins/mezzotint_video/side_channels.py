"""What may lie beside a clip's latents: some of its frames, the clip at a lower frame rate, or its depth.

Training draws them, and nodes make them for sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from mezzotint import Conditioning, Context, Latents, UserError, node
from mezzotint_video.depth_side import DepthSide

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["SIDES", "Side", "condition_on_frames", "condition_on_slow_clip", "side_of"]

Side = Literal["none", "frames", "slow", "depth"]


class SideChannels(Protocol):
    """Side channels of a kind. noisy: whether they get noise, whose level is told. whole: whether they want whole
    clips, and not some frames of them.
    """

    noisy: bool
    whole: bool

    def channels(self, latents: int) -> int:
        """How many there are beside so many latent channels."""
        ...

    def remembered(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """What else of an item they are made from, tensors of one row; levels: [F, H, W, 3] uint8 of its clip."""
        return {}

    def draw(self, rows: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
        """[B, F, n, h, w] for a batch's clean clips, and their noise levels [B]."""
        ...


class NoSide(SideChannels):
    noisy = False
    whole = False

    def channels(self, latents: int) -> int:
        return 0

    def draw(self, rows: Mapping[str, Tensor], generator: torch.Generator) -> tuple[None, None]:
        return None, None


class KnownFramesSide(SideChannels):
    """Frames that are known, zeros in place of the others, and a channel that says which they are.

    Two in five clips know none, so that the model also draws whole clips; others every second, third or last frame
    (interpolation), the first one (a picture that begins to move), or some first ones (a clip that goes on).
    Source: Singer et al. 2022, "Make-A-Video", section 3.3.
    """

    noisy = False
    whole = True

    def channels(self, latents: int) -> int:
        return latents + 1

    def draw(self, rows: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, None]:
        import torch

        clean = rows["latents"].float()
        batch, frames = clean.shape[:2]
        device = generator.device
        kind = torch.rand(batch, generator=generator, device=device)
        stride = torch.randint(3, (batch,), generator=generator, device=device)
        first = torch.randint(1, max(frames // 2, 2), (batch,), generator=generator, device=device)
        number = torch.arange(frames, device=device)[None]
        steps = torch.tensor([2, 3, max(frames - 1, 1)], device=device)[stride][:, None]
        between, begun = number % steps == 0, number < first[:, None]
        one = (number == 0).expand_as(between)
        level = kind[:, None]
        known = torch.where(level < 0.7, between, torch.where(level < 0.85, one, begun)) & (level >= 0.4)
        return known_frames(clean, known), None


class SlowClipSide(SideChannels):
    """The clip at half of its frame rate, each frame twice, with noise on it (noise conditioning augmentation).

    Source: Ho et al. 2022, "Imagen Video", sections 2.2 and 2.5.
    """

    noisy = True
    whole = True

    def channels(self, latents: int) -> int:
        return latents

    def draw(self, rows: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        from mezzotint_sampling import noised_low_res

        clean = rows["latents"].float()
        slow = repeated(clean[:, ::2], 2)[:, : clean.shape[1]]
        level = torch.rand(len(clean), generator=generator, device=generator.device) * 0.5
        noise = torch.randn(slow.shape, generator=generator, device=generator.device)
        return noised_low_res(slow, level, noise), level


SIDES: Mapping[str, SideChannels] = {
    "none": NoSide(),
    "frames": KnownFramesSide(),
    "slow": SlowClipSide(),
    "depth": DepthSide(),
}


def side_of(name: str) -> SideChannels:
    """The side channels of that name, "" being none."""
    return SIDES[name or "none"]


def known_frames(clean: Tensor, known: Tensor) -> Tensor:
    """[B, F, C + 1, h, w] of clips [B, F, C, h, w] and which frames are known, [B, F] bool."""
    import torch

    mask = known[:, :, None, None, None].to(clean.dtype)
    shown = mask.expand(-1, -1, 1, *clean.shape[3:])
    return torch.cat([clean * mask, shown], dim=2)


def repeated(clip: Tensor, rate: int) -> Tensor:
    """[B, F * rate, C, h, w]: each frame `rate` times."""
    return clip.repeat_interleave(rate, dim=1)


@node("video.condition_on_frames")
def condition_on_frames(
    conditioning: Conditioning,
    known: Latents | None = None,
    like: Latents | None = None,
    *,
    places: list[Annotated[int, Field(ge=0, le=65535)]] | None = None,
    frames: Annotated[int, Field(ge=2, le=65536)] = 8,
) -> Conditioning:
    """Show a model of clips some of its frames, or none: to draw what lies between, before or after them.

    For models that were trained with side "frames". What guidance compares with wants the same.

    conditioning: the words.
    known: the frames [B, C, K, h, w], or pictures [B, C, h, w] for one frame each.
    like: without known frames, latents of the size that is made.
    places: of the known frames in the clip, from 0; the first ones if null.
    frames: of the whole clip.

    Source: Singer et al. 2022, "Make-A-Video", section 3.3.
    Raises: UserError: neither known frames nor a size; places that are none, or not as many as the frames.
    """
    import torch

    if known is None:
        if like is None:
            raise UserError("video.condition_on_frames: give known frames, or latents of the size as like")
        batch, channels, *_, height, width = like.data.shape
        empty = torch.zeros(batch, channels + 1, frames, height, width)
        return conditioning.replace(concat=empty)
    data = known.data.unsqueeze(2) if known.data.ndim == 4 else known.data
    where = list(range(data.shape[2])) if places is None else list(places)
    if len(where) != data.shape[2] or len(set(where)) != len(where) or max(where) >= frames:
        raise UserError(
            f"video.condition_on_frames: {data.shape[2]} frames are known, and their places are {where}; wanted "
            f"as many places below {frames}, none twice"
        )
    clip = data.new_zeros(data.shape[0], frames, data.shape[1], *data.shape[3:])
    clip[:, where] = data.transpose(1, 2)
    there = torch.zeros(data.shape[0], frames, dtype=torch.bool, device=data.device)
    there[:, where] = True
    return conditioning.replace(concat=known_frames(clip, there).transpose(1, 2).contiguous())


@node("video.condition_on_slow_clip")
def condition_on_slow_clip(
    ctx: Context,
    conditioning: Conditioning,
    clip: Latents,
    *,
    level: Annotated[float, Field(ge=0, le=1)] = 0.1,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Conditioning:
    """Show a model of clips the clip at half of its frame rate: temporal super-resolution.

    For models that were trained with side "slow". What guidance compares with wants the same.

    conditioning: the words.
    clip: [B, C, F, h, w]; twice as many frames are made.
    level: how much noise is put on it, 0 none, 1 nothing else; the model is told.
    seed: of that noise.

    Source: Ho et al. 2022, "Imagen Video", sections 2.2 and 2.5.
    Raises: UserError: pictures in place of a clip.
    """
    import torch

    from mezzotint_sampling import noised_low_res

    if clip.data.ndim != 5:
        raise UserError(f"video.condition_on_slow_clip: wanted clips [B, C, F, h, w], got {list(clip.data.shape)}")
    slow = clip.data.float().repeat_interleave(2, dim=2)
    levels = torch.full((slow.shape[0],), float(level))
    noise = ctx.noise(seed, "video.condition_on_slow_clip").normal(tuple(slow.shape)).to(slow)
    return conditioning.replace(concat=noised_low_res(slow, levels, noise), low_res_level=levels)
