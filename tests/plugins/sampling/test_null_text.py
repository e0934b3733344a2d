"""Null-text inversion: guided DDIM comes back to the picture, by one null for each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Cancelled, Conditioning, Denoiser, Latents, Noise, NoiseSchedule, UserError
from mezzotint.testing import check_node, tiny_denoiser
from mezzotint_kernels import normals
from mezzotint_sampling import nodes, null_text_node, sampler_node
from mezzotint_sampling.guidance import ClassifierFree
from mezzotint_sampling.levels import reversed_levels
from mezzotint_sampling.run import levels_of

SHAPE = (1, 3, 4, 4)
SOURCE = Conditioning(context=0.4 * normals(3, (1, 4, 8)))
EMPTY = Conditioning(context=torch.zeros(1, 4, 8))
SCALE = 4.0


def picture(seed: int = 2) -> Latents:
    return Latents(data=0.5 * normals(seed, SHAPE), space="s")


def inverted(ctx: Any, denoiser: Denoiser, steps: int = 10, **options: Any) -> Any:
    given = {"scale": SCALE, "updates": 20, "learning_rate": 0.1, "iterations": 8, **options}
    sigmas = nodes.sigmas(denoiser, steps=steps)
    return null_text_node.null_text(ctx, denoiser, SOURCE, EMPTY, picture(), sigmas, **given), sigmas


def back(ctx: Any, denoiser: Denoiser, noisy: Latents, sigmas: Any, sampler: str = "ddim") -> float:
    """Mean squared error of the picture that a run gives back."""
    made = sampler_node.sample(ctx, denoiser, SOURCE, noisy, sigmas, Noise(0), sampler=sampler, add_noise=False)
    return float((made.data - picture().data).square().mean())


def test_the_error_is_a_small_part_of_that_of_guidance_with_the_plain_null(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    found, sigmas = inverted(context(random_model()), denoiser)
    plain = nodes.guide(denoiser, EMPTY, scale=SCALE)
    ours = null_text_node.guide_by_null_texts(denoiser, found.nulls)
    error = back(context(random_model()), plain, found.latents, sigmas)
    assert back(context(random_model()), ours, found.latents, sigmas) < 0.1 * error
    assert found.report.data["plain"] == pytest.approx(error, rel=1e-4)
    assert found.report.data["rebuilt"] < 0.1 * error
    assert back(context(random_model()), denoiser, found.latents, sigmas) < 0.1 * error


def test_each_step_has_a_null_and_most_have_one_of_their_own(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    found, sigmas = inverted(context(random_model()), denoiser, steps=6, tolerance=0.0)
    assert tuple(found.nulls.context.shape) == (6, 4, 8)
    at = [found.nulls.at(level).context for level in levels_of(sigmas)[:-1]]
    assert len({tuple(each.flatten().tolist()) for each in at}) > 3
    rows = found.report.data["steps"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["error"] <= row["before"] for row in rows)


def test_the_start_is_that_of_the_inversion_without_guidance(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    found, sigmas = inverted(context(random_model()), denoiser, updates=0)
    alone = sampler_node.invert(context(random_model()), denoiser, SOURCE, picture(), sigmas, iterations=8)
    assert torch.equal(found.latents.data, alone.data)


def test_copies_are_the_same_start_for_each_prompt(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    one, _ = inverted(context(random_model()), denoiser, steps=2, updates=1)
    two, _ = inverted(context(random_model()), denoiser, steps=2, updates=1, copies=2)
    assert torch.equal(two.latents.data, one.latents.data.expand(2, -1, -1, -1))


def test_without_updates_it_is_plain_guidance_to_the_bit(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    found, sigmas = inverted(context(random_model()), denoiser, updates=0)
    ours = null_text_node.guide_by_null_texts(denoiser, found.nulls)
    plain = nodes.guide(denoiser, EMPTY, scale=SCALE)
    made = [
        sampler_node.sample(
            context(random_model()),
            model,
            SOURCE,
            found.latents,
            sigmas,
            Noise(0),
            sampler="ddim",
            add_noise=False,
        ).data
        for model in (ours, plain)
    ]
    assert torch.equal(*made)


def test_where_nothing_is_gained_by_the_null_the_plain_one_is_left_as_it_is(
    denoiser: Denoiser, gaussian: Any, context: Any
) -> None:
    # The exact denoiser reads no text: guidance changes nothing, so the path is met at once.
    found, _ = inverted(context(gaussian()), denoiser, iterations=40, tolerance=1e-8)
    assert torch.equal(found.nulls.context, EMPTY.context.expand(10, 4, 8))
    assert {row["updates"] for row in found.report.data["steps"]} == {0}


def test_the_condition_and_the_null_share_one_evaluation(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    found, sigmas = inverted(context(random_model()), denoiser, steps=4)
    model = random_model()
    back(context(model), null_text_node.guide_by_null_texts(denoiser, found.nulls), found.latents, sigmas)
    assert model.batches == [2, 2, 2, 2]


def test_other_levels_than_those_of_the_inversion_are_refused(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    found, sigmas = inverted(context(random_model()), denoiser, steps=4, updates=1)
    guided = null_text_node.guide_by_null_texts(denoiser, found.nulls)
    with pytest.raises(UserError, match=r"no null text for the level .*4 steps.*Give both nodes the same sigmas"):
        back(context(random_model()), guided, found.latents, nodes.sigmas(denoiser, steps=5))
    with pytest.raises(UserError, match="no null text for the level"):
        back(context(random_model()), guided, found.latents, sigmas, sampler="dpm_2")


def test_a_cancelled_optimisation_goes_on_to_the_same_bytes(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    whole, _ = inverted(context(random_model()), denoiser, steps=4)
    interrupted = context(random_model(), cancel_at=4 * 8 + 30)
    with pytest.raises(Cancelled):
        inverted(interrupted, denoiser, steps=4)
    assert 0 < len(interrupted.states[-1]["nulls"]) < 4
    again, _ = inverted(context(random_model(), state=interrupted.states[-1]), denoiser, steps=4)
    assert torch.equal(again.nulls.context, whole.nulls.context)
    assert torch.equal(again.latents.data, whole.latents.data)
    assert again.report.data == whole.report.data


def test_progress_rises_to_the_total(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    ctx = context(random_model())
    inverted(ctx, denoiser, steps=4, tolerance=0.0)
    done = [at for at, _ in ctx.reports]
    assert done == sorted(done) and {total for _, total in ctx.reports} == {4 * 8 + 4 * 21 + 4}
    assert done[-1] == 4 * 8 + 4 * 21 + 4


def refused(plain: Denoiser, context: Any, match: str, **changes: Any) -> None:
    """Before any model is loaded."""
    sigmas = nodes.sigmas(plain, steps=4)
    given = {
        "denoiser": plain, "conditioning": SOURCE, "negative": EMPTY, "latents": picture(), "sigmas": sigmas,
        **changes,
    }  # fmt: skip
    with pytest.raises(UserError, match=match):
        null_text_node.null_text(context(None), **given)


def test_bad_input_is_refused_with_what_to_do_instead(denoiser: Denoiser, context: Any) -> None:
    several = picture().replace(data=picture().data.expand(2, -1, -1, -1))
    refused(denoiser, context, "wanted one picture, got 2.*flow.map", latents=several)
    masked = picture().replace(mask=torch.ones(1, 1, 4, 4))
    refused(denoiser, context, "the latents have a mask", latents=masked)
    clip = picture().replace(data=torch.zeros(1, 3, 2, 4, 4))
    refused(denoiser, context, "wanted the latents of a picture", latents=clip)
    other = picture().replace(data=torch.zeros(1, 4, 4, 4))
    refused(denoiser, context, "4 channels; the denoiser .* wants 3", latents=other)
    refused(denoiser, context, "pixels to a side", latents=picture().replace(downscale=4))
    two = Conditioning(context=torch.zeros(2, 4, 8))
    refused(denoiser, context, "conditioning: wanted one text, got 2", conditioning=two)
    refused(denoiser, context, "negative: wanted the encoding of one text", negative=Conditioning())
    longer = Conditioning(context=torch.zeros(1, 5, 8))
    refused(denoiser, context, "differ in shape", negative=longer)
    guided = denoiser.patched(ClassifierFree(EMPTY, 2.0))
    refused(denoiser, context, "guided already", denoiser=guided)
    zero = denoiser.replace(schedule=NoiseSchedule(prediction="v", zero_terminal_snr=True))
    refused(denoiser, context, r"pure noise \(alpha = 0\).*denoise below 1", sigmas=nodes.sigmas(zero, steps=4))
    rising = reversed_levels(nodes.sigmas(denoiser, steps=4))
    refused(denoiser, context, "levels must fall from noisy to clean", sigmas=rising)


def test_the_nodes_keep_what_every_node_promises(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    model = tiny_denoiser()
    levels = nodes.sigmas(model, steps=2)
    given = nodes.empty_latents(model, width=64, height=64)
    made = check_node(
        null_text_node.null_text, denoiser=model, conditioning=SOURCE, negative=EMPTY, latents=given,
        sigmas=levels, updates=1, iterations=1,
    )  # fmt: skip
    check_node(null_text_node.guide_by_null_texts, denoiser=model, nulls=made["nulls"])
