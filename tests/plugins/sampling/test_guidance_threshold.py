"""Thresholding of the clean picture: Imagen's figures, sample by sample, in every parametrisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from mezzotint import Conditioning, NoiseLevel
from mezzotint.testing import check_node, tiny_denoiser
from mezzotint_kernels import normals
from mezzotint_sampling.guidance import ClassifierFreePredictor
from mezzotint_sampling.guidance_nodes import threshold
from mezzotint_sampling.guidance_threshold import ThresholdPredictor, thresholded
from mezzotint_sampling.wrapped import clean, finished

LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=2, steps=9)
SHAPE = (3, 3, 4, 4)
SPREAD = normals(1, SHAPE) * torch.tensor([0.2, 2.0, 9.0]).view(3, 1, 1, 1)


@pytest.mark.parametrize("percentile", [0.9, 0.995, 1.0])
def test_dynamic_thresholding_is_that_of_diffusers(percentile: float) -> None:
    theirs = DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=1e9)
    torch.testing.assert_close(thresholded(SPREAD, 1.0, percentile), theirs._threshold_sample(SPREAD))


def test_a_limit_is_a_unit() -> None:
    torch.testing.assert_close(thresholded(SPREAD * 4, 4.0, 0.9), thresholded(SPREAD, 1.0, 0.9) * 4)


def test_a_sample_within_the_limit_keeps_its_bits() -> None:
    assert torch.equal(thresholded(SPREAD, 1.0, 0.995)[0], SPREAD[0])
    assert thresholded(SPREAD, 1.0, 0.995).abs().amax() <= 1


def test_a_sample_is_bounded_by_its_own_sizes() -> None:
    assert torch.equal(thresholded(SPREAD, 1.0, 0.9)[1:2], thresholded(SPREAD[1:2], 1.0, 0.9))


def test_static_thresholding_clips() -> None:
    assert torch.equal(thresholded(SPREAD, 1.5, None), SPREAD.clamp(-1.5, 1.5))


@pytest.mark.parametrize("kind", ["eps", "v", "x0", "flow"])
def test_the_clean_picture_of_any_model_is_bounded(kind: str, random_model: Any) -> None:
    model, x = random_model(kind), normals(1, SHAPE) * 5
    x0 = clean(kind, LEVEL, x, finished(model.predict(x, LEVEL, None)))
    found = ThresholdPredictor(model, 1.0, 0.9).predict(x, LEVEL, None)
    assert (found.kind, found.weights) == ("x0", (1.0,))
    assert torch.equal(found.outputs[0], thresholded(x0, 1.0, 0.9))


def test_it_takes_back_the_excess_of_guidance(random_model: Any) -> None:
    model, x = random_model(), normals(1, SHAPE) * 3
    positive, negative = (Conditioning(context=normals(s, (1, 4, 8))) for s in (1, 2))
    cfg = ClassifierFreePredictor(model, negative, 15.0, 0.5)
    found = ThresholdPredictor(cfg, 1.0, None).predict(x, LEVEL, positive)
    assert found.rescale == 0
    wanted = clean("eps", LEVEL, x, finished(cfg.predict(x, LEVEL, positive))).clamp(-1, 1)
    torch.testing.assert_close(found.outputs[0], wanted)


def test_guidance_over_a_threshold_takes_it_for_a_models_own(random_model: Any) -> None:
    model, x = random_model(), normals(1, SHAPE) * 3
    positive, negative = (Conditioning(context=normals(s, (1, 4, 8))) for s in (1, 2))
    inner = ThresholdPredictor(model, 1.0, None)
    found = ClassifierFreePredictor(inner, negative, 3.0).predict(x, LEVEL, positive)
    assert found.kind == "x0"
    assert all(output.abs().amax() <= 1 for output in found.outputs)


def test_the_node_keeps_what_every_node_promises() -> None:
    made = check_node(threshold, denoiser=tiny_denoiser(), limit=2.0, percentile=0.995)
    (patch,) = made["denoiser"].patches
    assert (patch.limit, patch.percentile) == (2.0, 0.995)
