"""The training nodes: text encoder, autoencoder, denoiser, and the checkpoint that they make together.

Each goes on where it was stopped, and ends in the same bits as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from mezzotint import Context, Dataset, Image, Report, Weights, node
from mezzotint_training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["autoencoder", "checkpoint", "denoiser", "text_encoder"]

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Trained(NamedTuple):
    """weights: the averaged weights.
    report: the curve, by step.
    curve: the loss as a picture.
    """

    weights: Weights
    report: Report
    curve: Image


class TrainedAutoencoder(NamedTuple):
    """weights: the averaged weights.
    report: the curve, by step.
    sheet: pictures of the data set above, their reconstructions below.
    """

    weights: Weights
    report: Report
    sheet: Image


class TrainedDenoiser(NamedTuple):
    """unet: the averaged weights of the denoiser.
    text_encoder: those of the text encoder that was trained with it.
    report: the curve, by step, with the error by noise level (mse0 is the least noise).
    sheet: samples of the data set's first captions.
    """

    unet: Weights
    text_encoder: Weights
    report: Report
    sheet: Image


@node("training.text_encoder", device=True)
def text_encoder(
    ctx: Context,
    dataset: Dataset,
    *,
    steps: Count = 1500,
    batch: Count = 256,
    learning_rate: Rate = 1e-3,
    width: Count = 128,
    layers: Count = 2,
    heads: Count = 4,
    report_every: Count = 50,
    seed: Seed = 0,
) -> Trained:
    """Start a CLIP text encoder by having it say what each caption says. No picture is needed.

    dataset: its reader gives captions, what they say as classes, and a tokenizer's files.
    steps, batch, learning_rate: of AdamW.
    width, layers, heads: of the encoder.
    report_every: steps between two rows of the curve; only there the run can be stopped.
    seed: of the weights at the start and of the batches.
    """
    import torch

    from mezzotint_training.checkpoint import pack
    from mezzotint_training.curve import draw_curve
    from mezzotint_training.reading import CaptionBatches, load_tokenizer, tokenise
    from mezzotint_training.recipe import Recipe
    from mezzotint_training.running import train
    from mezzotint_training.single import Single
    from mezzotint_training.text_encoder import TextObjective, make_text_encoder
    from mezzotint_training.trainer import Trainer

    reader = ctx.open_dataset(dataset)
    files = reader.tokenizer_files()
    tokenizer = load_tokenizer(files)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_text_encoder(len(tokenizer), width=width, layers=layers, heads=heads)
        nouns = tokenise(tokenizer, reader.nouns)[:, 1]
        objective = TextObjective(model, nouns, reader.class_counts, reader.noun_classes)
    batches = CaptionBatches(reader, tokenizer, batch, seed)
    recipe = Recipe(steps=steps, learning_rate=learning_rate, warm_up=100, seed=seed)
    trainer = Trainer(Single(objective, batches), recipe)
    curve = train(ctx, trainer, log_every=report_every)
    with trainer.averaged():
        weights = pack(
            model, "CLIPTextModel", model.config.to_diff_dict(), tokenizer=files,
            text_encoder={"kind": "clip", "tokenizer": files, "masked": True},
        )  # fmt: skip
    return Trained(weights, Report({"steps": steps, "curve": curve}), draw_curve(curve))


@node("training.autoencoder", device=True)
def autoencoder(
    ctx: Context,
    dataset: Dataset,
    *,
    steps: Count = 2600,
    batch: Count = 8,
    learning_rate: Rate = 1e-3,
    channels: list[int] = [32, 32, 64],  # noqa: B006
    latent_channels: Count = 8,
    whitening: Share = 0.5,
    fitted_on: Count = 8000,
    report_every: Count = 50,
    seed: Seed = 0,
) -> TrainedAutoencoder:
    """Train a KL autoencoder whose encoder is the principal components of patches, exact from the first step.

    Only the decoder learns: it starts as the linear reconstruction and learns the outlines.
    dataset: its reader gives pictures.
    channels: of the blocks, from the pixels down; each but the last halves the side.
    latent_channels: components that are kept.
    whitening: 0 keeps each component's own spread, 1 gives all the same.
    fitted_on: pictures that the components are computed from.
    steps, batch, learning_rate: of AdamW, with a long cool-down.
    report_every: steps between two rows of the curve; only there the run can be stopped.
    seed: of the weights at the start and of the batches.
    """
    import numpy
    import torch

    from mezzotint_training.autoencoder import DecoderObjective, make_autoencoder
    from mezzotint_training.checkpoint import pack
    from mezzotint_training.patch_code import fit, install
    from mezzotint_training.reading import PictureBatches
    from mezzotint_training.recipe import Recipe
    from mezzotint_training.running import train
    from mezzotint_training.single import Single
    from mezzotint_training.trainer import Trainer

    reader = ctx.open_dataset(dataset)
    code = fit(
        numpy.stack([reader[i]["image"] for i in range(min(fitted_on, len(reader)))]), latent_channels, whitening
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_autoencoder(tuple(channels), latent_channels)
        install(model, code)
    model = model.to(memory_format=torch.channels_last)
    recipe = Recipe(
        steps=steps, learning_rate=learning_rate, warm_up=50, cool_down=0.6, ema=0.99, weight_decay=0.0, seed=seed
    )
    task = Single(DecoderObjective(model, code.encode), PictureBatches(reader, batch, seed))
    trainer = Trainer(task, recipe)
    curve = train(ctx, trainer, preview=lambda: _reconstructions(model, reader), log_every=report_every)
    with trainer.averaged():
        return TrainedAutoencoder(
            pack(model, "AutoencoderKL", model.config), Report({"steps": steps, "curve": curve}),
            _reconstructions(model, reader),
        )  # fmt: skip


@node("training.denoiser", device=True)
def denoiser(
    ctx: Context,
    datasets: list[Dataset],
    autoencoder: Weights,
    text_encoder: Weights,
    *,
    shares: list[float] | None = None,
    first_shares: list[float] | None = None,
    first_steps: Annotated[int, Field(ge=0)] = 0,
    steps: Count = 5000,
    batch: Count = 24,
    learning_rate: Rate = 1e-3,
    channels: list[int] = [64, 128],  # noqa: B006
    layers: Count = 1,
    heads: Count = 4,
    cool_down: Share = 0.25,
    optimiser: Literal["muon", "adamw"] = "muon",
    focus: Share = 0.5,
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.996,
    report_every: Count = 50,
    seed: Seed = 0,
) -> TrainedDenoiser:
    """Train a text-conditional latent denoiser (v-prediction), and the text encoder along with it.

    datasets: what to learn from; their readers give pictures with captions.
    autoencoder: whose latents are learnt. text_encoder: where the words start, with its tokenizer.
    shares: how much of each data set a batch has; equal shares, if null.
    first_shares: the same for the first `first_steps` steps, so that easy pictures may come first.
    first_steps: how long they hold.
    steps, batch, learning_rate, cool_down: of AdamW; the rate falls to 0 over the last share of the steps.
    optimiser: muon makes the steps of hidden matrices orthogonal, and learnt faster here than adamw.
    focus: share of the noise levels drawn from sigma / alpha = 1 to 8, where outlines are decided.
    ema: decay of the average of the weights, which is what is kept.
    channels: of the U-Net's levels. layers: blocks per level. heads: of its attention.
    report_every: steps between two rows of the curve; only there the run can be stopped.
    seed: of the weights at the start and of the batches.
    Source: Salimans and Ho 2022 (v-prediction); Ho and Salimans 2022 (a tenth of the captions left out).
    """
    import torch

    from mezzotint_training.autoencoder import to_model
    from mezzotint_training.checkpoint import build, pack
    from mezzotint_training.denoiser import DenoiserObjective, make_denoiser
    from mezzotint_training.reading import LatentBatches, load_tokenizer, tokenise
    from mezzotint_training.recipe import Recipe
    from mezzotint_training.running import train
    from mezzotint_training.single import Single
    from mezzotint_training.trainer import Trainer

    vae, text = build(autoencoder, "AutoencoderKL").eval(), build(text_encoder, "CLIPTextModel")
    tokenizer = load_tokenizer(dict(text_encoder.meta["tokenizer"]))
    readers = [ctx.open_dataset(dataset) for dataset in datasets]
    even = [1.0] * len(readers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = make_denoiser(
            tuple(channels), latent_channels=vae.config.latent_channels, words=text.config.hidden_size,
            size=readers[0][0]["image"].shape[0] // 2 ** (len(vae.config.block_out_channels) - 1),
            layers=layers, heads=heads,
        )  # fmt: skip

    def encode(pictures: Tensor) -> Tensor:
        return vae.encode(to_model(pictures)).latent_dist.mode()

    batches = LatentBatches(
        readers, (first_shares or shares or even, shares or even), first_steps,
        encode=encode, tokenizer=tokenizer, batch=batch, seed=seed,
    )  # fmt: skip
    unet = unet.to(memory_format=torch.channels_last)
    objective = DenoiserObjective(unet, text, tokenise(tokenizer, [""])[0], focus=focus)
    recipe = Recipe(
        steps=steps, learning_rate=learning_rate, cool_down=cool_down, optimiser=optimiser, ema=ema, seed=seed
    )
    trainer = Trainer(Single(objective, batches), recipe)
    captions = [readers[i % len(readers)].caption(i) for i in range(16)]
    look = _sampler(unet, text, vae, tokenise(tokenizer, captions), tokenise(tokenizer, [""]))
    curve = train(ctx, trainer, preview=look, log_every=report_every)
    with trainer.averaged():
        return TrainedDenoiser(
            pack(unet, "UNet2DConditionModel", unet.config),
            pack(text, "CLIPTextModel", text.config.to_diff_dict(), tokenizer=text_encoder.meta["tokenizer"]),
            Report({"steps": steps, "curve": curve, "captions": captions}),
            look(),
        )


@node("training.checkpoint")
def checkpoint(autoencoder: Weights, text_encoder: Weights, unet: Weights) -> Checkpoint:
    """Put the parts of a text-to-image model together; as an output it is a folder that diffusers loads.

    autoencoder, text_encoder, unet: what the training nodes give.
    """
    parts = {"vae": autoencoder, "text_encoder": text_encoder, "unet": unet}
    return Checkpoint(parts=parts, tokenizer=dict(text_encoder.meta["tokenizer"]))


def _grid(pictures: Tensor, columns: int) -> Image:
    """[N, 3, H, W] in -1..1 as one picture of `columns` columns."""
    from torch.nn.functional import pad

    framed = pad((pictures.detach().float().clamp(-1, 1) + 1) / 2, (1, 1, 1, 1), value=0.5)
    rows = [framed[i : i + columns].permute(2, 0, 3, 1).flatten(1, 2) for i in range(0, len(framed), columns)]
    import torch

    return Image(torch.cat(rows)[None].contiguous())


def _reconstructions(model: Any, reader: Any, count: int = 8) -> Image:
    import numpy
    import torch

    from mezzotint_training.autoencoder import to_model

    wanted = to_model(torch.from_numpy(numpy.stack([reader[i]["image"] for i in range(count)])))
    with torch.no_grad():
        latents = model.encode(wanted).latent_dist.mode()
        return _grid(torch.cat((wanted, model.decode(latents).sample)), count)


def _sampler(
    unet: Any, text: Any, vae: Any, ids: Tensor, empty: Tensor, *, steps: int = 10, scale: float = 3.0
) -> Callable[[], Image]:
    """A small DDIM loop for sample sheets: the same noise each time, so that sheets can be compared."""

    def look() -> Image:
        import torch

        from mezzotint_training.denoiser import make_scheduler

        scheduler = make_scheduler()
        scheduler.set_timesteps(steps)
        size = unet.config.sample_size
        x = torch.randn(len(ids), unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            words = text(torch.cat((ids, empty.expand_as(ids)))).last_hidden_state
            for time in scheduler.timesteps:
                said, unsaid = unet(torch.cat((x, x)), time, words).sample.chunk(2)
                x = scheduler.step(unsaid + scale * (said - unsaid), time, x).prev_sample
            return _grid(vae.decode(x / vae.config.scaling_factor).sample, 8)

    return look
