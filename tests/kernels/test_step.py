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
        ({"known": torch.zeros(2, 3, 4, 5)}, "mask=None"),
        ({"outputs": (torch.zeros(2, 3, 4),)}, r"an output of shape \(2, 3, 4\); wanted \(2, 3, 4, 5\)"),
        ({"outputs": (torch.zeros(2, 1, 4, 5),)}, r"an output of shape \(2, 1, 4, 5\)"),
        (
            {"outputs": (torch.zeros(2, 3, 4, 5, dtype=torch.int64),)},
            "an output must hold floats; got torch.int64",
        ),
        ({"outputs": (torch.zeros(2, 3, 4, 5, device="meta"),)}, "an output is on meta; wanted it on cpu"),
        (
            {"x": torch.zeros(2, 3, 4, 5, dtype=torch.int32)},
            "x must be a tensor of floats; got a tensor of torch.int32",
        ),
        ({"x": torch.zeros(2, 0, 4)}, r"hold numbers; got shape \(2, 0, 4\)"),
        ({"x": torch.zeros(())}, r"x must be \[B, ...\]"),
        ({"row": Coefficients(cx=math.nan)}, "cx must be finite; got nan"),
        ({"row": Coefficients(ax=(1.0, math.inf))}, r"ax must be finite; got \(1.0, inf\)"),
        ({"row": Coefficients(lo=math.nan)}, "lo must be finite"),
        ({"row": Coefficients(cg=(1.0, 2.0, 3.0))}, "cg has 3 numbers; wanted one, or one for each of 2 samples"),
        ({"weights": (math.inf,)}, r"weights\[0\] must be finite"),
        ({"rescale": 1.5}, "rescale must be in 0..1; got 1.5"),
        (
            {"row": Coefficients(cz=1.0), "noise": torch.zeros(3, 3, 4, 5)},
            r"noise of shape \(3, 3, 4, 5\); wanted one that broadcasts",
        ),
        ({"row": Coefficients(cz=1.0), "noise": 3}, "noise must be a tensor; got 3"),
        ({"mask": torch.zeros(3, 4), "known": torch.zeros(2, 3, 4, 5)}, r"mask of shape \(3, 4\)"),
        ({"out_dtype": torch.int8}, "out_dtype must be a float dtype"),
    ],
)
def test_what_a_row_needs_and_does_not_get_is_named(change: dict, message: str) -> None:
    (x,) = tensors(1)
    arguments = {"x": x, "outputs": (x,), "row": Coefficients(cx=1.0), **change}
    with pytest.raises(ValueError, match=message):
        noise_step(**arguments)


def test_the_reference_has_the_gradient_of_the_formula() -> None:
    x, m0, m1, h, known = tensors(5)
    leaves = [t[:, :2, :2, :2].clone().requires_grad_() for t in (x, m0, m1, h, known)]
    row = Coefficients(cx=0.7, cg=-0.2, c0=0.4, ch=(0.3,), ax=1.3, am=-0.8, lo=-1.0, hi=1.0, k0=0.9)
    mask = torch.full((2, 1, 2, 2), 0.3, dtype=torch.float64)

    def step(x: Tensor, m0: Tensor, m1: Tensor, h: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        options = {"weights": (2.0, -1.0), "rescale": 0.5, "history": (h,), "mask": mask, "known": known}
        result = noise_step(x, (m0, m1), row, **options)
        return result.x, result.x0

    assert torch.autograd.gradcheck(step, leaves)


def test_a_step_writes_to_none_of_its_inputs_and_returns_none_of_them() -> None:
    inputs = tensors(5, dtype=torch.float32)
    before = [t.clone() for t in inputs]
    x, m, h, z, known = inputs
    row = Coefficients(cg=1.0, ch=(0.1,), cz=0.1, lo=-1.0, hi=1.0)
    result = noise_step(
        x, (m,), row, history=(h,), noise=z, mask=torch.ones(2, 1, 4, 5), known=known, next_dtype=torch.float32
    )
    result.x.zero_(), result.x0.zero_()
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_a_compiled_step_is_the_eager_one_bit_for_bit() -> None:
    x, m, z = tensors(3, dtype=torch.float32)
    row = Coefficients(cx=0.7, cg=0.3, cz=0.6, ax=1.3, am=-0.8, lo=-1.0, hi=1.0)
    compiled = torch.compile(noise_step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, (m,), row, noise=z).x, noise_step(x, (m,), row, noise=z).x)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(2, 4, 64, 64), (2, 4, 5, 6, 6), (2, 3, 5, 7, 7)])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_a_gpus_step_is_the_cpus_bit_for_bit(shape: tuple[int, ...], rescale: float) -> None:
    x, m0, m1, m2, h0, h1, h2, known = (normals(i, shape, dtype=torch.float16) for i in range(8))

    def step(device: str) -> Tensor:
        on = [t.to(device) for t in (x, m0, m1, m2, h0, h1, h2, known)]
        return noise_step(
            on[0], on[1:4], FULL, weights=(2.0, -1.5, 0.5), rescale=rescale, history=on[4:7],
            noise=Draw(5, 3, "a"), mask=(on[0][:, :1] > 0), known=on[7], known_noise=Draw(5, 3, "b"),
            next_dtype=torch.bfloat16,
        ).x.cpu()  # fmt: skip

    assert torch.equal(step("cuda"), step("cpu"))
