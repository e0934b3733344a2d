"""bundled:gen1: the structure of a given clip stays, and its content becomes what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mezzotint.api import load
from mezzotint_smallworld.motion_from_pixels import check_clips, depth

pytestmark = pytest.mark.slow

GRAPH = Path(__file__).parents[3] / "graphs" / "video" / "gen1.json"


def edited(**inputs: Any) -> Any:
    return load(GRAPH).run(steps=12, **inputs).outputs


def test_an_edited_clip_keeps_the_depth_of_every_frame_and_takes_on_the_new_colours() -> None:
    made = edited()
    depths = torch.cat([clip.data.flatten(1) for clip in (made["depth"], depth(made["video"]))])
    kept = torch.corrcoef(depths)[0, 1]
    assert kept > 0.8
    (clip,) = check_clips(made["video"], prompts="a large yellow circle, blue background").data["clips"]
    assert clip["right"]["background"]


def test_frames_by_themselves_go_together_less() -> None:
    apart, together = (edited(temporal=t)["consistency"].data["difference"] for t in (0, 1))
    assert apart > together
