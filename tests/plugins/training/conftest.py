"""What many tests of training want: charts that nobody draws, and one small denoiser."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import mezzotint_image
from mezzotint import Image
from mezzotint_models.denoiser import denoiser

sys.path.insert(0, str(Path(__file__).parent))
from scenes import text_unet


@pytest.fixture(scope="module")
def quick_charts():
    """For tests that look at no chart."""
    blank = Image(torch.zeros(1, 2, 2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mezzotint_image, "draw_chart", lambda *args, **options: blank, raising=False)
        yield


@pytest.fixture(scope="module")
def model():
    """A denoiser of pixels 8x8 that reads a text."""
    return denoiser(text_unet()[1])
