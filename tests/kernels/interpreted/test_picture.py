"""A whole picture through the Triton kernels: text encoder, attention, noise and steps."""

from __future__ import annotations

from pathlib import Path

import torch

from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore

GRAPH = Path(__file__).resolve().parents[3] / "graphs" / "text_to_image.json"


def render() -> torch.Tensor:
    runtime = Runtime(load_registry(installed=False), MemoryStore(), Settings(device="cpu"))
    # A sampler with noise of its own, so that the step draws it.
    inputs = {"steps": 2, "width": 32, "height": 32, "sampler": "euler_ancestral", "prompt": "a large red circle"}
    return load(GRAPH, runtime=runtime).run(**inputs).outputs["image"].data


def test_a_picture_made_by_the_kernels_is_that_of_the_reference(monkeypatch):
    from mezzotint_kernels import dispatch

    taken = set()
    decide = dispatch.decide

    def watched(op, *args, **options):
        choice = decide(op, *args, **options)
        taken.add((op, choice.backend))
        return choice

    monkeypatch.setattr(dispatch, "decide", watched)
    dispatch._choose.cache_clear()
    ours = render()
    assert {("attention", "interpret"), ("noise_step", "interpret"), ("normals", "interpret")} <= taken
    taken.clear()
    monkeypatch.setenv("MEZZOTINT_KERNELS", "torch")
    reference = render()
    assert {backend for _, backend in taken} == {"torch"}
    # The step and its noise are equal to the last bit; attention adds up in another order.
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=0)
    assert ours.std() > 0.05
