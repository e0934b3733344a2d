"""The way between embeddings: exact ends, length 1, an even pace."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from mezzotint import Conditioning, UserError
from mezzotint.testing import check_node
from mezzotint_unclip.great_circle import angle, slerp, straight
from mezzotint_unclip.interpolation import interpolate, text_difference

sys.path.insert(0, str(Path(__file__).parent))
from stand_ins import text, unit

SHARES = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)


def pair(width=16):
    first, second = unit(2, width).double()
    return first.expand(len(SHARES), -1), second.expand(len(SHARES), -1)


@pytest.mark.parametrize("way", [slerp, straight])
def test_the_ends_are_exact_and_all_between_has_length_1(way):
    first, second = unit(2, 16)
    found = way(first.expand(5, -1), second.expand(5, -1), SHARES)
    assert torch.equal(found[0], first) and torch.equal(found[-1], second)
    assert torch.allclose(found.norm(dim=-1), torch.ones(5), atol=1e-6)


def test_slerp_turns_at_an_even_pace():
    first, second = pair()
    found = slerp(first, second, SHARES)
    whole = torch.acos((first[0] * second[0]).sum())
    assert torch.allclose(angle(first, found), SHARES * whole, atol=1e-12)


def test_slerp_in_a_plane_is_the_angle_s_cosine_and_sine():
    turn = 1.1
    first = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[math.cos(turn), math.sin(turn)]], dtype=torch.float64)
    found = slerp(first, second, torch.tensor([0.3]))
    assert torch.allclose(found, torch.tensor([[math.cos(0.33), math.sin(0.33)]], dtype=torch.float64), atol=1e-7)


def test_the_straight_way_dwells_where_the_circle_does_not():
    first, second = pair()
    shares = torch.full((5,), 0.2, dtype=torch.float64)
    circle, line = slerp(first, second, shares), straight(first, second, shares)
    assert angle(first, line)[0] < angle(first, circle)[0] - 0.01


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-6, 1e-5, 1e-3])
def test_slerp_of_nearly_equal_vectors_is_finite_and_between_them(gap):
    first = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    second = normalize(torch.tensor([[1.0, gap, 0.0]], dtype=torch.float64), dim=-1)
    found = slerp(first, second, torch.tensor([0.25]))
    assert torch.allclose(found[0, 1], second[0, 1] / 4, rtol=1e-3, atol=1e-15)
    assert abs(found.norm().item() - 1) < 1e-12


def test_angles_near_0_and_pi_are_exact():
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for turn in (1e-9, math.pi - 1e-9):
        second = torch.tensor([math.cos(turn), math.sin(turn)], dtype=torch.float64)
        assert abs(angle(first, second).item() - turn) < 1e-15


def test_the_node_gives_one_embedding_for_each_share():
    first, second = (Conditioning(pooled=unit(1, 8, seed=seed)) for seed in (1, 2))
    (found,) = check_node(interpolate, first=first, second=second, at=[0.0, 0.25, 1.0]).values()
    found = found.pooled
    assert torch.equal(found[0], first.pooled[0]) and torch.equal(found[2], second.pooled[0])
    wanted = slerp(first.pooled, second.pooled, torch.tensor([0.25]))
    assert torch.equal(found[1:2], wanted)


def test_a_text_difference_leads_from_the_picture_towards_what_changes():
    image, before, after = Conditioning(pooled=unit(1, 8, seed=5)), text(seed=1), text(seed=3)
    (made,) = check_node(text_difference, image=image, before=before, after=after, at=[0.0, 0.3, 1.0]).values()
    found = made.pooled
    change = normalize(after.pooled - before.pooled, dim=-1)[0]
    assert torch.equal(found[0], image.pooled[0])
    assert torch.allclose(found[2], change)
    assert (found @ change).diff().gt(0).all()
    assert torch.allclose(found.norm(dim=-1), torch.ones(3), atol=1e-6)


IMAGE = Conditioning(pooled=unit(1, 8))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Conditioning(pooled=unit(1, 6)), "8 wide, got 6"),
        (text(), "wanted an image's embedding, got a text's"),
        (Conditioning(), "wanted an embedding"),
        (Conditioning(pooled=3 * unit(1, 8)), "length 1, got one of length 3"),
        (Conditioning(pooled=unit(2, 8)), "wanted one embedding, got 2"),
        (Conditioning(pooled=unit(8)), "shape"),
        (Conditioning(pooled=torch.full((1, 8), math.nan)), "not finite"),
        (Conditioning(pooled=-unit(1, 8)), "exactly opposite"),
    ],
)
def test_what_is_no_image_embedding_is_refused(second, message):
    with pytest.raises(UserError, match=message):
        interpolate(IMAGE, second)


def test_texts_and_images_are_not_mixed_up_in_a_difference():
    with pytest.raises(UserError, match=r"before: wanted a text .* got an image's embedding"):
        text_difference(IMAGE, IMAGE, text())
    with pytest.raises(UserError, match="image: wanted an image's embedding, got a text's"):
        text_difference(text(), text(), text(seed=4))
    with pytest.raises(UserError, match="one embedding; there is no difference"):
        text_difference(IMAGE, text(), text())
