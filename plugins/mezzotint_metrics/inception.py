"""Features and logits of the standard Inception network, whose weights the user brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from mezzotint import Context, Image, Recipe, Source, UserError, node
from mezzotint_metrics.features import Features
from mezzotint_metrics.standard_weights import filled

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint_metrics.inception_network import Inception

__all__ = ["Seen", "inception_features", "load_inception", "resized_clean", "resized_tensorflow"]

_SIDE = 299


class Seen(NamedTuple):
    """features: [B, 2048], for metrics.statistics, metrics.kid and metrics.precision_recall.
    logits: [B, 1008] without the bias, for metrics.inception_score.
    """

    features: Features
    logits: Features


@node("metrics.inception_features", device=True)
def inception_features(
    ctx: Context,
    image: Image,
    *,
    source: Source,
    resize: Literal["tensorflow", "clean"] = "tensorflow",
    batch: Annotated[int, Field(ge=1, le=1024)] = 16,
) -> Seen:
    """What the standard Inception network of FID sees in pictures. Its weights do not ship: bring the file.

    image: [B, H, W, 3], or of 1 channel. They are rounded to bytes first, as pictures in files are.
    source: a safetensors file with the tensors of pt_inception-2015-12-05; docs/evaluation.md tells where it comes
        from, and the line that converts it.
    resize: to its 299 pixels. "tensorflow": bilinear without antialiasing, corner to corner, as in published
        figures and in torch-fidelity. "clean": antialiased bicubic as Pillow's, in floats (Parmar et al. 2022).
        The two do not compare.
    batch: pictures at once.

    Always computed in float32. Source: Heusel et al. 2017; Salimans et al. 2016 for the logits.
    Raises: UserError: a pickle or another network's file, pictures with an alpha channel, no picture.
    """
    import torch

    data = image.data
    if data.ndim != 4 or not len(data) or data.shape[-1] not in (1, 3):
        raise UserError(f"metrics.inception_features: wanted pictures [B, H, W, 3], got {list(data.shape)}")
    network: Inception = ctx.realise(Recipe(source=source, loader="metrics.inception"))
    resized = resized_clean if resize == "clean" else resized_tensorflow
    pixels = data.to(ctx.device).float().mul(255).round().clamp(0, 255).movedim(-1, 1)
    features, logits = [], []
    for start in range(0, len(pixels), batch):
        part = pixels[start : start + batch].expand(-1, 3, -1, -1).contiguous()
        with torch.no_grad():
            seen = network((resized(part) - 128) / 128)
        features.append(seen.features)
        logits.append(seen.logits)
        ctx.progress(min(start + batch, len(pixels)), len(pixels))
    name = f"Inception 2015-12-05 {source.fingerprint[:12]}, {resize} resizing"
    return Seen(Features(torch.cat(features), name), Features(torch.cat(logits), f"{name}, logits"))


def resized_tensorflow(pixels: Tensor, side: int = _SIDE) -> Tensor:
    """[B, C, H, W] to [B, C, side, side] as TensorFlow 1.x's bilinear does: output i lies at i * H / side.

    No half-pixel centres, no antialiasing; the last row and column repeat.
    """
    across = _between(pixels, pixels.shape[3], side, dim=3)
    return _between(across, pixels.shape[2], side, dim=2)


def _between(pixels: Tensor, length: int, side: int, dim: int) -> Tensor:
    import torch

    # The scale in float32, as there: a last bit decides which pixel an exact place falls on.
    at = torch.arange(side, dtype=torch.float32, device=pixels.device) * torch.tensor(length / side)
    low = at.long().clamp(max=length - 1)
    share = (at - low).view(-1, *[1] * (3 - dim))
    first, second = pixels.index_select(dim, low), pixels.index_select(dim, (low + 1).clamp(max=length - 1))
    return first + (second - first) * share


def resized_clean(pixels: Tensor, side: int = _SIDE) -> Tensor:
    """[B, C, H, W] to [B, C, side, side] as Pillow's bicubic filter does: antialiased, in floats, in 0..255."""
    from torch.nn.functional import interpolate

    return interpolate(pixels, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)


def load_inception(recipe: Recipe, ctx: Context) -> Inception:
    """Loader `metrics.inception`.

    Raises: UserError: no file, a pickle, tensors missing, unknown or of another shape.
    """
    from mezzotint_metrics.inception_network import Inception

    others = "Weights of other Inceptions do not fit"
    return filled(Inception, recipe.source, ctx.device, "pt_inception-2015-12-05", others)
