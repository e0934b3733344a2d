"""What the trainer sees of a Stable-Diffusion-shaped model's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mezzotint import Image, Weights
from mezzotint_training.autoencoder import DecoderObjective, make_autoencoder, to_model
from mezzotint_training.checkpoint import build, pack
from mezzotint_training.denoiser import DenoiserObjective, make_denoiser, make_scheduler
from mezzotint_training.patch_code import fit, install
from mezzotint_training.pictures import sheet_of
from mezzotint_training.reading import CaptionBatches, LatentBatches, PictureBatches, load_tokenizer, tokenise
from mezzotint_training.single import Single
from mezzotint_training.text_encoder import TextObjective, make_text_encoder

if TYPE_CHECKING:
    from mezzotint_training.latent_text import DecoderTraining, LatentTraining, TextTraining

__all__ = ["DecoderTask", "LatentTask", "TextTask"]


class TextTask(Single):
    """Cross entropy of what each caption says. Figures: the share of captions wholly right."""

    def __init__(self, objective: TextTraining, reader: Any, seed: int, batch: int) -> None:
        self.files = reader.tokenizer_files()
        tokenizer = load_tokenizer(self.files)
        self.model = make_text_encoder(
            len(tokenizer), width=objective.width, layers=objective.layers, heads=objective.heads
        )
        nouns = tokenise(tokenizer, reader.nouns)[:, 1]
        super().__init__(
            TextObjective(self.model, nouns, reader.class_counts, reader.noun_classes),
            CaptionBatches(reader, tokenizer, batch, seed),
        )

    def weights(self) -> Weights:
        return packed_text(self.model, self.files)


class DecoderTask(Single):
    """A decoder behind the principal components of patches; the encoder stays as it was fitted."""

    def __init__(self, objective: DecoderTraining, reader: Any, seed: int, batch: int) -> None:
        fitted = np.stack([reader[i]["image"] for i in range(min(objective.fitted_on, len(reader)))])
        code = fit(fitted, objective.latent_channels, objective.whitening)
        self.model = make_autoencoder(tuple(objective.channels), objective.latent_channels)
        install(self.model, code)
        self.model.to(memory_format=torch.channels_last)
        for part in (self.model.encoder, self.model.quant_conv):
            part.requires_grad_(False)
        super().__init__(DecoderObjective(self.model, self.encode), PictureBatches(reader, batch, seed))
        self.modules: Mapping[str, nn.Module] = {"vae": self.model}
        self.shown = to_model(torch.from_numpy(fitted[:8].copy()))

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """The encoder itself, which also weights that training starts from may have brought."""
        latents: Tensor = self.model.encode(pictures).latent_dist.mode()
        return latents

    def weights(self) -> Weights:
        return pack(self.model, "AutoencoderKL", self.model.config)

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        """Pictures of the data set above, their reconstructions below."""
        shown = self.shown.to(generator.device)
        made = self.model.decode(self.encode(shown)).sample
        blank = torch.ones(8 - len(shown), *shown.shape[1:], device=shown.device)
        return sheet_of(torch.cat((shown, blank, made, blank)) / 2 + 0.5, enlarged=1)


class LatentTask(Single):
    """v-prediction on latents, told by a text encoder that learns along."""

    def __init__(self, objective: LatentTraining, reader: Any, seed: int, batch: int) -> None:
        self.vae = build(objective.autoencoder, "AutoencoderKL").eval().requires_grad_(False)
        self.text = build(objective.text_encoder, "CLIPTextModel")
        self.files = dict(objective.text_encoder.meta["tokenizer"])
        tokenizer = load_tokenizer(self.files)
        vae = self.vae.config
        self.unet = make_denoiser(
            tuple(objective.channels), latent_channels=vae.latent_channels, words=self.text.config.hidden_size,
            size=reader[0]["image"].shape[0] // 2 ** (len(vae.block_out_channels) - 1),
            layers=objective.layers, heads=objective.heads,
        ).to(memory_format=torch.channels_last)  # fmt: skip
        batches = LatentBatches(
            [reader], ((1.0,), (1.0,)), 0, encode=self.encode, tokenizer=tokenizer, batch=batch, seed=seed
        )
        self.empty = tokenise(tokenizer, [""])
        super().__init__(DenoiserObjective(self.unet, self.text, self.empty[0], focus=objective.focus), batches)
        self.modules: Mapping[str, nn.Module] = {"unet": self.unet, "text_encoder": self.text}
        self.shown = tokenise(tokenizer, [reader.caption(i) for i in range(min(16, len(reader)))])

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of [N, H, W, 3] uint8, on the CPU, where batches are made."""
        latents: Tensor = self.vae.encode(to_model(pictures)).latent_dist.mode()
        return latents

    def weights(self) -> dict[str, Weights]:
        return {
            "unet": pack(self.unet, "UNet2DConditionModel", self.unet.config),
            "text_encoder": packed_text(self.text, self.files),
        }

    @torch.no_grad()
    def sheet(self, generator: torch.Generator, steps: int = 10, scale: float = 3.0) -> Image:
        """Samples of the data set's first captions, from the same noise each time."""
        scheduler = make_scheduler()
        scheduler.set_timesteps(steps)
        config, device = self.unet.config, generator.device
        size = config.sample_size
        x = torch.randn(len(self.shown), config.in_channels, size, size, generator=generator, device=device)
        words = self.text(torch.cat((self.shown, self.empty.expand_as(self.shown))).to(device)).last_hidden_state
        for time in scheduler.timesteps:
            said, unsaid = self.unet(torch.cat((x, x)), time, words).sample.chunk(2)
            x = scheduler.step(unsaid + scale * (said - unsaid), time, x).prev_sample
        return sheet_of(self.vae.decode(x.cpu() / self.vae.config.scaling_factor).sample / 2 + 0.5, enlarged=1)


def packed_text(model: Any, files: Mapping[str, str]) -> Weights:
    """A text encoder's weights with its tokenizer, as a checkpoint and as `models.text_encoder` want them."""
    record = {"kind": "clip", "tokenizer": dict(files), "masked": True}
    return pack(model, "CLIPTextModel", model.config.to_diff_dict(), tokenizer=dict(files), text_encoder=record)
