"""A subject taught in each of the ways that graphs/customization has, over seeds, and what it did to the model.

Each graph runs with the settings that it ships with. Its model then draws the subject on grounds that no training
picture has, and things that have names; the small world's checker reads the pictures. For the emoji, which the
checker cannot name, CLIP says how near they come. `merging` is of two subjects: learnt apart and merged in closed
form, against learnt together. `forgetting` is the denoising error on ordinary pictures that no training saw, for
DreamBooth with and without prior preservation. A core's minute or so for each subject and way.

    python benchmarks/customization.py [ways|merging|emoji|forgetting] [SEEDS]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint import Denoiser, Image, TextEncoder, Weights, load
from mezzotint.api import LoadedGraph
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore
from mezzotint.testing import fake_context
from mezzotint_metrics.denoising import denoising_error
from mezzotint_models import parts_of
from mezzotint_models.latents import decode, encode
from mezzotint_models.prompt import encode_text
from mezzotint_sampling.nodes import empty_latents, guide, noise, sigmas
from mezzotint_sampling.sampler_node import sample
from mezzotint_smallworld import check
from mezzotint_smallworld.checker import read
from mezzotint_smallworld.nodes import pictures

GRAPHS = Path(__file__).resolve().parents[1] / "graphs" / "customization"
SUBJECTS = GRAPHS / "subjects"
# Of a way to teach: its graph, what is set otherwise, and what the subject is called.
WAYS: dict[str, tuple[str, dict[str, Any], str]] = {
    "DreamBooth": ("dreambooth", {}, "a toy"),
    "without the prior": ("dreambooth", {"prior_weight": 0.0}, "a toy"),
    "LoRA": ("lora", {}, "a toy"),
    "textual inversion": ("textual_inversion", {}, "a <thing>"),
    "Custom Diffusion": ("custom_diffusion", {}, "a <thing>"),
}
# No picture that is trained on has these grounds.
GROUNDS = ("blue", "red", "yellow", "green") * 2
# Things of other colours than the class's pictures show them in.
KNOWN = [
    f"a {colour} {shape}, {ground} background"
    for colour, shape, ground in (
        ("red", "square", "white"), ("blue", "circle", "yellow"), ("green", "heart", "black"),
        ("purple", "star", "orange"), ("yellow", "ring", "blue"), ("black", "diamond", "red"),
        ("white", "cross", "green"), ("orange", "triangle", "purple"),
    )
]  # fmt: skip
BOTH = (
    "{} left of {}, white background", "{} right of {}, white background",
    "{} above {}, yellow background", "{} below {}, yellow background",
)  # fmt: skip


@dataclass(frozen=True)
class Taught:
    """What a graph made of the model. likeness: of its own four pictures to the subject's, before and after."""

    denoiser: Denoiser
    encoder: TextEncoder
    weights: dict[str, Weights]
    likeness: tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """shown: pictures with the subject and nothing else. obeyed: with the ground that was asked for.

    known: of prompts without the subject, those that are right in all they ask. Each of 8.
    """

    shown: int
    obeyed: int
    known: int


