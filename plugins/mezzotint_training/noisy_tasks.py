"""Networks that judge noisy pictures, in training: batches, losses, figures by noise level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mezzotint import Image, UserError, Weights
from mezzotint_training.noising import Process
from mezzotint_training.objective import Part, Task
from mezzotint_training.pairs import contrastive_loss
from mezzotint_training.pictures import Pictures, sheet_of

if TYPE_CHECKING:
    from mezzotint_models import Architecture

__all__ = ["NoisedClipTask", "NoisyClassifierTask", "NoisyTask"]

Rows = Mapping[str, Tensor]
Figures = dict[str, Tensor]
LEAST_TEMPERATURE = 0.01


class NoisyTask(Task):
    """A network `encoder` of x_t and t, t uniform over the whole process. Subclasses say what it answers to."""

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(
        self, architecture: Architecture, settings: Mapping[str, Any], outputs: int, reader: Any, seed: int,
        batch: int,
    ) -> None:  # fmt: skip
        from mezzotint_models import start_network

        self.architecture, self.process = architecture, Process(architecture.schedule)
        self.encoder = start_network("mezzotint.noisy_encoder", {**settings, "outputs": outputs})
        self.modules = {"encoder": self.encoder}
        self.parts = (Part("encoder", ("encoder",)),)
        self.pictures = Pictures(reader, architecture.sample_size, batch, seed, self.remembered)

    def remembered(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the network's answer is compared with, one row."""
        raise NotImplementedError

    def judged(self, answers: Tensor, rows: Rows) -> tuple[Tensor, Figures]:
        """Loss and figures of the network's answers [B, outputs]."""
        raise NotImplementedError

    def right(self, answers: Tensor, rows: Rows) -> Tensor:
        """Which answers are right, [B] bool: those of the first B rows."""
        raise NotImplementedError

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        return self.pictures.batch_items(step, rank)

    def loss(self, batch: Rows, part: str, generator: torch.Generator) -> tuple[Tensor, Figures]:
        return self.judged(self.answers(batch, generator, 0.0, 1.0), batch)

    def answers(self, rows: Rows, generator: torch.Generator, low: float, high: float) -> Tensor:
        """The network's answers at times spread evenly over this part of the process, with fresh noise."""
        clean = rows["levels"].float() / 127.5 - 1
        count, device = len(clean), generator.device
        within = torch.rand(count, generator=generator, device=device)
        share = (torch.arange(count, device=device) + within) / count
        # Which picture has which time is drawn too: rows of a batch may have an order of their own.
        share = share[torch.randperm(count, generator=generator, device=device)]
        times = ((low + share * (high - low)) * len(self.process)).long()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        alpha, sigma = self.process.at(times, clean)
        answers: Tensor = self.encoder(alpha * clean + sigma * noise, times.to(clean))
        return answers

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Loss and accuracy on held-out pictures, by quarter of the process: 0 has the least noise."""
        rows = self.pictures.items(self.pictures.held_items())
        rows = {name: value.to(next(self.encoder.parameters()).device) for name, value in rows.items()}
        found: dict[str, float] = {}
        losses = []
        for quarter in range(4):
            loss, figures = self.judged(self.answers(rows, generator, quarter / 4, (quarter + 1) / 4), rows)
            losses.append(loss.item())
            found |= {f"{name}_{quarter}": value.item() for name, value in figures.items()}
        return {"loss": sum(losses) / 4, **found}

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        """Held-out pictures, noisier from left to right; green where the answer is right, red where not."""
        rows = self.pictures.items(self.pictures.held_items())
        device = next(self.encoder.parameters()).device
        rows = {name: value.to(device) for name, value in rows.items()}
        clean = rows["levels"][:6].float() / 127.5 - 1
        noise = torch.randn(clean.shape, generator=generator, device=generator.device)
        columns = []
        for place in range(8):
            times = torch.full((len(clean),), int((place + 0.5) / 8 * len(self.process)), device=device)
            alpha, sigma = self.process.at(times, clean)
            noisy = alpha * clean + sigma * noise
            right = self.right(self.encoder(noisy, times.to(clean)), rows)
            columns.append(_framed(noisy.clamp(-1, 1) / 2 + 0.5, right))
        return sheet_of(torch.stack(columns, 1).flatten(0, 1), 8)

    def record(self) -> dict[str, Any]:
        """What the weights say of their input."""
        told = self.architecture.record()
        return {"noised": True, "size": told["sample_size"], "space": told["space"], "schedule": told["schedule"]}


class NoisyClassifierTask(NoisyTask):
    """Figures: accuracy."""

    def __init__(
        self, architecture: Architecture, settings: Mapping[str, Any], names: Sequence[str], reader: Any,
        seed: int, batch: int,
    ) -> None:  # fmt: skip
        super().__init__(architecture, settings, len(names), reader, seed, batch)
        self.names = list(names)

    def remembered(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        if not 0 <= int(item.get("label", -1)) < len(self.names):
            raise UserError(
                f"training.noisy_classifier: an item's label is {item.get('label')!r}, wanted 0 to "
                f"{len(self.names) - 1}"
            )
        return {"label": torch.tensor([int(item["label"])])}

    def judged(self, answers: Tensor, rows: Rows) -> tuple[Tensor, Figures]:
        return cross_entropy(answers, rows["label"]), {"accuracy": self.right(answers, rows).float().mean()}

    def right(self, answers: Tensor, rows: Rows) -> Tensor:
        return answers.detach().argmax(1) == rows["label"][: len(answers)]

    def weights(self) -> Weights:
        from mezzotint_models import pack_network

        return pack_network(self.encoder, classifier={**self.record(), "classes": self.names})


class Temperature(nn.Module):
    """One number that is learnt: the inverse temperature's logarithm, from 0.07 on."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(1 / 0.07)))


