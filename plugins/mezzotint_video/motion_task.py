"""The task of `video.learn_motion`: the diffusion loss on clips, for temporal layers beside a held network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import Conditioning, Image, UserError, Weights
from mezzotint_training import Part, Process, Task, target_of
from mezzotint_video.clip_network import ClipNetwork, tuned_names
from mezzotint_video.clips import Clips
from mezzotint_video.frame_noise import related_frames
from mezzotint_video.motion_names import MotionNames
from mezzotint_video.motion_sheet import draw_clips
from mezzotint_video.places import attention_places, residual_places, unet_of
from mezzotint_video.side_channels import side_of
from mezzotint_video.temporal_layers import Clip, TemporalLayers

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_video.motion_objective import MotionObjective

__all__ = ["MotionTask", "open_task", "unspread"]

Rows = Mapping[str, Tensor]
VALIDATED = 16


class MotionTask(Task):
    """Batches are rows of clips: "latents" [B, F, C, h, w], "fps" [B], and what the conditions remember.

    A system with side channels derives from it: `side_channels` says how many they are, `remembered` what of an
    item they are made from, and `side` makes them.
    """

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(
        self, objective: MotionObjective, ctx: Context, reader: Any, network: nn.Module, seed: int, batch: int
    ) -> None:
        self.objective, self.seed = objective, seed
        made = objective.denoiser
        self.encoder = None if objective.autoencoder is None else ctx.realise(objective.autoencoder)
        self.conditions = objective.conditioner.open(ctx, reader, seed)
        unet = unet_of(network)
        self.tuned = tuned_names(unet, objective.tuned, "video.learn_motion")
        self.start = {name: p.detach().clone() for name, p in unet.named_parameters() if name in set(self.tuned)}
        self.unet = unet
        # diffusers' own networks see no patches.
        self.patch = int(network.config.get("patch", 1)) if network is not unet else 1  # type: ignore[union-attr]
        if objective.start is not None:
            begin_tuned(unet, objective.start)
        layers = self.layers(unet)
        self.network = ClipNetwork(network, layers)
        self.names = MotionNames(reader, self.conditions, layers) if objective.named else None
        namer = {} if self.names is None else {"namer": self.names.head}
        self.modules = {"network": self.network, **namer, **self.conditions.modules}
        self.parts = (Part("motion", tuple(self.modules)),)
        self.process = Process(made.schedule)
        self.middle = self.process.range_of(1.0, 8.0)
        self.clips = Clips(reader, batch, seed, self.prepare)
        self.held(1)

    # What a system of its own changes.

    def side_channels(self) -> int:
        """How many channels lie beside the latents; 0 is none."""
        return side_of(self.objective.side).channels(self.objective.denoiser.channels)

    def noisy_side(self) -> bool:
        """Whether the side channels get noise whose level is told."""
        return side_of(self.objective.side).noisy

    def remembered(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """What else to remember of an item, from its levels [F, H, W, 3] uint8: tensors of one row each."""
        return side_of(self.objective.side).remembered(levels, item)

    def side(self, rows: Rows, generator: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
        """The side channels [B, F, n, h, w] of a batch, and their noise levels [B]."""
        return side_of(self.objective.side).draw(rows, generator)

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """[B, F, C, h, w] standard normal, its frames related as the objective says."""
        made = self.objective
        return related_frames(shape, made.frames, made.correlation, generator)

    # The loss.

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        return self.clips.batch(step, rank)

    def loss(self, batch: Rows, part: str, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(batch["latents"])
        device = generator.device
        dropped = torch.rand(count, generator=generator, device=device) < self.objective.drop
        error = self.errors(batch, self.times(count, generator), dropped, generator)
        loss, figures = error.mean(), {"mse": error.detach().mean()}
        if self.names is not None:
            naming = self.names.loss(generator)
            loss, figures["naming"] = loss + self.objective.named * naming, naming.detach()
        return loss, figures

    def errors(self, rows: Rows, times: Tensor, dropped: Tensor, generator: torch.Generator) -> Tensor:
        """[B], the mean squared error of the target."""
        rows = self.cropped(rows, generator)
        clean = rows["latents"].float()
        noise = self.noise(clean.shape, generator)
        told, clip = self.told(rows, dropped, generator)
        if clip.images:
            clean, noise = self._with_images(clean, noise, clip.images, generator)
        alpha, sigma = self.process.at(times, clean)
        output = self.network(alpha * clean + sigma * noise, times, told, clip)
        target = target_of(self.process.kind, clean, noise, alpha, sigma)
        errors: Tensor = (output - target).square().flatten(1).mean(1)
        return errors

    def cropped(self, rows: Rows, generator: torch.Generator) -> Rows:
        """As many frames in a row of each clip as the objective wants, and "seconds" [B, n], when they are."""
        latents, wanted = rows["latents"], self.objective.crop
        count, frames = latents.shape[:2]
        if wanted is None or wanted >= frames:
            return rows
        device = latents.device
        first = torch.randint(frames - wanted + 1, (count, 1), generator=generator, device=device)
        chosen = first + torch.arange(wanted, device=device)
        row = torch.arange(count, device=device)[:, None]
        kept = {name: rows[name][row, chosen] for name in ("latents", "depth") if name in rows}
        return {**rows, **kept, "seconds": chosen / rows["fps"].to(device)[:, None]}

    def told(self, rows: Rows, dropped: Tensor, generator: torch.Generator) -> tuple[Conditioning, Clip]:
        """What the pictures' network is told, a row for each picture, and what the temporal layers know."""
        latents, images = rows["latents"], self.objective.images if torch.is_grad_enabled() else 0
        batch, frames = latents.shape[:2]
        told = self.conditions(rows, dropped)
        side, level = self.side(rows, generator)
        apart = self.apart(generator)
        clip = Clip(batch, frames, images, apart, rows["fps"], told.context, side, level, rows.get("seconds"))
        return spread(told, batch, frames, images), clip

    def apart(self, generator: torch.Generator) -> bool:
        """Whether this step takes each frame by itself; where only some do, validation does not."""
        share = self.objective.apart
        if share in (0, 1) or not torch.is_grad_enabled():
            return share == 1
        return bool(torch.rand((), generator=generator, device=generator.device) < share)

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] int64, one in each of `count` equal parts of the range; see `focus`."""
        device = generator.device
        base = (torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)) / count
        focused = torch.rand(count, generator=generator, device=device) < self.objective.focus
        low, high = self.middle
        return torch.where(focused, low + base * (high - low), base * len(self.process)).long()

    # What comes of it.

    def weights(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        made, now = self.objective, dict(self.unet.named_parameters())
        record = {
            "of": made.denoiser.source.uri, "tuned": bool(self.start), "frames": made.frames,
            "correlation": made.correlation,
        }  # fmt: skip
        parts = {"temporal_layers": pack_network(self.network.layers, temporal_layers=record)}
        if self.start:
            changes = {name: now[name].detach().cpu() - value for name, value in self.start.items()}
            about = {"of": made.denoiser.source.uri, "layers": list(made.tuned)}
            parts["tuned"] = Weights(changes, target="differences", meta={"class": "differences", "tuned": about})
        return {**parts, **self.conditions.parts()}

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Errors of the target on held-out clips, with fixed noise: "loss", and by quarter of the levels."""
        rows = self.held(VALIDATED)
        count, found = len(rows["latents"]), {}
        kept = torch.zeros(count, dtype=torch.bool, device=generator.device)
        for quarter in range(4):
            base = (torch.arange(count, device=generator.device) + 0.5) / count
            times = ((quarter + base) / 4 * len(self.process)).long()
            found[f"mse{quarter}"] = self.errors(rows, times, kept, generator).mean().item()
        return {"loss": sum(found.values()) / 4, **found}

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        return draw_clips(self, generator)

    # What it stands on.

    def layers(self, unet: Any) -> TemporalLayers:
        """New temporal layers for a U-Net, with what `start` has of the same shapes."""
        made = self.objective
        channels = self.side_channels() * self.patch**2
        first = ["conv_in", unet.conv_in.out_channels, channels] if channels else []
        layers = TemporalLayers(
            convolutions=residual_places(unet) if made.convolution else [],
            attentions=attention_places(unet) if made.attention else [],
            position=made.position, causal=made.causal, window=made.window,  # type: ignore[arg-type]
            context=_text_width(unet) if made.reads_text else 0, side=first, noisy_side=self.noisy_side(),
            embedding=["time_embedding", unet.time_embedding.linear_2.out_features],
            words=made.frame_words, follows=made.follows, reader=made.reader, head=16 if made.follows else 32,
        )  # fmt: skip
        if made.start is not None:
            begin_from(layers, made.start)
        return layers

    def held(self, most: int) -> dict[str, Tensor]:
        """Held-out clips, on the modules' device."""
        device = next(self.network.parameters()).device
        return {name: value.to(device) for name, value in self.clips.held_out(most).items()}

    def prepare(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """An item's rows, from its levels [F, H, W, 3] uint8."""
        made = self.objective.denoiser
        side = made.sample_size * made.downscale
        pixels = levels.float() / 255
        if self.encoder is None:
            small = torch.nn.functional.adaptive_avg_pool2d(pixels.permute(0, 3, 1, 2), side)
            latents = small * 2 - 1
        else:
            if tuple(levels.shape[1:3]) != (side, side):
                raise UserError(f"this denoiser wants clips of {side}x{side} pixels, got {list(levels.shape)}")
            with torch.no_grad():
                latents = self.encoder.encode(pixels).cpu()
        fps = torch.tensor([float(item.get("fps", len(levels)))])
        rows = {"latents": latents.half()[None], "fps": fps, **self.conditions.read([item])}
        return {**rows, **self.remembered(levels, item)}

    def _with_images(
        self, clean: Tensor, noise: Tensor, images: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Frames of the batch's other clips behind each clip's own, as pictures by themselves."""
        batch, frames = clean.shape[:2]
        device = generator.device
        chosen = torch.randint(frames, (batch, images), generator=generator, device=device)
        others = torch.stack([clean[others_of(batch, n, device), chosen[:, n]] for n in range(images)], dim=1)
        fresh = torch.randn(others.shape, generator=generator, device=device)
        return torch.cat([clean, others], dim=1), torch.cat([noise, fresh], dim=1)


def others_of(batch: int, number: int, device: Any) -> Tensor:
    """[B]: which clip of the batch the single picture `number` of each row comes from."""
    return (torch.arange(batch, device=device) + 1 + number) % batch


def spread(told: Conditioning, batch: int, frames: int, images: int) -> Conditioning:
    """One row for each of the B * (F + images) pictures: its clip's, of single ones that of their source."""
    changes = {}
    for name in ("context", "mask", "pooled", "label"):
        value = getattr(told, name)
        if value is None:
            continue
        rows = [value[:, None].expand(batch, frames, *value.shape[1:])]
        rows += [value[others_of(batch, n, value.device)][:, None] for n in range(images)]
        changes[name] = torch.cat(rows, dim=1).flatten(0, 1)
    return told.replace(**changes)


def unspread(told: Conditioning, clip: Clip) -> Conditioning:
    """One row for each clip again: its first frame's."""
    step = clip.frames + clip.images
    rows = {name: getattr(told, name) for name in ("context", "mask", "pooled", "label")}
    return told.replace(**{name: value[::step] for name, value in rows.items() if value is not None})


def begin_from(layers: nn.Module, start: Weights) -> None:
    """Take over what trained temporal layers have of the same names and shapes.

    Raises: UserError: nothing of them fits.
    """
    from mezzotint_models import part_of

    there, taken = layers.state_dict(), 0
    with torch.no_grad():
        for name, value in part_of(start, "temporal_layers").tensors.items():
            if name in there and there[name].shape == value.shape:
                there[name].copy_(value)
                taken += 1
    if not taken:
        raise UserError("video.learn_motion: nothing of `start` fits the temporal layers of this denoiser")


def begin_tuned(unet: nn.Module, start: Weights) -> None:
    """Move the tensors that learn by what `start` says was tuned before, if it does."""
    from mezzotint_models import parts_of

    there = dict(unet.named_parameters())
    for part in parts_of(start).values():
        if part.meta.get("class") != "differences":
            continue
        with torch.no_grad():
            for name, change in part.tensors.items():
                if name in there and there[name].requires_grad and there[name].shape == change.shape:
                    there[name].add_(change.to(there[name]))


def open_task(
    kind: type[MotionTask], objective: MotionObjective, ctx: Context, reader: Any, seed: int, batch: int
) -> MotionTask:
    """A copy of the denoiser's network with new temporal layers, as a task of that kind."""
    from mezzotint_models import build_network, pack_network

    # The pool's own is lent to others too.
    network = build_network(pack_network(ctx.realise(objective.denoiser).module))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(objective, ctx, reader, network.train(), seed, batch)


def _text_width(unet: Any) -> int:
    width = getattr(unet.config, "cross_attention_dim", None)
    return width if isinstance(width, int) else 0
