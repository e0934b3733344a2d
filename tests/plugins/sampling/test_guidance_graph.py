"""Guidance through the engine: registry, plan, pool and store, and a picture by the bundled network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from mezzotint import Conditioning, Denoiser, Mask, NoiseLevel, NoiseSchedule, Sigmas, Source, node
from mezzotint.testing import fake_context, fake_sigmas, run_graph
from mezzotint_sampling import guidance_nodes
from mezzotint_sampling.guidance_nodes import combine_conditions, limit_condition
from mezzotint_sampling.sigmas import ScheduleName


@node("acme.text")
def text(*, shift: float = 0.0) -> Conditioning:
    """Words that move the mean of the test data.

    shift: how far.
    """
    return Conditioning(context=torch.full((1, 2, 2), shift))


@node("acme.left")
def left() -> Mask:
    """The left half."""
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1
    return Mask(mask)


def ref(name: str) -> dict[str, str]:
    return {"ref": name}


def graph(denoiser: str = "bounded", conditioning: str = "both") -> dict[str, Any]:
    return {
        "format": 1,
        "name": "guided",
        "nodes": {
            "model": {"use": "testing.denoiser@1", "inputs": {"mean": 0.0, "std": 0.1}},
            "empty": {
                "use": "sampling.empty_latents@1",
                "inputs": {"denoiser": ref("model"), "width": 64, "height": 64},
            },
            "sigmas": {
                "use": "sampling.sigmas@1",
                "inputs": {"denoiser": ref("model"), "steps": 8, "schedule": "beta"},
            },
            "parts": {"use": "sampling.split_sigmas@1", "inputs": {"sigmas": ref("sigmas"), "step": 4}},
            "whole": {
                "use": "sampling.join_sigmas@1",
                "inputs": {"first": ref("parts.high"), "second": ref("parts.low")},
            },
            "noise": {"use": "sampling.noise@1", "inputs": {"seed": 3, "kind": "brownian"}},
            "low": {"use": "acme.text@1", "inputs": {"shift": -0.5}},
            "high": {"use": "acme.text@1", "inputs": {"shift": 0.5}},
            "nothing": {"use": "acme.text@1", "inputs": {}},
            "left": {"use": "acme.left@1", "inputs": {}},
            "limited": {
                "use": "sampling.limit_condition@1",
                "inputs": {"conditioning": ref("low"), "mask": ref("left")},
            },
            "rest": {
                "use": "sampling.limit_condition@1",
                "inputs": {"conditioning": ref("high"), "area": [0.5, 0, 0.5, 1]},
            },
            "both": {
                "use": "sampling.combine_conditions@1",
                "inputs": {"conditionings": [ref("limited"), ref("rest")]},
            },
            "interval": {"use": "sampling.guidance_schedule@1", "inputs": {"sigma_low": 0.5, "sigma_high": 5.0}},
            "guided": {
                "use": "sampling.guide@1",
                "inputs": {
                    "denoiser": ref("model"), "negative": ref("nothing"), "schedule": ref("interval"),
                    "scale": 1.5,
                },
            },
            "bounded": {"use": "sampling.threshold@1", "inputs": {"denoiser": ref("guided"), "limit": 0.6}},
            "sample": {
                "use": "sampling.sample@1",
                "inputs": {
                    "denoiser": ref(denoiser), "conditioning": ref(conditioning), "latents": ref("empty"),
                    "sigmas": ref("whole"), "noise": ref("noise"), "sampler": "euler_ancestral",
                },
            },
        },
        "outputs": {"latents": ref("sample")},
    }  # fmt: skip


def test_a_graph_paints_each_half_by_its_own_words() -> None:
    found = run_graph(graph(), plugins=[text, left]).outputs["latents"].data
    assert found.abs().max() <= 0.6
    assert float(found[..., :4].mean()) == pytest.approx(-0.5, abs=0.1)
    assert float(found[..., 4:].mean()) == pytest.approx(0.5, abs=0.1)


def test_without_guidance_combined_conditions_are_known_too() -> None:
    found = run_graph(graph("model"), plugins=[text, left]).outputs["latents"].data
    assert float(found[..., :4].mean()) == pytest.approx(-0.5, abs=0.1)
    assert float(found[..., 4:].mean()) == pytest.approx(0.5, abs=0.1)


def test_every_value_of_this_plugin_can_be_stored_and_read() -> None:
    from mezzotint.codec import decode, encode, type_table
    from mezzotint.testing import tiny_denoiser
    from mezzotint.values import Value
    from mezzotint_sampling import nodes, register_ports

    kinds: list[type[Value]] = []
    register_ports(kinds.append)
    schedule = guidance_nodes.guidance_schedule(factors=[1.0, 0.5])
    words = Conditioning(context=torch.ones(1, 2, 3))
    combined = combine_conditions(conditionings=[words, limit_condition(words, Mask(torch.ones(1, 4, 4)))])
    model = nodes.guide(tiny_denoiser(), combined, schedule)
    model = guidance_nodes.guide_by_attention(model, schedule)
    model = guidance_nodes.guide_by_attention(model, how="blurred")
    model = guidance_nodes.guide_by_classifier(model, tiny_denoiser(), fake_sigmas(), label=1)
    model = guidance_nodes.threshold(model, percentile=0.9)
    types = type_table(*kinds, Denoiser, Conditioning, Sigmas, Source, NoiseSchedule)
    encoded = encode(model, types)

    class Tensors:
        def read(self, name: str) -> torch.Tensor:
            return encoded.tensors[name]

    found = decode(encoded.meta, Tensors(), types, lazy=False)
    assert [type(patch) for patch in found.patches] == [type(patch) for patch in model.patches]
    assert found.patches[0].schedule.factors == (1.0, 0.5)
    assert torch.equal(found.patches[0].negative.parts[1].mask, torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("how", ["perturbed", "blurred"])
def test_the_bundled_model_is_guided_by_its_attention(how: str) -> None:
    """In the pool, with the model to itself: the next user finds it as it was."""

    def made(scale: float | None) -> torch.Tensor:
        nodes = {
            "model": {"use": "models.checkpoint@1", "inputs": {"source": "bundled:smallworld"}},
            "words": {
                "use": "models.encode_text@1",
                "inputs": {"encoder": ref("model.text_encoder"), "text": "a red circle"},
            },
            "guided": {
                "use": "sampling.guide_by_attention@1",
                "inputs": {"denoiser": ref("model.denoiser"), "how": how, "scale": scale or 0.0},
            },
            "empty": {
                "use": "sampling.empty_latents@1",
                "inputs": {"denoiser": ref("model.denoiser"), "width": 64, "height": 64},
            },
            "sigmas": {"use": "sampling.sigmas@1", "inputs": {"denoiser": ref("model.denoiser"), "steps": 2}},
            "noise": {"use": "sampling.noise@1", "inputs": {"seed": 3}},
            "sample": {
                "use": "sampling.sample@1",
                "inputs": {
                    "denoiser": ref("model.denoiser" if scale is None else "guided"), "latents": ref("empty"),
                    "conditioning": ref("words"), "sigmas": ref("sigmas"), "noise": ref("noise"),
                    "sampler": "euler",
                },
            },
        }  # fmt: skip
        doc = {"format": 1, "name": "guided", "nodes": nodes, "outputs": {"latents": ref("sample")}}
        return run_graph(doc).outputs["latents"].data

    plain = made(None)
    assert torch.equal(made(0.0), plain)
    assert not torch.isclose(made(2.0), plain).all()


def test_the_pages_name_every_schedule_and_guidance_node_and_their_example_runs(random_model: Any) -> None:
    docs = Path(__file__).parents[3] / "docs"
    schedules, guidance = ((docs / name).read_text("utf-8") for name in ("schedules.md", "guidance.md"))
    assert [name for name in get_args(ScheduleName) if f"| `{name}` |" not in schedules] == []
    assert [name for name in guidance_nodes.__all__ if f"`sampling.{name}`" not in guidance] == []
    (block,) = re.findall(r"```python\n(.*?)```", guidance, re.DOTALL)
    found: dict[str, Any] = {"__name__": "example"}
    exec(compile(block, "guidance.md", "exec", dont_inherit=True), found)
    x, level = torch.ones(2, 3, 4, 4), NoiseLevel(0.6, 0.8, 500.0)
    with found["TowardsGrey"](scale=2.0).apply(random_model(), fake_context()) as model:
        assert len(model.predict(x, level, None).outputs) == 2
