"""Conditions without words."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, UserError
from mezzotint.testing import check_node
from mezzotint_sampling.told import condition


def test_no_label_is_the_empty_condition():
    made = condition()
    assert all(value is None for name, value in vars(made).items() if name != "extra")
    assert not made.extra
    assert isinstance(made, Conditioning)


def test_labels_are_rows():
    assert torch.equal(condition(label=3).label, torch.tensor([3]))
    assert torch.equal(condition(label=[1, 0]).label, torch.tensor([1, 0]))


def test_an_empty_list_is_refused():
    with pytest.raises(UserError, match="empty list"):
        condition(label=[])


def test_the_node_keeps_what_every_node_promises():
    check_node(condition, label=[2, 5])
