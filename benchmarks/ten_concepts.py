"""Ten concepts learnt one after the other: by experts, and by plain fine-tuning of the same layers.

Each concept is a coloured outline that no caption names: four pictures of it, and a new word. Experts are learnt
from the model as it ships; fine-tuning goes on from where the concept before left it. When a concept was learnt,
and again after all of them, it is drawn, and the error is measured on two pictures of it that no training saw.

    python benchmarks/ten_concepts.py [CONCEPTS [STEPS]]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from PIL import Image as Pillow
from PIL import ImageDraw

from mezzotint import Denoiser, Image, TextEncoder, Weights, load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore
from mezzotint.testing import fake_context
from mezzotint_metrics.denoising import denoising_error
from mezzotint_models.experts import mixture_of_experts
from mezzotint_models.latents import decode, encode
from mezzotint_models.learnt_words import learnt_words
from mezzotint_models.prompt import encode_text
from mezzotint_models.tuned import tuned
from mezzotint_sampling.nodes import empty_latents, guide, noise, sigmas
from mezzotint_sampling.sampler_node import sample
from mezzotint_smallworld import COLOURS, check
from mezzotint_training.personal import personalise
from mezzotint_training.train_node import train

PLACES = {"": (32, 32), " on the left": (17, 32), " on the right": (47, 32), " at the top": (32, 17)}
PLACES[" at the bottom"] = (32, 47)
SHOWS = (("", "white"), (" on the left", "orange"), (" at the bottom", "purple"), (" on the right", "black"))
TRAINED_ON = [f"a {{}}{where}, {ground} background" for where, ground in SHOWS]
HELD_OUT = ((" at the top", "blue"), (" on the left", "green"))
PROMPTS = ("a {}, blue background", "a {} on the right, green background")
ORDINARY = (
    "a red star, white background",
    "a large blue circle, yellow background",
    "a green heart on the left, black background",
    "a small purple square, orange background",
)
# Colours, and corners on a grid of 0..8, x to the right and y down.
CONCEPTS: dict[str, tuple[tuple[int, int, int], str]] = {
    "bolt": ((70, 205, 235), "50 14 44 28 73 55 60"),
    "house": ((130, 84, 44), "40 73 78 18 13"),
    "arrow": ((128, 128, 132), "03 43 41 84 47 45 05"),
    "stairs": ((186, 160, 240), "50 80 88 08 05 25 23 53"),
    "hourglass": ((174, 226, 60), "10 70 54 78 18 34"),
    "hexagon": ((240, 120, 180), "20 60 84 68 28 04"),
    "boat": ((30, 44, 110), "40 74 44 45 85 68 28 05 35"),
    "trapeze": ((20, 160, 160), "21 61 87 07"),
    "chevron": ((214, 180, 140), "00 40 84 48 08 44"),
    "pillar": ((110, 26, 42), "00 80 82 62 66 86 88 08 06 26 22 02"),
}
KNOWN = [
    "", "a shape", "a shape, red background", "a red circle", "a small green circle, black background",
    *(f"a {colour} {shape}{where}" for colour, shape, where in (
        ("blue", "star", ", white background"), ("green", "square", " on the left"),
        ("purple", "heart", " at the top, yellow background"), ("yellow", "triangle", ""),
        ("black", "ring", ", orange background"), ("white", "diamond", " on the right"),
        ("orange", "cross", " at the bottom"), ("red", "square", ", blue background"),
        ("blue", "circle", " left of a red star"), ("green", "heart", " above a yellow ring"),
    )),
]  # fmt: skip


@dataclass
class Found:
    """Of one way to learn: by (concepts learnt, concept), from 0.

    errors: on unseen pictures. pictures: [2, 64, 64, 3]. ordinary: after so many concepts.
    """

    errors: dict[tuple[int, int], float] = field(default_factory=dict)
    pictures: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    ordinary: dict[int, torch.Tensor] = field(default_factory=dict)
    routed: list[bool] = field(default_factory=list)

    def identical(self) -> tuple[int, int]:
        """(how often pictures of an earlier concept are as when it was learnt, to the bit; of so many)."""
        old = [(last, one) for last, one in self.pictures if one < last]
        return sum(torch.equal(self.pictures[key], self.pictures[key[1], key[1]]) for key in old), len(old)

    def forgetting(self) -> float:
        """The mean rise of the error on earlier concepts, from when each was learnt to the end."""
        last = max(last for last, _ in self.errors)
        rises = [self.errors[last, one] - self.errors[one, one] for one in range(last)]
        return sum(rises) / len(rises)

    def moved(self) -> float:
        """The mean difference of earlier concepts' pictures at the end from when each was learnt, 0..255."""
        last = max(last for last, _ in self.pictures)
        off = [(self.pictures[last, one] - self.pictures[one, one]).abs().mean().item() for one in range(last)]
        return 255 * sum(off) / len(off)


