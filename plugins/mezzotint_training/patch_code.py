"""Linear start of an AutoencoderKL: principal components of 4x4 patches, exact from the first step.

The encoder's residual branches start at zero and its shortcuts carry space-to-depth and a linear
projection, so it *is* the projection, and latents can be computed before any training. The decoder
starts by painting each patch in its mean colour and learns the outlines. A group norm stands before
each last convolution; it is passed with sign pairs, silu(x) - silu(-x) = x, beside a constant so
much larger than the signal that the norm's scale hardly depends on the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn

PATCH = 4
STEADY = 32.0  # the constant of the frozen encoder: scale right to a thousandth
GENTLE = 4.0  # that of the decoder, which is trained: a large gain would amplify every step


@dataclass(frozen=True)
class PatchCode:
    """latents = matrix @ patch + offset; patch is [48] in the order of `patches`, values -1..1.

    matrix: [C, 48] float32. offset: [C] float32. inverse: [48, C] float32, least squares.
    mean: [48] float32, the mean patch.
    """

    matrix: Tensor
    offset: Tensor
    inverse: Tensor
    mean: Tensor

    def encode(self, pictures: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 to [B, C, H/4, W/4]."""
        flat = patches(pictures)
        return torch.einsum("cp,bphw->bchw", self.matrix, flat) + self.offset[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, h, w] to [B, 3, 4h, 4w]: the linear reconstruction."""
        flat = torch.einsum("pc,bchw->bphw", self.inverse, latents) + self.mean[:, None, None]
        outer = nn.functional.pixel_shuffle(_regroup(flat, inverse=True), 2)
        return nn.functional.pixel_shuffle(_regroup(outer, inverse=True), 2)


def patches(pictures: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, 48, H/4, W/4]: space to depth by 2, twice; sub-pixel slowest."""
    inner = _regroup(nn.functional.pixel_unshuffle(pictures, 2))
    return _regroup(nn.functional.pixel_unshuffle(inner, 2))


