"""Resizing, cropping, padding, compositing, batches, masks and contact sheets."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Image, Mask, UserError
from mezzotint_image.batches import batch, select
from mezzotint_image.canvas import composite, crop, pad, solid
from mezzotint_image.masks import mask_combine, mask_from_image, mask_refine, mask_shape
from mezzotint_image.resizing import resize
from mezzotint_image.sheet import contact_sheet


def size_of(image: Image) -> tuple[int, int]:
    return image.data.shape[2], image.data.shape[1]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, (40, 20)),
        ({"width": 20}, (20, 10)),
        ({"height": 30}, (60, 30)),
        ({"width": 30, "height": 30}, (30, 30)),
        ({"width": 30, "height": 30, "fit": "inside"}, (30, 15)),
        ({"width": 30, "height": 30, "fit": "inside", "multiple_of": 8}, (32, 16)),
        ({"width": 33, "height": 3, "multiple_of": 8}, (32, 8)),
    ],
)
def test_sizes_follow_from_what_is_given(options, wanted):
    framed = resize(Image(torch.rand(2, 20, 40, 3)), **options)
    assert size_of(framed.image) == wanted and framed.mask.data.shape == (2, wanted[1], wanted[0])


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad", "inside"])
def test_a_picture_of_the_wanted_size_comes_back_to_the_bit(fit):
    image = Image(torch.rand(1, 16, 16, 3))
    assert torch.equal(resize(image, width=16, height=16, fit=fit).image.data, image.data)


def test_cropping_keeps_the_middle_and_padding_keeps_all():
    image = solid(width=30, height=10, colour="black")
    image.data[:, :, 10:20] = 1
    assert resize(image, width=10, height=10, filter="box").image.data.min() == 1
    framed = resize(image, width=30, height=30, fit="pad", colour="red")
    assert framed.image.data[0, 0, 0].tolist() == [1, 0, 0]
    assert torch.equal(framed.image.data[:, 10:20], image.data)
    assert framed.mask.data[0, :, 0].tolist() == [1] * 10 + [0] * 10 + [1] * 10


def test_reducing_keeps_the_mean_and_enlarging_stays_in_range():
    image = Image(torch.rand(1, 64, 64, 3))
    small = resize(image, width=8, filter="box").image
    assert small.data.mean().item() == pytest.approx(image.data.mean().item(), abs=1e-4)
    big = resize(small, width=64, filter="lanczos").image
    assert big.data.min() >= 0 and big.data.max() <= 1


def test_colour_under_transparency_does_not_bleed():
    data = torch.zeros(1, 8, 8, 4)
    data[..., :4, 0] = 1  # red, transparent
    data[..., 4:, :] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    small = resize(Image(data), width=2, filter="bilinear").image.data
    visible = small[small[..., 3] > 0.01]
    assert visible[:, 0].max() < 1e-5 and visible[:, 2].min() > 0.99


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(UserError, match="the mask is"):
        resize(Image(torch.zeros(1, 8, 8, 3)), Mask(torch.zeros(1, 8, 7)), width=4)


def test_cropping_undoes_padding_and_the_border_is_to_be_painted():
    image, mask = Image(torch.rand(2, 6, 5, 3)), Mask(torch.rand(2, 6, 5))
    wide = pad(image, mask, left=3, top=1, right=2, bottom=4)
    assert size_of(wide.image) == (10, 11) and wide.mask.data[:, 0].min() == 1
    assert torch.equal(wide.image.data[:, 3, 0], image.data[:, 2, 0])
    back = crop(wide.image, wide.mask, left=3, top=1, width=5, height=6)
    assert torch.equal(back.image.data, image.data) and torch.equal(back.mask.data, mask.data)
    with pytest.raises(UserError, match="leaves the picture, which is 5x6"):
        crop(image, left=1, width=5, height=6)
    assert pad(image, left=1, colour="blue").image.data[0, 0, 0].tolist() == [0, 0, 1]


def test_a_composite_changes_nothing_where_the_mask_is_zero():
    base, over = Image(torch.rand(1, 8, 8, 3)), Image(torch.rand(3, 8, 8, 3))
    mask = mask_shape(over, left=0.5, right=1.0, top=0.0, bottom=1.0)
    out = composite(base, over, mask)
    assert torch.equal(out.data[:, :, :4], base.data[:, :, :4].expand(3, -1, -1, -1))
    assert torch.equal(out.data[:, :, 4:], over.data[:, :, 4:])
    with pytest.raises(UserError, match="3 pictures over 2"):
        composite(Image(torch.zeros(2, 8, 8, 3)), over)


@pytest.mark.parametrize(("left", "top", "covered"), [(6, 6, 4), (-2, 0, 8), (0, 0, 16), (8, 8, 0), (-4, -4, 0)])
def test_an_overlay_that_leaves_the_base_is_cut_off(left, top, covered):
    out = composite(solid(width=8, height=8, colour="black"), solid(width=4, height=4), left=left, top=top)
    assert out.data[..., 0].sum() == covered


def test_alpha_counts_in_overlay_and_base():
    base, over = solid(width=1, height=1, colour="black"), solid(width=1, height=1, colour="#ff000080")
    assert composite(base, over).data.flatten().tolist() == pytest.approx([128 / 255, 0, 0])
    clear = solid(width=1, height=1, colour="#00ff0000")
    assert composite(clear, over).data.flatten().tolist() == pytest.approx([1, 0, 0, 128 / 255])


def test_a_batch_is_taken_apart_and_put_together():
    images = [Image(torch.rand(n, 4, 4, 3)) for n in (1, 2)]
    whole = batch(images)
    assert torch.equal(select(whole, index=1, count=2).data, images[1].data)
    assert torch.equal(select(whole, index=-3).data, images[0].data)
    assert batch([Image(torch.zeros(1, 4, 4, 1)), Image(torch.zeros(1, 4, 4, 4))]).data.shape == (2, 4, 4, 4)
    for index, count in ((3, 1), (-4, 1), (2, 2)):
        with pytest.raises(UserError, match="the batch has 3"):
            select(whole, index=index, count=count)
    with pytest.raises(UserError, match="one size, got 4x4, 5x4"):
        batch([*images, Image(torch.zeros(1, 4, 5, 3))])


def test_shapes_cover_their_area():
    image = Image(torch.zeros(1, 40, 60, 3))
    box = mask_shape(image, left=0.1, right=0.55, top=0.2, bottom=0.7)
    assert box.data.mean() == pytest.approx(0.45 * 0.5, abs=1e-5)
    oval = mask_shape(image, shape="ellipse", left=0.1, right=0.6, top=0.2, bottom=0.7)
    assert oval.data.mean() == pytest.approx(0.25 * torch.pi / 4, abs=1e-3)
    with pytest.raises(UserError, match="is empty"):
        mask_shape(image, left=0.5, right=0.5)


def test_masks_grow_shrink_harden_blur_and_turn_round():
    data = torch.zeros(1, 9, 9)
    data[0, 4, 4] = 0.7
    hard = mask_refine(Mask(data), threshold=0.7)
    grown = mask_refine(hard, grow=2)
    assert grown.data.sum() == 25 and torch.equal(mask_refine(grown, grow=-2).data, hard.data)
    assert mask_refine(Mask(data), invert=True).data[0, 4, 4] == pytest.approx(0.3)
    blurred = mask_refine(hard, blur=1.0).data
    assert blurred.sum() == pytest.approx(1, abs=1e-2) and blurred[0, 4, 4] < 0.2
    assert torch.equal(mask_refine(Mask(torch.ones(2, 3, 9, 9)), blur=2.0).data.round(), torch.ones(2, 3, 9, 9))


def test_masks_combine():
    one, two = torch.tensor([[[0.0, 1, 1, 0]]]), torch.tensor([[[0.0, 0, 1, 1]]])
    results = {mode: mask_combine(Mask(one), Mask(two), mode=mode).data.flatten().tolist()
               for mode in ("union", "intersection", "difference")}  # fmt: skip
    assert results == {"union": [0, 1, 1, 1], "intersection": [0, 0, 1, 0], "difference": [0, 1, 0, 0]}
    with pytest.raises(UserError, match="the masks are"):
        mask_combine(Mask(one), Mask(torch.zeros(1, 1, 3)))


def test_a_mask_is_one_channel_of_a_picture():
    image = Image(torch.rand(1, 2, 2, 3))
    assert torch.equal(mask_from_image(image, channel="green").data, image.data[..., 1])
    assert mask_from_image(Image(torch.ones(1, 2, 2, 3))).data.min() == pytest.approx(1)
    with pytest.raises(UserError, match="has 3 channels and no alpha"):
        mask_from_image(image, channel="alpha")


def test_a_contact_sheet_holds_every_picture_unchanged_in_its_cell():
    images = [
        Image(torch.randint(0, 256, (2, 4, 6, 3)) / 255),
        Image(torch.randint(0, 256, (1, 4, 6, 3)) / 255),
    ]
    sheet = contact_sheet(images, columns=2, margin=3, background="black").data
    assert sheet.shape == (1, 4 * 2 + 9, 6 * 2 + 9, 3)
    assert torch.equal(sheet[0, 3:7, 12:18], images[0].data[1])
    assert torch.equal(sheet[0, 10:14, 3:9], images[1].data[0])
    assert sheet[0, 10:14, 12:18].max() == 0


def test_labels_take_their_room_under_each_row():
    images = [Image(torch.ones(1, 40, 40, 3))] * 4
    bare = contact_sheet(images, columns=2)
    labels = ["one", 2, "a longer label in three lines", ""]
    named = contact_sheet(images, columns=2, labels=labels)
    assert named.data.shape[1] > bare.data.shape[1] and named.data[0, 50:60].min() < 0.5
    assert torch.equal(named.data, contact_sheet(images, columns=2, labels=labels).data)
    with pytest.raises(UserError, match="3 labels for 4 pictures"):
        contact_sheet(images, labels=["a", "b", "c"])
    with pytest.raises(UserError, match="at least one picture"):
        contact_sheet([])


@pytest.mark.parametrize("colour", ["reddish", "#12345", ""])
def test_what_is_no_colour_is_named(colour):
    with pytest.raises(UserError, match="is not a colour"):
        solid(width=2, height=2, colour=colour)