class NoisedClipTask(NoisyTask):
    """Figures: top1, how many noisy pictures find their text among those of the batch."""

    def __init__(
        self,
        architecture: Architecture,
        settings: Mapping[str, Any],
        text: Any,
        reader: Any,
        seed: int,
        batch: int,
    ) -> None:
        if batch < 2:
            raise UserError("training.noised_clip: a batch of at least 2: other items are what it contrasts")
        self.text = text
        width = self._embedded("").shape[1]
        super().__init__(architecture, settings, width, reader, seed, batch)
        self.temperature = Temperature()
        self.modules = {"encoder": self.encoder, "temperature": self.temperature}
        self.parts = (Part("encoder", ("encoder", "temperature")),)

    def _embedded(self, caption: str) -> Tensor:
        with torch.no_grad():
            pooled = self.text.condition([caption]).pooled
        return normalize(pooled.float().cpu(), dim=1)

    def remembered(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        if not str(item.get("caption", "")).strip():
            raise UserError("training.noised_clip: wants a caption for every picture, and an item has none")
        return {"text": self._embedded(str(item["caption"]))}

    def judged(self, answers: Tensor, rows: Rows) -> tuple[Tensor, Figures]:
        image = normalize(answers.float(), dim=1)
        loss = contrastive_loss(image, rows["text"], self.temperature.logarithm.exp())
        return loss, {"top1": self.right(answers, rows).float().mean()}

    def right(self, answers: Tensor, rows: Rows) -> Tensor:
        # The length of an embedding does not change which text is nearest.
        nearest = (answers.detach().float() @ rows["text"].T).argmax(1)
        return nearest == torch.arange(len(nearest), device=nearest.device)

    @torch.no_grad()
    def after(self, part: str) -> None:
        self.temperature.logarithm.clamp_(max=math.log(1 / LEAST_TEMPERATURE))

    def weights(self) -> Weights:
        from mezzotint_models import pack_network

        half = [0.5, 0.5, 0.5]
        return pack_network(self.encoder, image_encoder={**self.record(), "mean": half, "std": half})


def _framed(pixels: Tensor, right: Tensor) -> Tensor:
    """A frame two pixels wide: green where it is right, red where not."""
    framed = pixels.clone()
    colours = torch.tensor([[0.85, 0.1, 0.1], [0.1, 0.7, 0.2]], device=pixels.device)[right.long()]
    for edge in (slice(None, 2), slice(-2, None)):
        framed[:, :, edge] = colours[:, :, None, None]
        framed[:, :, :, edge] = colours[:, :, None, None]
    return framed
