"""For tests of nodes and graphs, in any plugin's suite: contexts without an engine, small values, checks, runs.

Importing this imports no torch; making a value does.
"""

from __future__ import annotations

from mezzotint.testing.checks import check_node
from mezzotint.testing.contexts import FakeContext, fake_context
from mezzotint.testing.gaussian import denoiser, tiny_denoiser
from mezzotint.testing.graphs import run_graph
from mezzotint.testing.samples import (
    fake_conditioning,
    fake_dataset,
    fake_image,
    fake_latents,
    fake_mask,
    fake_noise,
    fake_report,
    fake_sigmas,
    fake_video,
    fake_weights,
)

__all__ = [
    "FakeContext",
    "check_node",
    "denoiser",
    "fake_conditioning",
    "fake_context",
    "fake_dataset",
    "fake_image",
    "fake_latents",
    "fake_mask",
    "fake_noise",
    "fake_report",
    "fake_sigmas",
    "fake_video",
    "fake_weights",
    "run_graph",
    "tiny_denoiser",
]
