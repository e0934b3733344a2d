"""Masks along a run: when each place is freed, by the definition; what is kept, to the bit; bad masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Conditioning, Latents, NoiseLevel, UserError
from mezzotint.testing import check_node
from mezzotint_sampling import nodes
from mezzotint_sampling.mask_path import change_map, mask_at, shrinking_mask
from mezzotint_sampling.sampler_node import sample
from mezzotint_sampling.sigma_nodes import skip_steps


def masked(mask: torch.Tensor, batch: int = 1, channels: int = 3) -> Latents:
    data = torch.randn(batch, channels, *mask.shape[-2:], generator=torch.Generator().manual_seed(1))
    return Latents(data, space="s", mask=mask)


def strengths(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_a_place_is_free_from_when_less_is_left_of_the_run_than_its_strength() -> None:
    steps, given = 10, strengths(0.0, 0.05, 0.3, 0.5, 1.0)
    made = change_map(masked(given), levels=steps)
    for step in range(1, steps + 1):
        mask = mask_at(made.mask, NoiseLevel(1, 0, 0, step=step, steps=steps))
        left = (steps - step) / steps
        assert mask.flatten().tolist() == [float(left < round(s, 6)) for s in given.flatten().tolist()]


@pytest.mark.parametrize(("count", "steps"), [(1, 4), (3, 10), (10, 10), (40, 10)])
def test_the_last_level_has_the_last_mask_and_no_level_goes_back(count: int, steps: int) -> None:
    masks = torch.arange(count).float().view(1, count, 1, 1)
    seen = [int(mask_at(masks, NoiseLevel(1, 0, 0, step=i, steps=steps))) for i in range(steps + 1)]
    assert seen[-1] == count - 1
    assert seen == sorted(seen)


def test_uniform_strengths_free_all_places_at_once() -> None:
    made = change_map(masked(torch.full((1, 1, 4, 4), 0.5)), levels=8).mask
    assert made is not None
    assert made.flatten(2).mean(2).flatten().tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_shrinking_mask_is_nested_widest_first_and_ends_with_the_one_given() -> None:
    thin = torch.zeros(1, 1, 9, 9)
    thin[..., 4, 2:7] = 1
    made = shrinking_mask(masked(thin), grow=3).mask
    assert made is not None and made.shape == (1, 4, 9, 9)
    for wide, narrow in zip(made[0, :-1], made[0, 1:], strict=True):
        assert bool((wide >= narrow).all()) and wide.sum() > narrow.sum()
    assert torch.equal(made[:, -1:], thin)
    assert made[0, 0].nonzero().amin(0).tolist() == [1, 0] and made[0, 0].nonzero().amax(0).tolist() == [7, 8]


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "heun", "euler_ancestral"])
@pytest.mark.parametrize("path", [change_map, shrinking_mask])
def test_what_the_last_mask_keeps_comes_back_to_the_bit(
    sampler: str, path: Any, denoiser: Any, random_model: Any, context: Any
) -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 2:] = 0.4
    latents = path(masked(mask))
    levels, prompt = nodes.sigmas(denoiser, steps=5), Conditioning(context=torch.ones(1, 4, 8))
    made = sample(context(random_model()), denoiser, prompt, latents, levels, nodes.noise(), sampler=sampler)
    assert torch.equal(made.data[..., :2], latents.data[..., :2])
    assert not torch.isclose(made.data[..., 2:], latents.data[..., 2:]).any()


def test_less_strength_stays_nearer_to_the_picture(denoiser: Any, gaussian: Any, context: Any) -> None:
    """On data N(0, 1), where the picture's own value is a likely one, what a place keeps is its correlation."""
    given = strengths(0.2, 0.5, 0.8, 1.0).expand(1, 1, 64, 4)
    latents, model = masked(given, batch=8), denoiser
    ctx = context(gaussian("eps", 0.0, 1.0))
    levels = nodes.sigmas(model, steps=20)
    made = sample(ctx, model, Conditioning(), change_map(latents), levels, nodes.noise(seed=4), sampler="ddim")
    away = (made.data - latents.data).square().mean((0, 1, 2)).tolist()
    assert away == sorted(away) and away[0] < 0.5 * away[-1]


def test_skipping_all_steps_gives_the_latents_back(denoiser: Any, context: Any) -> None:
    latents = masked(torch.ones(1, 1, 4, 4))
    none = skip_steps(nodes.sigmas(denoiser, steps=7), share=1)
    made = sample(context(None), denoiser, Conditioning(), latents, none, nodes.noise())
    assert torch.equal(made.data, latents.data)


def test_skipping_leaves_the_levels_of_the_rest_as_they_were(denoiser: Any) -> None:
    whole = nodes.sigmas(denoiser, steps=8)
    rest = skip_steps(whole, share=0.25)
    assert (rest.sigmas, rest.alphas, rest.times) == (whole.sigmas[2:], whole.alphas[2:], whole.times[2:])
    assert skip_steps(whole, share=0).sigmas == whole.sigmas
    with pytest.raises(UserError, match=r"the share is 0..1, got 1.5"):
        skip_steps(whole, share=1.5)


@pytest.mark.parametrize("path", [change_map, shrinking_mask])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "the latents have no mask; models.set_mask says which"),
        (torch.zeros(1, 1, 4, 4), "the mask is 0 throughout, so nothing would change; make it white"),
        (torch.ones(1, 2, 4, 4), "the latents have 2 masks, one for each part of the run"),
    ],
)
def test_a_mask_that_cannot_be_followed_is_refused(path: Any, mask: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        path(Latents(torch.zeros(1, 3, 4, 4), mask=mask))


def test_strengths_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"strengths are 0..1, got 0..255; divide the map by its largest value"):
        change_map(masked(strengths(0, 255)))


def test_the_nodes_keep_the_rules() -> None:
    check_node(change_map, latents=masked(strengths(0, 0.5, 1)))
    check_node(shrinking_mask, latents=masked(torch.ones(1, 1, 4, 4)))
