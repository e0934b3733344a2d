"""The nodes, called as the plain functions that they are."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from mezzotint import (
    Autoencoder,
    Cancelled,
    Conditioning,
    Denoiser,
    Latents,
    Source,
    UserError,
    hookimpl,
    node,
)
from mezzotint.testing import check_node, run_graph, tiny_denoiser
from mezzotint_kernels import normals
from mezzotint_sampling import nodes, sampler_node
from mezzotint_sampling.distance import distance
from mezzotint_sampling.samplers import SAMPLERS

PROMPT = Conditioning(context=torch.ones(1, 4, 8))
NEGATIVE = Conditioning(context=torch.zeros(1, 4, 8))


def sampled(denoiser: Denoiser, ctx: Any, latents: Latents | None = None, **options: Any) -> Latents:
    guide = nodes.guide(denoiser, NEGATIVE, scale=3.0)
    given = latents or nodes.empty_latents(denoiser, width=32, height=32, batch=2)
    levels = nodes.sigmas(denoiser, steps=4, **options.pop("sigmas", {}))
    noise = nodes.noise(seed=3, **options.pop("noise", {}))
    return sampler_node.sample(ctx, guide, PROMPT, given, levels, noise, **options)


def test_the_nodes_make_a_picture(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    model = random_model()
    ctx = context(model)
    result = sampled(denoiser, ctx)
    assert result.data.shape == (2, 3, 4, 4)
    assert result.data.dtype == torch.float32
    assert (result.space, result.downscale, result.mask) == ("s", 8, None)
    assert model.batches == [4] * 4
    assert ctx.reports == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_equal_inputs_give_equal_bytes(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    first, second = (sampled(denoiser, context(random_model())) for _ in range(2))
    assert torch.equal(first.data, second.data)


@pytest.mark.parametrize("kind", ["philox", "torch"])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_cancelled_run_goes_on_to_the_same_bytes(
    sampler: str, kind: str, denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    options: dict[str, Any] = {"sampler": sampler, "noise": {"kind": kind}}
    whole = sampled(denoiser, context(random_model()), **dict(options))
    for stop in (1, 3):
        interrupted = context(random_model(), cancel_at=stop)
        with pytest.raises(Cancelled):
            sampled(denoiser, interrupted, **dict(options))
        resumed = context(random_model(), state=interrupted.states[-1])
        assert torch.equal(sampled(denoiser, resumed, **dict(options)).data, whole.data)
        assert resumed.reports[0][0] == stop + 1


def test_a_state_is_json_and_tensors(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    ctx = context(random_model())
    sampled(denoiser, ctx)
    assert [state["step"] for state in ctx.states] == [1, 2, 3, 4]
    assert ctx.states[-1].keys() == {"step", "x", "history"}
    assert [h.shape for h in ctx.states[-1]["history"]] == [(2, 3, 4, 4)]


def test_a_run_that_had_finished_evaluates_nothing(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    done = context(random_model())
    result = sampled(denoiser, done)
    model = random_model()
    again = context(model, state=done.states[-1])
    assert torch.equal(sampled(denoiser, again).data, result.data)
    assert model.batches == []


def test_outside_the_mask_the_latents_come_back_exactly(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    given = Latents(data=normals(5, (2, 3, 4, 4)), space="s", mask=mask)
    result = sampled(denoiser, context(random_model()), given)
    assert torch.equal(result.data[..., 2:], given.data[..., 2:])
    assert not torch.isclose(result.data[..., :2], given.data[..., :2]).any()


def test_image_to_image_stays_closer_the_less_it_denoises(denoiser: Denoiser, gaussian: Any, context: Any) -> None:
    given = Latents(data=normals(5, (2, 3, 4, 4)), space="s")
    distances = []
    for denoise in (0.1, 0.5, 1.0):
        ctx = context(gaussian())
        result = sampled(denoiser, ctx, given, sigmas={"denoise": denoise})
        distances.append(float((result.data - given.data).std()))
    assert distances == sorted(distances)


def test_a_preview_is_an_image(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    ctx = context(random_model())
    sampled(denoiser, ctx)
    shown = ctx.previews[-1].data
    assert shown.shape == (2, 4, 4, 3)
    assert 0 <= shown.min() <= shown.max() <= 1


def test_a_clip_is_sampled(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    given = nodes.empty_latents(denoiser, width=32, height=32, frames=3)
    ctx = context(random_model())
    result = sampled(denoiser, ctx, given.replace(mask=torch.ones(1, 1, 4, 4)))
    assert result.data.shape == (1, 3, 3, 4, 4)
    assert ctx.previews[-1].data.shape == (1, 4, 4, 3)


def test_a_plugins_sampler_is_found_through_the_context(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    ctx = context(random_model(), samplers={"acme": SAMPLERS["dpmpp_2m"]})
    wanted = sampled(denoiser, context(random_model()))
    assert torch.equal(sampled(denoiser, ctx, sampler="acme").data, wanted.data)


def test_empty_latents_have_the_shape_of_either_model(denoiser: Denoiser) -> None:
    latents = nodes.empty_latents(denoiser, width=64, height=32, batch=2)
    assert latents.data.shape == (2, 3, 4, 8)
    vae = Autoencoder(source=Source("v", "", "1"), loader="t.v", channels=16, downscale=4, space="z")
    latents = nodes.empty_latents(autoencoder=vae, width=64, height=32)
    assert latents.data.shape == (1, 16, 8, 16)
    assert (latents.space, latents.downscale) == ("z", 4)
    assert not latents.data.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": torch.zeros(1, 4, 4, 4)},
            r"latents have 4 channels; the denoiser \(test:model\)",
        ),
        ({"data": torch.zeros(3, 4, 4)}, r"wanted|must be \[B, C, H, W\]"),
        ({"space": "other"}, "are of the space 'other'; the denoiser"),
        ({"downscale": 4}, "latents have 4 pixels to a side; the denoiser wants 8"),
        ({"mask": torch.ones(1, 1, 8, 8)}, r"mask has shape \(1, 1, 8, 8\); wanted \(1, 1, 4, 4\)"),
        ({"data": torch.zeros(2, 3, 4, 4)}, "conditioning.context is for 5 samples; wanted 1 or 2"),
    ],
)
def test_what_does_not_fit_is_said_before_a_model_is_loaded(
    changes: dict[str, Any], message: str, denoiser: Denoiser, context: Any
) -> None:
    latents = nodes.empty_latents(denoiser, width=32, height=32).replace(**changes)
    conditioning = Conditioning(context=torch.ones(5 if "samples" in message else 1, 4, 8))
    ctx = context(None)
    with pytest.raises(UserError, match=message):
        sampler_node.sample(ctx, denoiser, conditioning, latents, nodes.sigmas(denoiser, steps=2), nodes.noise())


def test_sizes_that_do_not_fit_name_the_nearest(denoiser: Denoiser) -> None:
    with pytest.raises(UserError, match=r"width must be a multiple of 8.*got 63, the nearest is 64"):
        nodes.empty_latents(denoiser, width=63, height=64)
    with pytest.raises(UserError, match=r"need a denoiser or an autoencoder; got neither"):
        nodes.empty_latents()


def test_an_eta_that_the_sampler_has_not_is_refused(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    with pytest.raises(UserError, match=r"'euler' has no option 'eta'"):
        sampled(denoiser, context(random_model()), sampler="euler", eta=0.5)


def test_listing_the_plugin_imports_no_torch() -> None:
    program = (
        "import sys, mezzotint_sampling as plugin\n"
        "found = []\n"
        "plugin.register_nodes(found.append)\n"
        "plugin.register_ports(found.append)\n"
        "plugin.register_samplers(lambda *pair: found.append(pair))\n"
        "assert len(found) > 30, found\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_nodes_keep_what_every_node_promises() -> None:
    model = tiny_denoiser()
    levels = check_node(nodes.sigmas, denoiser=model, steps=3)["sigmas"]
    noise = check_node(nodes.noise, seed=2)["noise"]
    empty = check_node(nodes.empty_latents, denoiser=model, width=64, height=64)["latents"]
    guide = check_node(nodes.guide, denoiser=model, negative=NEGATIVE, scale=2.0)["denoiser"]
    check_node(
        sampler_node.sample, denoiser=guide, conditioning=PROMPT, latents=empty, sigmas=levels,
        noise=noise, sampler="euler_ancestral",
    )  # fmt: skip


def test_a_graph_samples_with_a_plugins_sampler() -> None:
    """Through the engine: registry, plan, pool, patches and a sampler from another plugin."""

    class Acme:
        __name__ = "acme"

        @staticmethod
        @hookimpl
        def register_samplers(register: Any) -> None:
            register("acme_euler", SAMPLERS["euler"])

    def graph(sampler: str) -> dict[str, Any]:
        model = {"ref": "model"}
        return {
            "format": 1,
            "name": "sampled",
            "nodes": {
                "model": {"use": "testing.denoiser@1", "inputs": {"mean": 0.5, "std": 0.1}},
                "empty": {
                    "use": "sampling.empty_latents@1",
                    "inputs": {"denoiser": model, "width": 64, "height": 64},
                },
                "levels": {
                    "use": "sampling.sigmas@1",
                    "inputs": {"denoiser": model, "steps": 8, "schedule": "karras"},
                },
                "noise": {"use": "sampling.noise@1", "inputs": {"seed": 3}},
                "text": {"use": "acme.text@1", "inputs": {}},
                "guide": {
                    "use": "sampling.guide@1",
                    "inputs": {"denoiser": model, "negative": {"ref": "text"}, "scale": 2},
                },
                "sample": {
                    "use": "sampling.sample@1",
                    "inputs": {
                        "denoiser": {"ref": "guide"},
                        "conditioning": {"ref": "text"},
                        "latents": {"ref": "empty"},
                        "sigmas": {"ref": "levels"},
                        "noise": {"ref": "noise"},
                        "sampler": sampler,
                    },
                },
            },
            "outputs": {"latents": {"ref": "sample"}},
        }

    @node("acme.text")
    def text() -> Conditioning:
        """No words."""
        return Conditioning()

    results = [
        run_graph(graph(name), plugins=[Acme(), text]).outputs["latents"].data for name in ("euler", "acme_euler")
    ]
    assert torch.equal(*results)
    assert float(results[0].mean()) == pytest.approx(0.5, abs=0.05)


def test_a_samplers_options_reach_it(denoiser: Denoiser, random_model: Any, context: Any) -> None:
    def made(**options: Any) -> torch.Tensor:
        return sampled(denoiser, context(random_model()), **options).data

    euler = made(sampler="euler")
    torch.testing.assert_close(made(sampler="lms", options={"order": 1}), euler, rtol=0, atol=1e-4)
    assert not torch.isclose(made(sampler="lms"), euler, atol=1e-3).all()
    by_options = made(sampler="ddim", options={"eta": 0.5})
    assert torch.equal(by_options, made(sampler="ddim", eta=0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "lms", "options": {"ordr": 2}}, "has no option 'ordr'; did you mean 'order'"),
        (
            {"sampler": "lms", "options": {"order": 9}},
            "option 'order' of sampler 'lms' is 9; wanted: input should",
        ),
        ({"sampler": "restart", "options": {"times": 1.5}}, "option 'times' of sampler 'restart' is 1.5"),
        ({"sampler": "ddim", "eta": 1.0, "options": {"eta": 0.5}}, "eta is 1, and 0.5 in options; leave one"),
        (
            {"sampler": "dpmpp_2m_sde", "options": {"solver": "euler"}},
            "wanted: input should be 'midpoint' or 'heun'",
        ),
    ],
)
def test_options_that_do_not_fit_are_named_before_a_model_is_loaded(
    options: dict[str, Any], message: str, denoiser: Denoiser, context: Any
) -> None:
    with pytest.raises(UserError, match=message):
        sampled(denoiser, context(None), **options)


def test_levels_that_rise_are_refused_before_a_model_is_loaded(denoiser: Denoiser, context: Any) -> None:
    levels = nodes.sigmas(denoiser, steps=4)
    rising = levels.replace(sigmas=levels.sigmas[::-1], alphas=levels.alphas[::-1], times=levels.times[::-1])
    given = nodes.empty_latents(denoiser, width=32, height=32)
    with pytest.raises(UserError, match=r"'dpmpp_2m' needs sigmas that fall at every step; step 1 goes"):
        sampler_node.sample(context(None), denoiser, PROMPT, given, rising, nodes.noise())


def test_without_added_noise_the_latents_are_the_start(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    levels, noise = nodes.sigmas(denoiser, steps=4), nodes.noise(seed=3)
    given = nodes.empty_latents(denoiser, width=32, height=32, batch=2)
    whole = sampler_node.sample(context(random_model()), denoiser, PROMPT, given, levels, noise, sampler="euler")
    drawn = given.replace(data=normals(3, (2, 3, 4, 4), stream="sampling.noise"))
    started = sampler_node.sample(
        context(random_model()), denoiser, PROMPT, drawn, levels, noise, sampler="euler", add_noise=False
    )
    assert torch.equal(started.data, whole.data)
    masked = given.replace(mask=torch.ones(1, 1, 4, 4))
    with pytest.raises(UserError, match="latents with a mask need add_noise"):
        sampler_node.sample(context(None), denoiser, PROMPT, masked, levels, noise, add_noise=False)


def test_the_nodes_examples_are_the_bundled_samplers() -> None:
    assert sorted(sampler_node._SAMPLERS) == sorted(SAMPLERS)


def test_distances_are_rows_under_the_name_that_was_asked_for():
    reference = Latents(torch.zeros(1, 3, 2, 2))
    moved = reference.replace(data=reference.data + 3.0)
    found = distance([reference, moved], reference, at=[1.0, 2.0], name="steps").data
    assert found == {"rows": [{"steps": 1.0, "distance": 0.0}, {"steps": 2.0, "distance": pytest.approx(3.0)}]}


def test_the_name_of_the_other_column_is_refused():
    with pytest.raises(UserError, match="the other column"):
        distance([Latents(torch.zeros(1))], Latents(torch.zeros(1)), at=[1.0], name="distance")
