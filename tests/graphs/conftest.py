"""Graphs run with the bundled plugins, on the CPU, and keep nothing on disk."""

from __future__ import annotations

import pytest

from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    """One runtime for the module: a model is loaded once, and steps that graphs share run once."""
    return Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))