def _regroup(flat: Tensor, inverse: bool = False) -> Tensor:
    # pixel_unshuffle orders channels (colour, sub-pixel); the convolutions below want the other way.
    batch, channels, height, width = flat.shape
    first, second = (4, channels // 4) if inverse else (channels // 4, 4)
    return flat.view(batch, first, second, height, width).transpose(1, 2).reshape(flat.shape)


def fit(pictures: NDArray[np.uint8], channels: int, whitening: float = 0.5) -> PatchCode:
    """Principal components of the patches of [N, H, W, 3] uint8 pictures.

    whitening: 0 keeps each component's own spread, 1 gives all unit variance. The whole is scaled
    to unit mean variance, which is what a noise schedule assumes.
    """
    batch = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    flat = patches(batch).permute(0, 2, 3, 1).reshape(-1, 3 * PATCH * PATCH).double()
    mean = flat.mean(0)
    values, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    values, vectors = values.flip(0)[:channels], vectors.flip(1)[:, :channels]
    scale = values.sqrt() ** (-whitening)
    scale = scale / (scale.square() * values).mean().sqrt()
    matrix = scale[:, None] * vectors.T
    return PatchCode(matrix.float(), -(matrix @ mean).float(), (vectors / scale).float(), mean.float())


@torch.no_grad()
def install(model: AutoencoderKL, code: PatchCode, log_variance: float = -8.0) -> None:
    """Write the code into a three-level, one-layer AutoencoderKL without mid-block attention."""
    _install_encoder(model, code, log_variance)
    _install_decoder(model, code)


def _install_encoder(model: AutoencoderKL, code: PatchCode, log_variance: float) -> None:
    encoder, channels = model.encoder, len(code.offset)
    _quiet(encoder)
    _wire(encoder.conv_in, torch.eye(3))
    one, two, three = encoder.down_blocks
    _shuffle(one.downsamplers[0].conv, torch.eye(12))
    if two.resnets[0].conv_shortcut is not None:
        _wire(two.resnets[0].conv_shortcut, torch.eye(12))
    _shuffle(two.downsamplers[0].conv, code.matrix)
    groups = model.config.norm_num_groups
    width = encoder.conv_out.in_channels
    spread, bias, rows = _sign_pairs(channels, width, groups, per_group=4, columns=channels, constant=STEADY)
    _wire(three.resnets[0].conv_shortcut, spread, bias)
    gain = STEADY * (2 * groups / width) ** 0.5
    _wire(encoder.conv_out, _join_pairs(rows, width, channels, gain))
    _wire(model.quant_conv, torch.eye(channels))
    model.quant_conv.bias[:channels] = code.offset
    model.quant_conv.bias[channels:] = log_variance


def _install_decoder(model: AutoencoderKL, code: PatchCode) -> None:
    decoder, channels = model.decoder, len(code.offset)
    mean_colour = code.inverse.view(16, 3, channels).mean(0)
    _wire(model.post_quant_conv, torch.eye(channels))
    _carry(decoder.conv_in, mean_colour, code.mean.view(16, 3).mean(0))
    for resnet in decoder.mid_block.resnets:
        _carry_residual(resnet, 3)
    for block in decoder.up_blocks[:-1]:
        for resnet in block.resnets:
            _carry_residual(resnet, 3)
            if resnet.conv_shortcut is not None:
                _carry(resnet.conv_shortcut, torch.eye(3))
        _carry(block.upsamplers[0].conv, torch.eye(3))
    _install_last_block(decoder, model.config.norm_num_groups)


def _install_last_block(decoder: nn.Module, groups: int) -> None:
    last, width = decoder.up_blocks[-1].resnets, decoder.conv_out.in_channels
    spread, bias, rows = _sign_pairs(3, width, groups, per_group=1, columns=3, constant=GENTLE)
    taken = (spread.abs().sum(1) + bias.abs()) > 0
    # Where the width stays, the block has no shortcut of its own and the convolution before spreads.
    conv = last[0].conv_shortcut or decoder.up_blocks[-2].upsamplers[0].conv
    centre = conv.kernel_size[0] // 2
    conv.weight[taken] = 0
    conv.weight[taken, :3, centre, centre] = spread[taken]
    conv.bias[taken] = bias[taken]
    for resnet in last:
        resnet.conv2.weight[taken] = 0
        resnet.conv2.bias[taken] = 0
    gain = GENTLE * (2 * groups / width) ** 0.5
    decoder.conv_out.weight[:, taken] = 0
    decoder.conv_out.weight *= 0.1
    decoder.conv_out.weight[:, :, 1, 1] += _join_pairs(rows, width, 3, gain)
    decoder.conv_out.bias.zero_()


def _sign_pairs(
    count: int, width: int, groups: int, *, per_group: int, columns: int, constant: float
) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """A matrix that spreads `count` signals to +/- rows with +/- constants, `per_group` a group."""
    size = width // groups
    spread, bias, rows = torch.zeros(width, columns), torch.zeros(width), []
    for index in range(count):
        start = index // per_group * size
        plus = start + 2 + 2 * (index % per_group)
        bias[start], bias[start + 1] = constant, -constant
        spread[plus, index], spread[plus + 1, index] = 1.0, -1.0
        rows.append((plus, plus + 1))
    return spread, bias, rows


def _join_pairs(rows: list[tuple[int, int]], width: int, count: int, gain: float) -> Tensor:
    joined = torch.zeros(count, width)
    for index, (plus, minus) in enumerate(rows):
        joined[index, plus], joined[index, minus] = gain, -gain
    return joined


def _quiet(module: nn.Module) -> None:
    """Zero the end of every residual branch."""
    for name, child in module.named_modules():
        if name.endswith("conv2"):
            child.weight.zero_()
            child.bias.zero_()


def _wire(conv: nn.Conv2d, matrix: Tensor, bias: Tensor | None = None) -> None:
    """All zero but `matrix` [out, in] on the centre tap of the first channels."""
    conv.weight.zero_()
    conv.bias.zero_()
    centre = conv.kernel_size[0] // 2
    conv.weight[: matrix.shape[0], : matrix.shape[1], centre, centre] = matrix
    if bias is not None:
        conv.bias[: len(bias)] = bias


def _shuffle(conv: nn.Conv2d, matrix: Tensor) -> None:
    """A stride-2 convolution that gathers 2x2 neighbours, sub-pixel slowest, then maps them."""
    conv.weight.zero_()
    conv.bias.zero_()
    inputs = matrix.shape[1] // 4
    for tap in range(4):
        part = matrix[:, tap * inputs : (tap + 1) * inputs]
        conv.weight[: len(matrix), :inputs, tap // 2, tap % 2] = part


def _carry(conv: nn.Conv2d, matrix: Tensor, bias: Tensor | None = None) -> None:
    """Only the first rows become `matrix` on the centre tap; the others keep their random start."""
    rows, columns = matrix.shape
    centre = conv.kernel_size[0] // 2
    conv.weight[:rows] = 0
    conv.bias[:rows] = 0 if bias is None else bias
    conv.weight[:rows, :columns, centre, centre] = matrix


def _carry_residual(resnet: nn.Module, rows: int) -> None:
    resnet.conv2.weight[:rows] = 0
    resnet.conv2.bias[:rows] = 0
