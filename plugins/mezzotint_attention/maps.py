"""`attention.maps`: which places of a picture each word of its prompt looks at, drawn over the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from mezzotint import (
    Conditioning,
    Context,
    Denoiser,
    Image,
    Latents,
    Mask,
    NoiseLevel,
    Sigmas,
    TextEncoder,
    UserError,
    node,
)
from mezzotint_attention.injection import inject
from mezzotint_attention.sites import Sites
from mezzotint_attention.store import AttentionStore, Stored
from mezzotint_attention.words import columns, prompt_words

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["maps", "overlaid"]

# Black, violet, orange, pale yellow.
_RAMP = ((0.0, 0.0, 0.05), (0.45, 0.05, 0.45), (0.95, 0.45, 0.1), (1.0, 0.98, 0.65))


class Maps(NamedTuple):
    """image: the heat maps over the pictures. masks: the same, each from 0 to 1. words: one for each of both."""

    image: Image
    masks: Mask
    words: list[str]


@node("attention.maps", device=True)
def maps(
    ctx: Context,
    denoiser: Denoiser,
    encoder: TextEncoder,
    conditioning: Conditioning,
    latents: Latents,
    image: Image,
    sigmas: Sigmas,
    sites: Sites | None = None,
    *,
    prompt: str,
    words: list[Annotated[str, Field(min_length=1)]] | None = None,
    start: Annotated[float, Field(ge=0, le=1)] = 0.2,
    end: Annotated[float, Field(ge=0, le=1)] = 0.6,
    samples: Annotated[int, Field(ge=1, le=64)] = 4,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Maps:
    """Draw, for each word of a prompt, where in the pictures the denoiser attends to it.

    The latents are noised to levels of the run and the denoiser is evaluated there, so that a loaded picture
    (`models.encode`) can be asked as well as a sampled one. Injections of the denoiser are seen as they work.

    denoiser: the model; its guidance plays no part.
    encoder: of the same checkpoint, to find the words.
    conditioning: the encoded prompt.
    latents: clean, [B, C, H, W].
    image: the pictures that the latents stand for, to draw over.
    sigmas: of the run.
    sites: layers to look at; null takes every layer where places attend to a text.
    prompt: as it was encoded, one for all pictures.
    words: which ones, each a word or several that follow each other; null takes all of the prompt.
    start: from which part of the run on the model is asked, 0 the noisiest end.
    end: up to which.
    samples: at how many levels in between, evenly; the maps are their mean.
    seed: of the noise.

    returns: for picture 0 each word, then for picture 1, and so on: `image` [B * words, H, W, 3], and `masks`
    [B * words, H, W], each from 0, where its word is looked at least, to 1.
    Raises: UserError: a word that is not in the prompt, a window without a level, pictures and latents of
    different numbers, a denoiser without such layers.
    """
    import torch

    from mezzotint_attention.looking import found, inside_guidance, limited
    from mezzotint_kernels import normals

    if len(latents.data) != len(image.data):
        raise UserError(
            f"attention.maps: got {len(image.data)} pictures and latents of {len(latents.data)}; wanted the "
            "pictures that models.decode made of them"
        )
    text = ctx.realise(encoder)
    asked = list(dict.fromkeys(prompt_words(prompt))) if words is None else words
    if not asked:
        raise UserError("attention.maps: the prompt has no words; give one that has")
    numbers = tuple(tuple(columns(text, prompt, word, where="attention.maps")) for word in asked)
    store = AttentionStore(sites=limited(sites, Sites(kinds=("cross", "joint")), "attention.maps"), words=numbers)
    model = inside_guidance(ctx.realise(inject(denoiser, store)))
    data = latents.data.to(device=ctx.device, dtype=torch.float32)
    noise = torch.cat([normals(seed + i, (1, *data.shape[1:]), device=ctx.device) for i in range(len(data))])
    with torch.no_grad():
        for level in _levels(sigmas, start, end, samples):
            model.predict(level.alpha * data + level.sigma * noise, level, conditioning)
    seen = found(model, Stored).maps(tuple(data.shape[-2:])).float().cpu()
    heat = _full_range(seen)
    height, width = image.data.shape[1:3]
    large = torch.nn.functional.interpolate(heat, size=(height, width), mode="bilinear").clamp(0, 1)
    drawn = overlaid(image.data[..., :3].float().cpu(), large)
    return Maps(Image(drawn.flatten(0, 1)), Mask(large.flatten(0, 1)), asked * len(data))


def _levels(sigmas: Sigmas, start: float, end: float, samples: int) -> list[NoiseLevel]:
    """Some levels of a run within its window, evenly."""
    steps = len(sigmas.sigmas) - 1
    rows = zip(sigmas.alphas, sigmas.sigmas, sigmas.times, strict=True)
    levels = [NoiseLevel(*row, step=i, steps=steps) for i, row in enumerate(rows)][:steps]
    within = [level for level in levels if start <= level.progress <= end]
    if not within:
        raise UserError(f"attention.maps: no level of the run of {steps} steps lies within {start:g} to {end:g}")
    count = min(samples, len(within))
    return [within[round(i * (len(within) - 1) / max(count - 1, 1))] for i in range(count)]


def _full_range(seen: Tensor) -> Tensor:
    """Each map [h, w] from 0 to 1; one that is the same everywhere is 0."""
    low, high = seen.amin((-2, -1), keepdim=True), seen.amax((-2, -1), keepdim=True)
    return ((seen - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)


def overlaid(pictures: Tensor, heat: Tensor) -> Tensor:
    """Heat over the greyed pictures: [B, H, W, 1 or 3] and [B, K, H, W] in 0..1 to [B, K, H, W, 3]."""
    import torch

    grey = pictures.mean(-1, keepdim=True)[:, None].expand(*heat.shape, 3)
    ramp = torch.tensor(_RAMP)
    place = heat * (len(ramp) - 1)
    below = place.floor().clamp(max=len(ramp) - 2).long()
    part = (place - below)[..., None]
    colour = ramp[below] * (1 - part) + ramp[below + 1] * part
    return (0.4 * grey + 0.6 * colour).clamp(0, 1)
