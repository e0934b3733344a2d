"""The task of `training.personalise`: pictures of a subject in one half of a batch, of its class in the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import Conditioning, UserError, Weights
from mezzotint_training.noising import Process, target_of
from mezzotint_training.objective import Part, Task
from mezzotint_training.tuning_task import Told

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_training.personal import PersonalObjective

__all__ = ["PersonalTask", "Words", "open_personal"]

_WHERE = "training.personalise"
VALIDATED = 16


class Words(nn.Module):
    """The rows of one new word, [n, D]: where they began, and `rate` times how they moved."""

    begin: Tensor

    def __init__(self, rows: Tensor, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("begin", rows.detach().clone().float())
        self.moved = nn.Parameter(torch.zeros_like(self.begin))

    @property
    def rows(self) -> Tensor:
        return self.begin + self.rate * self.moved


class PersonalTask(Task):
    """A batch is numbers of pictures and prompts; their latents and fixed texts are kept.

    start: figures of the validation before any training.
    """

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(
        self, objective: PersonalObjective, unet: Told, encoder: Any, words: Words | None, clean: Tensor,
        prior: Tensor | None, seed: int, batch: int,
    ) -> None:  # fmt: skip
        self.objective, self.unet, self.encoder, self.words = objective, unet, encoder, words
        self.clean, self.prior, self.seed, self.count = clean, prior, seed, batch
        self.process = Process(objective.denoiser.schedule)
        named = unet.network.named_parameters()
        self.before = {name: value.detach().clone() for name, value in named if value.requires_grad}
        modules: dict[str, nn.Module] = {"unet": unet} if self.before else {}
        self.modules = modules | ({} if words is None else {"words": words})
        self.parts = (Part("subject", tuple(self.modules)),)
        self.prompts = [prompt.replace("{}", objective.word) for prompt in objective.prompts]
        self.texts = None if words is not None else self._read(self.prompts)
        self.prior_texts = self._read(objective.prior_prompts) if objective.prior_prompts else None
        # Now: a run that goes on after a kill is past its beginning.
        self.start = self._figures()

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step * 61 + rank)
        rows = {"picture": _drawn(len(self.clean), self.count, generator)}
        each = len(self.prompts) == len(self.clean)
        rows["prompt"] = rows["picture"] if each else _drawn(len(self.prompts), self.count, generator)
        if self.prior is not None:
            rows["prior"] = _drawn(len(self.prior), self.count, generator)
        return rows

    def loss(
        self, batch: Mapping[str, Tensor], part: str, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        device = batch["picture"].device
        told = self._told(batch["prompt"])
        own = self._errors(self.clean.to(device)[batch["picture"]], told, generator).mean()
        if self.prior is None:
            return own, {}
        texts = self.prior_texts
        assert texts is not None
        place = batch["prior"] if len(texts) > 1 else torch.zeros_like(batch["prior"])
        known = self._errors(self.prior.to(device)[batch["prior"]], texts.to(device)[place], generator).mean()
        return own + self.objective.prior_weight * known, {"subject": own.detach(), "prior": known.detach()}

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Errors on fixed levels and noise, of the subject's pictures and the prior's, now and at first."""
        return {**self._figures(), **{f"{name}_at_first": value for name, value in self.start.items()}}

    @torch.no_grad()
    def _figures(self) -> dict[str, float]:
        device = next(self.unet.parameters()).device
        fixed = torch.Generator(device).manual_seed(self.seed)
        numbers = torch.arange(VALIDATED, device=device)
        told = self._told(numbers % len(self.prompts))
        clean = self.clean.to(device)[numbers % len(self.clean)]
        found = {"loss": self._errors(clean, told, fixed).mean().item()}
        if self.prior is not None and self.prior_texts is not None:
            texts = self.prior_texts.to(device)[numbers % len(self.prior) % len(self.prior_texts)]
            prior = self.prior.to(device)[numbers % len(self.prior)]
            found["prior"] = self._errors(prior, texts, fixed).mean().item()
        return found

    def weights(self) -> dict[str, Weights]:
        from mezzotint_models import pack_lora, pack_words

        made = {}
        if self.words is not None:
            made["words"] = pack_words({self.objective.word: self.words.rows})
        if self.objective.rank:
            now = dict(self.unet.network.named_parameters())
            adapter = {name: now[name] for name in self.before}
            made["lora"] = pack_lora(adapter, of=self.objective.denoiser.source.uri, rank=self.objective.rank)
        elif self.before:
            now = dict(self.unet.network.named_parameters())
            changes = {name: now[name].detach().cpu() - value.cpu() for name, value in self.before.items()}
            record = {"of": self.objective.denoiser.source.uri, "layers": list(self.objective.layers)}
            meta = {"class": "differences", "config": {}, "tuned": record}
            made["tuned"] = Weights(changes, kind="difference", target="differences", meta=meta)
        return made

    def _told(self, numbers: Tensor) -> Tensor:
        """[B, L, D]: the prompts of those numbers, through the new word as it is now."""
        if self.texts is not None:
            return self.texts.to(numbers.device)[numbers]
        # Each prompt once, however often it was drawn.
        which, place = numbers.unique(return_inverse=True)
        return self._read([self.prompts[int(number)] for number in which])[place]

    def _read(self, prompts: Sequence[str]) -> Tensor:
        from mezzotint_models import worded

        if self.words is None:
            with torch.no_grad():
                context = self.encoder.condition(list(prompts)).context
        else:
            with worded(self.encoder, {self.objective.word: self.words.rows}) as encoder:
                context = encoder.condition(list(prompts)).context
        assert context is not None
        read: Tensor = context.float()
        return read

    def _errors(self, clean: Tensor, context: Tensor, generator: torch.Generator) -> Tensor:
        """[B] mean squared error of what the network is to say, one level in each equal part of the schedule."""
        count = len(clean)
        within = torch.rand(count, generator=generator, device=generator.device)
        times = ((torch.arange(count, device=generator.device) + within) / count * len(self.process)).long()
        noise = torch.randn(clean.shape, generator=generator, device=generator.device)
        times, noise = times.to(clean.device), noise.to(clean.device)
        alpha, sigma = self.process.at(times, clean)
        output = self.unet(
            alpha * clean + sigma * noise, times, Conditioning(context=context.to(clean.device))
        ).float()
        return (output - target_of(self.process.kind, clean, noise, alpha, sigma)).square().flatten(1).mean(1)


