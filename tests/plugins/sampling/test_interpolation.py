"""Between two texts: exact ends, a straight line, beyond the end."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, UserError
from mezzotint.testing import check_node
from mezzotint_kernels import normals
from mezzotint_sampling.interpolation import interpolate_conditions


def text(seed: int, **more: torch.Tensor) -> Conditioning:
    return Conditioning(context=normals(seed, (1, 4, 8)), pooled=normals(seed + 9, (1, 8)), **more)


def test_the_ends_are_exact_and_the_rest_lies_on_the_line_and_beyond() -> None:
    first, second = text(0), text(1)
    made = interpolate_conditions(first, second, at=[0.0, 0.25, 1.0, 1.2])
    for name in ("context", "pooled"):
        a, b, rows = getattr(first, name), getattr(second, name), getattr(made, name)
        assert torch.equal(rows[:1], a) and torch.equal(rows[2:3], b)
        wanted = [a.double() + t * (b.double() - a.double()) for t in (0.25, 1.2)]
        torch.testing.assert_close(rows[[1, 3]].double(), torch.cat(wanted), atol=1e-6, rtol=0)


def test_one_share_makes_one_row() -> None:
    assert interpolate_conditions(text(0), text(1), at=0.5).context.shape == (1, 4, 8)


def test_ends_that_have_nothing_between_them_are_refused() -> None:
    with pytest.raises(UserError, match=r"first and second are equal.*is the target"):
        interpolate_conditions(text(0), text(0))
    with pytest.raises(UserError, match=r"differ in shape, \[4, 8\] and \[5, 8\]"):
        interpolate_conditions(text(0), Conditioning(context=torch.zeros(1, 5, 8)))
    with pytest.raises(UserError, match="second: wanted one text, got 2"):
        interpolate_conditions(text(0), Conditioning(context=torch.zeros(2, 4, 8)))
    with pytest.raises(UserError, match="first: wanted the encoding of a text"):
        interpolate_conditions(Conditioning(), text(0))
    with pytest.raises(UserError, match="only one has a pooled"):
        interpolate_conditions(text(0), text(1).replace(pooled=None))
    with pytest.raises(UserError, match="other tokens that count"):
        interpolate_conditions(text(0, mask=torch.ones(1, 4)), text(1, mask=torch.zeros(1, 4)))


def test_the_node_keeps_what_every_node_promises() -> None:
    check_node(interpolate_conditions, first=text(0), second=text(1), at=[0.0, 0.5])
