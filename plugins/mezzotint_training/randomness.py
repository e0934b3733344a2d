"""Random numbers of a training run, as a function of seed, step, replica, part and turn."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["seed_layers", "step_generator"]


def step_generator(seed: int, step: int, rank: int = 0, device: str = "cpu", turn: str = "") -> torch.Generator:
    """A generator that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}{turn}".encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))


def seed_layers(seed: int, device: str) -> None:
    """Seed torch's own generators, from which layers such as dropout draw."""
    torch.default_generator.manual_seed(seed)
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
