"""What tests of clips share: the networks of tiny_unets.py, those of the plugin by name, charts nobody draws."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import mezzotint_image
import mezzotint_video
from mezzotint import Image

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def networks_are_known() -> None:
    """As where the plugin is loaded: files may hold its networks."""
    mezzotint_video.register_nodes(lambda function: None)


@pytest.fixture(scope="module")
def quick_charts() -> Iterator[None]:
    """For tests that look at no chart."""
    blank = Image(torch.zeros(1, 2, 2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mezzotint_image, "draw_chart", lambda *args, **options: blank, raising=False)
        yield
