"""Layout guidance: the energy of known maps, its gradient's way, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from text_network import text_model

from mezzotint import Conditioning, Denoiser, NoiseLevel, Source, TextEncoder, UserError
from mezzotint.testing import fake_context
from mezzotint_attention.injection import Injected
from mezzotint_attention.layout_guidance import LayoutGuidance, box_mask, energy, guide_layout
from mezzotint_kernels import normals
from mezzotint_sampling.conditioning import compared, numbered, stacked

LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=2, steps=9)
X = normals(1, (2, 4, 8, 8)).double()
TEXT = Conditioning(context=normals(1, (1, 5, 8), stream="c").double())
DENOISER = Denoiser(source=Source("none", "", "0"), loader="test.none")
ENCODER = TextEncoder(source=Source("none", "", "0"), loader="test.text")
RIGHT = (0.5, 0.0, 1.0, 1.0)


class Words:
    """A text encoder of four words."""

    names = ("a", "red", "star", "ring")

    def tokenizer(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(
            input_ids=[1 + self.names.index(w) if w in self.names else 99 for w in text.split()]
        )

    def tokens(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[0, *self.tokenizer(texts[0]).input_ids, 0]])


class Realising:
    def realise(self, recipe: Any) -> Any:
        return Words()


def opened(**settings: Any) -> Any:
    guidance = LayoutGuidance(**{"words": ((2,),), "boxes": (RIGHT,), **settings})
    return Injected(text_model(torch.float64), guidance, fake_context())


def test_the_energy_is_nothing_inside_one_outside_and_a_quarter_for_half() -> None:
    mass = torch.zeros(3, 1, 2, 4)
    mass[0, 0, 0, 3] = 0.7
    mass[1, 0, :, 0] = 0.2
    mass[2] = 0.1
    assert energy(mass, [RIGHT]).tolist() == pytest.approx([0.0, 1.0, 0.25])
    two = torch.cat([mass, mass.flip(-1)], dim=1)
    assert energy(two, [RIGHT, RIGHT]).tolist() == pytest.approx([0.5, 0.5, 0.25])


def test_a_box_covers_the_places_on_its_edge_in_part() -> None:
    assert box_mask((0.25, 0.0, 0.625, 0.5), 2, 4).tolist() == [[0, 1, 0.5, 0], [0, 0, 0, 0]]


def test_between_steps_the_sample_moves_to_where_the_words_lie_in_their_boxes() -> None:
    model = opened(scale=0.05, repeat=4)
    with torch.no_grad():
        model.predict(X, LEVEL, numbered(TEXT, 2))
        moved = model.after_step(X, LEVEL)
        before, after = model.opened.lost(X, LEVEL), model.opened.lost(moved, LEVEL)
    assert (after < before).all()
    assert moved.requires_grad is False


def test_a_samples_way_does_not_depend_on_the_others_in_the_batch() -> None:
    both, alone = opened(), opened()
    with torch.no_grad():
        both.predict(X, LEVEL, numbered(TEXT, 2))
        alone.predict(X[:1], LEVEL, numbered(TEXT, 1))
        assert torch.allclose(both.after_step(X, LEVEL)[:1], alone.after_step(X[:1], LEVEL), atol=1e-9)


def test_what_guidance_compares_with_is_not_asked() -> None:
    model = opened()
    other = Conditioning(context=TEXT.context * 2)
    told = stacked(numbered(TEXT, 2), compared(other, torch.arange(2)))
    with torch.no_grad():
        model.predict(torch.cat([X, X]), LEVEL, told)
    assert torch.equal(model.opened.told.context, numbered(TEXT, 2).context)


def test_outside_of_its_time_and_at_the_clean_end_no_bit_is_changed() -> None:
    model = opened(end=0.3)
    with torch.no_grad():
        model.predict(X, LEVEL, numbered(TEXT, 2))
        late = NoiseLevel(0.9, 0.4, 100.0, step=5, steps=9)
        assert model.after_step(X, late) is X
        assert model.after_step(X, NoiseLevel(1.0, 0.0, 0.0, step=1, steps=9)) is X


def asked(boxes: Any, **settings: Any) -> Denoiser:
    return guide_layout(Realising(), DENOISER, ENCODER, prompt="a red star", boxes=boxes, **settings)  # type: ignore[arg-type]


def test_words_and_boxes_become_a_patch_and_without_scale_there_is_none() -> None:
    box = {"words": "red star", "box": [0, 0, 0.5, 1]}
    (patch,) = asked([box]).patches
    assert patch.words == ((2, 3),) and patch.boxes == ((0.0, 0.0, 0.5, 1.0),)
    assert asked([box], scale=0.0) is DENOISER


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({"words": "ring", "box": [0, 0, 1, 1]}, "'ring' is not in the prompt 'a red star'"),
        ({"words": "star", "box": [0.5, 0, 0.5, 1]}, "/boxes/0: the box must have an inside"),
        ({"words": "star", "box": [0, 0, 2, 1]}, "within 0..1"),
        ({"words": "star", "box": "left"}, "wanted .*got"),
        ({"box": [0, 0, 1, 1]}, "wanted .*got"),
        ("left", "wanted .*got 'left'"),
    ],
)
def test_words_that_are_not_there_and_boxes_that_are_none_are_refused(box: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked([box])
