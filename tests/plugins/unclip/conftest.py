"""Networks start from the same weights in every run."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_start():
    torch.manual_seed(0)
