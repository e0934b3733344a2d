"""The step reference: each term of the formula, the rounding, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import Coefficients, Draw, guided, noise_step, normals


def tensors(count: int, *, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shape = (2, 3, 4, 5)
    return [normals(10 * i, shape, stream="tensors", dtype=dtype) for i in range(count)]


FULL = Coefficients(
    cx=0.7, cg=-0.2, c0=0.4, ch=(0.3, -0.1, 0.05), cz=0.6, ax=1.3, am=-0.8, lo=-1.0, hi=1.0,
    k0=0.9, kz=0.35, next_scale=0.5,
)  # fmt: skip


def test_a_step_is_the_documented_formula() -> None:
    x, m0, m1, m2, h0, h1, h2, z, known, zk = tensors(10)
    mask = (normals(1, (2, 1, 4, 5)) > 0).double()
    result = noise_step(
        x, (m0, m1, m2), FULL, weights=(2.0, -1.5, 0.5), history=(h0, h1, h2), noise=z,
        mask=mask, known=known, known_noise=zk, next_dtype=torch.float32,
    )  # fmt: skip
    g = 2.0 * m0 - 1.5 * m1 + 0.5 * m2
    x0 = (1.3 * x - 0.8 * g).clamp(-1, 1)
    out = 0.7 * x - 0.2 * g + 0.4 * x0 + 0.3 * h0 - 0.1 * h1 + 0.05 * h2 + 0.6 * z
    out = mask * out + (1 - mask) * (0.9 * known + 0.35 * zk)
    torch.testing.assert_close(result.x0, x0, rtol=0, atol=1e-14)
    torch.testing.assert_close(result.x, out, rtol=0, atol=1e-14)
    assert result.next is not None
    torch.testing.assert_close(result.next, (0.5 * out).float())


def test_half_precision_tensors_are_rounded_once_at_the_end() -> None:
    x, m, z = tensors(3, dtype=torch.float16)
    row = Coefficients(cx=0.7, c0=0.4, cz=0.6, ax=1.3, am=-0.8)
    narrow = noise_step(x, (m,), row, noise=z)
    wide = noise_step(x.float(), (m.float(),), row, noise=z.float())
    assert narrow.x.dtype == torch.float16
    assert torch.equal(narrow.x, wide.x.half())
    kept = noise_step(x, (m,), row, noise=z, out_dtype=torch.float32)
    assert torch.equal(kept.x, wide.x)


def test_a_row_may_hold_one_number_for_each_sample() -> None:
    x, m = tensors(2, dtype=torch.float32)
    rows = [Coefficients(cx=0.3, c0=0.1, ax=2.0), Coefficients(cx=0.6, c0=-0.4, ax=0.5)]
    both = Coefficients(cx=(0.3, 0.6), c0=(0.1, -0.4), ax=(2.0, 0.5))
    together = noise_step(x, (m,), both)
    for i, row in enumerate(rows):
        alone = noise_step(x[i : i + 1], (m[i : i + 1],), row)
        assert torch.equal(together.x[i : i + 1], alone.x)
        assert torch.equal(together.x0[i : i + 1], alone.x0)


def test_a_draw_and_its_numbers_give_the_same_step() -> None:
    x, m, known = tensors(3, dtype=torch.float32)
    mask = torch.zeros(2, 1, 4, 5)
    row = Coefficients(cx=1.0, cz=0.5, kz=0.25)
    draw, other = Draw(3, step=2, stream="a"), Draw(3, step=2, stream="b")
    described = noise_step(x, (m,), row, noise=draw, mask=mask, known=known, known_noise=other)
    numbers = noise_step(
        x, (m,), row, noise=draw.normals(x.shape), mask=mask, known=known,
        known_noise=other.normals(x.shape),
    )  # fmt: skip
    assert torch.equal(described.x, numbers.x)


def test_a_term_with_coefficient_zero_does_not_spread_infinities() -> None:
    x, m = tensors(2)
    infinite = torch.full_like(x, math.inf)
    result = noise_step(x, (m,), Coefficients(cx=1.0, ch=(0.0,)), history=(infinite,))
    assert torch.equal(result.x, x)


def test_the_known_region_is_kept_exactly_where_the_mask_is_zero() -> None:
    x, m, known = tensors(3, dtype=torch.float32)
    mask = torch.zeros(2, 1, 4, 5)
    mask[..., :2] = 1
    result = noise_step(x, (m,), Coefficients(cx=0.3), mask=mask, known=known)
    assert torch.equal(result.x[..., 2:], known[..., 2:])
    assert torch.equal(result.x[..., :2], noise_step(x, (m,), Coefficients(cx=0.3)).x[..., :2])


def test_a_mask_works_on_clips() -> None:
    x = normals(0, (1, 2, 3, 4, 4))
    mask = torch.zeros(1, 1, 3, 4, 4)
    assert torch.equal(noise_step(x, (x,), Coefficients(cg=2.0), mask=mask, known=x).x, x)


def test_guidance_is_the_weighted_sum() -> None:
    cond, uncond = tensors(2)
    torch.testing.assert_close(guided((cond, uncond), (7.5, -6.5)), uncond + 7.5 * (cond - uncond))


@pytest.mark.parametrize("phi", [0.3, 1.0])
def test_guidance_rescaling_is_lin_et_als_equations_15_and_16(phi: float) -> None:
    cond, uncond = tensors(2)
    plain = uncond + 7.5 * (cond - uncond)
    for i in range(2):
        rescaled = plain[i] * cond[i].std() / plain[i].std()
        wanted = phi * rescaled + (1 - phi) * plain[i]
        torch.testing.assert_close(guided((cond, uncond), (7.5, -6.5), phi)[i], wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": (1.0, 2.0)}, "1 outputs and 2 weights"),
        ({"history": (torch.zeros(2, 3, 4, 5),)}, "1 history tensors and 0 coefficients"),
        ({"row": Coefficients(cz=1.0)}, "noise is None"),
        ({"mask": torch.zeros(2, 1, 4, 5)}, "known=None"),
        ({"outputs": (torch.zeros(2, 3, 4),)}, r"an output of shape \(2, 3, 4\)"),
    ],
)
def test_what_a_row_needs_and_does_not_get_is_named(change: dict, message: str) -> None:
    (x,) = tensors(1)
    arguments = {"x": x, "outputs": (x,), "row": Coefficients(cx=1.0), **change}
    with pytest.raises(ValueError, match=message):
        noise_step(**arguments)
