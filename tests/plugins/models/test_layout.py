"""Layouts as tokens, the networks that read labels, and the nodes around them."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from mezzotint import UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_models import pack_network
from mezzotint_models.label_encoders import encode_labels, encode_layout, label_encoder
from mezzotint_models.label_networks import ClassTokens, LayoutEncoder
from mezzotint_models.layout import Grid, NamedBox, read_boxes

GRID = Grid(("red circle", "blue square", "ring"), side=9, objects=2)
CIRCLE = {"what": "red circle", "box": [0.1, 0.2, 0.5, 0.6]}
RING = {"what": "ring", "box": [0.6, 0.0, 1.0, 0.4]}


def random_boxes(rng, count):
    for _ in range(count):
        left, right = sorted(rng.sample(range(1001), 2))
        top, bottom = sorted(rng.sample(range(1001), 2))
        yield NamedBox(rng.choice(GRID.names), (left / 1000, top / 1000, right / 1000, bottom / 1000))


def test_a_box_comes_back_from_its_tokens_within_half_a_cell():
    for box in random_boxes(random.Random(0), 200):
        (back,) = GRID.boxes(GRID.tokens([box]))
        assert back.what == box.what
        for there, here in zip(back.box, box.box, strict=True):
            assert abs(there - here) <= 0.5 / (GRID.side - 1) + 1e-12


def test_x_and_y_are_not_swapped():
    (token,) = {GRID.corner(1.0, 0.0)}
    assert token == len(GRID.names) + GRID.side - 1
    assert GRID.place(token) == (1.0, 0.0)


def test_every_corner_has_a_token_of_its_own_and_none_is_a_name_or_the_padding():
    places = list(itertools.product(range(9), range(9)))
    tokens = {GRID.corner(x / 8, y / 8) for x, y in places}
    assert tokens == set(range(3, 3 + 81))
    assert GRID.padding == 84


def test_the_order_of_objects_plays_no_part():
    boxes = read_boxes([CIRCLE, RING], GRID)
    assert GRID.tokens(boxes) == GRID.tokens(boxes[::-1])
    assert GRID.tokens(boxes[:1])[3:] == [GRID.padding] * 3


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([{**CIRCLE, "box": [0.5, 0.2, 0.1, 0.6]}], r"/boxes/0/box/2: wanted right above left 0\.5, got 0\.1"),
        ([CIRCLE, {**RING, "box": [0, 0.3, 1, 0.3]}], r"/boxes/1/box/3: wanted bottom above top 0\.3, got 0\.3"),
        ([{**CIRCLE, "box": [0.1, 0.2, 0.5, 1.6]}], r"/boxes/0/box/3: wanted bottom in 0\.\.1.*got 1\.6"),
        ([{**CIRCLE, "box": [-0.1, 0.2, 0.5, 0.6]}], r"/boxes/0/box/0: wanted left in 0\.\.1.*got -0\.1"),
        ([{**CIRCLE, "box": [float("nan"), 0.2, 0.5, 0.6]}], r"/boxes/0/box/0: wanted left in 0\.\.1"),
        ([{**CIRCLE, "box": [True, 0.2, 0.5, 0.6]}], r"/boxes/0/box/0: wanted left.*got True"),
        ([{**CIRCLE, "box": [0.1, 0.2, 0.5]}], r"/boxes/0/box: wanted \[left, top, right, bottom\]"),
        (
            [{**CIRCLE, "what": "red circel"}],
            r"/boxes/0/what: 'red circel' is not known; did you mean 'red circle'",
        ),
        ([{**CIRCLE, "what": 7}], r"/boxes/0/what: wanted a name, got 7"),
        ([{**CIRCLE, "colour": "red"}], r"/boxes/0/colour: unknown; a box has 'what' and 'box'"),
        ([CIRCLE, CIRCLE, RING], r"/boxes: the model was made for at most 2 boxes, got 3"),
        (["red circle"], r"/boxes/0: wanted \{"),
        ({"what": "ring"}, r"/boxes: wanted a list of boxes"),
    ],
)
def test_wrong_boxes_are_refused_with_the_place_where_they_stand(boxes, message):
    with pytest.raises(UserError, match=message):
        read_boxes(boxes, GRID)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(UserError) as caught:
        read_boxes([{**CIRCLE, "what": "x"}, {**RING, "box": [0.5, 0, 2, 1]}], GRID)
    assert "/boxes/0/what" in str(caught.value)
    assert "/boxes/1/box/2" in str(caught.value)


def test_at_the_start_a_names_vector_comes_out_as_it_is():
    encoder = LayoutEncoder(list(GRID.names), side=9, objects=2, width=16)
    tokens = torch.tensor([GRID.tokens(read_boxes([CIRCLE], GRID))])
    assert torch.equal(encoder(tokens)[0, 0], encoder.name_embedding.weight[0])
    assert torch.equal(encoder(tokens)[0, 3:], torch.zeros(3, 16))


def test_a_bound_name_begins_with_its_own_corners_and_no_others():
    boxes = read_boxes([CIRCLE, RING], GRID)
    tokens = torch.tensor([GRID.tokens(boxes), GRID.tokens(boxes[:1])])
    plain = LayoutEncoder(list(GRID.names), side=9, objects=2, width=16)
    bound = LayoutEncoder(list(GRID.names), side=9, objects=2, width=16, bound=True)
    bound.load_state_dict(plain.state_dict())
    was, found = plain.embedded(tokens), bound.embedded(tokens)
    for first in (0, 3):
        wanted = was[0, first] + was[0, first + 1] + was[0, first + 2]
        assert torch.allclose(found[0, first], wanted)
        assert torch.equal(found[0, first + 1 : first + 3], was[0, first + 1 : first + 3])
    assert torch.equal(found[1, 3:], was[1, 3:])


def test_neighbouring_corners_begin_alike_and_far_ones_do_not():
    encoder = LayoutEncoder(["a"], side=32, width=32)
    corner = encoder.grid.corner
    tokens = torch.tensor([[corner(0.5, 0.5), corner(0.53, 0.5), corner(1.0, 0.5)]])
    here, near, far = encoder.embedded(tokens)[0]
    assert (here - near).norm() < (here - far).norm() / 2
    assert not torch.allclose(*encoder.embedded(torch.tensor([[corner(0.2, 0.8), corner(0.8, 0.2)]]))[0])


def encoders():
    torch.manual_seed(0)
    layout = LayoutEncoder(list(GRID.names), side=9, objects=2, width=16, layers=1, heads=2)
    for parameter in layout.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    classes = ClassTokens(["star", "ring"], width=16)
    return (
        label_encoder(pack_network(layout, label_encoder={"kind": "layout"})),
        label_encoder(pack_network(classes, label_encoder={"kind": "class"})),
        classes,
    )


def test_the_layout_node_gives_one_context_for_every_order_of_the_boxes():
    layouts, _, _ = encoders()
    one = encode_layout(fake_context(), layouts, boxes=[CIRCLE, RING])
    other = encode_layout(fake_context(), layouts, boxes=[RING, CIRCLE])
    assert one.context.shape == (1, 6, 16)
    assert torch.equal(one.context, other.context)
    moved = encode_layout(fake_context(), layouts, boxes=[CIRCLE, {**RING, "box": [0.2, 0.0, 1.0, 0.4]}])
    assert not torch.allclose(one.context, moved.context)
    assert one.layout == [CIRCLE, RING]


def test_a_batch_of_layouts_has_a_row_for_each():
    layouts, _, _ = encoders()
    both = encode_layout(fake_context(), layouts, boxes=[[CIRCLE], [CIRCLE, RING]]).context
    assert torch.allclose(
        both[1:], encode_layout(fake_context(), layouts, boxes=[CIRCLE, RING]).context, atol=1e-6
    )
    empty = encode_layout(fake_context(), layouts, boxes=[]).context
    assert empty.shape == (1, 6, 16)
    with pytest.raises(UserError, match=r"/boxes/1/0/what: 'x'"):
        encode_layout(fake_context(), layouts, boxes=[[CIRCLE], [{**CIRCLE, "what": "x"}]])


def test_a_class_is_one_token_and_null_is_the_one_after_the_last():
    _, classes, network = encoders()
    found = encode_labels(fake_context(), classes, labels=["ring", None]).context
    assert torch.equal(found, network.embedding.weight[[1, 2]][:, None])
    with pytest.raises(UserError, match="no class 'circle'; there are star, ring, and null"):
        encode_labels(fake_context(), classes, labels="circle")


def test_boxes_and_classes_are_not_mixed_up():
    layouts, classes, _ = encoders()
    with pytest.raises(UserError, match=r"kind 'class'; models\.encode_labels reads classes"):
        encode_layout(fake_context(), classes, boxes=[])
    with pytest.raises(UserError, match=r"kind 'layout'; models\.encode_layout reads boxes"):
        encode_labels(fake_context(), layouts, labels="ring")


def test_the_nodes_keep_the_promises_of_nodes():
    layouts, classes, _ = encoders()
    check_node(encode_layout, encoder=layouts, boxes=[CIRCLE])
    check_node(encode_labels, encoder=classes, labels="star")
