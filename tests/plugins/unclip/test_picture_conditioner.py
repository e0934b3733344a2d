"""What a decoder is told of a picture alone, held or learning along."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mezzotint import Conditioning, UserError
from mezzotint_models import build_network
from mezzotint_unclip.decoder_condition import DecoderCondition
from mezzotint_unclip.picture_conditioner import LearntPictureConditions, PictureConditions, shown

DROPPED = torch.tensor([False, True])


class Pictures:
    """A picture's embedding is the direction of its corner."""

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(pixels[:, 0, 0] + 0.01, dim=-1)


class Words:
    def condition(self, texts: list[str]) -> Conditioning:
        generator = torch.Generator().manual_seed(0)
        return Conditioning(context=torch.randn(1, 4, 6, generator=generator), pooled=torch.ones(1, 5))


def opened(kind: type[PictureConditions], frame: str = "middle") -> tuple[DecoderCondition, Any]:
    torch.manual_seed(1)
    network = DecoderCondition(embedding=3, context=6, pooled=5, tokens=2).requires_grad_(False)
    return network, kind(network, Pictures(), Words(), frame)


def items(count: int = 2) -> list[dict[str, Any]]:
    numbers = np.random.default_rng(0)
    return [{"clip": numbers.integers(0, 255, (5, 2, 2, 3), dtype=np.uint8)} for _ in range(count)]


def test_one_that_learns_tells_at_first_what_the_held_one_tells() -> None:
    _, held = opened(PictureConditions)
    _, learning = opened(LearntPictureConditions)
    told, same = (one(one.read(items()), DROPPED) for one in (held, learning))
    for name in ("context", "pooled"):
        assert torch.allclose(getattr(told, name), getattr(same, name), atol=5e-3)
    assert told.context.shape == (2, 2 + 4, 6)


def test_one_that_learns_gives_gradients_to_its_own_copy_and_ships_it() -> None:
    given, conditions = opened(LearntPictureConditions)
    before = given.to_tokens.weight.clone()
    network = conditions.modules["image"]
    conditions(conditions.read(items()), DROPPED).context.square().sum().backward()
    assert network.to_tokens.weight.grad.abs().sum() > 0 and network.null.grad.abs().sum() > 0
    with torch.no_grad():
        network.to_tokens.weight.add_(1)
    assert torch.equal(given.to_tokens.weight, before) and given.to_tokens.weight.grad is None
    shipped = build_network(conditions.parts()["image"])
    assert torch.equal(shipped.to_tokens.weight, network.to_tokens.weight)
    assert opened(PictureConditions)[1].modules == {}


def test_any_frame_is_another_for_each_clip_and_the_same_each_time() -> None:
    clips = items(40)
    found = []
    for item in clips:
        frame = shown(item, "any")
        assert np.array_equal(frame, shown(item, "any"))
        found.append(next(n for n in range(5) if np.array_equal(item["clip"][n], frame)))
        assert np.array_equal(shown(item, "middle"), item["clip"][2])
    assert set(found) == set(range(5))


def test_a_picture_is_itself_and_neither_is_refused() -> None:
    picture = np.ones((2, 2, 3), dtype=np.uint8)
    assert np.array_equal(shown({"image": picture}, "any"), picture)
    with pytest.raises(UserError, match="the items have no picture, but caption"):
        shown({"caption": ""}, "any")
