"""The first stage of latent diffusion as a task of the trainer: networks, the two players' losses, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderKL, VQModel
from torch import Tensor, nn

from mezzotint import Image, UserError, Weights
from mezzotint_models import pack_network
from mezzotint_training.autoencoder import make_autoencoder, to_model
from mezzotint_training.codebook_start import CodeUse, perplexity, start_codebook
from mezzotint_training.epochs import rows
from mezzotint_training.objective import Part, Task
from mezzotint_training.patch_critic import PatchCritic, adaptive_weight, hinge
from mezzotint_training.pictures import sheet_of

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_training.first_stage import FirstStage

__all__ = ["FirstStageTask", "load_start", "make_vq", "open_first_stage"]

Model = AutoencoderKL | VQModel
Figures = dict[str, Tensor]
_MEASURED = 256  # pictures that the scale is measured on, and that a codebook begins from
_SMALLEST = 10


def make_vq(
    channels: Sequence[int], latent_channels: int, codes: int, *, commitment: float = 0.25, groups: int = 4
) -> VQModel:
    """A VQModel that reduces by 2 ** (len(channels) - 1); one layer per block, no attention."""
    model = VQModel(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=latent_channels,
        num_vq_embeddings=codes,
        norm_num_groups=groups,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    # By default diffusers' quantiser repeats an old mistake: it weighs the codebook's term, not the encoder's.
    model.quantize.legacy = False
    model.quantize.beta = commitment
    return model


def load_start(model: Model, given: nn.Module) -> bool:
    """Take over another autoencoder's weights, and say whether there was all that `model` needs.

    A KL encoder becomes one without a posterior, that gives its mode; then a codebook is still to be found.
    Raises: UserError: it has another shape.
    """
    tensors = {name: value.detach().float() for name, value in given.state_dict().items()}
    complete = not isinstance(model, VQModel) or "quantize.embedding.weight" in tensors
    if not complete:
        tensors |= _mode_only(tensors, model.config.latent_channels)
        tensors["quantize.embedding.weight"] = model.quantize.embedding.weight.detach()
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"training.first_stage: 'start' is an autoencoder of another shape: {error}") from error
    return complete


def _mode_only(tensors: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """The last convolution of a KL encoder with the 1x1 one behind it as one; and a 1x1 that changes nothing."""
    last, bias = tensors["encoder.conv_out.weight"], tensors["encoder.conv_out.bias"]
    mix = tensors["quant_conv.weight"][: len(last) // 2, :, 0, 0]
    return {
        "encoder.conv_out.weight": torch.einsum("oi,ikhw->okhw", mix, last),
        "encoder.conv_out.bias": mix @ bias + tensors["quant_conv.bias"][: len(mix)],
        "quant_conv.weight": torch.eye(channels)[:, :, None, None],
        "quant_conv.bias": torch.zeros(channels),
    }


class WholePictures:
    """Pictures of a reader, [N, H, W, 3] uint8, the last tenth (at most 256) never trained on.

    Raises: UserError: fewer than ten items, no picture, sizes that differ or do not divide by `multiple`.
    """

    def __init__(self, reader: Any, batch: int, seed: int, multiple: int) -> None:
        if len(reader) < _SMALLEST:
            raise UserError(f"wanted at least {_SMALLEST} pictures to train on, got {len(reader)}")
        self.reader, self.count, self.seed, self.multiple = reader, batch, seed, multiple
        self.held = min(256, len(reader) // 10)
        self.shape = self._picture(0).shape

    def batch(self, step: int, rank: int) -> Tensor:
        return self.at(rows(len(self.reader) - self.held, self.count, self.seed, step, rank))

    def held_out(self, most: int) -> Tensor:
        first = len(self.reader) - self.held
        return self.at(range(first, first + min(self.held, most)))

    def some(self, most: int) -> Tensor:
        """Pictures that are trained on, the same every time."""
        return self.at(range(min(most, len(self.reader) - self.held)))

    def at(self, items: Sequence[int]) -> Tensor:
        pictures = [self._picture(item) for item in items]
        odd = next((p.shape for p in pictures if p.shape != self.shape), None)
        if odd is not None:
            raise UserError(f"wanted pictures of one size, got {list(self.shape)} and {list(odd)}")
        return torch.from_numpy(np.stack(pictures))

    def _picture(self, item: int) -> Any:
        found = self.reader[item]
        if "image" not in found:
            raise UserError(f"wanted items with an image, got {', '.join(sorted(found)) or 'nothing'}")
        picture = np.asarray(found["image"])
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise UserError(f"wanted pictures [H, W, 3] uint8, got {list(picture.shape)} {picture.dtype}")
        if picture.shape[0] % self.multiple or picture.shape[1] % self.multiple:
            height, width = picture.shape[:2]
            raise UserError(
                f"the first stage halves pictures to {self.multiple} pixels a latent; got {width}x{height}"
            )
        return picture


class FirstStageTask(Task):
    """Batches: pictures [B, H, W, 3] uint8 with the batch's number. See `training.first_stage` for the loss."""

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(self, model: Model, pictures: WholePictures, objective: FirstStage) -> None:
        self.model, self.pictures, self.objective = model, pictures, objective
        self.names = [name for name, _ in model.named_children()]
        frozen = () if objective.train_encoder else ("encoder", "quant_conv")
        tuned = tuple(name for name in self.names if name not in frozen)
        self.modules = {name: getattr(model, name) for name in self.names}
        self.parts = (Part("autoencoder", tuned),)
        if isinstance(model, VQModel):
            self.modules["use"] = self.use = CodeUse(model.config.num_vq_embeddings)
            self.lost: tuple[Tensor, Tensor] | None = None
        if objective.adversarial:
            # Three halvings for 64 pixels and more, as published; a small picture has room for fewer.
            layers = max(1, min(3, int(np.log2(min(pictures.shape[:2]))) - 3))
            self.modules["critic"] = self.critic = PatchCritic(objective.critic_channels, layers)
            self.parts += (Part("critic", ("critic",), optimiser={"betas": (0.5, 0.9), "weight_decay": 0.0}),)

    def batch(self, step: int, rank: int) -> tuple[Tensor, Tensor]:
        return self.pictures.batch(step, rank), torch.tensor(step)

    def loss(self, batch: tuple[Tensor, Tensor], part: str, generator: torch.Generator) -> tuple[Tensor, Figures]:
        wanted, judged = to_model(batch[0]), int(batch[1]) >= self.objective.adversarial_from
        if part == "critic":
            return self._critic_loss(wanted, judged, generator), {}
        latents, bound, figures = self.bottleneck(wanted, generator)
        made = self._decode(latents)
        error = (made - wanted).abs().mean()
        loss = error + bound
        figures = {"l1": error.detach(), **figures}
        if self.objective.adversarial and judged:
            persuasion = -self.critic(made).mean()
            weight = adaptive_weight(error, persuasion, self.model.decoder.conv_out.weight)
            loss = loss + self.objective.adversarial * weight * persuasion
            figures["adaptive"] = weight
        return loss, figures

    def _critic_loss(self, wanted: Tensor, judged: bool, generator: torch.Generator) -> Tensor:
        if not judged:
            return sum(p.sum() for p in self.critic.parameters()) * 0.0
        with torch.no_grad():
            made = self._decode(self.bottleneck(wanted, generator)[0])
        return hinge(self.critic(wanted), self.critic(made))

    def bottleneck(self, wanted: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Figures]:
        """What the decoder gets of pictures [B, 3, H, W] in -1..1, the term that bounds it, and figures.

        Without a generator a KL gives its mode.
        """
        with torch.set_grad_enabled(self.objective.train_encoder and torch.is_grad_enabled()):
            encoded = self.model.quant_conv(self.model.encoder(wanted))
        if isinstance(self.model, VQModel):
            quantised, bound, (_, _, indices) = self.model.quantize(encoded)
            if torch.is_grad_enabled():
                self.lost = indices, encoded.detach()
            return quantised, bound, {"perplexity": perplexity(indices, self.model.config.num_vq_embeddings)}
        mean, spread = encoded.chunk(2, dim=1)
        spread = spread.clamp(-30, 20)
        divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).flatten(1).sum(1).mean()
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
            mean = mean + (spread / 2).exp() * noise
        return mean, self.objective.kl * divergence / wanted[0].numel(), {"kl": divergence.detach()}

    def _decode(self, latents: Tensor) -> Tensor:
        made: Tensor = self.model.decoder(self.model.post_quant_conv(latents))
        return made

    def after(self, part: str) -> None:
        """Codes that nothing uses begin again at what the encoder gave."""
        if part == "autoencoder" and isinstance(self.model, VQModel) and self.lost is not None:
            indices, encoded = self.lost
            self.lost = None
            lost = self.use.follow(indices)
            if lost.any():
                vectors = encoded.movedim(1, -1).flatten(0, -2)
                self.model.quantize.embedding.weight[lost] = vectors[
                    torch.randint(len(vectors), (int(lost.sum()),))
                ]

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        wanted = to_model(self.pictures.held_out(64)).to(self._device())
        latents, _, figures = self.bottleneck(wanted, None)
        made = self._decode(latents).clamp(-1, 1)
        psnr = -10 * ((made - wanted) / 2).square().mean().log10()
        error = (made - wanted).abs().mean()
        return {
            "loss": error.item(),
            "psnr": psnr.item(),
            **{name: value.item() for name, value in figures.items()},
        }

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        """Held-out pictures, and what comes back of them, row by row."""
        wanted = to_model(self.pictures.held_out(16)).to(self._device())
        made = self._decode(self.bottleneck(wanted, None)[0])
        pairs = [torch.cat((wanted[i : i + 8], made[i : i + 8])) for i in range(0, len(wanted), 8)]
        return sheet_of(torch.cat(pairs) / 2 + 0.5, columns=min(8, len(wanted)))

    @torch.no_grad()
    def encoded(self) -> Tensor:
        """Unscaled latents [N, C, h, w] of pictures that are trained on; a KL's mode."""
        found = []
        for portion in self.pictures.some(_MEASURED).split(32):
            moments = self.model.quant_conv(self.model.encoder(to_model(portion).to(self._device())))
            found.append(moments[:, : self.model.config.latent_channels].cpu())
        return torch.cat(found)

    def weights(self) -> Weights:
        kept, model = self.objective.start, self.model
        downscale, channels = 2 ** (len(model.config.block_out_channels) - 1), model.config.latent_channels
        if kept is not None and not self.objective.train_encoder:
            space, scale, shift = kept.space, kept.scale, kept.shift
        else:
            scale, shift = 1 / max(self.encoded().std().item(), 1e-6), 0.0
            space = f"{self.objective.kind}-f{downscale}c{channels}-x{scale:.6g}"
        record = {"channels": channels, "downscale": downscale, "space": space, "scale": scale, "shift": shift}
        return pack_network(model, autoencoder=record)

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def open_first_stage(objective: FirstStage, ctx: Context, reader: Any, seed: int, batch: int) -> FirstStageTask:
    """Build the networks, and a codebook at what the encoder gives."""
    if objective.kind == "vq":
        model: Model = make_vq(
            objective.channels, objective.latent_channels, objective.codes, commitment=objective.commitment
        )
    else:
        model = make_autoencoder(objective.channels, objective.latent_channels)
    complete = objective.start is not None and load_start(model, ctx.realise(objective.start).module)
    pictures = WholePictures(reader, batch, seed, 2 ** (len(objective.channels) - 1))
    task = FirstStageTask(model, pictures, objective)
    if isinstance(model, VQModel) and not complete:
        generator = torch.Generator().manual_seed(seed)
        vectors = task.encoded().movedim(1, -1).flatten(0, -2)
        with torch.no_grad():
            model.quantize.embedding.weight.copy_(start_codebook(vectors, objective.codes, generator))
    return task