def open_personal(objective: PersonalObjective, ctx: Context, seed: int, batch: int) -> PersonalTask:
    """Copies of the networks: what is trained moves, and the rest is held still."""
    from mezzotint_models import build_network, pack_network

    network = build_network(pack_network(ctx.realise(objective.denoiser).module))
    if not isinstance(getattr(network.config, "cross_attention_dim", None), int):
        raise UserError(f"{_WHERE}: wanted a diffusers UNet2DConditionModel, which attends to a text")
    network.requires_grad_(False)
    _choose(network, objective)
    encoder = ctx.realise(objective.encoder)
    autoencoder = None if objective.autoencoder is None else ctx.realise(objective.autoencoder)
    clean = _latents(objective.pictures.data, autoencoder, objective.denoiser)
    prior = None if objective.prior is None else _latents(objective.prior.data, autoencoder, objective.denoiser)
    words = _begun(encoder, objective) if objective.word else None
    return PersonalTask(objective, Told(network), encoder, words, clean, prior, seed, batch)


def _choose(network: nn.Module, objective: PersonalObjective) -> None:
    """What of the network requires a gradient. Raises: UserError: layers that it does not have."""
    names = [name for name, _ in network.named_parameters()]
    unknown = [layer for layer in objective.layers if not any(layer in name for name in names)]
    if unknown:
        kinds = sorted({word for name in names for word in name.split(".") if not word.isdigit()})
        raise UserError(
            f"{_WHERE}: no name of the denoiser's tensors has {unknown[0]!r}; the words in them are "
            f"{', '.join(kinds)}"
        )
    if not objective.rank:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(any(layer in name for layer in objective.layers))
        return
    from peft import LoraConfig

    inside = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and any(layer in f"{name}.weight" for layer in objective.layers)
    ]
    if not inside:
        raise UserError(f"{_WHERE}: {' and '.join(objective.layers)} names no linear layers, which a LoRA changes")
    rank = objective.rank
    network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=inside, init_lora_weights="gaussian"))


def _latents(pictures: Tensor, autoencoder: Any, denoiser: Any) -> Tensor:
    """[N, C, h, w] float32. Raises: UserError: pictures of a size that the denoiser does not take."""
    side = denoiser.sample_size * denoiser.downscale
    if tuple(pictures.shape[1:]) != (side, side, 3):
        raise UserError(
            f"{_WHERE}: the denoiser was trained on {side}x{side} pictures of 3 channels, got "
            f"{list(pictures.shape[1:])}; image.resize brings them there"
        )
    with torch.no_grad():
        made = pictures.float() if autoencoder is None else autoencoder.encode(pictures.float())
    return made.float() if autoencoder is not None else made.movedim(-1, 1).contiguous() * 2 - 1


def _begun(encoder: Any, objective: PersonalObjective) -> Words:
    """The new word as the word that it begins as, or as a small random one."""
    table = encoder.module.get_input_embeddings().weight.detach()
    if not objective.begin:
        rows = torch.randn(objective.vectors, table.shape[1]) * table.std().item()
        return Words(rows, objective.word_rate)
    ids = encoder.tokenizer(objective.begin, add_special_tokens=False).input_ids
    if not ids:
        raise UserError(f"{_WHERE}: begin {objective.begin!r} has no token; take the subject's class")
    return Words(table[[ids[-1]]].repeat(objective.vectors, 1), objective.word_rate)


def _drawn(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Numbers below `count`, each as often as the others, as far as that goes."""
    rounds = [torch.randperm(count, generator=generator) for _ in range(-(-wanted // count))]
    return torch.cat(rounds)[:wanted]
