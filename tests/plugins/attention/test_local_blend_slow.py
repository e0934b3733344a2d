"""Over twenty seeds of the bundled model: what a local blend keeps still, and that the edit is still made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from mezzotint import Image
from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore
from mezzotint_smallworld import check

SOURCE = "a large red circle left of a small green star on a white background"
EDIT = SOURCE.replace("circle", "square")
SEEDS = 20


def graph(**settings: Any) -> dict[str, Any]:
    """Pairs of a source and its edit, one for each seed, as latents and as pictures."""
    model = {"ref": "model.denoiser"}
    prompts = [SOURCE, EDIT]
    nodes: dict[str, dict[str, Any]] = {
        "model": {"use": "models.checkpoint@1", "inputs": {"source": "bundled:smallworld"}},
        "told": {"use": "models.encode_text@1",
                 "inputs": {"encoder": {"ref": "model.text_encoder"}, "text": prompts * SEEDS}},
        "null": {"use": "models.encode_text@1", "inputs": {"encoder": {"ref": "model.text_encoder"}, "text": ""}},
        "guided": {"use": "sampling.guide@1",
                   "inputs": {"denoiser": model, "negative": {"ref": "null"}, "scale": 2.5}},
        "edit": {"use": "attention.prompt_to_prompt@1",
                 "inputs": {"denoiser": {"ref": "guided"}, "encoder": {"ref": "model.text_encoder"},
                            "prompts": prompts, "kind": "replace", **settings}},
        "sigmas": {"use": "sampling.sigmas@1", "inputs": {"denoiser": model, "steps": 10}},
        "noise": {"use": "sampling.noise@1", "inputs": {"seed": 0, "copies": 2}},
        "empty": {"use": "sampling.empty_latents@1",
                  "inputs": {"denoiser": model, "width": 64, "height": 64, "batch": 2 * SEEDS}},
        "sample": {"use": "sampling.sample@1",
                   "inputs": {"denoiser": {"ref": "edit"}, "conditioning": {"ref": "told"},
                              "noise": {"ref": "noise"},
                              "latents": {"ref": "empty"}, "sigmas": {"ref": "sigmas"}, "sampler": "ddim"}},
        "decode": {"use": "models.decode@1",
                   "inputs": {"autoencoder": {"ref": "model.autoencoder"}, "latents": {"ref": "sample"}}},
    }  # fmt: skip
    outputs = {"latents": {"ref": "sample"}, "image": {"ref": "decode"}}
    return {
        "format": 1,
        "name": "pairs",
        "description": "Pairs.",
        "inputs": {},
        "nodes": nodes,
        "outputs": outputs,
    }


def made(folder: Path, runtime: Runtime, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(latents, pictures) of all pairs."""
    file = folder / f"pairs{len(settings)}.json"
    file.write_text(json.dumps(graph(**settings)), "utf-8")
    outputs = load(file, runtime=runtime).run().outputs
    return outputs["latents"].data, outputs["image"].data


def coloured(pictures: torch.Tensor) -> torch.Tensor:
    """[B, H, W], where a thing is: its colour stands out from the ground."""
    return pictures.amax(-1) - pictures.amin(-1) > 0.2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_outside_of_the_object_a_local_blend_moves_at_least_five_times_less(tmp_path: Path) -> None:
    runtime = Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))
    runs = {
        "without": made(tmp_path, runtime),
        "with": made(tmp_path, runtime, blend=["circle", "square"], threshold=0.35),
    }
    things = torch.zeros(SEEDS, 64, 64, dtype=torch.bool)
    for _, pictures in runs.values():
        things |= coloured(pictures[0::2]) | coloured(pictures[1::2])
    circle, star = things.clone(), things.clone()
    circle[..., 36:], star[..., :38] = False, False
    # Latents are 4 pixels a side; those beside the circle's count as its own.
    touched = functional.max_pool2d(circle[:, None].float(), 4)
    outside = functional.max_pool2d(touched, 3, stride=1, padding=1)[:, 0] == 0
    latents, far, other, shapes = {}, {}, {}, {}
    for name, (data, pictures) in runs.items():
        pixels = (pictures[1::2] - pictures[0::2]).abs().mean(-1)
        latents[name] = (data[1::2] - data[0::2]).abs().mean(1)[outside].mean().item()
        far[name], other[name] = pixels[:, :, 38:].mean().item(), pixels[star].mean().item()
        shapes[name] = check(Image(pictures[1::2]), prompts=[EDIT] * SEEDS).data["score"]["shape"]
    figures = f"latents {latents}, far pixels {far}, the star {other}, shapes {shapes}"
    assert outside.float().mean() > 0.3
    # What is left in pixels is the decoder's, which sees the whole picture at once.
    assert latents["with"] == 0 < latents["without"], figures
    assert other["without"] >= 5 * other["with"] and far["without"] >= 5 * far["with"], figures
    assert shapes["with"] >= 85, figures
