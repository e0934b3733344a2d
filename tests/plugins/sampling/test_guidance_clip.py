"""Guidance by CLIP: the gradient is autograd's, its sign raises the likeness, and what cannot work is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint import (
    Autoencoder,
    Conditioning,
    Denoiser,
    ImageEncoder,
    NoiseLevel,
    NoiseSchedule,
    Source,
    UserError,
)
from mezzotint.testing import fake_context
from mezzotint_sampling.guidance_clip import cropped, guide_by_clip
from mezzotint_sampling.wrapped import clean, finished

SHAPE = (2, 3, 4, 4)
LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=1, steps=4)
SOURCE = Source("test:clip", "", "1")
ENCODER = ImageEncoder(source=SOURCE, loader="test.clip")
DECODER = Autoencoder(source=SOURCE, loader="test.decoder")
TEXT = Conditioning(pooled=torch.tensor([[0.3, -0.5, 0.8]]))
WEIGHT = torch.randn(3, 48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def towards(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


class Tower:
    """A linear CLIP with a bend: clean pictures only."""

    def embed(self, pixels: Tensor) -> Tensor:
        return towards(torch.tanh(pixels.movedim(-1, 1).flatten(1).double() @ WEIGHT.T))


class NoisyTower(Tower):
    def embed_noisy(self, x: Tensor, level: NoiseLevel) -> Tensor:
        return towards(torch.tanh(level.alpha * x.flatten(1).double() @ WEIGHT.T))


class Decoder:
    def decode(self, latents: Tensor) -> Tensor:
        return (latents * 0.3).movedim(1, -1)


def denoiser(space: str = "pixels") -> Denoiser:
    return Denoiser(source=SOURCE, loader="test.model", schedule=NoiseSchedule(), channels=3, space=space)


def guided(gaussian: Any, tower: Any, **settings: Any) -> tuple[Any, Any, Tensor]:
    """The model, the guided model, and a noisy sample in float64."""
    model = gaussian("eps")
    loaders = {"test.clip": tower, "test.decoder": Decoder()}
    ctx = fake_context()
    ctx.realise = lambda recipe: loaders[recipe.loader]
    patch = guide_by_clip(denoiser(), ENCODER, TEXT, **settings).patches[-1]
    with patch.apply(model, ctx) as wrapped:
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return model, wrapped, x


def x0_of(prediction: Any, x: Tensor) -> Tensor:
    return clean(prediction.kind, LEVEL, x, finished(prediction))


@pytest.mark.parametrize("of", ["x", "x0", "x0_fixed"])
def test_the_clean_picture_moves_by_scale_times_the_gradient_by_hand(gaussian: Any, of: str) -> None:
    model, wrapped, x = guided(gaussian, NoisyTower(), scale=2.5, of=of)
    seen = x.clone().requires_grad_()
    text = towards(TEXT.pooled.double())[0]
    if of == "x":
        rows = torch.tanh(LEVEL.alpha * seen.flatten(1) @ WEIGHT.T)
    else:
        # The exact denoiser is linear: x0 = a x + b; with its noise held constant it is x / alpha + b.
        spread = LEVEL.alpha**2 * model.std**2 + LEVEL.sigma**2
        at = x0_of(model.predict(x, LEVEL, None), x)
        slope = LEVEL.alpha * model.std**2 / spread if of == "x0" else 1 / LEVEL.alpha
        rows = torch.tanh((((at + slope * (seen - x)) + 1) / 2).flatten(1) @ WEIGHT.T)
    cosine = (rows @ text) / rows.norm(dim=1)
    (gradient,) = torch.autograd.grad(cosine.sum(), seen)
    moved = x0_of(wrapped.predict(x, LEVEL, None), x) - x0_of(model.predict(x, LEVEL, None), x)
    torch.testing.assert_close(moved, 2.5 * LEVEL.sigma**2 / LEVEL.alpha * gradient, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"of": "x0"}, {"of": "x0_fixed"}, {"of": "x0_fixed", "crops": 3}])
def test_a_small_step_of_guidance_raises_the_likeness(gaussian: Any, settings: dict[str, Any]) -> None:
    model, wrapped, x = guided(gaussian, Tower(), scale=0.05, **settings)
    text = towards(TEXT.pooled.double())[0]

    def likeness(prediction: Any) -> Tensor:
        return Tower().embed((x0_of(prediction, x).movedim(1, -1) + 1) / 2) @ text

    assert (likeness(wrapped.predict(x, LEVEL, None)) > likeness(model.predict(x, LEVEL, None))).all()


def test_latents_are_decoded_before_they_are_judged(gaussian: Any) -> None:
    model, wrapped, x = guided(gaussian, Tower(), scale=1.0, of="x0_fixed", autoencoder=DECODER)
    at = x0_of(model.predict(x, LEVEL, None), x).requires_grad_()
    similar = Tower().embed(Decoder().decode(at)) @ towards(TEXT.pooled.double())[0]
    (gradient,) = torch.autograd.grad(similar.sum(), at)
    moved = x0_of(wrapped.predict(x, LEVEL, None), x) - at.detach()
    expected = gradient / LEVEL.alpha * LEVEL.sigma**2 / LEVEL.alpha
    torch.testing.assert_close(moved, expected, atol=1e-7, rtol=1e-5)


def test_each_picture_has_its_own_text(gaussian: Any) -> None:
    texts = Conditioning(pooled=torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    ctx = fake_context()
    ctx.realise = lambda recipe: NoisyTower()
    moves = []
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for text in (texts, Conditioning(pooled=texts.pooled[1:])):
        patch = guide_by_clip(denoiser(), ENCODER, text, scale=1.0).patches[-1]
        with patch.apply(gaussian("eps"), ctx) as wrapped:
            moves.append(x0_of(wrapped.predict(x, LEVEL, None), x))
    assert torch.equal(moves[0][1], moves[1][1])
    assert not torch.allclose(moves[0][0], moves[1][0])


def test_whole_crops_are_the_picture_and_small_ones_lie_inside_it() -> None:
    pixels = torch.rand(2, 6, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    numbers = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = cropped(pixels, numbers, 1.0)
    torch.testing.assert_close(whole, pixels[:, None].expand_as(whole))
    ramp = torch.linspace(0.1, 1, 6, dtype=torch.float64).expand(1, 6, 6)[..., None]
    parts = cropped(ramp, numbers[:1], 0.5)
    assert parts.min() >= 0.1 - 1e-9, "no border of zeros is drawn in"
    widths = parts.amax((2, 3, 4)) - parts.amin((2, 3, 4))
    assert (widths < 0.9).all() and (widths > 0.3).all()


def test_what_cannot_work_says_what_to_do(gaussian: Any) -> None:
    with pytest.raises(UserError, match="reads clean pictures only; set of to x0"):
        guided(gaussian, Tower(), of="x")
    with pytest.raises(UserError, match="connect its autoencoder"):
        guide_by_clip(denoiser("abc"), ENCODER, TEXT, of="x0")
    with pytest.raises(UserError, match="no pooled embedding"):
        guide_by_clip(denoiser(), ENCODER, Conditioning())
    with pytest.raises(UserError, match="needs the sigmas"):
        guide_by_clip(denoiser(), ENCODER, TEXT, form="ancestral")
    _, wrapped, x = guided(gaussian, NoisyTower())
    narrow = wrapped.settings.replace(text=Conditioning(pooled=torch.ones(1, 2)))
    ctx = fake_context()
    ctx.realise = lambda recipe: NoisyTower()
    with pytest.raises(UserError, match="wanted one width"):
        narrow.log_density(ctx)(x, LEVEL)
