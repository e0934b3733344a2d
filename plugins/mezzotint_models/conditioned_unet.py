"""One U-Net for the pixel and latent diffusion models: diffusers' network, and what tells it what to make.

ADM, GLIDE, DALL-E 2's decoder, Imagen and the upsamplers differ in where the conditioning goes in: a vector added
to the time embedding (a class, a pooled text, a noise level), tokens that the attention reads, or further
channels of the input. All of these are here; training and sampling call the same module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mezzotint import Conditioning, UserError
from mezzotint_models.attention import AttentionLayers

__all__ = ["ConditionedUNet"]

Attention = Literal["joint", "cross", "none"]

_LEVEL_STEPS = 1000
"""A noise level in 0..1 is embedded as this many time steps would be."""


class ConditionedUNet(nn.Module):
    """A U-Net over x [B, in_channels, H, W]; the output has `out_channels`.

    patch: a power of two. x is taken apart into patches of this side, one place each (Shi et al. 2016,
        backwards), and so are the side channels: the network works at H / patch, and nothing is averaged.
    channels, layers: of each level, and residual blocks in it. The first `plain_levels` have no attention.
    head_channels: of one attention head, or of those of each level.
    attention: "joint": one softmax over text and places (GLIDE); "cross": transformer blocks with
        cross-attention (latent diffusion); "none": places among themselves (ADM; there diffusers
        has no normalisation before the one in the middle).
    context: width of the tokens that "joint" and "cross" read.
    pooled: width of a vector that is projected and added to the time embedding.
    classes: how many; the embedding has one row more, the last one, for no class.
    class_tokens: a class is told as this many learnt tokens too, which "joint" and "cross" read; the conditioning
        then has no context of its own.
    low_res: further channels for a smaller picture, brought to x's size bilinearly. level: its noise level is
        embedded too.
    extra: further channels as they are.

    The last convolution of a residual block, the end of each attention and the output begin as zeros (Dhariwal
    and Nichol 2021), and so do the side channels (Nichol et al. 2022, on inpainting).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        patch: int = 1,
        channels: Sequence[int] = (48, 96),
        layers: int = 1,
        plain_levels: int = 0,
        head_channels: int | Sequence[int] = 24,
        attention: Attention = "none",
        context: int = 0,
        pooled: int = 0,
        classes: int = 0,
        class_tokens: int = 0,
        low_res: bool = False,
        level: bool = False,
        extra: int = 0,
        groups: int = 12,
    ) -> None:
        super().__init__()
        if not 0 <= plain_levels <= len(channels) or patch < 1 or patch & (patch - 1):
            raise ValueError(f"plain_levels {plain_levels} of {len(channels)} levels, patch {patch}")
        self.config: dict[str, Any] = {
            "in_channels": in_channels, "out_channels": out_channels, "patch": patch, "channels": list(channels),
            "layers": layers, "plain_levels": plain_levels,
            "head_channels": head_channels if isinstance(head_channels, int) else list(head_channels),
            "attention": attention, "context": context, "pooled": pooled, "classes": classes,
            "class_tokens": class_tokens, "low_res": low_res, "level": level, "extra": extra, "groups": groups,
        }  # fmt: skip
        self.network = _network(self.config)
        side = (in_channels * low_res + extra) * patch**2
        self.network.conv_in = Entrance(in_channels * patch**2, side, channels[0])
        width = channels[0] * 4
        self.label_embedding = nn.Embedding(classes + 1, width) if classes else None
        self.label_tokens = nn.Embedding(classes + 1, class_tokens * context) if class_tokens else None
        self.pooled_projection = nn.Linear(pooled, width) if pooled else None
        self.level_embedding = _LevelEmbedding(channels[0], width) if level else None
        _close_exits(self.network)
        self.attention = AttentionLayers(self.network, halved=patch.bit_length() - 1)

    def forward(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """[B, out_channels, H, W]. time: a scalar or [B], in the schedule's own steps.

        conditioning: what the network was made for, with B rows; the tensors are of the network's type.
        Raises: UserError: something is absent, of another width, or not known to this network.
        """
        told = Conditioning() if conditioning is None else conditioning
        self.check(x, told)
        patch, given = self.config["patch"], {}
        if self.config["attention"] != "none":
            given = {"encoder_hidden_states": self._tokens(told), "encoder_attention_mask": told.mask}
        vector = self._vector(told)
        if vector is not None:
            given["class_labels"] = vector
        x = functional.pixel_unshuffle(torch.cat([x, *self._side(x, told)], dim=1), patch)
        out = self.network(x, time, return_dict=False, **given)[0]
        return functional.pixel_shuffle(out, patch)

    @property
    def mid_block(self) -> nn.Module:
        """The network's middle, where features are taken."""
        return self.network.mid_block

    def _tokens(self, told: Conditioning) -> Tensor | None:
        """What the attention reads, [B, L, context]."""
        if self.label_tokens is None:
            return told.context
        return self.label_tokens(told.label).unflatten(-1, (-1, self.config["context"]))

    def _side(self, x: Tensor, told: Conditioning) -> list[Tensor]:
        side = []
        if told.low_res is not None:
            size = (x.shape[2], x.shape[3])
            # torch's own antialiasing is for making pictures smaller; this one grows.
            side.append(functional.interpolate(told.low_res, size=size, mode="bilinear", align_corners=False))
        if told.concat is not None:
            side.append(told.concat)
        return side

    def _vector(self, told: Conditioning) -> Tensor | None:
        """What is added to the time embedding, [B, 4 channels[0]]."""
        parts = []
        if self.label_embedding is not None:
            parts.append(self.label_embedding(told.label))
        if self.pooled_projection is not None:
            parts.append(self.pooled_projection(told.pooled))
        if self.level_embedding is not None:
            parts.append(self.level_embedding(told.low_res_level))
        return torch.stack(parts).sum(0) if parts else None

    def check(self, x: Tensor, told: Conditioning) -> None:
        """Raises: UserError: see `forward`."""
        config, rows = self.config, x.shape[0]
        step = config["patch"] * 2 ** (len(config["channels"]) - 1)
        if x.ndim != 4 or x.shape[1] != config["in_channels"] or x.shape[2] % step or x.shape[3] % step:
            wanted = f"[B, {config['in_channels']}, H, W] with sides that are multiples of {step}"
            raise UserError(f"the denoiser takes {wanted}, got {list(x.shape)}")
        text = config["context"] if config["attention"] != "none" and not config["class_tokens"] else 0
        _expect("context", told.context, text, (rows, None, text))
        # Text encoders always give a pooled vector, also to those who do not want it.
        _expect("pooled", told.pooled if config["pooled"] else None, config["pooled"], (rows, config["pooled"]))
        _expect("label", told.label, config["classes"], (rows,))
        _expect("low_res", told.low_res, config["low_res"], (rows, config["in_channels"], None, None))
        _expect("low_res_level", told.low_res_level, config["level"], (rows,))
        _expect("concat", told.concat, config["extra"], (rows, config["extra"], x.shape[2], x.shape[3]))
        if told.mask is not None and told.context is not None:
            _expect("mask", told.mask, 1, (rows, told.context.shape[1]))
        if told.low_res is not None and (told.low_res.shape[2] > x.shape[2] or told.low_res.shape[3] > x.shape[3]):
            got = f"{list(told.low_res.shape[2:])} for {list(x.shape[2:])}"
            raise UserError(f"the denoiser enlarges a smaller picture; low_res is larger than its own: {got}")
        if told.label is not None and (int(told.label.min()) < 0 or int(told.label.max()) > config["classes"]):
            raise UserError(
                f"the denoiser knows classes 0 to {config['classes'] - 1}, and {config['classes']} for none; "
                f"got labels {sorted(set(told.label.tolist()))}"
            )


class Entrance(nn.Conv2d):
    """The first convolution, its side channels' weights apart.

    So one without side channels starts one that has them, by names and shapes.
    """

    def __init__(self, channels: int, side: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=1)
        self.side = nn.Parameter(torch.zeros(out, side, 3, 3)) if side else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.side is None else torch.cat([self.weight, self.side], dim=1)
        return functional.conv2d(x, weight, self.bias, padding=1)


class _LevelEmbedding(nn.Module):
    """A noise level in 0..1, [B], as a time step would be embedded: [B, width]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps

        self.sinusoid = Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.mlp = TimestepEmbedding(channels, width)

    def forward(self, level: Tensor) -> Tensor:
        sinusoid = self.sinusoid(level.float() * _LEVEL_STEPS)
        return self.mlp(sinusoid.to(self.mlp.linear_1.weight.dtype))


def _expect(name: str, value: Tensor | None, wanted: Any, shape: tuple[int | None, ...]) -> None:
    """`value` is there exactly if `wanted`, and has that shape (None: any size)."""
    if value is None:
        if wanted:
            raise UserError(f"the denoiser needs {name!r}, which its conditioning has not")
        return
    if not wanted:
        raise UserError(f"the denoiser was not made for {name!r}, which its conditioning has")
    found = tuple(value.shape)
    if len(found) != len(shape) or any(s not in (None, f) for s, f in zip(shape, found, strict=True)):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise UserError(f"the denoiser takes {name!r} of shape [{sizes}], got {list(found)}")


def _network(config: dict[str, Any]) -> nn.Module:
    """diffusers' network of one kind of attention, with the same names for the same things in all of them."""
    from diffusers import UNet2DConditionModel, UNet2DModel

    attention, channels = config["attention"], config["channels"]
    down, middle, up, plain_down, plain_up = _BLOCKS[attention]
    plain, others = config["plain_levels"], len(channels) - config["plain_levels"]
    told = config["pooled"] or config["classes"] or config["level"]
    settings: dict[str, Any] = {
        "in_channels": config["in_channels"] * config["patch"] ** 2,
        "out_channels": config["out_channels"] * config["patch"] ** 2,
        "down_block_types": (plain_down,) * plain + (down,) * others,
        "mid_block_type": middle,
        "up_block_types": (up,) * others + (plain_up,) * plain,
        "block_out_channels": tuple(channels),
        "layers_per_block": config["layers"],
        "norm_num_groups": config["groups"],
        "resnet_time_scale_shift": "scale_shift",
        "class_embed_type": "identity" if told else None,
        "attention_head_dim": config["head_channels"],
    }
    heads = config["head_channels"]
    heads = [heads] * len(channels) if isinstance(heads, int) else heads
    if attention == "none":
        return UNet2DModel(**settings, downsample_type="resnet", upsample_type="resnet")
    if attention == "cross":
        # In these blocks diffusers' attention_head_dim is the number of heads.
        heads = [width // head for width, head in zip(channels, heads, strict=True)]
    settings["attention_head_dim"] = tuple(heads)
    return UNet2DConditionModel(**settings, cross_attention_dim=config["context"])


# By the kind of attention: a level down, the middle, a level up, and levels without attention.
_BLOCKS = {
    "none": (
        "AttnDownBlock2D", "UNetMidBlock2D", "AttnUpBlock2D", "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D",
    ),
    "joint": (
        "SimpleCrossAttnDownBlock2D", "UNetMidBlock2DSimpleCrossAttn", "SimpleCrossAttnUpBlock2D",
        "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D",
    ),
    "cross": (
        "CrossAttnDownBlock2D", "UNetMidBlock2DCrossAttn", "CrossAttnUpBlock2D", "DownBlock2D", "UpBlock2D",
    ),
}  # fmt: skip


def _close_exits(network: nn.Module) -> None:
    """Zeros at the end of each residual branch, and of the network."""
    from diffusers.models.attention_processor import Attention as Layer
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    ends = [network.conv_out]
    inside = {id(layer) for block in network.modules() if isinstance(block, Transformer2DModel)
              for layer in block.modules()}  # fmt: skip
    for module in network.modules():
        if isinstance(module, ResnetBlock2D):
            ends.append(module.conv2)
        elif isinstance(module, Transformer2DModel):
            ends.append(module.proj_out)
        elif isinstance(module, Layer) and id(module) not in inside:
            ends.append(module.to_out[0])
    for end in ends:
        nn.init.zeros_(end.weight)
        nn.init.zeros_(end.bias)
