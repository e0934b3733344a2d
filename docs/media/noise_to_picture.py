"""Makes noise_to_picture.png for the README: one sampling run of the bundled model, watched through a hook."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image as Pillow

from mezzotint import Runtime, hookimpl, load
from mezzotint.plugins import load_registry
from mezzotint.store import MemoryStore
from mezzotint.testing import fake_context
from mezzotint_models.latents import decode

PROMPT = "a large red circle on a white background"
SHOWN = (0, 4, 8, 11, 13, 15, 19)


class Watch:
    """Keeps the latents after each step."""

    def __init__(self) -> None:
        self.latents: list[torch.Tensor] = []

    @hookimpl
    def after_step(self, x: torch.Tensor) -> None:
        self.latents.append(x.clone())


def main() -> None:
    watch = Watch()
    runtime = Runtime(load_registry(namespaces=(), extra=[watch]), MemoryStore())
    result = load("bundled:graphs/text_to_image.json", runtime=runtime).run(prompt=PROMPT)
    outputs = {step.name: key for key, step in result.plan.steps.items()}
    model = runtime.store.get(outputs["model"])
    sampled = runtime.store.get(outputs["sample"])["latents"]
    with fake_context() as ctx:
        frames = [decode(ctx, model["autoencoder"], sampled.replace(data=watch.latents[i])).data[0] for i in SHOWN]
    strip = torch.cat([torch.nn.functional.pad(f, (0, 0, 2, 2, 2, 2), value=1.0) for f in frames], dim=1)
    pixels = (strip.clamp(0, 1) * 255).round().byte().numpy()
    picture = Pillow.fromarray(pixels)
    large = picture.resize((picture.width * 2, picture.height * 2), Pillow.Resampling.NEAREST)
    large.save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
