"""Objects by name and place, against scenes whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mezzotint import Image, UserError
from mezzotint.testing import check_node
from mezzotint_smallworld.draw import draw
from mezzotint_smallworld.scene import FRAME, sample_scene
from mezzotint_smallworld.things import check_things


def truth(seed, things):
    scene = sample_scene(seed, things=things, unnamed=0.0)
    picture = torch.from_numpy(np.asarray(draw(scene)).copy()).float()[None] / 255
    boxes = []
    for thing in scene.things:
        (x, y), (w, h) = thing.centre, thing.half_extents
        box = [max(v / FRAME, 0) for v in (x - w, y - h, x + w, y + h)]
        boxes.append({"what": f"{thing.colour} {thing.shape}", "box": box})
    return Image(picture), boxes


@pytest.mark.parametrize("things", [1, 2])
def test_the_boxes_of_a_scene_are_found_in_its_picture(things):
    for seed in range(6):
        image, boxes = truth(seed, things)
        found = check_things(image, things=boxes[::-1]).data
        assert found["score"] == {"named": 100.0, "placed": 100.0, "all": 100.0}
        assert found["iou"] > 0.75


def test_a_box_elsewhere_is_named_and_not_placed():
    image, boxes = truth(0, 2)
    away = [{**boxes[0], "box": [0.0, 0.0, 0.01, 0.01]}, boxes[1]]
    found = check_things(image, things=away).data
    assert found["score"] == {"named": 100.0, "placed": 50.0, "all": 0.0}
    assert min(found["pictures"][0]["iou"]) == 0.0


def test_an_object_that_is_not_there_is_not_named_and_one_too_many_is_not_all():
    image, boxes = truth(0, 2)
    other = "cross" if "cross" not in boxes[0]["what"] else "ring"
    assert check_things(image, things=[{"what": other}]).data["score"]["named"] in (
        0.0,
        100.0 * (other in str(boxes)),
    )
    one = check_things(image, things=[{"what": boxes[0]["what"].split()[1]}]).data["score"]
    assert one == {"named": 100.0, "placed": 100.0, "all": 0.0}


def test_one_object_is_not_counted_twice():
    image, boxes = truth(3, 1)
    assert check_things(image, things=[boxes[0], boxes[0]]).data["score"]["named"] == 50.0


def test_the_node_keeps_the_promises_of_nodes():
    image, boxes = truth(1, 1)
    check_node(check_things, image=image, things=boxes)


@pytest.mark.parametrize(
    ("things", "message"),
    [
        ([], "at least one thing"),
        (["red circle"], r"/things/0: wanted \{"),
        ([{"what": "crimson circle"}], r"/things/0/what: wanted a colour .*got 'crimson circle'"),
        ([{"what": "red", "box": [0, 1]}], r"/things/0/box: wanted \[left"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(things, message):
    with pytest.raises(UserError, match=message):
        check_things(Image(torch.zeros(1, 64, 64, 3)), things=things)
    with pytest.raises(UserError, match=r"got \[1, 32, 64, 3\]"):
        check_things(Image(torch.zeros(1, 32, 64, 3)), things=things)
