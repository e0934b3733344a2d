"""`attention.maps`: what it refuses before a model is loaded, and the levels that it asks at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mezzotint import Conditioning, Denoiser, Image, Latents, Sigmas, Source, TextEncoder, UserError
from mezzotint_attention import Sites
from mezzotint_attention.maps import _full_range, _levels, maps

DENOISER = Denoiser(source=Source("none", "", "0"), loader="test.none")
ENCODER = TextEncoder(source=Source("none", "", "0"), loader="test.text")
SIGMAS = Sigmas(tuple(i / 10 for i in range(11)), tuple(1 - i / 10 for i in range(11)), tuple(range(11)))
LATENTS, IMAGE = Latents(torch.zeros(1, 4, 8, 8)), Image(torch.zeros(1, 16, 16, 3))


class Words:
    """A text encoder of three words."""

    names = ("a", "red", "star")

    def tokenizer(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(
            input_ids=[1 + self.names.index(w) if w in self.names else 99 for w in text.split()]
        )

    def tokens(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[0, *self.tokenizer(texts[0]).input_ids, 0]])


def asked(**given: Any) -> Any:
    ctx: Any = SimpleNamespace(realise=lambda recipe: Words(), device="cpu")
    usual = {"latents": LATENTS, "image": IMAGE, "sigmas": SIGMAS, "prompt": "a red star"}
    return maps(ctx, DENOISER, ENCODER, Conditioning(), **{**usual, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"words": ["stars"]}, "'stars' is not in the prompt 'a red star'; the nearest word there is 'star'"),
        ({"prompt": " , "}, "the prompt has no words"),
        ({"image": Image(torch.zeros(2, 16, 16, 3))}, "got 2 pictures and latents of 1"),
        ({"sites": Sites(kinds=("self",))}, "works at layers of kind cross or joint; sites asks for self"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(**given)


def test_levels_lie_evenly_in_the_window_and_a_window_without_one_is_refused() -> None:
    assert [level.step for level in _levels(SIGMAS, 0.2, 0.8, 3)] == [2, 4, 7]
    assert [level.step for level in _levels(SIGMAS, 0.0, 1.0, 99)] == list(range(10))
    with pytest.raises(UserError, match=r"no level of the run of 10 steps lies within 0\.05 to 0\.1"):
        _levels(SIGMAS, 0.05, 0.1, 3)


def test_each_map_reaches_from_nothing_to_one_and_an_even_one_is_nothing() -> None:
    seen = torch.stack([torch.arange(4.0).view(2, 2) + 3, torch.full((2, 2), 0.5)])[None]
    full = _full_range(seen)
    assert full[0, 0].tolist() == [[0, pytest.approx(1 / 3)], [pytest.approx(2 / 3), 1]]
    assert full[0, 1].eq(0).all()