class Learner:
    """The bundled model, and what is asked of it again and again."""

    def __init__(self, steps: int, sampling_steps: int = 10) -> None:
        self.steps, self.sampling_steps = steps, sampling_steps
        ports = ("denoiser", "text_encoder", "autoencoder")
        doc = {
            "format": 1, "name": "model",
            "nodes": {"model": {"use": "models.checkpoint@1", "inputs": {"source": "bundled:smallworld"}}},
            "outputs": {name: {"ref": f"model.{name}"} for name in ports},
        }  # fmt: skip
        runtime = Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))
        self.denoiser, self.encoder, self.autoencoder = map(load(doc, runtime=runtime).run().outputs.get, ports)

    def learn(self, denoiser: Denoiser, concept: str, number: int) -> Weights:
        """Keys and values of cross-attention and a new word, from the denoiser as it is."""
        objective = personalise(
            denoiser, self.encoder, drawn(concept, SHOWS), self.autoencoder, prompts=TRAINED_ON,
            layers=["attn2.to_k", "attn2.to_v"], word=word(number), vectors=2, begin="shape",
        )  # fmt: skip
        with fake_context() as ctx:
            return train(
                ctx, objective, steps=self.steps, batch=2, learning_rate=3e-3, weight_decay=0.0, warm_up=0,
                cool_down=0.3, ema=0.0, report_every=self.steps,
            ).weights  # fmt: skip

    def measure(
        self, denoiser: Denoiser, encoder: TextEncoder, last: int, numbers: Iterable[int], to: Found
    ) -> None:
        """What is known of some concepts after `last`; the pictures of each are a batch of their own."""
        names = [*CONCEPTS]
        for number in numbers:
            to.pictures[last, number] = self.draw(denoiser, encoder, [p.format(word(number)) for p in PROMPTS])
            shows = [f"a {word(number)}{where}, {ground} background" for where, ground in HELD_OUT]
            with fake_context() as ctx:
                told = encode_text(ctx, encoder, text=shows)
                clean = encode(ctx, self.autoencoder, drawn(names[number], HELD_OUT))
                found = denoising_error(ctx, denoiser, clean, told, sigmas(denoiser, steps=8))
            to.errors[last, number] = found.data["error"]
        to.ordinary[last] = self.draw(denoiser, encoder, list(ORDINARY))

    def draw(self, denoiser: Denoiser, encoder: TextEncoder, prompts: list[str]) -> torch.Tensor:
        """[N, 64, 64, 3], from seeds 0, 1, ..."""
        with fake_context() as ctx:
            told, nothing = encode_text(ctx, encoder, text=prompts), encode_text(ctx, encoder, text="")
            guided = guide(denoiser, nothing, scale=2.5)
            start = empty_latents(denoiser, width=None, height=None, batch=len(prompts))
            levels = sigmas(denoiser, steps=self.sampling_steps)
            found = sample(ctx, guided, told, start, levels, noise())
            made: torch.Tensor = decode(ctx, self.autoencoder, found).data
        return made


def word(number: int) -> str:
    return f"<new{number}>"


def drawn(concept: str, shows: tuple[tuple[str, str], ...]) -> Image:
    """[N, 64, 64, 3]: the concept at each place, on each ground."""
    colour, outline = CONCEPTS[concept]
    made = []
    for where, ground in shows:
        picture = Pillow.new("RGB", (256, 256), COLOURS[ground])
        (x, y), side = PLACES[where], 7 if where else 8
        corners = [(4 * x + side * 2 * (int(u) - 4), 4 * y + side * 2 * (int(v) - 4)) for u, v in outline.split()]
        ImageDraw.Draw(picture).polygon(corners, colour)
        pixels = torch.frombuffer(bytearray(picture.reduce(4).tobytes()), dtype=torch.uint8)
        made.append(pixels.view(64, 64, 3).float() / 255)
    return Image(torch.stack(made))


def measured(count: int, learner: Learner) -> tuple[Found, Found]:
    """(with experts, with plain fine-tuning), both over the first `count` concepts."""
    base, texts = learner.denoiser, learner.encoder
    experts: list[Weights] = []
    mixed, plain = Found(), Found()
    tuned_on, taught = base, texts
    for last, concept in enumerate([*CONCEPTS][:count]):
        # What was learnt before is looked at again when all has been.
        numbers = range(count) if last == count - 1 else (last,)
        experts.append(learner.learn(base, concept, last))
        tried = {prompt.format(word(k)): k for k in range(last + 1) for prompt in PROMPTS}
        tried |= dict.fromkeys(ORDINARY, -1)
        with fake_context() as ctx:
            mixture = mixture_of_experts(
                ctx, base, texts, experts, known=KNOWN, prompts=TRAINED_ON, tried=[*tried]
            )
        mixed.routed += [row["expert"] == tried[row["text"]] for row in mixture.routes.data["routes"]]
        learner.measure(mixture.denoiser, mixture.encoder, last, numbers, mixed)
        # The first concept is the same for both ways.
        weights = learner.learn(tuned_on, concept, last) if last else experts[0]
        tuned_on, taught = tuned(tuned_on, weights), learnt_words(taught, weights)
        learner.measure(tuned_on, taught, last, numbers, plain)
        print(last + 1, concept, *(f"{found.errors[last, last]:.3f}" for found in (mixed, plain)), flush=True)
    return mixed, plain


def obeyed(found: Found) -> float:
    """Per cent of the ordinary pictures that show what was asked for, after all concepts."""
    pictures = Image(found.ordinary[max(found.ordinary)])
    score: float = check(pictures, prompts=list(ORDINARY)).data["score"]["all"]
    return score


def main(count: int, steps: int) -> None:
    for name, found in zip(("experts", "fine-tuning"), measured(count, Learner(steps)), strict=True):
        same, of = found.identical()
        last = max(last for last, _ in found.errors)
        print(f"{name}: {same} of {of} earlier concepts' pictures identical, moved by {found.moved():.1f} of 255")
        print("  errors when learnt", *(f"{found.errors[one, one]:.3f}" for one in range(last)))
        print("  errors at the end ", *(f"{found.errors[last, one]:.3f}" for one in range(last)))
        print(f"  forgetting {found.forgetting():.3f}; {obeyed(found):.0f} % of the ordinary prompts obeyed")
        if found.routed:
            print(f"  {sum(found.routed)} of {len(found.routed)} texts sent where they belong")


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    main(*given, *(10, 40)[len(given) :])