class Bench:
    """The bundled model, and the graphs that teach it."""

    def __init__(self) -> None:
        self.runtime = Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))
        ports = ("denoiser", "text_encoder", "autoencoder")
        doc = {
            "format": 1, "name": "model",
            "nodes": {"model": {"use": "models.checkpoint@1", "inputs": {"source": "bundled:smallworld"}}},
            "outputs": {name: {"ref": f"model.{name}"} for name in ports},
        }  # fmt: skip
        made = load(doc, runtime=self.runtime).run().outputs
        self.denoiser, self.encoder, self.autoencoder = (made[name] for name in ports)

    def teach(self, way: str, subject: str, seed: int, **settings: Any) -> Taught:
        """Run a way's graph as it ships. subject: a folder of SUBJECTS."""
        name, own, _ = WAYS[way]
        graph = self._graph(name, {"denoiser": "tuned", "encoder": "taught", "learnt": "train.weights"})
        given = {"pictures": str(SUBJECTS / subject), "seed": seed, **own, **settings}
        made = graph.run(**given).outputs
        likeness = tuple(float(made[port].data["clip_score"]) for port in ("before", "likeness"))
        return Taught(
            made.get("denoiser", self.denoiser), made.get("encoder", self.encoder), dict(parts_of(made["learnt"])),
            (likeness[0], likeness[1]),
        )  # fmt: skip

    def two(self, seed: int, **settings: Any) -> dict[str, tuple[Denoiser, TextEncoder]]:
        """Two subjects merged in closed form, and learnt together: (denoiser, encoder) by which."""
        kinds = ("merged", "joint")
        ports = [f"{kind}_{which}" for kind in kinds for which in ("tuned", "taught")]
        graph = self._graph("custom_diffusion_two", dict(zip(ports, ports, strict=True)), only=True)
        given: dict[str, Any] = {
            "first": str(SUBJECTS / "teal_crescent"),
            "second": str(SUBJECTS / "pink_hexagon"),
        }
        made = graph.run(seed=seed, **given, **settings).outputs
        return {kind: (made[f"{kind}_tuned"], made[f"{kind}_taught"]) for kind in kinds}

    def draw(self, denoiser: Denoiser, encoder: TextEncoder, prompts: Sequence[str], seed: int) -> Image:
        """[N, 64, 64, 3]: picture i from seed + i, guided as the graphs do."""
        with fake_context() as ctx:
            told, nothing = encode_text(ctx, encoder, text=[*prompts]), encode_text(ctx, encoder, text="")
            guided = guide(denoiser, nothing, scale=2.5)
            start = empty_latents(denoiser, width=None, height=None, batch=len(prompts))
            found = sample(ctx, guided, told, start, sigmas(denoiser, steps=20), noise(seed=seed))
            made: Image = decode(ctx, self.autoencoder, found)
        return made

    def figures(self, denoiser: Denoiser, encoder: TextEncoder, called: str, seed: int) -> Figures:
        """Of the teal crescent under a name; the same noise for every model."""
        placed = [f"{called}, {ground} background" for ground in GROUNDS]
        seen = readings(self.draw(denoiser, encoder, placed, seed))
        asked = zip(seen, GROUNDS, strict=True)
        score = check(self.draw(denoiser, encoder, KNOWN, seed), prompts=KNOWN).data["score"]["all"]
        return Figures(
            sum(things(one) == [("teal", "crescent")] for one in seen),
            sum(one.background.colours == (ground,) for one, ground in asked),
            round(score * len(KNOWN) / 100),
        )

    def error(self, denoiser: Denoiser) -> float:
        """The denoising error on ordinary pictures of the small world, as their captions tell them."""
        drawn = pictures(seed=10_000, count=16, things=1)
        with fake_context() as ctx:
            told = encode_text(ctx, self.encoder, text=drawn.captions)
            clean = encode(ctx, self.autoencoder, drawn.image)
            found = denoising_error(ctx, denoiser, clean, told, sigmas(denoiser, steps=8))
        return float(found.data["error"])

    def _graph(self, name: str, ports: dict[str, str], only: bool = False) -> LoadedGraph:
        """A shipped graph that gives its models too, or them alone."""
        # A document that is no file has no neighbours.
        text = (GRAPHS / f"{name}.json").read_text("utf-8")
        doc = json.loads(text.replace("graph:shown.json", "graph:bundled:graphs/customization/shown.json"))
        more = {port: {"ref": ref} for port, ref in ports.items() if ref.partition(".")[0] in doc["nodes"]}
        doc["outputs"] = more if only else doc["outputs"] | more
        return load(doc, runtime=self.runtime, allow=(GRAPHS,))


