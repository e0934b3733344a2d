"""Layout guidance: a word's attention is drawn into its box, by the gradient of where it is.

    E = mean over words and boxes of (1 - attention inside / attention everywhere)^2
    x <- x - scale * sigma * sqrt(E) * grad E / |grad E| * sqrt(size of x)       between two steps, several times

Chen et al. 2024, "Training-free layout control with cross-attention guidance", eq. 5 and 6 (backward guidance).
The length of a move is given here, so that one scale serves models of any size; there it is the gradient's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Context, Denoiser, TextEncoder, UserError, node
from mezzotint_attention.injection import Injection, Opened, inject
from mezzotint_attention.looking import bare, limited, uninjected
from mezzotint_attention.sites import Sites
from mezzotint_attention.store import word_mass
from mezzotint_attention.words import columns

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Attend, AttentionCall, AttentionSite, NoiseLevel, Predictor
    from mezzotint_attention.injection import Evaluation

__all__ = ["LayoutGuidance", "box_mask", "energy", "guide_layout"]

Box = tuple[float, float, float, float]
Part01 = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class LayoutGuidance(Injection):
    """Moves the sample between steps so that words look at their boxes.

    words: the numbers of the tokens of each. boxes: (left, top, right, bottom) of each, in 0..1.
    scale: length of a move against that of the noise which the sample holds.
    repeat: moves a step.
    """

    sites: Sites = field(default_factory=lambda: Sites(kinds=("cross",), parts=("middle", "up")))
    words: tuple[tuple[int, ...], ...] = ()
    boxes: tuple[Box, ...] = ()
    scale: float = 0.05
    repeat: int = 3

    def open(self, model: Predictor, ctx: Context) -> Opened:
        return _Drawing(self, bare(model), self.sites.of(model))


class _Drawing(Opened):
    """Remembers what the samples are told, and asks the denoiser again between steps."""

    def __init__(self, settings: LayoutGuidance, model: Any, sites: Sequence[AttentionSite]) -> None:
        self.settings = settings
        self.model = model
        self.sites = sites
        self.told: Conditioning | None = None

    def begin(self, evaluation: Evaluation) -> bool:
        own = [i for i, mine in enumerate(evaluation.rows.own) if mine]
        if own and evaluation.conditioning is not None:
            self.told = _rows_of(evaluation.conditioning, own, len(evaluation.rows.own))
        return False

    def after_step(self, x: Tensor, level: NoiseLevel) -> Tensor:
        import torch

        if self.told is None or not self.settings.active(level) or level.sigma == 0 or level.alpha == 0:
            return x
        length = self.settings.scale * level.sigma * x[0].numel() ** 0.5
        for _ in range(self.settings.repeat):
            with torch.enable_grad():
                sample = x.detach().requires_grad_()
                lost = self.lost(sample, level)
                # The sum: a sample's gradient does not depend on who else is in the batch.
                (gradient,) = torch.autograd.grad(lost.sum(), sample)
            norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (x.dim() - 1))
            # The nearer a word is to its box, the shorter the move.
            near = lost.detach().sqrt().view(norm.shape)
            x = x - length * near * gradient / norm
        return x

    def lost(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """The energy of each sample, [B]."""
        seen: list[Tensor] = []

        def watch(call: AttentionCall, attend: Attend) -> Tensor:
            if call.size is not None:
                mass = word_mass(call, attend, self.settings.words)
                mass = mass.reshape(*mass.shape[:-1], *call.size)
                seen.append(energy(mass, self.settings.boxes))
            return attend(call)

        with uninjected(self.model), self.model.inject(watch, self.sites):
            self.model.predict(x, level, self.told)
        if not seen:
            raise UserError("attention.guide_layout: the chosen layers' tokens are no picture; choose other sites")
        return sum(seen[1:], seen[0]) / len(seen)


def energy(mass: Tensor, boxes: Sequence[Box]) -> Tensor:
    """mass [B, K, h, w], how much each place attends to each of K words, each with a box: [B], in 0..1."""
    import torch

    inside = torch.stack([box_mask(box, mass.shape[-2], mass.shape[-1]).to(mass) for box in boxes])
    part = (mass * inside).sum((-2, -1)) / mass.sum((-2, -1)).clamp(min=1e-12)
    return ((1 - part) ** 2).mean(1)


def box_mask(box: Box, height: int, width: int) -> Tensor:
    """[height, width]: how much of each place lies in the box (left, top, right, bottom) in 0..1."""
    import torch

    def covered(size: int, low: float, high: float) -> Tensor:
        place = torch.arange(size, dtype=torch.float32)
        return (torch.clamp(place + 1, max=high * size) - torch.clamp(place, min=low * size)).clamp(0, 1)

    return covered(height, box[1], box[3])[:, None] * covered(width, box[0], box[2])


def _rows_of(conditioning: Conditioning, rows: Sequence[int], batch: int) -> Conditioning:
    """The conditioning of some rows of a batch."""
    import torch

    def taken(value: Any) -> Any:
        return (
            value[list(rows)] if isinstance(value, torch.Tensor) and value.ndim and len(value) == batch else value
        )

    names = ("context", "mask", "pooled", "label", "concat", "low_res", "low_res_level", "fps")
    extra = {name: taken(value) for name, value in conditioning.extra.items()}
    return conditioning.replace(**{name: taken(getattr(conditioning, name)) for name in names}, extra=extra)


@node("attention.guide_layout", device=True)
def guide_layout(
    ctx: Context,
    denoiser: Denoiser,
    encoder: TextEncoder,
    sites: Sites | None = None,
    *,
    prompt: str,
    boxes: Annotated[list[Any], Field(min_length=1)],
    scale: Annotated[float, Field(ge=0, le=100)] = 0.05,
    repeat: Annotated[int, Field(ge=1, le=100)] = 3,
    start: Part01 = 0.0,
    end: Part01 = 0.5,
) -> Denoiser:
    """Put the things that words name into boxes: between steps, it moves to where their attention is there.

    denoiser: the model, guided or not.
    encoder: of the same checkpoint, to find the words.
    sites: layers whose attention is looked at; null takes the cross-attention of the middle and of the way up.
    prompt: as it was encoded; the same for all pictures.
    boxes: [{"words": "red circle", "box": [left, top, right, bottom]}, ...], in 0..1, y down.
    scale: how far a move goes, against the noise; 0 is off, and every bit as without.
    repeat: moves a step; each costs an evaluation and its gradient.
    start: from which part of the run on, 0 the noisiest end.
    end: up to which; the layout is made early.

    Raises: UserError: words that are not in the prompt, a box that is none.
    """
    text = ctx.realise(encoder)
    asked = [_asked(each, f"/boxes/{i}") for i, each in enumerate(boxes)]
    words = tuple(tuple(columns(text, prompt, name, where="attention.guide_layout")) for name, _ in asked)
    if not scale:
        return denoiser
    chosen = limited(sites, Sites(kinds=("cross",), parts=("middle", "up")), "attention.guide_layout")
    guidance = LayoutGuidance(
        sites=chosen, words=words, boxes=tuple(box for _, box in asked), scale=scale, repeat=repeat,
        start=start, end=end,
    )  # fmt: skip
    return inject(denoiser, guidance)


def _asked(given: Any, at: str) -> tuple[str, Box]:
    words, box = (given.get("words"), given.get("box")) if isinstance(given, Mapping) else (None, None)
    numbers = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(n, int | float) for n in box)
    if not isinstance(words, str) or not words.strip() or not isinstance(box, list | tuple) or not numbers:
        raise UserError(
            f'attention.guide_layout: {at}: wanted {{"words": ..., "box": [left, top, right, bottom]}} in 0..1, '
            f"got {given!r}"
        )
    left, top, right, bottom = (float(n) for n in box)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UserError(
            f"attention.guide_layout: {at}: the box must have an inside within 0..1, left < right and top < "
            f"bottom; got {list(box)}"
        )
    return words, (left, top, right, bottom)
