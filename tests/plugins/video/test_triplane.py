"""Planes: how they are stacked and summed, and how an axis is pooled."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mezzotint_video.triplane import AxisPool, Planes, broadcast_sum, stack_planes, unstack_planes
from mezzotint_video.triplane_autoencoder import TriplaneAutoencoder

SMALL = {"frames": 3, "size": 8, "patch": 2, "channels": 2, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}


def planes(frames: int = 3, side: int = 4, channels: int = 2) -> Planes:
    make = torch.Generator().manual_seed(0)
    sizes = ((side, side), (frames, side), (frames, side))
    return Planes(*(torch.randn(2, channels, *size, generator=make) for size in sizes))


def autoencoder(**changes: int) -> TriplaneAutoencoder:
    torch.manual_seed(0)
    return TriplaneAutoencoder(**{**SMALL, **changes}, heads=2).eval()


def test_stacked_planes_come_apart_as_they_were() -> None:
    given = planes(frames=5)
    stacked = stack_planes(given)
    assert stacked.shape == (2, 2, 4 + 2 * 5, 4)
    for one, other in zip(unstack_planes(stacked), given, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (1, 2, 7, 4), (1, 2, 3, 4)])
def test_rows_that_are_no_planes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="frames"):
        unstack_planes(torch.zeros(shape))


def test_a_place_of_the_sum_is_the_sum_of_one_place_of_each_plane() -> None:
    given = planes()
    summed = broadcast_sum(given)
    assert summed.shape == (2, 3, 4, 4, 2)
    t, y, x = 2, 1, 3
    wanted = given.xy[:, :, y, x] + given.yt[:, :, t, y] + given.xt[:, :, t, x]
    assert torch.equal(summed[:, t, y, x], wanted)


def test_what_the_decoder_sees_has_no_mixed_third_difference_and_what_it_makes_has() -> None:
    model = autoencoder().double()
    given = Planes(*(plane.double() for plane in planes()))
    with torch.no_grad():
        seen, made = model.summed(given), model.decode(given)
    # Inclusion and exclusion over each 2x2x2 cell: nothing of a function of two variables is left.
    assert seen.diff(dim=1).diff(dim=2).diff(dim=3).abs().max() < 1e-12 * seen.abs().max()
    assert seen.diff(dim=1).diff(dim=2).abs().max() > 0.01
    assert made.diff(dim=2).diff(dim=3).diff(dim=4).abs().max() > 0.01


def test_planes_have_fewer_numbers_than_the_block_of_the_paper() -> None:
    # 16 frames of 32x32 places: 32*32 + 2*16*32 = 2048 in place of 16384 (Yu et al. 2023, section 3.1).
    assert autoencoder(frames=16, size=64, patch=2).counts == (2048, 16384)
    model = autoencoder()
    made = model.encode(torch.zeros(1, 3, 3, 8, 8))
    assert sum(plane[0, 0].numel() for plane in made) == model.counts[0] == 16 + 2 * 12


def test_each_plane_is_read_along_its_own_axes() -> None:
    """A bright row moves down: xy sees its course, yt a diagonal, and no column of xt differs."""
    model = autoencoder()
    with torch.no_grad():
        model.encoder = torch.nn.Identity()
        model.places.zero_()
        model.times.zero_()
        clip = torch.full((1, 3, 3, 8, 8), -1.0)
        for frame in range(3):
            clip[:, :, frame, 2 * frame : 2 * frame + 2] = 1
        xy, yt, xt = model.encode(clip)
    assert torch.allclose(xt, xt[:, :, :1, :1].expand_as(xt), atol=1e-6)
    assert torch.allclose(xy, xy[..., :1].expand_as(xy), atol=1e-6)
    assert torch.allclose(yt[0, :, 0, 0], yt[0, :, 2, 2], atol=1e-6)
    assert (yt[0, :, 0, 0] - yt[0, :, 0, 1]).abs().max() > 1e-4


def test_an_axis_is_pooled_as_a_transformer_layer_with_an_extra_token_would() -> None:
    torch.manual_seed(0)
    pool, heads = AxisPool(8, 2).double(), 2
    features = torch.randn(5, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        # The whole layer: every token attends to every token, and the extra one is read.
        tokens = torch.cat([features, pool.token.expand(5, 1, 8)], dim=1)
        parts = [
            make(pool.norm(tokens)).unflatten(-1, (heads, -1)).transpose(1, 2)
            for make in (pool.query, pool.key, pool.value)
        ]
        whole = tokens + pool.out(scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
        wanted = (whole + pool.feed(whole))[:, -1]
        assert torch.allclose(pool(features), wanted, atol=1e-12)


def test_patches_are_put_together_where_they_were_cut() -> None:
    model = autoencoder()
    clip = torch.randn(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.entrance.weight.copy_(torch.eye(12)[:8])
        model.entrance.bias.zero_()
        model.exit.weight.copy_(torch.eye(12)[:, :8])
        model.exit.bias.zero_()
        model.places.zero_()
        model.times.zero_()
        seen: list[torch.Tensor] = []
        model.encoder = torch.nn.Identity()
        model.encoder.register_forward_hook(lambda *call: seen.append(call[2]))
        model.encode(clip)
        model.exit_norm = model.decoder = torch.nn.Identity()
        model.summed = lambda planes: seen[0]
        back = model.decode(planes())
    # The first two of the three colours' squares of four are whole.
    assert torch.equal(back[:, :2], clip[:, :2]) and not back[:, 2].any()


def test_sizes_that_do_not_divide_are_refused() -> None:
    for changes in ({"size": 9}, {"width": 9}):
        with pytest.raises(ValueError, match="divides"):
            autoencoder(**changes)