def readings(drawn: Image) -> list[Any]:
    return [read(one.mul(255).round().clamp(0, 255).byte().numpy()) for one in drawn.data]


def things(reading: Any) -> list[tuple[str | None, str | None]]:
    return sorted(((thing.colour, thing.shape) for thing in reading.things), key=str)


def singles_and_pairs(bench: Bench, denoiser: Denoiser, encoder: TextEncoder, seed: int) -> tuple[int, int, int]:
    """How many are right, each of 8: pictures of one subject, of both, and of things that have names."""
    words = {"a <crescent>": ("teal", "crescent"), "a <hexagon>": ("pink", "hexagon")}
    alone = [(f"{word}, {ground} background", [thing]) for word, thing in words.items() for ground in GROUNDS[:4]]
    orders = ([*words], [*words][::-1])
    pairs = [(text.format(*order), sorted(words.values())) for text in BOTH for order in orders]
    made = []
    for asked in (alone, pairs):
        seen = readings(bench.draw(denoiser, encoder, [text for text, _ in asked], seed))
        made.append(sum(things(one) == wanted for one, (_, wanted) in zip(seen, asked, strict=True)))
    score = check(bench.draw(denoiser, encoder, KNOWN, seed), prompts=KNOWN).data["score"]["all"]
    return made[0], made[1], round(score * len(KNOWN) / 100)


def size_of(weights: dict[str, Weights]) -> str:
    """How many tensors and numbers were learnt, by part."""
    counts = {part: [value.numel() for value in one.tensors.values()] for part, one in weights.items()}
    return ", ".join(f"{part} {len(each)} tensors, {sum(each)} numbers" for part, each in counts.items())


def ways(seeds: int) -> None:
    bench = Bench()
    for seed in range(seeds):
        # The plain model's pictures of a thing that it is told nothing of.
        _tell(seed, "before", bench.figures(bench.denoiser, bench.encoder, "a shape", seed))
        for way, (_, _, called) in WAYS.items():
            taught = bench.teach(way, "teal_crescent", seed)
            _tell(seed, way, bench.figures(taught.denoiser, taught.encoder, called, seed))
            _tell_likeness(taught)
            print("  ", size_of(taught.weights), flush=True)


def forgetting(seeds: int) -> None:
    bench = Bench()
    print(f"before: error on ordinary pictures {bench.error(bench.denoiser):.4f}", flush=True)
    for seed in range(seeds):
        for way in ("DreamBooth", "without the prior"):
            error = bench.error(bench.teach(way, "teal_crescent", seed).denoiser)
            print(f"seed {seed} {way}: error on ordinary pictures {error:.4f}", flush=True)


def emoji(seeds: int) -> None:
    bench = Bench()
    for seed in range(seeds):
        for way in WAYS:
            print(f"seed {seed} {way}")
            _tell_likeness(bench.teach(way, "twemoji_cat", seed))


def merging(seeds: int) -> None:
    bench = Bench()
    for seed in range(seeds):
        for kind, (denoiser, encoder) in bench.two(seed).items():
            alone, both, known = singles_and_pairs(bench, denoiser, encoder, seed)
            print(f"seed {seed} {kind}: alone {alone} of 8, both {both} of 8, known {known} of 8", flush=True)


def _tell(seed: int, way: str, found: Figures) -> None:
    print(
        f"seed {seed} {way}: shown {found.shown}, ground obeyed {found.obeyed}, known things {found.known}, of 8",
        flush=True,
    )


def _tell_likeness(taught: Taught) -> None:
    print(f"   likeness in CLIP's eyes {taught.likeness[0]:.1f}, then {taught.likeness[1]:.1f}", flush=True)


if __name__ == "__main__":
    kinds = {"ways": ways, "merging": merging, "emoji": emoji, "forgetting": forgetting}
    arguments = dict(enumerate(sys.argv[1:]))
    kinds[arguments.get(0, "ways")](int(arguments.get(1, 3)))
