"""Classifier-free guidance: the formula, how often the model is asked, and what fits in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Conditioning, NoiseLevel, NoiseSchedule, Prediction
from mezzotint.testing import fake_context
from mezzotint_kernels import guided, normals
from mezzotint_sampling.conditioning import for_batch, stacked
from mezzotint_sampling.guidance import ClassifierFree, ClassifierFreePredictor

LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=2, steps=9)
SHAPE = (2, 3, 4, 4)


def context(seed: int, length: int = 4, batch: int = 1) -> Conditioning:
    return Conditioning(context=normals(seed, (batch, length, 8), stream="context"))


def alone(model: Any, x: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
    expanded = for_batch(conditioning, x.shape[0])
    return model.predict(x, LEVEL, expanded).combined()


@pytest.mark.parametrize(("length", "batches"), [(4, [4]), (7, [2, 2])])
def test_guidance_is_the_formula(length: int, batches: list[int], random_model: Any) -> None:
    model, x = random_model(), normals(1, SHAPE)
    positive, negative = context(1), context(2, length)
    prediction = ClassifierFreePredictor(model, negative, 7.5).predict(x, LEVEL, positive)
    assert model.batches == batches
    cond, uncond = alone(model, x, positive), alone(model, x, negative)
    wanted = uncond + 7.5 * (cond - uncond)
    torch.testing.assert_close(prediction.combined(), wanted)
    torch.testing.assert_close(prediction.outputs[0], cond)
    assert prediction.weights == (7.5, -6.5)
    assert prediction.kind == "eps"


def test_scale_one_evaluates_the_positive_alone(random_model: Any) -> None:
    model, x = random_model(), normals(1, SHAPE)
    prediction = ClassifierFreePredictor(model, context(2), 1.0).predict(x, LEVEL, context(1))
    assert model.batches == [2]
    assert len(prediction.outputs) == 1


def test_scale_zero_is_the_negative(random_model: Any) -> None:
    model, x = random_model(), normals(1, SHAPE)
    prediction = ClassifierFreePredictor(model, context(2), 0.0).predict(x, LEVEL, context(1))
    torch.testing.assert_close(prediction.combined(), alone(model, x, context(2)))


def test_rescaling_is_handed_to_the_step(random_model: Any) -> None:
    model, x = random_model(), normals(1, SHAPE)
    guide = ClassifierFreePredictor(model, context(2), 7.5, 0.7)
    assert guide.predict(x, LEVEL, context(1)).rescale == 0.7


def test_no_conditioning_is_an_empty_one(random_model: Any) -> None:
    x = normals(1, SHAPE)
    model = random_model()
    prediction = ClassifierFreePredictor(model, context(2), 2.0).predict(x, LEVEL, None)
    torch.testing.assert_close(prediction.outputs[0], alone(model, x, Conditioning()))


@pytest.mark.parametrize("length", [4, 7])
@pytest.mark.parametrize("rescale", [0.0, 0.5])
def test_a_guided_model_can_be_guided(length: int, rescale: float, random_model: Any) -> None:
    x = normals(1, SHAPE)
    model = random_model()
    a, b, c = context(1), context(2, length), context(3)
    inner = ClassifierFreePredictor(model, b, 3.0, rescale)
    prediction = ClassifierFreePredictor(inner, c, 2.0).predict(x, LEVEL, a)

    def inner_wanted(positive: Conditioning) -> torch.Tensor:
        outputs = alone(model, x, positive), alone(model, x, b)
        return guided(outputs, (3.0, -2.0), rescale)

    wanted = 2.0 * inner_wanted(a) - inner_wanted(c)
    total = guided(prediction.outputs, prediction.weights, prediction.rescale)
    torch.testing.assert_close(total, wanted, rtol=1e-4, atol=1e-5)


def test_the_patch_wraps_and_leaves_no_trace(random_model: Any) -> None:
    model = random_model()
    patch = ClassifierFree(negative=context(2), scale=3.0)
    with patch.apply(model, fake_context()) as guide:
        assert isinstance(guide, ClassifierFreePredictor)
        assert guide.schedule is model.schedule
        assert guide.kind == "eps"
    assert vars(model).keys() == {"schedule", "kind", "batches"}
    assert not patch.mutates


def test_the_level_reaches_the_model_as_it_is() -> None:
    seen: list[NoiseLevel] = []

    class Watching:
        schedule = NoiseSchedule()

        def predict(self, x: Any, level: NoiseLevel, conditioning: Any) -> Prediction:
            seen.append(level)
            return Prediction((x,), (1.0,), "eps")

    ClassifierFreePredictor(Watching(), context(2), 3.0).predict(normals(1, SHAPE), LEVEL, None)
    assert seen == [LEVEL, LEVEL]


def test_one_conditioning_serves_a_batch() -> None:
    one = Conditioning(context=torch.ones(1, 4, 8), pooled=torch.ones(1, 5), extra={"a": 2})
    many = for_batch(one, 3)
    assert many.context.shape == (3, 4, 8)
    assert many.pooled.shape == (3, 5)
    assert many.mask is None
    assert many.extra == {"a": 2}
    assert for_batch(many, 3).context is many.context


def test_two_conditionings_of_one_shape_stack() -> None:
    first = context(1).replace(extra={"a": torch.zeros(1, 2), "b": "x"})
    second = context(2).replace(extra={"a": torch.ones(1, 2), "b": "x"})
    both = stacked(first, second)
    assert both is not None
    assert torch.equal(both.context, torch.cat((first.context, second.context)))
    assert torch.equal(both.extra["a"], torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert both.extra["b"] == "x"


@pytest.mark.parametrize(
    "second",
    [
        context(2, 5),
        context(2).replace(pooled=torch.ones(1, 3)),
        context(2).replace(layout={"boxes": []}),
        context(2).replace(extra={"a": 1}),
        Conditioning(context=torch.ones(1, 4, 8, dtype=torch.float16)),
        Conditioning(),
    ],
    ids=["length", "parts", "layout", "extra", "dtype", "empty"],
)
def test_conditionings_that_differ_in_form_do_not_stack(second: Conditioning) -> None:
    assert stacked(context(1), second) is None


def test_guided_models_guide_batches_with_a_negative_each(random_model: Any) -> None:
    model, x = random_model(), normals(1, SHAPE)
    a, b, c = (context(seed, batch=2) for seed in (1, 2, 3))
    inner = ClassifierFreePredictor(model, b, 3.0)
    prediction = ClassifierFreePredictor(inner, c, 2.0).predict(x, LEVEL, a)
    wanted = 2.0 * (3.0 * alone(model, x, a) - 2.0 * alone(model, x, b))
    wanted = wanted - (3.0 * alone(model, x, c) - 2.0 * alone(model, x, b))
    torch.testing.assert_close(prediction.combined(), wanted, rtol=1e-4, atol=1e-5)
