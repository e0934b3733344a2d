"""Scripted dialogues: how often a turn's change is found in the picture, and how much of the rest moved.

Each turn that an edit by attention can make is made twice, with the same seed: by prompt-to-prompt as
`mezzotint chat` does, and by the new prompt alone. Right: the small world's checker finds all that the new prompt
asks for. Moved: the mean difference from the picture before, 0..255, outside of the thing that was spoken of, or
inside of the things where it was the background.

    python benchmarks/dialogues.py [SEED ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mezzotint import Dialogue, load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore
from mezzotint_dialogue.words import read_words
from mezzotint_smallworld import check

GRAPH = Path(__file__).parents[1] / "graphs" / "outlook" / "interactive_editing.json"
SCRIPTS = (
    (
        "a large red circle on a white background",
        "make it blue",
        "turn it into a star",
        "put it on a black background",
    ),
    (
        "a green heart left of a yellow ring, black background",
        "make it red",
        "make the ring blue",
        "make the ring a star",
    ),
    ("a small purple square above a large orange diamond, white background", "make it green", "make it a circle"),
    (
        "a blue cross in the centre, yellow background",
        "make it red",
        "make the background white",
        "make it a ring",
    ),
    ("a red star right of a blue circle, white background", "put it on a black background", "make it yellow"),
    ("a large green triangle on a black background", "make it orange", "make it purple", "make it a heart"),
    ("a white ring below a red square, blue background", "make the square yellow", "turn the ring into a circle"),
    ("a yellow diamond at the top, black background", "make it green", "make it a square"),
)


def main(seeds: list[int]) -> None:
    graph = load(GRAPH, runtime=Runtime(load_registry(), MemoryStore(), Settings(device="cpu", workers=1)))
    inputs = {name: doc.model_dump(exclude_unset=True) for name, doc in graph.graph.doc.inputs.items()}
    found: dict[str, list[tuple[bool, bool, float]]] = {"edit": [], "paint": []}
    for seed in seeds:
        for prompt, *said in SCRIPTS:
            dialogue = Dialogue(str(GRAPH), {"prompt": prompt, "seed": seed})
            for words in said:
                before = dialogue
                dialogue = dialogue.after(words, read_words(dialogue, words, inputs=inputs))
                new = str(dialogue.inputs["prompt"])
                old = graph.run(**before.inputs).outputs["image"]
                only = {"prompt": str(before.inputs["prompt"]), "seed": seed}
                for way, given, since in (
                    ("edit", dict(dialogue.inputs), old),
                    ("paint", {"prompt": new, "seed": seed}, graph.run(**only).outputs["image"]),
                ):
                    made = graph.run(**given).outputs["image"]
                    was = check(since, prompts=only["prompt"]).data
                    right = check(made, prompts=new).data["score"]["all"] == 100
                    moved = rest(since.data[0].numpy(), made.data[0].numpy(), was, words, before.about)
                    found[way].append((right, was["score"]["all"] == 100, moved))
        for way, rows in found.items():
            right = sum(row[0] for row in rows)
            after_right = [row[0] for row in rows if row[1]]
            moved = [row[2] for row in rows]
            print(
                f"{way}: {len(rows)} turns, {right} right ({sum(after_right)} of {len(after_right)} where the "
                f"picture before was), the rest moved {np.mean(moved):.2f} (median {np.median(moved):.2f})",
                flush=True,
            )


def rest(before: np.ndarray, after: np.ndarray, was: dict, words: str, about: str) -> float:
    """The mean difference where nothing was asked to change, 0..255."""
    things = was["pictures"][0]["seen"]["things"]
    named = [t for t in things if t["shape"] and t["shape"] in words]
    named = named or [t for t in things if t["shape"] and t["shape"] in about] or things[:1]
    ground = "background" in words
    rows, columns = np.mgrid[0:64, 0:64]
    inside = np.zeros((64, 64), bool)
    for thing in things if ground else named:
        x, y = thing["centre"]
        inside |= np.hypot(columns + 0.5 - x, rows + 0.5 - y) <= thing["radius"] * (0.6 if ground else 1.5)
    where = inside if ground else ~inside
    return float(np.abs(before - after).mean(-1)[where].mean() * 255) if where.any() else 0.0


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [0])
