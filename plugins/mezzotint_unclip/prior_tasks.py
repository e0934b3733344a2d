"""What the trainer sees of the two priors: batches of pairs, losses, and figures on held-out pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from mezzotint import Weights
from mezzotint_sampling import alphas_cumprod
from mezzotint_training import Part, Task, rows
from mezzotint_unclip.autoregressive_prior import AutoregressivePrior
from mezzotint_unclip.diffusion_prior import DiffusionPrior
from mezzotint_unclip.pairs import Pairs
from mezzotint_unclip.schedule import SCHEDULE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["AutoregressiveTask", "DiffusionTask"]

Batch = dict[str, Tensor]
Figures = dict[str, Tensor]


class PriorTask(Task):
    """A prior on pairs. Batches: "image" and "text" [B, D], "context" [B, L, W]; "null_text", "null_context".

    The last tenth of the pairs, at most 256, is never trained on.
    """

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part] = (Part("prior", ("prior",)),)

    def __init__(self, model: Any, reader: Pairs, batch: int, seed: int, drop: float) -> None:
        self.model, self.modules = model, {"prior": model}
        self.reader, self.count, self.seed, self.drop = reader, batch, seed, drop
        self.held = min(256, len(reader) // 10)

    def batch(self, step: int, rank: int) -> Batch:
        return self.take(rows(len(self.reader) - self.held, self.count, self.seed, step, rank))

    def take(self, items: list[int]) -> Batch:
        reader = self.reader
        context, text = reader.null
        return {
            "image": reader.image[items], "text": reader.text[items], "context": reader.context[items].float(),
            "null_context": context, "null_text": text,
        }  # fmt: skip

    def held_out(self) -> Batch:
        """On the model's device."""
        device = next(self.model.parameters()).device
        first = len(self.reader) - self.held
        return {name: value.to(device) for name, value in self.take(list(range(first, len(self.reader)))).items()}

    def weights(self) -> Weights:
        from mezzotint_models import pack_network

        return pack_network(self.model, prior={"embedding": self.model.config["embedding"]})

    def texts(self, batch: Batch, dropped: Tensor) -> tuple[Tensor, Tensor]:
        """Context and text, where `dropped` [B] those of no words."""
        context = torch.where(dropped[:, None, None], batch["null_context"], batch["context"])
        return context, torch.where(dropped[:, None], batch["null_text"], batch["text"])

    def chosen(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] bool: the samples whose text is dropped, each by itself."""
        return torch.rand(count, generator=generator, device=generator.device) < self.drop


class DiffusionTask(PriorTask):
    """Mean squared error of the clean embedding, scaled so that guessing 0 has an error of 1.

    Source: Ramesh et al. 2022 (unCLIP), eq. 2.
    """

    def __init__(self, model: DiffusionPrior, reader: Pairs, batch: int, seed: int, drop: float) -> None:
        super().__init__(model, reader, batch, seed, drop)
        self.products = torch.from_numpy(np.array(alphas_cumprod(SCHEDULE))).float()

    def errors(self, batch: Batch, dropped: Tensor, generator: torch.Generator) -> Tensor:
        """[B], at one time in each of B equal parts of the schedule."""
        clean = batch["image"] * self.model.scale
        count, device = len(clean), generator.device
        place = torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)
        times = (place / count * len(self.products)).long().clamp_max(len(self.products) - 1)
        products = self.products.to(device)[times][:, None]
        noise = torch.randn(clean.shape, generator=generator, device=device)
        noisy = products.sqrt() * clean + (1 - products).sqrt() * noise
        return (self.model(noisy, times, *self.texts(batch, dropped)) - clean).square().mean(-1)

    def loss(self, batch: Batch, part: str, generator: torch.Generator) -> tuple[Tensor, Figures]:
        errors = self.errors(batch, self.chosen(len(batch["image"]), generator), generator)
        noisiest = errors[-(len(errors) // 4 or 1) :]
        return errors.mean(), {"mse_noisiest": noisiest.detach().mean()}

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """mse_pure: from pure noise, in one step. mse_mean: of predicting the mean embedding."""
        batch = self.held_out()
        count, device = len(batch["image"]), generator.device
        kept = torch.zeros(count, dtype=torch.bool, device=device)
        clean = batch["image"] * self.model.scale
        noise = torch.randn(clean.shape, generator=generator, device=device)
        last = torch.full((count,), len(self.products) - 1, device=device)
        guess = self.model(noise, last, *self.texts(batch, kept))
        mean = self.reader.image[: len(self.reader) - self.held].mean(0).to(clean) * self.model.scale
        return {
            "loss": self.errors(batch, kept, generator).mean().item(),
            "mse_pure": (guess - clean).square().mean().item(),
            "mse_mean": (mean - clean).square().mean().item(),
            "cosine": cosine_similarity(guess, clean).mean().item(),
            "cosine_text": cosine_similarity(batch["text"], clean).mean().item(),
        }


class AutoregressiveTask(PriorTask):
    """Cross-entropy of the codes, in nats per code."""

    model: AutoregressivePrior

    def errors(self, batch: Batch, dropped: Tensor) -> Tensor:
        """[B, components]."""
        model = self.model
        codes = model.codes.encode(batch["image"])
        similarity = model.similarity((batch["image"] * batch["text"]).sum(-1))
        similarity = torch.where(dropped, model.unknown, similarity)
        return model.loss(*self.texts(batch, dropped), similarity, codes)

    def loss(self, batch: Batch, part: str, generator: torch.Generator) -> tuple[Tensor, Figures]:
        errors = self.errors(batch, self.chosen(len(batch["image"]), generator))
        return errors.mean(), {"first_code": errors[:, 0].detach().mean()}

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """cosine: of what it writes. cosine_codes: of the codes of the embeddings themselves."""
        batch, model = self.held_out(), self.model
        count, device = len(batch["image"]), generator.device
        kept = torch.zeros(count, dtype=torch.bool, device=device)
        written = model.sample(
            *self.texts(batch, kept), lambda place: torch.rand(count, generator=generator, device=device)
        )
        ideal = normalize(model.codes.decode(model.codes.encode(batch["image"])), dim=-1)
        return {
            "loss": self.errors(batch, kept).mean().item(),
            "cosine": cosine_similarity(written, batch["image"]).mean().item(),
            "cosine_codes": cosine_similarity(ideal, batch["image"]).mean().item(),
            "cosine_text": cosine_similarity(batch["text"], batch["image"]).mean().item(),
        }
