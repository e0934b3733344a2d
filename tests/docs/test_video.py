"""docs/video.md: each of its commands runs, with few steps, and what it names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from diffusers import MotionAdapter
from safetensors.torch import save_file

from mezzotint_smallworld import resolve_source

TEXT = (Path(__file__).parents[2] / "docs" / "video.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (mezzotint run .*)$", TEXT, re.MULTILINE)
FEW = {"steps": 1, "frames": 2, "batch": 1}
SMALL = {**FEW, "width": 64, "height": 64}
BUNDLED = Path(str(resolve_source("bundled:smallworld")))


@pytest.fixture
def downloads(tmp_path):
    """What the page's commands take from elsewhere, by its names: the bundled model, and modules of its shape."""
    (tmp_path / "stable-diffusion-v1-5").symlink_to(BUNDLED)
    unet = json.loads((BUNDLED / "unet" / "config.json").read_text("utf-8"))
    modules = MotionAdapter(tuple(unet["block_out_channels"]), unet["layers_per_block"])
    save_file(modules.state_dict(), tmp_path / "mm_sd_v15_v2.safetensors")


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_a_command_runs(number, downloads, run_command):
    assert list(run_command("video.md", number, FEW, SMALL).glob("outputs/*.mp4"))


def test_the_graphs_and_pages_that_it_names_are_there(named_and_missing):
    assert named_and_missing("video.md") == []
