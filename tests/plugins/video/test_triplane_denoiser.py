"""The denoiser of planes: one network for three, attention where they meet, and the clip before."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Conditioning, UserError
from mezzotint_video.triplane import Planes, stack_planes, unstack_planes
from mezzotint_video.triplane_denoiser import PlaneDenoiser

TIME = torch.tensor(300.0)


def network(**changes: Any) -> PlaneDenoiser:
    """Small, and with no layer left at zero."""
    torch.manual_seed(0)
    settings = {"channels": 2, "side": 4, "frames": 3, "width": 16, "blocks": 2, "heads": 2, "context": 6}
    made = PlaneDenoiser(**{**settings, **changes}).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.requires_grad_(False)


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def changed_planes(made: PlaneDenoiser) -> list[bool]:
    """Which planes of the output change with the numbers of the yt plane alone."""
    x = numbers(1, 2, 10, 4)
    xy, yt, xt = unstack_planes(x)
    other = stack_planes(Planes(xy, yt + 1, xt))
    first, second = unstack_planes(made(x, TIME)), unstack_planes(made(other, TIME))
    return [not torch.equal(one, two) for one, two in zip(first, second, strict=True)]


def test_without_attention_the_planes_are_independent() -> None:
    assert changed_planes(network(meet=False)) == [False, True, False]


def test_with_attention_each_plane_sees_the_others() -> None:
    assert changed_planes(network()) == [True, True, True]


def test_the_planes_share_one_network() -> None:
    made = network(meet=False, frames=4)
    made.places.zero_()
    plane = numbers(1, 2, 4, 4)
    out = unstack_planes(made(stack_planes(Planes(plane, plane, plane)), TIME))
    assert torch.equal(out.xy, out.yt) and torch.equal(out.xy, out.xt)


def test_planes_of_one_size_in_one_batch_are_as_three_by_themselves() -> None:
    made = network(frames=4)
    block, parts, told = made.blocks[0], [numbers(2, 16, 4, 4, seed=n) for n in range(3)], numbers(2, 16)
    together = made.shared(block, parts, told)
    for one, plane in zip(together, parts, strict=True):
        assert torch.allclose(one, block(plane, told), atol=1e-12)


def test_no_clip_before_is_a_clip_of_zeros() -> None:
    made, x = network(), numbers(2, 2, 10, 4)
    assert torch.equal(made(x, TIME), made(x, TIME, Conditioning(concat=torch.zeros_like(x))))
    assert not torch.allclose(made(x, TIME), made(x, TIME, Conditioning(concat=numbers(2, 2, 10, 4, seed=5))))


def test_an_untrained_denoiser_begins_at_zero() -> None:
    made = PlaneDenoiser(channels=2, side=4, frames=3, width=16, blocks=1, heads=2)
    assert not made(torch.randn(1, 2, 10, 4), TIME).any()


def test_a_text_is_heard() -> None:
    made, x = network(), numbers(1, 2, 10, 4)
    one, two = (made(x, TIME, Conditioning(context=numbers(1, 5, 6, seed=n))) for n in (1, 2))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize(
    ("x", "told", "message"),
    [
        ((1, 2, 9, 4), {}, r"wants \[B, 2, 10, 4\]"),
        ((1, 3, 10, 4), {}, r"wants \[B, 2, 10, 4\]"),
        ((1, 2, 10, 4), {"concat": (1, 3, 10, 4)}, "clip before"),
        ((1, 2, 10, 4), {"context": (1, 5, 7)}, "width 6, got 7"),
    ],
)
def test_what_does_not_fit_is_refused(x: tuple[int, ...], told: dict[str, tuple[int, ...]], message: str) -> None:
    given = Conditioning(**{name: numbers(*shape) for name, shape in told.items()})
    with pytest.raises(UserError, match=message):
        network()(numbers(*x), TIME, given)


def test_a_denoiser_without_a_clip_before_refuses_one() -> None:
    with pytest.raises(UserError, match="nothing as concat"):
        network(previous=False)(numbers(1, 2, 10, 4), TIME, Conditioning(concat=numbers(1, 2, 10, 4)))


def test_widths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        PlaneDenoiser(width=20)
