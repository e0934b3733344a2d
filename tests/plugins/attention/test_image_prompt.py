"""Picture prompts: the second term against a softmax written out, whose rows it is in, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from text_network import text_model

from mezzotint import Conditioning, Denoiser, Latents, NoiseLevel, Source, UserError
from mezzotint.testing import fake_context
from mezzotint_attention.image_prompt import PicturePrompt, picture_prompt
from mezzotint_attention.injection import Injected
from mezzotint_attention.looking import reading
from mezzotint_attention.shared import SharedAttention
from mezzotint_kernels import normals
from mezzotint_models.unet import UNetPredictor
from mezzotint_sampling.conditioning import compared, numbered

LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=4, steps=9)
X = normals(1, (2, 4, 8, 8)).double()
TEXT = Conditioning(context=normals(1, (1, 5, 8), stream="c").double())
REFERENCE = normals(5, (1, 4, 8, 8)).double()
DENOISER = Denoiser(source=Source("none", "", "0"), loader="test.none")


@pytest.fixture(scope="module")
def model() -> UNetPredictor:
    return text_model(torch.float64)


def out(model: Any, told: Conditioning, *injections: Any) -> torch.Tensor:
    for injection in injections:
        model = Injected(model, injection, fake_context())
    with torch.no_grad():
        return model.predict(X, LEVEL, told).combined()


def prompt(strength: float = 0.3, reference: torch.Tensor = REFERENCE) -> PicturePrompt:
    return PicturePrompt(reference=reference, told=TEXT, strength=strength, seed=7)


def test_the_output_is_a_mean_of_two_softmaxes_in_float64(model: UNetPredictor) -> None:
    opened = Injected(model, prompt(), fake_context())
    chosen = [site for site in model.attention_sites if site.kind == "self"]
    noise = normals(7, (1, 4, 8, 8)).double()
    seen: list[tuple[Any, torch.Tensor]] = []

    def watch(call: Any, attend: Any) -> torch.Tensor:
        seen.append((call, attend(call)))
        return seen[-1][1]

    with torch.no_grad():
        with reading(model, chosen) as there:
            model.predict(LEVEL.alpha * REFERENCE + LEVEL.sigma * noise, LEVEL, TEXT)
        opened.model = _Outside(model, watch, chosen)
        opened.predict(X, LEVEL, numbered(TEXT, 2))
    assert len(seen) == len(chosen)
    for call, got in seen:
        key, value = there[call.site.name]
        scale = call.query.shape[-1] ** -0.5
        own = (call.query @ call.key.mT * scale).softmax(-1) @ call.value
        other = (call.query @ key.mT * scale).softmax(-1) @ value
        assert torch.allclose(got, 0.7 * own + 0.3 * other, atol=1e-6)


class _Outside:
    """A model that is watched outside of its injections."""

    def __init__(self, model: Any, watch: Any, sites: Any) -> None:
        self.model, self.watch, self.sites, self.schedule = model, watch, sites, model.schedule

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(self, *given: Any) -> Any:
        with self.model.inject(self.watch, self.sites):
            return self.model.predict(*given)


def test_what_guidance_compares_with_is_left_as_it_is(model: UNetPredictor) -> None:
    told = compared(TEXT, torch.arange(2))
    assert torch.equal(out(model, told, prompt()), out(model, told))


def test_the_reference_is_read_without_other_injectors(model: UNetPredictor) -> None:
    both = out(model, numbered(TEXT, 2), prompt(), SharedAttention())
    assert not torch.allclose(both, out(model, numbered(TEXT, 2), prompt()))


def test_without_strength_there_is_no_patch() -> None:
    assert picture_prompt(DENOISER, Latents(REFERENCE), TEXT, strength=0.0) is DENOISER


def test_several_references_and_latents_of_another_model_are_refused(model: UNetPredictor) -> None:
    with pytest.raises(UserError, match="wanted the latents of one picture"):
        picture_prompt(DENOISER, Latents(X), TEXT)
    with pytest.raises(UserError, match="the reference has 3 channels, the denoiser's latents 4"):
        out(model, numbered(TEXT, 2), prompt(reference=REFERENCE[:, :3]))
