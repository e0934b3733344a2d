"""Several conditions in one picture: whose prediction holds where and when, and how often a model is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Conditioning, Denoiser, Latents, Mask, NoiseLevel, UserError
from mezzotint.testing import check_node
from mezzotint_kernels import normals
from mezzotint_sampling import nodes
from mezzotint_sampling.checks import check_inputs
from mezzotint_sampling.combined import CombinedPredictor, combining
from mezzotint_sampling.conditioning import for_batch
from mezzotint_sampling.guidance import ClassifierFreePredictor
from mezzotint_sampling.guidance_nodes import combine_conditions, guide_by_classifier, limit_condition

LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=2, steps=9)
SHAPE = (2, 3, 4, 6)
X = normals(1, SHAPE)


def context(seed: int, length: int = 4) -> Conditioning:
    return Conditioning(context=normals(seed, (1, length, 8), stream="context"))


A, B, C = context(1), context(2), context(3)


def alone(model: Any, conditioning: Conditioning, x: torch.Tensor = X) -> torch.Tensor:
    return model.predict(x, LEVEL, for_batch(conditioning, x.shape[0])).combined()


def together(model: Any, *conditionings: Conditioning, x: torch.Tensor = X) -> torch.Tensor:
    combined = combine_conditions(conditionings=list(conditionings))
    return CombinedPredictor(model).predict(x, LEVEL, for_batch(combined, x.shape[0])).combined()


def test_one_condition_alone_is_bit_identical_to_itself(random_model: Any) -> None:
    model = random_model()
    assert torch.equal(together(model, A), alone(model, A))
    limited = limit_condition(A, Mask(torch.rand(1, 8, 8)), weight=3.0)
    assert torch.equal(together(model, limited), alone(model, A))
    assert torch.equal(CombinedPredictor(model).predict(X, LEVEL, A).combined(), alone(model, for_batch(A, 1)))


def test_each_area_has_the_prediction_of_its_condition(random_model: Any) -> None:
    model = random_model()
    found = together(model, limit_condition(A, area=[0, 0, 0.5, 1]), limit_condition(B, area=[0.5, 0, 0.5, 1]))
    torch.testing.assert_close(found[..., :3], alone(model, A)[..., :3])
    torch.testing.assert_close(found[..., 3:], alone(model, B)[..., 3:])


def test_weights_are_normalised_place_by_place(random_model: Any) -> None:
    model = random_model()
    mask = torch.zeros(1, 8, 12)
    mask[:, :4] = 1
    found = together(model, limit_condition(A, weight=3.0), limit_condition(B, Mask(mask)))
    mean = 0.75 * alone(model, A) + 0.25 * alone(model, B)
    torch.testing.assert_close(found[..., :2, :], mean[..., :2, :])
    torch.testing.assert_close(found[..., 2:, :], alone(model, A)[..., 2:, :])


def test_a_place_that_an_area_covers_in_part_counts_in_part(random_model: Any) -> None:
    model = random_model()
    found = together(model, A, limit_condition(B, area=[0, 0, 0.25, 1]))  # 1.5 of 6 columns
    shares = torch.tensor([0.5, 1 / 3, 0, 0, 0, 0])
    torch.testing.assert_close(found, alone(model, A) * (1 - shares) + alone(model, B) * shares)


def test_where_no_condition_holds_all_count_by_weight(random_model: Any) -> None:
    model = random_model()
    found = together(
        model, limit_condition(A, area=[0, 0, 0.5, 0.5], weight=3.0), limit_condition(B, area=[0.5, 0, 0.5, 0.5])
    )
    mean = 0.75 * alone(model, A) + 0.25 * alone(model, B)
    torch.testing.assert_close(found[..., 2:, :], mean[..., 2:, :])


def test_masks_of_clips_hold_frame_by_frame(random_model: Any) -> None:
    model, x = random_model(), normals(1, (1, 3, 2, 4, 4))
    mask = torch.zeros(1, 2, 4, 4)
    mask[:, 1] = 1
    found = together(model, limit_condition(A, Mask(1 - mask)), limit_condition(B, Mask(mask)), x=x)
    torch.testing.assert_close(found[:, :, 0], alone(model, A, x)[:, :, 0])
    torch.testing.assert_close(found[:, :, 1], alone(model, B, x)[:, :, 1])
    still = together(model, A, limit_condition(B, Mask(torch.ones(1, 4, 4))), x=x)
    torch.testing.assert_close(still, (alone(model, A, x) + alone(model, B, x)) / 2)


def test_conditions_hold_in_their_time(random_model: Any) -> None:
    model = random_model()
    parts = [limit_condition(A, end=0.5), limit_condition(B, start=0.5)]
    predictor, combined = CombinedPredictor(model), for_batch(combine_conditions(conditionings=parts), 2)
    for step, wanted in ((0, A), (3, A), (4, B), (8, B)):
        found = predictor.predict(X, NoiseLevel(0.6, 0.8, 500.0, step, 9), combined).combined()
        assert torch.equal(found, alone(model, wanted))


@pytest.mark.parametrize(("length", "batches"), [(4, [6]), (7, [4, 2])])
def test_conditions_of_one_form_share_one_evaluation(length: int, batches: list[int], random_model: Any) -> None:
    model = random_model()
    together(model, A, context(2, length), C)
    assert model.batches == batches


def test_guidance_asks_for_all_conditions_and_the_negative_at_once(random_model: Any) -> None:
    model = random_model()
    combined = for_batch(combine_conditions(conditionings=[A, B]), 2)
    found = ClassifierFreePredictor(model, C, 5.0).predict(X, LEVEL, combined)
    assert model.batches == [6]
    wanted = 5.0 * (alone(model, A) + alone(model, B)) / 2 - 4.0 * alone(model, C)
    torch.testing.assert_close(found.combined(), wanted, rtol=1e-4, atol=1e-5)


def test_a_negative_may_be_combined_too(random_model: Any) -> None:
    model = random_model()
    found = ClassifierFreePredictor(model, combine_conditions(conditionings=[B, C]), 5.0).predict(X, LEVEL, A)
    wanted = 5.0 * alone(model, A) - 4.0 * (alone(model, B) + alone(model, C)) / 2
    torch.testing.assert_close(found.combined(), wanted, rtol=1e-4, atol=1e-5)


def test_a_model_is_wrapped_once(random_model: Any) -> None:
    model = random_model()
    guided = ClassifierFreePredictor(model, C, 5.0)
    assert combining(guided) is guided
    assert guided.model.model is model
    assert combining(combining(model)).model is model


def test_the_sample_node_knows_combined_conditions(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    from mezzotint_sampling.sampler_node import sample

    empty = nodes.empty_latents(denoiser, width=32, height=32)
    levels = nodes.sigmas(denoiser, steps=3)
    twice = combine_conditions(conditionings=[A, limit_condition(A, area=[0, 0, 0.5, 1])])
    found, plain, none = (
        sample(context(random_model()), denoiser, what, empty, levels, nodes.noise(seed=3), sampler="euler").data
        for what in (twice, A, Conditioning())
    )
    torch.testing.assert_close(found, plain)
    assert not torch.isclose(plain, none).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 0.5, "end": 0.5}, "start must be before end; got 0.5 and 0.5"),
        ({"area": [0.5, 0, 0.6, 1]}, r"area must lie in the picture and not be empty"),
        ({"area": [0.5, 0, 0, 1]}, r"area must lie in the picture and not be empty"),
        ({"weight": 1e300}, r"weight must be from 1e-6 to 1e6; got 1e\+300"),
        ({"weight": 1e-300}, "weight must be from 1e-6 to 1e6; got 1e-300"),
    ],
)
def test_limits_that_cannot_be_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        limit_condition(A, **arguments)


def test_a_limited_condition_is_not_limited_again() -> None:
    with pytest.raises(UserError, match="limited or combined already"):
        limit_condition(limit_condition(A))


def test_a_time_without_a_condition_is_refused(random_model: Any) -> None:
    with pytest.raises(UserError, match=r"no condition holds after 0\.4 of the run"):
        combine_conditions(conditionings=[limit_condition(A, end=0.4), limit_condition(B, start=0.6)])
    with pytest.raises(UserError, match="no condition holds at step 3 of 9"):
        CombinedPredictor(random_model()).predict(X, LEVEL, limit_condition(A, end=0.1))


def test_what_does_not_fit_the_latents_is_said_before_anything_runs(denoiser: Denoiser) -> None:
    latents = Latents(torch.zeros(2, 3, 4, 4), space="s")
    many = limit_condition(Conditioning(context=torch.zeros(3, 4, 8)))
    with pytest.raises(UserError, match=r"conditioning.parts\[0\].context is for 3 samples; wanted 1 or 2"):
        check_inputs(denoiser, many, latents)
    masked = limit_condition(A, Mask(torch.ones(3, 8, 8)))
    with pytest.raises(UserError, match=r"conditioning.parts\[0\].mask has shape \(3, 1, 8, 8\)"):
        check_inputs(denoiser, masked, latents)
    with pytest.raises(UserError, match="no condition holds after 0 of the run"):
        check_inputs(denoiser, limit_condition(A, start=0.2), latents)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers_are_not_blamed_on_the_denoiser(denoiser: Denoiser, bad: float) -> None:
    data = torch.zeros(2, 3, 4, 4)
    data[1, 2, 3, 0] = bad
    with pytest.raises(UserError, match="the latents must be finite; 1 of 96 numbers"):
        check_inputs(denoiser, A, Latents(data, space="s"))
    mask = torch.full((1, 1, 4, 4), bad)
    with pytest.raises(UserError, match="mask must be finite; 16 of 16"):
        check_inputs(denoiser, A, Latents(torch.zeros(2, 3, 4, 4), space="s", mask=mask))


def test_what_guidance_brings_along_is_checked_too(denoiser: Denoiser) -> None:
    latents = Latents(torch.zeros(4, 3, 4, 4), space="s")
    many = Conditioning(context=torch.zeros(2, 4, 8))
    with pytest.raises(UserError, match=r"the negative of guidance.context is for 2 samples; wanted 1 or 4"):
        check_inputs(nodes.guide(denoiser, many), A, latents)
    with pytest.raises(UserError, match=r"the negative of guidance.parts\[1\].context is for 2 samples"):
        check_inputs(nodes.guide(denoiser, combine_conditions(conditionings=[A, many])), A, latents)
    with pytest.raises(UserError, match="classifier guidance has 3 labels; wanted 1 or 4"):
        check_inputs(guide_by_classifier(denoiser, denoiser, label=[1, 2, 3]), A, latents)
    with pytest.raises(UserError, match="no condition holds after 0 of the run"):
        nodes.guide(denoiser, limit_condition(A, start=0.5))


def test_the_nodes_keep_what_every_node_promises() -> None:
    limited = check_node(limit_condition, conditioning=A, mask=Mask(torch.ones(1, 4, 4)), area=[0, 0, 1, 0.5])
    check_node(combine_conditions, conditionings=[limited["conditioning"], B])
