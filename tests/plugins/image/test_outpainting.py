"""image.outpaint and image.repeat: room with its mask, the picture untouched, and no room refused."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Image, UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_image.batches import repeat
from mezzotint_image.outpainting import outpaint

PICTURE = Image(torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("fill", ["edge", "mirror", "noise"])
def test_the_picture_is_in_its_place_to_the_bit_and_the_mask_is_the_room(fill):
    made, mask = outpaint(fake_context(), PICTURE, left=8, bottom=16, fill=fill)
    assert tuple(made.data.shape) == (2, 24, 16, 3)
    assert torch.equal(made.data[:, :8, 8:], PICTURE.data)
    assert made.data.min() >= 0 and made.data.max() <= 1
    assert not mask.data[:, :8, 8:].any() and mask.data.sum() == 2 * (24 * 16 - 64)


def test_the_room_repeats_the_edge_or_mirrors_the_picture():
    edge, _ = outpaint(fake_context(), PICTURE, right=8)
    assert torch.equal(edge.data[:, :, 8:], PICTURE.data[:, :, 7:].expand(-1, -1, 8, -1))
    mirror, _ = outpaint(fake_context(), PICTURE, right=8, top=8, fill="mirror")
    assert torch.equal(mirror.data[:, 8:, 8:], PICTURE.data.flip(2))
    assert torch.equal(mirror.data[:, :8, :8], PICTURE.data.flip(1))


def test_an_overlap_falls_from_the_room_into_the_picture_on_that_side_alone():
    _, mask = outpaint(fake_context(), PICTURE, left=8, overlap=3)
    torch.testing.assert_close(mask.data[0, 0], torch.tensor([1.0] * 8 + [0.75, 0.5, 0.25] + [0.0] * 5))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "there is no room to paint: left, top, right and bottom are all 0. Give at least one"),
        ({"left": 3}, r"the width would be 3 \+ 8 \+ 0 = 11 pixels; wanted a multiple of 8: take right = 5"),
        ({"top": 4, "bottom": 2}, r"the height would be .* = 14 pixels; .* take bottom = 4, which makes it 16"),
        ({"left": 8, "overlap": 8}, "an overlap of 8 leaves nothing of a width of 8 pixels"),
    ],
)
def test_what_leaves_no_room_or_no_picture_is_refused_with_what_to_do(given, message):
    with pytest.raises(UserError, match=message):
        outpaint(fake_context(), PICTURE, **given)


def test_pictures_are_repeated_as_a_whole():
    made = repeat(PICTURE, count=3)
    assert torch.equal(made.data, torch.cat([PICTURE.data] * 3))


def test_the_nodes_keep_the_rules():
    check_node(outpaint, ctx=fake_context(), image=PICTURE, left=8, fill="noise")
    check_node(repeat, image=PICTURE, count=2)
