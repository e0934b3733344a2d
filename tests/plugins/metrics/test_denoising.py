"""The error at removing noise, and pictures against pictures: closed forms, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from mezzotint import Conditioning, Image, Latents, Prediction, Sigmas, UserError
from mezzotint.testing import check_node, fake_context, tiny_denoiser
from mezzotint_kernels import normals
from mezzotint_metrics.denoising import denoising_error
from mezzotint_metrics.difference import picture_difference

LEVELS = Sigmas((0.6, 0.8, 1.0), (0.8, 0.6, 0.0), (700.0, 300.0, 0.0))
CLEAN = Latents(normals(0, (3, 4, 8, 8)))


class Knows:
    """Says that the clean picture is `own` and `off` beside it, in any kind of prediction."""

    def __init__(self, kind, off):
        self.kind, self.off = kind, off

    def predict(self, x, level, conditioning):
        said = CLEAN.data + self.off
        eps = (x - level.alpha * said) / level.sigma
        answers = {"x0": said, "eps": eps, "v": level.alpha * eps - level.sigma * said}
        return Prediction((answers[self.kind],), (1.0,), self.kind)


def measured(kind="v", off=0.0, **given):
    recipe = tiny_denoiser()
    ctx = fake_context(loaders={recipe.loader: lambda recipe, ctx: Knows(kind, off)})
    inputs = {"latents": CLEAN, "conditioning": Conditioning(), "sigmas": LEVELS, **given}
    return denoising_error(ctx, recipe, **inputs).data


@pytest.mark.parametrize("kind", ["x0", "eps", "v"])
def test_the_error_is_that_of_the_clean_picture_over_the_noises_variance_in_every_parametrisation(kind):
    off = torch.tensor([0.0, 0.1, 0.2])[:, None, None, None]
    got = measured(kind, off)
    weight = (1 / 0.8**2 + 1 / 0.6**2) / 2
    for row, far in zip(got["rows"], (0.0, 0.01, 0.04), strict=True):
        assert row["error"] == pytest.approx(far * weight, rel=1e-4, abs=1e-9)
    assert got["error"] == pytest.approx(0.05 / 3 * weight, rel=1e-4)
    # The level without noise is none to remove it from.
    assert [level["sigma"] for level in got["levels"]] == [0.8, 0.6]
    assert got["levels"][0]["error"] == pytest.approx(0.05 / 3 / 0.64, rel=1e-4)


def test_the_noise_is_the_seeds():
    recipe = tiny_denoiser()
    inputs = {"latents": CLEAN, "conditioning": Conditioning(), "sigmas": LEVELS}
    first, again, other = (denoising_error(fake_context(), recipe, **inputs, seed=s).data for s in (1, 1, 2))
    assert first == again and first["error"] != other["error"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latents": Latents(torch.zeros(0, 4, 8, 8))}, "at least one picture, got none"),
        (
            {"conditioning": Conditioning(context=torch.zeros(2, 4, 8))},
            "2 texts for 3 pictures; give one for each",
        ),
        ({"sigmas": Sigmas((1.0,), (0.0,), (0.0,))}, "no level has noise"),
        ({"latents": Latents(CLEAN.data, space="elsewhere")}, "the latents are of space 'elsewhere'"),
    ],
)
def test_what_cannot_be_measured_is_refused(given, message):
    recipe = tiny_denoiser().replace(space="here")
    inputs = {"latents": CLEAN, "conditioning": Conditioning(), "sigmas": LEVELS, **given}
    with pytest.raises(UserError, match=message):
        denoising_error(fake_context(), recipe, **inputs)


def test_pictures_are_compared_one_by_one():
    reference = torch.rand(3, 4, 5, 3, generator=torch.Generator().manual_seed(0)) * 0.5
    image = reference.clone()
    image[1] += 0.1
    image[2, 0, 0, 0] += 0.25
    got = check_node(picture_difference, image=Image(image), reference=Image(reference))["report"].data
    assert (got["identical"], got["pictures"]) == (1, 3)
    assert [row["identical"] for row in got["rows"]] == [True, False, False]
    assert [row["difference"] for row in got["rows"]] == pytest.approx([0, 25.5, 255 * 0.25 / 60], abs=1e-4)
    assert got["rows"][0]["psnr"] is None and got["rows"][1]["psnr"] == pytest.approx(20, abs=1e-4)
    assert got["rows"][2]["psnr"] == pytest.approx(-10 * math.log10(0.0625 / 60), abs=1e-4)
    assert got["difference"] == pytest.approx((25.5 + 255 * 0.25 / 60) / 3, abs=1e-4)


def test_pictures_of_other_shapes_are_refused():
    with pytest.raises(
        UserError, match=r"wanted as many pictures of one size, got \[1, 2, 2, 3\] and \[2, 2, 2, 3\]"
    ):
        picture_difference(Image(torch.zeros(1, 2, 2, 3)), Image(torch.zeros(2, 2, 2, 3)))
