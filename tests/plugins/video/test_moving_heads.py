"""Heads that follow what moves, words said anew for each frame, and a reader that is taught to name motions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_temporal_layers import inputs, layers_of, run, stirred
from tiny_unets import unet

from mezzotint import UserError
from mezzotint_smallworld.motion_nodes import clip_dataset
from mezzotint_smallworld.motion_reader import open_clips
from mezzotint_smallworld.moving import MOTIONS
from mezzotint_video.motion_names import MotionNames
from mezzotint_video.moving_heads import PARTS, MovingHeads, inverse, moved
from mezzotint_video.temporal_attention import TemporalAttention
from mezzotint_video.temporal_layers import Clip


def test_new_layers_of_these_kinds_leave_every_frame_as_the_model_of_pictures_has_it() -> None:
    network, (x, context) = unet(), inputs()
    rows = context.repeat_interleave(4, 0)
    plain = network(x.flatten(0, 1), torch.tensor(500), encoder_hidden_states=rows, return_dict=False)[0]
    clip = Clip(2, 4, context=context)
    layers = layers_of(network, follows=True, words=2, reader=2)
    assert torch.equal(run(network, layers, x, clip).flatten(0, 1), plain)
    assert torch.equal(layers.retold(clip), context[:, None].expand(-1, 4, -1, -1))


def shifted_by(parts: list[list[float]]) -> MovingHeads:
    """One head, whose map in frame f is parts[f]: shift in x and y, logarithm of the scale, angle."""
    heads = MovingHeads(len(parts), 1)
    with torch.no_grad():
        heads.course.weight.copy_(torch.tensor(parts).T)
    return heads


def test_a_shift_by_whole_places_looks_at_the_neighbours() -> None:
    told = torch.eye(2)[None]
    maps = shifted_by([[0, 0, 0, 0], [2 * 2 / 8, -1 * 2 / 8, 0, 0]])(told)
    h = torch.randn(1, 2, 64, 1, 3)
    seen = moved(h, maps, (8, 8)).view(1, 2, 8, 8, 3)
    grid = h.view(1, 2, 8, 8, 3)
    assert torch.allclose(seen[:, 0], grid[:, 0], atol=1e-5)
    assert torch.allclose(seen[:, 1, 1:, :6], grid[:, 1, :7, 2:], atol=1e-5)


def test_a_quarter_turn_looks_at_the_picture_turned_and_the_way_back_undoes_it() -> None:
    maps = shifted_by([[0, 0, 0, math.pi / 2]])(torch.eye(1)[None])
    h = torch.randn(1, 1, 64, 1, 3)
    seen = moved(h, maps, (8, 8))
    picture = h.view(8, 8, 3)
    assert any(torch.allclose(seen.view(8, 8, 3), picture.rot90(turns), atol=1e-4) for turns in (1, 3))
    assert torch.allclose(moved(seen, inverse(maps), (8, 8)), h, atol=1e-4)


def test_the_way_back_of_any_similarity_is_its_inverse() -> None:
    torch.manual_seed(0)
    heads = MovingHeads(6, 4)
    torch.nn.init.normal_(heads.course.weight, std=0.3)
    maps = heads(torch.randn(2, 5, 6))
    row = torch.tensor([0.0, 0.0, 1.0]).expand(2, 5, 4, 1, 3)
    both = torch.cat([maps, row], -2) @ torch.cat([inverse(maps), row], -2)
    assert maps.shape == (2, 5, 4, 2, 3) and heads.course.out_features == 4 * PARTS
    assert torch.allclose(both, torch.eye(3).expand_as(both), atol=1e-5)


def test_a_head_that_follows_sees_what_moves_as_if_it_stood_still() -> None:
    """A spot that goes two places a frame: attention that follows it gives what it gives of a still one."""
    torch.manual_seed(0)
    layer = TemporalAttention(4, head=4, position="none", modulation=3, follows=True)
    torch.nn.init.normal_(layer.to_out.weight)
    assert layer.moving is not None
    still = torch.zeros(1, 3, 8, 16, 4)
    still[:, :, 3:5, 4:6] = torch.randn(4)
    going = torch.stack([still[:, f].roll(2 * f, dims=2) for f in range(3)], dim=1)
    told = torch.eye(3)[None]
    of_still = layer(still.flatten(2, 3), (8, 16), told).view(1, 3, 8, 16, 4)
    with torch.no_grad():
        layer.moving.course.weight[0] = torch.tensor([0.0, 4 / 16, 8 / 16])
    of_going = layer(going.flatten(2, 3), (8, 16), told).view(1, 3, 8, 16, 4)
    for frame in range(3):
        at = slice(4 + 2 * frame, 6 + 2 * frame)
        assert torch.allclose(of_going[:, frame, 3:5, at], of_still[:, frame, 3:5, 4:6], atol=1e-5)


def test_words_said_anew_differ_from_frame_to_frame_by_their_time_alone() -> None:
    layers = stirred(layers_of(unet(), words=1))
    _, context = inputs()
    words = layers.retold(Clip(2, 4, context=context))
    assert words is not None and not torch.allclose(words[:, 0], words[:, 1])
    late = Clip(2, 1, context=context, seconds=torch.full((2, 1), 2 / 4), fps=torch.tensor([4.0, 4.0]))
    whole = layers.retold(Clip(2, 4, context=context, fps=torch.tensor([4.0, 4.0])))
    again = layers.retold(late)
    assert whole is not None and again is not None and torch.allclose(again[:, 0], whole[:, 2], atol=1e-5)
    assert layers.retold(Clip(2, 1, context=context)) is None
    assert layers.retold(Clip(2, 4, apart=True, context=context)) is None


class Captions:
    """Conditions that say of a caption which motion it has, the rest of the tokens being noise."""

    def read(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        row = torch.zeros(1, 6, 12)
        for item in items:
            row[0, item["classes"]["motion"][0] % 6, item["classes"]["motion"][0]] = 4.0
        return {"words": row}

    def __call__(self, rows: dict[str, torch.Tensor], dropped: torch.Tensor) -> Any:
        noise = torch.randn(rows["words"].shape, generator=torch.Generator().manual_seed(0))
        return type("Told", (), {"context": rows["words"] + 0.1 * noise})


def test_a_reader_learns_to_name_motions_from_captions() -> None:
    layers = layers_of(unet(), reader=1)
    names = MotionNames(open_clips(clip_dataset(count=100, things=1), None), Captions(), layers)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([*layers.parameters(), *names.head.parameters()], lr=0.01)
    losses = []
    for _ in range(12):
        loss = names.loss(generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > math.log(len(MOTIONS)) - 0.5 and losses[-1] < losses[0] / 2


def test_a_data_set_that_names_no_motions_cannot_teach_them() -> None:
    with pytest.raises(UserError, match="does not name its clips' motions; leave out named"):
        MotionNames(["a clip"], Captions(), layers_of(unet(), reader=1))
