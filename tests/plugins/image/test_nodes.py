"""What every node promises, checked on the image nodes: pure, storable, described, repeatable, light to import."""

from __future__ import annotations

import pytest
import torch

import mezzotint_image
from mezzotint import Image, Mask, Report, Video
from mezzotint.testing import check_node

PICTURE = Image(torch.rand(2, 12, 10, 3))
MASK = Mask(torch.rand(2, 12, 10))
CLIP = Video(torch.rand(2, 3, 12, 10, 3), 8.0)
CALLS = {
    "image.solid": {"width": 3, "height": 2, "colour": "#ff000080", "batch": 2},
    "image.resize": {"image": PICTURE, "mask": MASK, "width": 8, "fit": "pad", "height": 8},
    "image.crop": {"image": PICTURE, "mask": MASK, "left": 1, "width": 4, "height": 5},
    "image.pad": {"image": PICTURE, "mask": MASK, "left": 3, "colour": "red"},
    "image.composite": {"base": PICTURE, "overlay": PICTURE, "mask": MASK, "left": -2, "top": 3},
    "image.batch": {"images": [PICTURE, PICTURE]},
    "image.repeat": {"image": PICTURE, "count": 2},
    "image.outpaint": {"image": PICTURE, "right": 3, "multiple_of": 1},
    "image.select": {"image": PICTURE, "index": -1},
    "image.contact_sheet": {"images": [PICTURE, PICTURE], "labels": ["a", "b", 3, 4.5], "cell": 40},
    "image.chart": {"reports": [Report({"rows": [{"a": 1, "b": 2.0}]})], "x": "a", "y": "b", "title": "t"},
    "image.frames": {"video": CLIP, "index": -1},
    "image.to_video": {"image": PICTURE, "fps": 2.0},
    "image.resample_video": {"video": CLIP, "frames": 5, "method": "linear"},
    "image.video_format": {"video": CLIP, "format": "webp", "quality": 50},
    "image.contact_strip": {"video": CLIP, "labels": "seconds"},
    "image.mask_from_image": {"image": PICTURE},
    "image.mask_shape": {"image": PICTURE, "shape": "ellipse"},
    "image.mask_refine": {"mask": MASK, "threshold": 0.5, "grow": 1, "blur": 1.0, "invert": True},
    "image.mask_combine": {"first": MASK, "second": MASK, "mode": "difference"},
}


def _nodes() -> dict:
    found: list = []
    mezzotint_image.register_nodes(found.append)
    return {fn.__mezzotint_node__.id: fn for fn in found}


@pytest.mark.parametrize("name", CALLS)
def test_an_image_node_keeps_every_node_s_promises(name):
    check_node(_nodes()[name], **CALLS[name])


def test_loading_keeps_every_node_s_promises(tmp_path):
    from mezzotint_image.pixels import to_pillow

    to_pillow(PICTURE.data[0]).save(tmp_path / "a.png")
    check_node(_nodes()["image.load"], path=tmp_path / "a.png", channels=4)
    check_node(_nodes()["image.load_folder"], path=tmp_path)
    check_node(_nodes()["image.load_video"], path=tmp_path, fps=4.0, width=8)


def test_every_image_node_is_checked_here():
    assert set(_nodes()) == {*CALLS, "image.load", "image.load_folder", "image.load_video"}
