"""Features of whole clips: what a network that reads motion, or one that reads pictures, says of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from mezzotint import Context, ImageEncoder, Recipe, Source, UserError, Video, Weights, node
from mezzotint_metrics.features import Features

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint_metrics.i3d_network import I3D

__all__ = [
    "ClipsSeen",
    "clips_of",
    "embedded",
    "frame_features",
    "i3d_features",
    "load_clip_network",
    "video_features",
]

CLIP_LOADER = "metrics.clip_network"
I3D_LOADER = "metrics.i3d"
Batch = Annotated[int, Field(ge=1, le=1024)]


class ClipsSeen(NamedTuple):
    """features: [B, D] of the last hidden layer, for metrics.statistics, metrics.kid and metrics.precision_recall.
    logits: [B, classes], for metrics.inception_score.
    """

    features: Features
    logits: Features


@node("metrics.video_features", device=True)
def video_features(
    ctx: Context,
    video: Video,
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    head: str = "motion",
    batch: Batch = 32,
) -> ClipsSeen:
    """What a small network that was trained on motion sees in clips: features to compare them in, and classes.

    video: [B, F, H, W, 3], with at least the network's frames; of longer clips as many are read, evenly spread
        from the first to the last.
    weights: of a network trained with metrics.learn_clips; in its place, `source`.
    source: its file, or "bundled:video_features".
    head: whose logits: of the bundled network "motion", "shape" or "colour"; "all" for all combinations, whose
        logits are sums.
    batch: clips at once.

    Raises: UserError: no clip, clips too short or too small, no such head, a file without a classifier of clips.
    """
    import torch

    from mezzotint_models import recipe_for

    _, recipe = recipe_for("clip_classifier", weights, source, node="metrics.video_features")
    network: Any = ctx.realise(Recipe(**recipe, loader=CLIP_LOADER))
    heads = list(network.config["heads"])
    if head not in ("all", *heads):
        raise UserError(f"metrics.video_features: wanted head {', '.join(heads)} or all, got {head!r}")
    least, size = network.config["frames"], network.config["size"]
    clips = clips_of(video, "metrics.video_features", least)
    if min(clips.shape[2:4]) < size:
        raise UserError(
            f"metrics.video_features: wanted frames of at least {size} pixels, got {list(clips.shape[2:4])}"
        )
    clips = clips[:, torch.linspace(0, clips.shape[1] - 1, least).round().long()]
    features, logits = [], []
    for start in range(0, len(clips), batch):
        part = clips[start : start + batch].to(ctx.device).float().movedim(-1, 2) * 2 - 1
        with torch.no_grad():
            seen = network(part)
        features.append(seen.features.float())
        logits.append(_combined(seen.logits) if head == "all" else seen.logits[head].float())
        ctx.progress(min(start + batch, len(clips)), len(clips))
    name = f"clip network {recipe['source'].uri}, {recipe['source'].fingerprint[:12]}"
    return ClipsSeen(Features(torch.cat(features), name), Features(torch.cat(logits), f"{name}, {head} logits"))


def _combined(logits: dict[str, Tensor]) -> Tensor:
    """[B, product of all classes]: sums of logits, whose softmax is the product of the heads' own."""
    parts = list(logits.values())
    found = parts[0].float()
    for part in parts[1:]:
        found = (found[:, :, None] + part.float()[:, None]).flatten(1)
    return found


@node("metrics.frame_features", device=True)
def frame_features(ctx: Context, encoder: ImageEncoder, video: Video, *, batch: Batch = 64) -> Features:
    """Features of clips from any picture encoder: what the frames show, and how much it changes.

    encoder: of models.image_encoder; any that gives an embedding of D numbers.
    video: [B, F, H, W, 3], of at least 2 frames.
    batch: frames evaluated at once.

    returns: [B, 2 D]: the mean embedding over the frames, and the mean absolute difference of each frame's to the
    next one's. They know how fast things change, and not which way.
    Raises: UserError: no clip, clips of one frame, frames without three channels.
    """
    import torch

    rows = embedded(ctx, encoder, clips_of(video, "metrics.frame_features", 2), batch)
    made = torch.cat((rows.mean(dim=1), rows.diff(dim=1).abs().mean(dim=1)), dim=1)
    return Features(made, f"{encoder.source.uri} over frames, {encoder.source.fingerprint[:12]}")


