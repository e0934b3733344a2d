"""The families' nodes: what to train, and pictures from what was trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mezzotint import Context, Image, UserError, Weights, node
from mezzotint_families.objectives import AdversarialObjective, RealNVPObjective, VAEObjective, VQVAEObjective
from mezzotint_training import Objective

__all__ = ["gan", "interpolate", "realnvp", "reconstruct", "sample", "vae", "vqvae", "wgan"]

Size = Literal[8, 16, 32, 64]
Channels = Annotated[int, Field(ge=4, le=1024, multiple_of=4)]
Count = Annotated[int, Field(ge=1, le=4096)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Temperature = Annotated[float, Field(ge=0, le=10)]


@node("families.vae")
def vae(
    *,
    size: Size = 32,
    channels: Channels = 32,
    codes: Count = 32,
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian",
    deviation: Annotated[float, Field(gt=0, le=10)] | None = None,
    beta: Weight = 1.0,
) -> Objective:
    """A variational autoencoder, for training.train: the evidence lower bound.

    size: side of the pictures; those of the data set are averaged down to it.
    channels: of the first convolution; they double at each halving.
    codes: numbers that a picture is encoded in.
    likelihood: of pixels given a code: gaussian with one deviation for all, or bernoulli on 0..1.
    deviation: of the gaussian; without it, it is learnt.
    beta: weight of the divergence from the prior; 1 is the bound itself.
    Source: Kingma and Welling 2014; Higgins et al. 2017.
    """
    return VAEObjective(
        size=size, channels=channels, codes=codes, likelihood=likelihood, deviation=deviation, beta=beta
    )


@node("families.realnvp")
def realnvp(
    *,
    size: Size = 16,
    hidden: Channels = 32,
    blocks: Annotated[int, Field(ge=0, le=64)] = 1,
    scales: Annotated[int, Field(ge=1, le=6)] = 2,
) -> Objective:
    """A flow of affine couplings, for training.train: the exact likelihood, in bits per pixel value.

    size: side of the pictures; those of the data set are averaged down to it.
    hidden: channels inside a coupling's network at the full side; they double at each halving.
    blocks: residual blocks of it.
    scales: after each but the last, half of the values are done and the rest goes on at half the side.
    Source: Dinh et al. 2017.
    """
    return RealNVPObjective(size=size, hidden=hidden, blocks=blocks, scales=scales)


@node("families.vqvae")
def vqvae(
    *,
    size: Size = 32,
    channels: Channels = 48,
    codes: Annotated[int, Field(ge=2, le=65536)] = 128,
    width: Count = 16,
    update: Literal["average", "gradient"] = "average",
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99,
    beta: Weight = 0.25,
    prior_channels: Channels = 64,
    prior_layers: Annotated[int, Field(ge=0, le=64)] = 4,
) -> Objective:
    """A vector-quantised autoencoder and an autoregressive prior over its codes, for training.train.

    size: side of the pictures; those of the data set are averaged down to it. A code stands for 4x4 pixels.
    channels: of the convolutions.
    codes: vectors in the codebook.
    width: numbers of each vector.
    update: of the codebook: a moving average of what it stands for, or its gradient.
    decay: of the moving average.
    beta: weight of the commitment, which keeps the encoder near the codebook.
    prior_channels, prior_layers: of the masked convolutions that learn which codes follow which.
    Source: van den Oord et al. 2017 and 2016.
    """
    return VQVAEObjective(
        size=size, channels=channels, codes=codes, width=width, update=update, decay=decay, beta=beta,
        prior_channels=prior_channels, prior_layers=prior_layers,
    )  # fmt: skip


@node("families.gan")
def gan(
    *,
    loss: Literal["non_saturating", "saturating", "hinge"] = "non_saturating",
    penalty: Weight = 0.1,
    size: Size = 32,
    channels: Channels = 32,
    noise: Count = 64,
    critic_steps: Annotated[int, Field(ge=1, le=100)] = 1,
) -> Objective:
    """A generative adversarial network, for training.train.

    loss: saturating is the two players' value itself, whose gradient vanishes where the critic is sure.
    penalty: weight of half the critic's squared slope at real pictures, which steadies the game; 0 is none.
    size: side of the pictures; those of the data set are averaged down to it.
    channels: of the largest feature map; they double at each halving.
    noise: numbers that a picture is made of.
    critic_steps: of the critic to each of the generator.
    Source: Goodfellow et al. 2014; Radford et al. 2016; Lim and Ye 2017 (hinge); Mescheder et al. 2018
    (penalty).
    """
    return AdversarialObjective(
        kind=loss, penalty=penalty, size=size, channels=channels, noise=noise, critic_steps=critic_steps
    )


@node("families.wgan")
def wgan(
    *,
    constraint: Literal["penalty", "clipping"] = "penalty",
    penalty: Weight = 10.0,
    clip: Annotated[float, Field(gt=0, le=10)] = 0.01,
    size: Size = 32,
    channels: Channels = 32,
    noise: Count = 64,
    critic_steps: Annotated[int, Field(ge=1, le=100)] = 5,
) -> Objective:
    """A Wasserstein GAN, for training.train: minus the critic's loss estimates the distance to the data.

    constraint: what keeps the critic's slope about 1: a penalty on it, or weights clipped after each step.
    penalty: weight of the penalty.
    clip: bound of the weights, for clipping.
    size, channels, noise, critic_steps: as in families.gan.
    Source: Arjovsky et al. 2017; Gulrajani et al. 2017.
    """
    return AdversarialObjective(
        kind="wasserstein", size=size, channels=channels, noise=noise, critic_steps=critic_steps,
        clip=clip if constraint == "clipping" else 0.0, penalty=penalty if constraint == "penalty" else 0.0,
    )  # fmt: skip


@node("families.sample", device=True)
def sample(
    ctx: Context, weights: Weights, *, count: Count = 16, seed: Seed = 0, temperature: Temperature = 1.0
) -> Image:
    """Pictures from a trained family, in one pass (codes of a VQ-VAE one after the other).

    weights: from training.train with any of this plugin's objectives.
    count: how many.
    seed: picture i is that of seed + i.
    temperature: factor of the noise; for codes, of their logits' flatness. Less is safer and more alike.

    returns: [count, size, size, 3].
    Raises: UserError: weights of something else.
    """
    import torch

    from mezzotint_families.building import build_family
    from mezzotint_training import to_image

    model = build_family(weights).to(ctx.device)
    noise = ctx.noise(seed, "families").normal((count, *model.noise_shape))
    with torch.no_grad():
        return to_image(model.from_noise(noise, temperature))


@node("families.interpolate", device=True)
def interpolate(
    ctx: Context,
    weights: Weights,
    *,
    rows: Count = 4,
    steps: Annotated[int, Field(ge=2, le=256)] = 8,
    seed: Seed = 0,
) -> Image:
    """From one sample to another along the great circle between their noise, which keeps its usual length.

    weights: of a VAE, a RealNVP or a GAN.
    rows: how many pairs; row i goes from sample seed + i to sample seed + rows + i of families.sample.
    steps: pictures of each, both ends among them.

    returns: [rows * steps, size, size, 3].
    Raises: UserError: weights of something else; codes of a VQ-VAE have nothing between them.
    """
    import torch

    from mezzotint_families.building import build_family
    from mezzotint_training import to_image

    if weights.target == "families.vqvae":
        raise UserError("families.interpolate: the codes of a VQ-VAE have nothing between them")
    model = build_family(weights).to(ctx.device)
    first, last = ctx.noise(seed, "families").normal((2 * rows, *model.noise_shape)).flatten(1).chunk(2)
    angle = torch.acos((first * last).sum(1) / (first.norm(dim=1) * last.norm(dim=1)).clamp(min=1e-12))
    share = torch.linspace(0, 1, steps, device=first.device)[None, :, None]
    angle = angle.clamp(min=1e-4)[:, None, None]
    from_first, from_last = ((1 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin()
    noise = from_first * first[:, None] + from_last * last[:, None]
    with torch.no_grad():
        return to_image(model.from_noise(noise.reshape(rows * steps, *model.noise_shape)))


@node("families.reconstruct", device=True)
def reconstruct(ctx: Context, weights: Weights, image: Image) -> Image:
    """Pictures through the codes of a VAE or VQ-VAE, or the noise of a RealNVP, and back.

    weights: from training.train.
    image: [B, H, W, 3], square; a larger side that is a multiple of the network's is averaged down.

    returns: [B, size, size, 3]. The same every time: a VAE takes the mean of its posterior.
    Raises: UserError: another shape; weights of something else; a GAN has no way back.
    """
    import torch
    from torch.nn.functional import avg_pool2d

    from mezzotint_families.building import build_family
    from mezzotint_training import to_image

    model = build_family(weights).to(ctx.device)
    if not hasattr(model, "reconstruct"):
        raise UserError("families.reconstruct: a GAN makes pictures of noise and has no way back")
    _, height, width, channels = image.data.shape
    size = model.config["size"]
    if channels != 3 or height != width or height % size:
        shape = list(image.data.shape)
        raise UserError(f"families.reconstruct: wanted [B, {size}, {size}, 3] or a multiple of it, got {shape}")
    pixels = avg_pool2d(image.data.to(ctx.device).float().permute(0, 3, 1, 2), height // size)
    with torch.no_grad():
        return to_image(model.reconstruct(pixels))
