"""The fused step by Triton's interpreter: bit for bit the reference, whatever is switched on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import Coefficients, Draw, noise_step, normals
from mezzotint_kernels.step import StepResult, noise_step_reference

FULL = Coefficients(
    cx=0.7, cg=-0.2, c0=0.4, ch=(0.3, -0.1, 0.05), cz=0.6, ax=1.3, am=-0.8, lo=-1.0, hi=1.0,
    k0=0.9, kz=0.35, next_scale=0.5,
)  # fmt: skip
IMAGE, ODD, CLIP, ODD_CLIP = (2, 4, 12, 16), (3, 3, 7, 5), (2, 2, 3, 4, 6), (2, 3, 3, 3, 5)


def tensors(count: int, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [normals(100 * i, shape, stream="tensors", dtype=dtype) for i in range(count)]


def both(x: Tensor, outputs: Sequence[Tensor], row: Coefficients, **options: Any) -> StepResult:
    """The kernel's result, after it has been found equal to the reference's in every bit that counts."""
    got = noise_step(x, outputs, row, **options)
    wanted = noise_step_reference(x, outputs, row, **options)
    for name in ("x", "x0", "next"):
        ours, theirs = getattr(got, name), getattr(wanted, name)
        assert (ours is None) == (theirs is None), name
        if theirs is not None:
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), name
    return got


@pytest.mark.parametrize("shape", [IMAGE, ODD, CLIP, ODD_CLIP, (1, 1), (2, 1100)])
def test_everything_at_once_is_the_reference_bit_for_bit(shape: tuple[int, ...]) -> None:
    x, m0, m1, m2, h0, h1, h2, known = tensors(8, shape)
    result = both(
        x, (m0, m1, m2), FULL, weights=(2.0, -1.5, 0.5), rescale=0.7 if x[0].numel() > 1 else 0.0,
        history=(h0, h1, h2), noise=Draw(5, step=3, stream="a"), mask=(x[:, :1] > 0).float(), known=known,
        known_noise=Draw(5, step=3, stream="b"), next_dtype=torch.float16,
    )  # fmt: skip
    assert bool(result.x.isfinite().all())


SWITCHES = {
    "outputs": [1, 2, 4],
    "rescale": [0.0, 0.4],
    "clamp": [False, True],
    "history": [0, 1, 3],
    "noise": ["none", "tensor", "draw"],
    "known": ["none", "plain", "tensor", "draw"],
    "next": [None, torch.bfloat16],
    "per_sample": [False, True],
}


def pairwise() -> list[dict[str, Any]]:
    """A list of settings in which every two values of any two switches meet: all pairs without all products."""
    names = list(SWITCHES)
    left = {
        frozenset(((a, str(u)), (b, str(v))))
        for a, b in itertools.combinations(names, 2)
        for u in SWITCHES[a]
        for v in SWITCHES[b]
    }
    chosen: list[dict[str, Any]] = []
    everything = [dict(zip(names, values, strict=True)) for values in itertools.product(*SWITCHES.values())]
    pairs = [
        {frozenset(((a, str(s[a])), (b, str(s[b])))) for a, b in itertools.combinations(names, 2)}
        for s in everything
    ]
    while left:
        best = max(range(len(everything)), key=lambda i: len(pairs[i] & left))
        chosen.append(everything[best])
        left -= pairs[best]
    return chosen


@pytest.mark.parametrize("setting", pairwise(), ids=lambda s: "-".join(str(v) for v in s.values()))
def test_any_two_features_together_are_the_reference_bit_for_bit(setting: dict[str, Any]) -> None:
    shape = CLIP if setting["history"] == 1 else ODD
    x, *m = tensors(1 + setting["outputs"], shape)
    given, known, known_given, *past = tensors(3 + setting["history"], shape)
    numbers: dict[str, Any] = {"cx": 0.7, "cg": -0.2, "c0": 0.4, "ax": 1.3, "am": -0.8}
    if setting["per_sample"]:
        numbers = {name: tuple(value + 0.1 * i for i in range(shape[0])) for name, value in numbers.items()}
    if setting["clamp"]:
        numbers |= {"lo": -1.0, "hi": 1.0}
    options: dict[str, Any] = {"weights": (2.0, -1.5, 0.3, 0.2)[: len(m)], "rescale": setting["rescale"]}
    options |= {"history": past, "next_dtype": setting["next"]}
    draw, other = Draw(2**64 - 1, 7, "s"), Draw(11, 2**32 - 1, 2**32 - 1)
    if setting["noise"] != "none":
        numbers["cz"], options["noise"] = 0.6, {"tensor": given, "draw": draw}[setting["noise"]]
    if setting["known"] != "none":
        options |= {"mask": (x[:, :1] + 1).clamp(0, 1), "known": known}
    if setting["known"] in ("tensor", "draw"):
        numbers["kz"], options["known_noise"] = 0.3, {"tensor": known_given, "draw": other}[setting["known"]]
    row = Coefficients(ch=(0.3, -0.1, 0.05)[: len(past)], next_scale=0.5, **numbers)
    both(x, m, row, **options)


USED = ["cx", "cg", "c0", "ax", "am"]


@pytest.mark.parametrize("zero", [(), *itertools.combinations(USED, 1), *itertools.combinations(USED, 2), USED])
def test_a_term_with_coefficient_zero_is_not_there(zero: Sequence[str]) -> None:
    x, m, h = tensors(3, (2, 3, 5))
    row = Coefficients(**{name: 0.0 if name in zero else 0.7 for name in USED}, ch=(0.2,))
    both(x, (m,), row, history=(h,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("model_dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_mix_and_are_rounded_once(dtype: torch.dtype, model_dtype: torch.dtype) -> None:
    x, known = tensors(2, ODD, dtype)
    m = tensors(2, ODD, model_dtype)
    options = {"weights": (7.5, -6.5), "mask": x[:, :1] > 0, "known": known}
    both(x, m, Coefficients(cx=0.7, cg=0.4, ax=1.3, am=-0.8), **options, next_dtype=model_dtype)
    both(x, m, Coefficients(cx=0.7, cg=0.4, ax=1.3, am=-0.8), **options, out_dtype=torch.float32)
    wide = [t.double() for t in m]
    both(x, wide, Coefficients(cx=0.7, cg=0.4, ax=1.3, am=-0.8), **options)


@pytest.mark.parametrize("layout", ["channels_last", "expanded", "sliced", "transposed"])
def test_strides_do_not_matter(layout: str) -> None:
    x, m, known = tensors(3, (2, 6, 6, 6))
    change = {
        "channels_last": lambda t: t.to(memory_format=torch.channels_last),
        "expanded": lambda t: t[:, :1].expand(2, 6, 6, 6),
        "sliced": lambda t: t[..., ::2],
        "transposed": lambda t: t.transpose(1, 3),
    }[layout]
    x, m, known = change(x), change(m), change(known)
    assert layout == "expanded" or not x.is_contiguous()
    row = Coefficients(cx=0.3, cg=0.5, cz=0.1)
    both(x, (m,), row, noise=Draw(1), mask=(x > 0).float(), known=known)


@pytest.mark.parametrize(
    "shape",
    [(2, 1, 4, 6), (1, 1, 4, 6), (2, 3, 4, 6), (2, 3, 1, 1), (2, 1, 1, 6), (1, 3, 4, 1), (4, 6), (1,), ()],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_a_mask_broadcasts_as_in_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, m, known = tensors(3, (2, 3, 4, 6))
    mask = (normals(9, (1, *shape))[0] + 0.5).clamp(0, 1)
    mask = mask if dtype == torch.float32 else mask > 0.5
    both(x, (m,), Coefficients(cx=0.3, cg=0.5), mask=mask, known=known)


def test_known_picture_and_noises_broadcast_too() -> None:
    x, m = tensors(2, (2, 3, 4, 6))
    z, known, zk = normals(1, (1, 3, 4, 6)), normals(2, (2, 1, 4, 6)), normals(3, (1, 1))
    row = Coefficients(cx=0.3, cg=0.5, cz=0.2, kz=0.1)
    both(x, (m,), row, noise=z, mask=torch.rand(2, 1, 4, 6), known=known, known_noise=zk)


@pytest.mark.parametrize("shape", [CLIP, ODD_CLIP])
@pytest.mark.parametrize("shared", [False, True])
def test_frames_may_share_their_numbers(shape: tuple[int, ...], shared: bool) -> None:
    x, m, known = tensors(3, shape)
    mask = (x[:, :1] > 0).float()
    both(
        x, (m,), Coefficients(cx=0.3, cz=0.5, kz=0.2), noise=Draw(3, 1, "a", shared), mask=mask, known=known,
        known_noise=Draw(3, 1, "b", not shared),
    )  # fmt: skip


def test_a_samples_step_does_not_depend_on_its_place_in_a_batch() -> None:
    x, a, b = tensors(3, ODD)
    row = Coefficients(cx=0.3, cg=0.5, cz=0.2)
    options = {"weights": (7.5, -6.5), "rescale": 0.7}
    together = both(x, (a, b), row, noise=Draw(4), **options)
    for i in range(3):
        alone = both(x[i : i + 1], (a[i : i + 1], b[i : i + 1]), row, noise=Draw(4 + i), **options)
        assert torch.equal(together.x[i : i + 1], alone.x)


def test_a_seed_tensor_keys_each_sample() -> None:
    x, m = tensors(2, ODD)
    both(x, (m,), Coefficients(cx=0.3, cz=0.2), noise=Draw(torch.tensor([5, -1, 2**62])))


def test_nan_and_infinities_come_out_where_they_went_in() -> None:
    x, m = tensors(2, (1, 40))
    x[0, 3], x[0, 7], m[0, 9] = math.nan, math.inf, -math.inf
    row = Coefficients(cx=0.3, c0=0.5, ax=1.0, am=-0.5, lo=-1.0, hi=1.0)
    got, wanted = noise_step(x, (m,), row), noise_step_reference(x, (m,), row)
    for ours, theirs in ((got.x, wanted.x), (got.x0, wanted.x0)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    assert bool(got.x0[0, 3].isnan()) and float(got.x0[0, 7]) == 1.0


@pytest.mark.parametrize("size", [1, 2, 511, 513, 2500])
def test_rescaled_guidance_adds_up_in_the_references_order(size: int) -> None:
    a, b = (3.0 + normals(i, (2, size + 1)) for i in range(2))
    row = Coefficients(cg=1.0)
    both(a, (a, b), row, weights=(7.5, -6.5), rescale=0.7)


def test_float64_and_gradients_take_the_reference() -> None:
    x, m = tensors(2, (1, 8))
    row = Coefficients(cx=0.3, cg=0.5)
    assert noise_step(x.double(), (m.double(),), row).x.dtype == torch.float64
    m.requires_grad_()
    noise_step(x, (m,), row).x.sum().backward()
    assert torch.equal(m.grad, torch.full_like(m, 0.5))