def embedded(ctx: Context, encoder: ImageEncoder, clips: Tensor, batch: int) -> Tensor:
    """[B, F, D] float32: an encoder's embedding of each frame. clips: [B, F, H, W, 3]."""
    import torch

    tower: Any = ctx.realise(encoder)
    frames, found = clips.flatten(0, 1), []
    with torch.no_grad():
        for start in range(0, len(frames), batch):
            found.append(tower.embed(frames[start : start + batch]).float())
            ctx.progress(min(start + batch, len(frames)), len(frames))
    return torch.cat(found).unflatten(0, tuple(clips.shape[:2]))


@node("metrics.i3d_features", device=True)
def i3d_features(ctx: Context, video: Video, *, source: Source, batch: Batch = 2) -> Features:
    """What the standard I3D network of FVD sees in clips. Its weights do not ship: bring the file.

    video: [B, F, H, W, 3] of at least 9 frames; published figures are of 16. Frames are made 224 pixels wide and
        high, bilinear without antialiasing.
    source: a safetensors file with the tensors of pytorch-i3d's rgb_imagenet.pt; docs/evaluation.md tells where it
        comes from, and the line that converts it.
    batch: clips at once.

    returns: the 400 logits, mean over time: what FVD is computed in. Always in float32.
    Source: Carreira and Zisserman 2017; Unterthiner et al. 2018.
    Raises: UserError: a pickle or another network's file, no clip, clips too short, frames without three channels.
    """
    import torch
    from torch.nn.functional import interpolate

    from mezzotint_metrics.i3d_network import LEAST_FRAMES, SIDE

    clips = clips_of(video, "metrics.i3d_features", LEAST_FRAMES)
    network: I3D = ctx.realise(Recipe(source=source, loader=I3D_LOADER))
    found = []
    for start in range(0, len(clips), batch):
        part = clips[start : start + batch].to(ctx.device).float().movedim(-1, 2)
        frames = interpolate(part.flatten(0, 1), (SIDE, SIDE), mode="bilinear", align_corners=False)
        with torch.no_grad():
            found.append(network(frames.unflatten(0, part.shape[:2]).transpose(1, 2) * 2 - 1))
        ctx.progress(min(start + batch, len(clips)), len(clips))
    return Features(torch.cat(found), f"I3D of Kinetics-400 {source.fingerprint[:12]}, logits")


def clips_of(video: Video, node: str, least: int) -> Tensor:
    """The clips [B, F, H, W, 3]. Raises: UserError: none, fewer than `least` frames, other channels."""
    data = video.data
    if data.ndim != 5 or not len(data) or data.shape[-1] != 3 or not data.shape[2] or not data.shape[3]:
        raise UserError(f"{node}: wanted clips [B, F, H, W, 3], got {list(data.shape)}")
    if data.shape[1] < least:
        had = f"{data.shape[1]} frame{'' if data.shape[1] == 1 else 's'}" if data.shape[1] else "no frames"
        raise UserError(f"{node}: the clips are too short: wanted at least {least} frames, got {had}")
    return data


def load_clip_network(recipe: Recipe, ctx: Context) -> Any:
    """Loader `metrics.clip_network`. Raises: UserError: another network, a damaged file."""
    from mezzotint_models import network_of

    network = network_of(recipe, ctx)
    if type(network).__name__ != "ClipClassifier":
        raise UserError(f"{recipe.source.uri}: a {type(network).__name__} is no classifier of clips")
    return network


def load_i3d(recipe: Recipe, ctx: Context) -> I3D:
    """Loader `metrics.i3d`. Raises: UserError: no file, a pickle, tensors missing, unknown or of another shape."""
    from mezzotint_metrics.i3d_network import I3D
    from mezzotint_metrics.standard_weights import filled

    others = "Of 400 actions and three channels, with the names of pytorch-i3d"
    return filled(I3D, recipe.source, ctx.device, "rgb_imagenet.pt", others)
