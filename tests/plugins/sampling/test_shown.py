"""What a denoiser is shown: the small picture with its noise, and what is known of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Conditioning, Image, Latents, Noise, UserError
from mezzotint.testing import check_node, fake_context, fake_sigmas
from mezzotint_sampling.guidance import ClassifierFree
from mezzotint_sampling.nodes import guide
from mezzotint_sampling.sampler_node import sample
from mezzotint_sampling.shown import condition_on_known, condition_on_low_res, keep_known


def pictures(batch: int = 2, side: int = 8, seed: int = 0) -> Image:
    return Image(torch.rand(batch, side, side, 3, generator=torch.Generator().manual_seed(seed)))


def told(image: Image, **settings: Any) -> Conditioning:
    return condition_on_low_res(fake_context(), image, **settings)


def test_at_level_0_the_small_picture_is_as_it_is_to_the_bit() -> None:
    levels = torch.randint(0, 256, (2, 4, 4, 3), generator=torch.Generator().manual_seed(0))
    found = told(Image(levels.float() / 255), level=0.0)
    assert torch.equal(found.low_res, (levels.float() / 127.5 - 1).movedim(-1, 1))
    assert torch.equal(found.low_res_level, torch.zeros(2))


def test_what_lies_between_two_of_256_levels_is_not_shown() -> None:
    levels = torch.randint(1, 255, (1, 4, 4, 3), generator=torch.Generator().manual_seed(0)).float()
    between = levels + torch.rand(levels.shape, generator=torch.Generator().manual_seed(1)) * 0.9 - 0.45
    assert torch.equal(told(Image(between / 255)).low_res, told(Image(levels / 255)).low_res)
    beyond = told(Image(torch.tensor([-0.5, 0.0, 1.5]).expand(1, 4, 4, 3))).low_res
    assert torch.equal(beyond.amin((0, 2, 3)), torch.tensor([-1.0, -1.0, 1.0]))


def test_the_level_says_how_much_noise_is_on_the_small_picture() -> None:
    grey = Image(torch.full((1, 256, 256, 3), 0.75))
    clean = float(told(grey).low_res.mean())
    for level in (0.1, 0.3, 0.7, 1.0):
        found = told(grey, level=level, seed=3)
        angle = torch.tensor(level * torch.pi / 2)
        assert torch.allclose(found.low_res.mean(), angle.cos() * clean, atol=0.01)
        assert torch.allclose(found.low_res.std(), angle.sin(), atol=0.01)
        assert float(found.low_res_level) == pytest.approx(level)


def test_the_negative_of_guidance_is_shown_the_same_noise() -> None:
    image, negative = pictures(), Conditioning(pooled=torch.ones(2, 3))
    first, second = told(image, level=0.4, seed=5), told(image, conditioning=negative, level=0.4, seed=5)
    assert torch.equal(first.low_res, second.low_res) and torch.equal(second.pooled, negative.pooled)
    assert not torch.equal(first.low_res, told(image, level=0.4, seed=6).low_res)
    alone = told(Image(image.data[1:]), level=0.4, seed=6)
    assert torch.equal(alone.low_res[0], first.low_res[1])  # picture i has the noise of seed + i


def test_a_model_that_is_not_told_the_level_gets_none() -> None:
    found = told(pictures(), level=None)
    assert found.low_res_level is None and found.low_res is not None
    with pytest.raises(UserError, match="3 channels, got 1"):
        told(Image(torch.zeros(1, 4, 4, 1)))


def masked(batch: int = 2, side: int = 8) -> Latents:
    data = pictures(batch, side).data.movedim(-1, 1) * 2 - 1
    mask = torch.zeros(batch, 1, side, side)
    mask[..., side // 2 :] = 1
    return Latents(data, space="s", mask=mask)


def test_what_is_known_comes_with_where_it_is() -> None:
    latents = masked()
    concat = condition_on_known(latents).concat
    assert torch.equal(concat[:, 3:], 1 - latents.mask)
    assert torch.equal(concat[:, :3, :, :4], latents.data[..., :4]) and not concat[:, :3, :, 4:].any()
    with pytest.raises(UserError, match="the latents have no mask"):
        condition_on_known(latents.replace(mask=None))


def test_a_soft_mask_is_known_only_where_it_is_0() -> None:
    latents = masked()
    soft = latents.replace(mask=latents.mask * 0.25)
    assert torch.equal(condition_on_known(soft).concat, condition_on_known(latents).concat)


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_known_pixels_come_out_exactly_and_the_others_do_not(
    kind: str, guidance: float, denoiser: Any, random_model: Any
) -> None:
    latents, model = masked(), random_model(kind)
    guided = guide(denoiser, Conditioning(context=torch.ones(1, 1, 1)), scale=guidance)
    ctx = fake_context(loaders={"test.model": lambda recipe, ctx: model})
    with ctx:
        found = sample(
            ctx, keep_known(guided, latents), Conditioning(context=torch.zeros(1, 1, 1)),
            latents.replace(data=torch.zeros_like(latents.data), mask=None), fake_sigmas(6), Noise(seed=0),
            sampler="ddim",
        ).data  # fmt: skip
    assert torch.equal(found[..., :4], latents.data[..., :4])
    assert (found[..., 4:] != latents.data[..., 4:]).all()


def test_one_known_picture_serves_a_batch_of_guidance(denoiser: Any, random_model: Any) -> None:
    from mezzotint import NoiseLevel

    latents = masked(batch=1)
    with fake_context() as ctx:
        patch = keep_known(denoiser, latents).patches[-1]
        with patch.apply(random_model("eps"), ctx) as kept:
            with ClassifierFree(Conditioning(context=torch.ones(4, 1, 1)), 2.0).apply(kept, ctx) as both:
                x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
                got = both.predict(x, NoiseLevel(0.6, 0.8, 500.0), Conditioning(context=torch.zeros(4, 1, 1)))
    assert torch.allclose(got.combined()[..., :4], latents.data[..., :4].expand(4, -1, -1, -1), atol=1e-6)


def test_known_pixels_of_another_space_or_size_are_refused(denoiser: Any, random_model: Any) -> None:
    with pytest.raises(UserError, match="of space 'pixels', the denoiser's is 's'"):
        keep_known(denoiser, masked().replace(space="pixels"))
    ctx = fake_context(loaders={"test.model": lambda recipe, ctx: random_model("eps")})
    with ctx, pytest.raises(UserError, match=r"the picture is \[2, 3, 8, 8\], the sample \[2, 3, 4, 4\]"):
        sample(
            ctx, keep_known(denoiser, masked()), Conditioning(), Latents(torch.zeros(2, 3, 4, 4), space="s"),
            fake_sigmas(2), Noise(seed=0), sampler="ddim",
        )  # fmt: skip


def test_the_nodes_keep_what_every_node_promises(denoiser: Any) -> None:
    check_node(condition_on_low_res, image=pictures(), level=0.2)
    check_node(condition_on_known, latents=masked())
    check_node(keep_known, denoiser=denoiser, latents=masked())
