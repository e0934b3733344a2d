"""CLIP's guidance inside a mask: the gradient is autograd's of the definition; the views; what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint import Conditioning, Denoiser, ImageEncoder, Latents, NoiseLevel, Source, UserError
from mezzotint.testing import fake_context
from mezzotint_sampling.guidance_edit import guide_edit, spherical
from mezzotint_sampling.views import NUMBERS, homographies, seen_through, through_points
from mezzotint_sampling.wrapped import clean, finished

SHAPE = (2, 3, 6, 6)
LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=1, steps=4)
SOURCE = Source("test:clip", "", "1")
ENCODER = ImageEncoder(source=SOURCE, loader="test.clip")
TEXT = Conditioning(pooled=torch.tensor([[0.6, -0.0, 0.8]], dtype=torch.float64))
WEIGHT = torch.randn(3, 108, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
MASK = torch.zeros(1, 1, 6, 6)
MASK[..., 3:] = 1


class Tower:
    """A linear CLIP with a bend."""

    def embed(self, pixels: Tensor) -> Tensor:
        rows = torch.tanh(pixels.movedim(-1, 1).flatten(1).double() @ WEIGHT.T)
        return torch.nn.functional.normalize(rows, dim=1)


def denoiser(space: str = "pixels") -> Denoiser:
    return Denoiser(
        source=Source("test:model", "", "1"), loader="test.model", channels=3, space=space, downscale=1
    )


def guided(model: Any, **options: Any) -> Any:
    ctx = fake_context()
    ctx.realise = lambda recipe: Tower()
    latents = Latents(torch.zeros(SHAPE), space="pixels", downscale=1, mask=MASK)
    patch = guide_edit(denoiser(), ENCODER, TEXT, latents, **options).patches[-1]
    with patch.apply(model, ctx) as wrapped:
        return wrapped


def sample_x() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_the_shift_of_the_clean_picture_is_the_gradient_of_the_papers_loss(gaussian: Any) -> None:
    model, scale, bounds = gaussian("eps"), 7.0, 11.0
    x = sample_x()
    found = guided(model, scale=scale, range_scale=bounds, views=1).predict(x, LEVEL, None)
    sample = x.clone().requires_grad_()
    x0 = clean("eps", LEVEL, sample, finished(model.predict(sample, LEVEL, None)))
    shown = (0.8 * x0 + 0.2 * sample) * MASK
    cosine = (Tower().embed((shown.movedim(1, -1) + 1) / 2) * TEXT.pooled).sum(1)
    angle = torch.arccos(cosine)
    loss = scale * angle**2 / 2 + bounds * ((x0 - x0.clamp(-1, 1)) ** 2).flatten(1).mean(1)
    (gradient,) = torch.autograd.grad(loss.sum(), sample)
    moved = clean("eps", LEVEL, x, finished(found)) - x0.detach()
    torch.testing.assert_close(moved, -gradient * LEVEL.sigma**2 / LEVEL.alpha, atol=1e-6, rtol=1e-5)


def test_the_distance_is_half_the_squared_angle() -> None:
    angles = torch.tensor([0.3, 1.0, 2.0, 3.0], dtype=torch.float64)
    u = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    v = torch.stack([angles.cos(), angles.sin()], -1)
    torch.testing.assert_close(spherical(u, v), angles**2 / 2, atol=1e-9, rtol=1e-9)


def test_without_scale_the_prediction_is_the_models_own(gaussian: Any) -> None:
    model = gaussian("eps")
    x = sample_x()
    found = guided(model, scale=0.0).predict(x, LEVEL, None)
    assert torch.equal(finished(found), finished(model.predict(x, LEVEL, None)))


def test_what_lies_outside_the_mask_has_no_gradient_where_the_model_mixes_no_places(gaussian: Any) -> None:
    model, x = gaussian("eps"), sample_x()
    moved = finished(guided(model, scale=5.0, range_scale=0.0).predict(x, LEVEL, None)) - finished(
        model.predict(x, LEVEL, None)
    )
    assert not moved[..., :3].any() and moved[..., 3:].any()


def test_four_points_go_where_they_should() -> None:
    places = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    wanted = places + torch.tensor([[0.2, 0.1], [-0.3, 0.2], [0.1, -0.4], [0.0, -0.1]], dtype=torch.float64)
    made = through_points(places, wanted) @ torch.cat([places, torch.ones(4, 1)], 1).T.double()
    torch.testing.assert_close((made[:2] / made[2]).T, wanted)


def test_views_are_drawn_anew_within_their_bounds_and_an_unmoved_one_is_the_picture() -> None:
    pictures = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    still = torch.full((2, 1, NUMBERS), 0.5, dtype=torch.float64)
    still[..., 0], still[..., 4] = 0.9, 0.9  # neither turned nor bent
    torch.testing.assert_close(seen_through(pictures, homographies(still))[:, 0], pictures)
    drawn = homographies(torch.rand(500, NUMBERS, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    plain = (drawn - torch.eye(3)).abs().flatten(1).amax(1) < 1e-12
    assert plain.double().mean().item() == pytest.approx(0.09, abs=0.05)
    turned = torch.zeros(1, 1, NUMBERS, dtype=torch.float64)
    turned[..., 1], turned[..., 2:4], turned[..., 4] = 1.0, 0.5, 1.0
    assert homographies(turned)[0, 0, 0, 1].item() == pytest.approx(math.sin(math.radians(15)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": Conditioning()}, "no pooled embedding"),
        ({"denoiser": denoiser("kl")}, "works on latents, and CLIP sees pixels"),
        ({"latents": Latents(torch.zeros(SHAPE), space="pixels")}, "have no mask; models.set_mask says what"),
        (
            {"latents": Latents(torch.zeros(SHAPE), space="pixels", mask=torch.zeros(1, 1, 6, 6))},
            "the mask is 0 throughout, so nothing would change; make it white",
        ),
        ({"form": "ancestral"}, "needs the sigmas of the run"),
    ],
)
def test_what_cannot_guide_is_refused(changes: dict[str, Any], message: str) -> None:
    given = {
        "denoiser": denoiser(), "encoder": ENCODER, "text": TEXT,
        "latents": Latents(torch.zeros(SHAPE), space="pixels", mask=MASK), **changes,
    }  # fmt: skip
    with pytest.raises(UserError, match=message):
        guide_edit(**given)


def test_a_mask_of_another_size_is_refused_with_both_sizes(gaussian: Any) -> None:
    with pytest.raises(UserError, match=r"the mask is \[1, 1, 6, 6\].*the sample \[1, 3, 4, 4\]"):
        guided(gaussian("eps")).predict(torch.zeros(1, 3, 4, 4, dtype=torch.float64), LEVEL, None)
