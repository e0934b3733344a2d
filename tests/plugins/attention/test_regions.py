"""Regional prompts: shares that add up to one, terms against a softmax written out, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from text_network import text_model

from mezzotint import Conditioning, Denoiser, Mask, NoiseLevel, Source, UserError
from mezzotint.testing import fake_context
from mezzotint_attention import Sites
from mezzotint_attention.injection import Injected
from mezzotint_attention.regions import RegionalPrompts, regional_prompts, shares_of
from mezzotint_attention.shared import SharedAttention
from mezzotint_kernels import normals
from mezzotint_models.unet import UNetPredictor
from mezzotint_sampling import Part
from mezzotint_sampling.conditioning import compared, numbered
from mezzotint_sampling.guidance_nodes import limit_condition

LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=4, steps=9)
X = normals(1, (2, 4, 8, 8))
TEXT, OTHER = (Conditioning(context=normals(seed, (1, 5, 8), stream="c")) for seed in (1, 2))
DENOISER = Denoiser(source=Source("none", "", "0"), loader="test.none")


@pytest.fixture(scope="module")
def model() -> UNetPredictor:
    return text_model(torch.float64)


def out(model: Any, told: Conditioning, *injections: Any, x: torch.Tensor = X) -> torch.Tensor:
    for injection in injections:
        model = Injected(model, injection, fake_context())
    with torch.no_grad():
        return model.predict(x.double(), LEVEL, told).combined()


def left(value: float = 1.0) -> torch.Tensor:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = value
    return mask


def test_shares_add_up_to_one_and_say_who_has_which_place() -> None:
    regions = [Part(TEXT, mask=left(), weight=3.0), Part(OTHER, area=(0.0, 0.5, 1.0, 0.5))]
    shares = shares_of(regions, 0.2, (4, 4), X).view(3, 4, 4)
    assert torch.allclose(shares.sum(0), torch.ones(4, 4))
    places = {"none": (0, 3), "first": (0, 0), "second": (3, 3), "both": (3, 0)}
    got = {name: shares[:, row, column].tolist() for name, (row, column) in places.items()}
    assert got["none"] == pytest.approx([1, 0, 0])
    assert got["first"] == pytest.approx([0.2, 0.8, 0])
    assert got["second"] == pytest.approx([0.2, 0, 0.8])
    assert got["both"] == pytest.approx([0.2, 0.6, 0.2])


def test_a_soft_mask_gives_way_by_its_value() -> None:
    shares = shares_of([Part(OTHER, mask=left(0.5))], 0.0, (8, 8), X).view(2, 8, 8)
    assert shares[:, 0, 0].tolist() == pytest.approx([0.5, 0.5])


def test_a_region_that_is_everything_is_its_prompt_alone(model: UNetPredictor) -> None:
    whole = RegionalPrompts(regions=(Part(OTHER, mask=torch.ones(1, 1, 8, 8)),), base=0.0)
    assert torch.allclose(out(model, numbered(TEXT, 2), whole), out(model, numbered(OTHER, 2)), atol=1e-6)


def test_at_each_place_a_layer_gives_the_output_of_the_prompt_that_holds_there(model: UNetPredictor) -> None:
    name = next(site.name for site in model.attention_sites if site.kind == "cross")
    seen: dict[str, torch.Tensor] = {}

    def through(told: Conditioning, *injections: Any) -> torch.Tensor:
        def keep(call: Any, attend: Any) -> torch.Tensor:
            seen["out"] = attend(call)
            return seen["out"]

        inner: Any = model
        for injection in injections:
            inner = Injected(inner, injection, fake_context())
        with (
            torch.no_grad(),
            model.inject(lambda c, a: a(c), [s for s in model.attention_sites if s.name == name]),
        ):
            inner.model = _Watching(model, keep, name) if injections else inner
            (inner if injections else _Watching(model, keep, name)).predict(X.double(), LEVEL, told)
        return seen["out"]

    half = RegionalPrompts(sites=Sites(names=(name,)), regions=(Part(OTHER, mask=left()),), base=0.25)
    mine, other = through(numbered(TEXT, 2)), through(numbered(OTHER, 2))
    mixed = through(numbered(TEXT, 2), half)
    inside = torch.arange(64) % 8 < 4
    assert torch.allclose(mixed[:, :, inside], (mine * 0.25 + other * 0.75)[:, :, inside], atol=1e-6)
    assert torch.allclose(mixed[:, :, ~inside], mine[:, :, ~inside], atol=1e-9)


class _Watching:
    """A model whose one site is watched outside of all injections."""

    def __init__(self, model: Any, keep: Any, name: str) -> None:
        self.model, self.keep, self.name, self.schedule = model, keep, name, model.schedule

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(self, *given: Any) -> Any:
        with self.model.inject(self.keep, [s for s in self.model.attention_sites if s.name == self.name]):
            return self.model.predict(*given)


def test_what_guidance_compares_with_is_left_as_it_is(model: UNetPredictor) -> None:
    half = RegionalPrompts(regions=(Part(OTHER, mask=left()),))
    told = compared(TEXT, torch.arange(2))
    assert torch.equal(out(model, told, half), out(model, told))


def test_without_a_say_or_outside_of_the_time_every_bit_is_as_without(model: UNetPredictor) -> None:
    region = limit_condition(OTHER, area=[0, 0, 0.5, 1], start=0.0, end=0.2)
    assert regional_prompts(DENOISER, regions=[region], base=1.0) is DENOISER
    told = numbered(TEXT, 2)
    patch = regional_prompts(DENOISER, regions=[region]).patches[0]
    assert torch.equal(out(model, told, patch), out(model, told))  # the level is at half of the run


def test_a_region_stacks_with_shared_self_attention(model: UNetPredictor) -> None:
    half = RegionalPrompts(regions=(Part(OTHER, mask=left()),))
    both = out(model, numbered(TEXT, 2), half, SharedAttention())
    assert not torch.allclose(both, out(model, numbered(TEXT, 2), half))


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Part(OTHER, mask=torch.zeros(1, 1, 8, 8)), "region 1 is empty"),
        (Part(OTHER, mask=torch.ones(1, 1, 8, 16)), "is 16 x 8, which is not the picture's shape"),
        (Part(OTHER, mask=torch.ones(3, 1, 8, 8)), "is for 3 pictures, and the batch has 2"),
        (Part(Conditioning(), area=(0.0, 0.0, 0.5, 1.0)), "has no text"),
        (
            Part(Conditioning(context=torch.zeros(2, 5, 8)), area=(0.0, 0.0, 0.5, 1.0)),
            "one prompt for all pictures",
        ),
    ],
)
def test_regions_that_cannot_be_are_refused(model: UNetPredictor, region: Part, message: str) -> None:
    with pytest.raises(UserError, match=message):
        out(model, numbered(TEXT, 2), RegionalPrompts(regions=(region,)))


def test_a_region_without_a_place_is_refused() -> None:
    with pytest.raises(UserError, match="region 1 has no place"):
        regional_prompts(DENOISER, regions=[OTHER])


def test_masks_come_from_the_limits_of_conditions(model: UNetPredictor) -> None:
    region = limit_condition(OTHER, Mask(left()[0]))
    patch = regional_prompts(DENOISER, regions=[region], base=0.0).patches[0]
    assert not torch.allclose(out(model, numbered(TEXT, 2), patch), out(model, numbered(TEXT, 2)))
