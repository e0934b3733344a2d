"""Rendered and tokenised training data of the small world, kept in memory-mapped arrays.

A corpus folder holds pictures.npy [N, 64, 64, 3] uint8, captions.json (N lists of K captions) and,
once an autoencoder exists, latents.npy [N, C, h, w] float16. Scenes come from consecutive seeds, so
a folder is reproducible from (first seed, count, things).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mezzotint_smallworld import captions, draw, scene

from mezzotint_smallworld.attributes import attributes


def render(folder: Path, count: int, *, things: int, first_seed: int = 0, wordings: int = 4) -> None:
    """Draw `count` training scenes into `folder`; an existing, complete folder is left alone.

    things: 1 or 2 objects per picture. wordings: captions per picture.
    """
    if (folder / "captions.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.lib.format.open_memmap(
        folder / "pictures.npy", mode="w+", dtype=np.uint8, shape=(count, 64, 64, 3)
    )
    words = []
    for index in range(count):
        sample = scene.sample_scene(first_seed + index, things=things)
        pictures[index] = np.asarray(draw.draw(sample))
        words.append([captions.caption(sample, wording) for wording in range(wordings)])
    pictures.flush()
    (folder / "captions.json").write_text(json.dumps(words), encoding="utf-8")


def load_captions(folder: Path) -> list[list[str]]:
    """The captions of each picture."""
    result: list[list[str]] = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    return result


def tokenise(folder: Path, tokenizer_folder: Path) -> None:
    """Write tokens.npy [N, K, L] int16 and labels.npy [N, K, len(ATTRIBUTES)] int8."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    rows = load_captions(folder)
    flat = [words for row in rows for words in row]
    ids: list[list[int]] = []
    for start in range(0, len(flat), 4096):
        ids += tokenizer(
            flat[start : start + 4096], padding="max_length", truncation=True
        ).input_ids
    shape = (len(rows), len(rows[0]), -1)
    np.save(folder / "tokens.npy", np.asarray(ids, np.int16).reshape(shape))
    labels = np.asarray([attributes(words) for words in flat], np.int8)
    np.save(folder / "labels.npy", labels.reshape(shape))
