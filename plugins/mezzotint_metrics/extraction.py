"""Features out of networks that graphs have anyway: a denoiser's middle, a classifier's logits, embeddings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mezzotint import (
    Conditioning,
    Context,
    Denoiser,
    Image,
    Latents,
    NoiseLevel,
    Recipe,
    Sigmas,
    UserError,
    node,
)
from mezzotint_metrics.features import Features

__all__ = ["classifier_logits", "denoiser_features", "embedding_features"]


@node("metrics.denoiser_features", device=True)
def denoiser_features(
    ctx: Context,
    denoiser: Denoiser,
    latents: Latents,
    conditioning: Conditioning,
    sigmas: Sigmas,
    *,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
    batch: Annotated[int, Field(ge=1, le=4096)] = 32,
) -> Features:
    """Features of pictures from the middle block of a denoiser's U-Net, mean over places.

    denoiser: unguided; any whose U-Net has a `mid_block`.
    latents: [B, C, H, W] of the pictures, by models.encode.
    conditioning: for all pictures alike; the empty prompt's is the usual one.
    sigmas: the first level is the noise that the network is shown them with; sampling.sigmas_from_list makes it.
    seed: of that noise: picture i has that of seed + i.
    batch: pictures evaluated at once.

    A denoiser learns what is in pictures in order to make them (Baranchuk et al. 2022). These are not Inception's
    features: distances in them compare only with each other.
    Raises: UserError: latents of a clip or of another space, a denoiser without a middle block.
    """
    import torch

    data = latents.data
    if data.ndim != 4 or not len(data):
        raise UserError(
            f"metrics.denoiser_features: wanted latents of pictures, [B, C, H, W], got {list(data.shape)}"
        )
    if latents.space and denoiser.space and latents.space != denoiser.space:
        raise UserError(
            f"metrics.denoiser_features: the latents are of space {latents.space!r}, the denoiser's is "
            f"{denoiser.space!r}"
        )
    model = ctx.realise(denoiser)
    middle = getattr(getattr(model, "module", None), "mid_block", None)
    if middle is None:
        raise UserError("metrics.denoiser_features: the denoiser has no U-Net with a middle block, or is guided")
    level = NoiseLevel(sigmas.alphas[0], sigmas.sigmas[0], sigmas.times[0])
    noisy = level.alpha * data + level.sigma * ctx.noise(seed).normal(data.shape).to(data)
    seen: list[Any] = []

    def keep(module: Any, given: Any, output: torch.Tensor) -> None:
        seen.append(output.float().mean(dim=(-2, -1)))

    handle = middle.register_forward_hook(keep)
    try:
        with torch.no_grad():
            for start in range(0, len(noisy), batch):
                model.predict(noisy[start : start + batch], level, conditioning)
                ctx.progress(min(start + batch, len(noisy)), len(noisy))
    finally:
        handle.remove()
    name = f"{denoiser.source.uri} U-Net middle at time {level.time:g}, seed {seed}"
    return Features(torch.cat(seen), f"{name}, {denoiser.source.fingerprint[:12]}")


@node("metrics.classifier_logits", device=True)
def classifier_logits(
    ctx: Context,
    classifier: Recipe,
    image: Image,
    *,
    batch: Annotated[int, Field(ge=1, le=4096)] = 64,
) -> Features:
    """A classifier's logits of pictures, for metrics.inception_score.

    classifier: any model that, realised, is called with (x, level) and gives logits, [B, classes]; those of noisy
        pictures are told that these have no noise.
    image: [B, H, W, C] of the size that it reads; image.resize makes it.
    batch: pictures at once.
    Raises: UserError: no picture, or a size that it does not read.
    """
    import torch

    if image.data.ndim != 4 or not len(image.data):
        raise UserError(f"metrics.classifier_logits: wanted pictures [B, H, W, C], got {list(image.data.shape)}")
    model = ctx.realise(classifier)
    x = image.data.to(ctx.device).float().movedim(-1, 1) * 2 - 1
    found = []
    with torch.no_grad():
        for start in range(0, len(x), batch):
            found.append(model(x[start : start + batch], NoiseLevel(1.0, 0.0, 0.0)).float())
            ctx.progress(min(start + batch, len(x)), len(x))
    name = f"{classifier.source.uri} logits, {classifier.source.fingerprint[:12]}"
    return Features(torch.cat(found), name)


@node("metrics.embedding_features")
def embedding_features(conditioning: Conditioning, *, network: str = "") -> Features:
    """The pooled embedding of a conditioning as features.

    conditioning: pooled [B, D], such as models.encode_text gives.
    network: a name for what made them; features of two names are not compared.
    Raises: UserError: no pooled embedding.
    """
    if conditioning.pooled is None or conditioning.pooled.ndim != 2:
        raise UserError("metrics.embedding_features: the conditioning has no pooled embedding [B, D]")
    return Features(conditioning.pooled, network)
