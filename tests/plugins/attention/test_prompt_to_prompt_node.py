"""attention.prompt_to_prompt on the bundled model: what it leaves as it is, to the bit, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Cancelled, Conditioning, Latents, Noise, Source, UserError
from mezzotint.testing import fake_context
from mezzotint_attention import inject
from mezzotint_attention.prompt_to_prompt import SelfEdit
from mezzotint_attention.prompt_to_prompt_node import prompt_to_prompt
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.prompt import encode_text
from mezzotint_sampling.nodes import empty_latents, guide, sigmas
from mezzotint_sampling.sampler_node import sample
from mezzotint_smallworld import resolve_source

SOURCE = "a large red circle left of a small green star on a white background"
EDIT = SOURCE.replace("red", "blue")


class Model:
    """The bundled checkpoint, small pictures, few steps; each run once."""

    def __init__(self) -> None:
        self.parts = checkpoint(
            source=Source("bundled:smallworld", str(resolve_source("bundled:smallworld")), "0")
        )
        self.guided = guide(self.parts.denoiser, self.told(("",)), scale=2.5)

    def told(self, prompts: tuple[str, ...]) -> Conditioning:
        with fake_context() as ctx:
            return encode_text(ctx, self.parts.text_encoder, text=list(prompts))

    def edited(self, *prompts: str, **settings: Any) -> Any:
        with fake_context() as ctx:
            return prompt_to_prompt(ctx, self.guided, self.parts.text_encoder, prompts=list(prompts), **settings)

    def run(
        self, denoiser: Any, *prompts: str, ctx: Any = None, sampler: str = "ddim", steps: int = 3
    ) -> torch.Tensor:
        start = empty_latents(denoiser, width=32, height=32, batch=len(prompts))
        levels, noise = sigmas(denoiser, steps=steps), Noise(seed=3, copies=2)
        with ctx or fake_context(previews=False) as ctx:
            made: Latents = sample(ctx, denoiser, self.told(prompts), start, levels, noise, sampler=sampler)
        return made.data


@pytest.fixture(scope="module")
def model() -> Model:
    torch.set_num_threads(1)
    return Model()


@pytest.fixture(scope="module")
def plain(model: Model) -> torch.Tensor:
    return model.run(model.guided, SOURCE, EDIT)


BLEND: dict[str, Any] = {"blend": ["red", "blue"], "threshold": 0.5}


def test_the_same_noise_for_both_is_what_the_comparison_rests_on(model: Model) -> None:
    both = model.run(model.guided, SOURCE, SOURCE)
    assert torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    "settings", [{"kind": "replace"}, {"kind": "refine", **BLEND}, {"kind": "reweight", "weights": {"red": 1.0}}]
)
def test_an_edit_that_changes_nothing_is_plain_sampling_of_that_batch_to_the_bit(
    model: Model, settings: dict[str, Any]
) -> None:
    if "blend" in settings:
        settings = {**settings, "blend": "red"}
    edited = model.run(model.edited(SOURCE, SOURCE, **settings), SOURCE, SOURCE)
    assert torch.equal(edited, model.run(model.guided, SOURCE, SOURCE))


def test_an_edit_with_no_part_of_the_run_is_plain_sampling_to_the_bit(model: Model, plain: torch.Tensor) -> None:
    off = model.edited(SOURCE, EDIT, kind="replace", cross_until=0.0, self_until=0.0)
    assert off.patches == model.guided.patches
    assert torch.equal(model.run(off, SOURCE, EDIT), plain)


@pytest.mark.parametrize("settings", [{}, BLEND])
def test_the_source_stays_what_it_is_without_edits_to_the_bit(
    model: Model, plain: torch.Tensor, settings: dict[str, Any]
) -> None:
    edited = model.run(model.edited(SOURCE, EDIT, kind="replace", **settings), SOURCE, EDIT)
    assert torch.equal(edited[0], plain[0]) and not torch.equal(edited[1], plain[1])
    assert not torch.equal(edited[1], edited[0])


@pytest.mark.parametrize("sampler", ["ddim", "heun", "euler_ancestral"])
def test_outside_of_the_blend_an_edit_is_its_source_to_the_bit(model: Model, sampler: str) -> None:
    edited = model.run(model.edited(SOURCE, EDIT, kind="replace", **BLEND), SOURCE, EDIT, sampler=sampler)
    same = (edited[1] == edited[0]).all(0)
    assert 0 < same.float().mean() < 1


@pytest.mark.parametrize("stop", [1, 2])
def test_a_run_with_a_blend_goes_on_from_each_step_to_the_bit(model: Model, stop: int) -> None:
    denoiser = model.edited(SOURCE, EDIT, kind="replace", **BLEND)
    whole = model.run(denoiser, SOURCE, EDIT)
    first = fake_context(previews=False, cancel_at=stop)
    with pytest.raises(Cancelled):
        model.run(denoiser, SOURCE, EDIT, ctx=first)
    assert len(first.states) == stop
    again = fake_context(previews=False, state=first.states[-1])
    assert torch.equal(model.run(denoiser, SOURCE, EDIT, ctx=again), whole)
    # Without what was gathered another mask would come out.
    bare = {**first.states[-1], "remembered": {}}
    assert stop == 1 or not torch.equal(
        model.run(denoiser, SOURCE, EDIT, ctx=fake_context(previews=False, state=bare)), whole
    )


def test_a_word_with_weight_0_is_as_if_nothing_looked_at_it(model: Model) -> None:
    without = model.run(model.edited(SOURCE, SOURCE, kind="reweight", weights={"red": 0.0}), SOURCE, SOURCE)
    same = model.run(model.guided, SOURCE, SOURCE)
    assert torch.equal(without[0], same[0]) and not torch.equal(without[1], same[1])


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ((SOURCE, EDIT), {"weights": {"circel": 2.0}}, "'circel' is not in the prompt .*nearest.* 'circle'"),
        ((SOURCE, EDIT), {"blend": ["blau"]}, "'blau' is not in the prompt"),
        ((SOURCE, EDIT), {"until": {"red": 0.5}}, "'red' is not in the prompt"),
        ((SOURCE, "a red circle"), {"kind": "replace"}, "same structure, word for word.*Take the kind refine"),
        ((SOURCE, EDIT), {"kind": "reweight"}, "reweight wants the same prompt twice"),
    ],
)
def test_edits_that_cannot_be_are_refused(
    model: Model, prompts: tuple[str, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        model.edited(*prompts, **settings)


def test_another_number_of_samples_than_the_prompts_divide_is_refused(model: Model) -> None:
    denoiser = model.edited(SOURCE, EDIT, f"{EDIT} ")
    with pytest.raises(UserError, match="has 3 prompts, a source and its edits, and the run 4 samples"):
        model.run(denoiser, SOURCE, EDIT, SOURCE, EDIT)


def test_a_second_edit_of_the_same_maps_is_refused(model: Model) -> None:
    twice = inject(model.edited(SOURCE, EDIT), SelfEdit(edited=(False, True)))
    with pytest.raises(UserError, match="both decide the attention's maps"):
        model.run(twice, SOURCE, EDIT)
