"""Attention over frames against its definition in float64; on a GPU, the kernel by the same tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import temporal, temporal_attention
from mezzotint_kernels.dispatch import decide

INF = math.inf
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """On a GPU dispatch takes the kernel by itself, for the dtypes that it has a configuration for."""
    return request.param


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


def clip(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Tensor]:
    return [random(*shape, seed=seed, dtype=dtype, device=device) for seed in (1, 2, 3)]


def literal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The definition in float64, with every map held."""
    q, k, v = q.double(), k.double(), v.double()
    logits = torch.einsum("bfphd,bgphd->bphfg", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        logits = logits + bias.double().expand(q.shape[0], q.shape[3], -1, -1)[:, None]
    if causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        logits = logits.masked_fill(later, -INF)
    return torch.einsum("bphfg,bgphd->bfphd", logits.softmax(-1).nan_to_num(0.0), v)


def close(got: Tensor, exact: Tensor) -> None:
    tolerance = TOLERANCE[got.dtype]
    torch.testing.assert_close(got.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_each_pixel_attends_over_its_own_frames(device: str, dtype: torch.dtype, size: int) -> None:
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the kernel has no float64")
    q, k, v = clip(2, 16, 9, 2, size, dtype=dtype, device=device)
    got = temporal_attention(q, k, v)
    assert got.dtype == dtype and got.is_contiguous()
    close(got, literal(q, k, v))


@pytest.mark.parametrize("frames", [1, 2, 7, 16, 17, 32])
@pytest.mark.parametrize("causal", [False, True])
def test_any_number_of_frames_with_and_without_the_later_ones(device: str, frames: int, causal: bool) -> None:
    # On a GPU float32 has a configuration for 16 frames at most.
    dtype = torch.float32 if device == "cpu" else torch.float16
    q, k, v = clip(1, frames, 5, 3, 40, dtype=dtype, device=device)
    close(temporal_attention(q, k, v, causal=causal), literal(q, k, v, causal=causal))


def test_causal_frames_do_not_see_what_comes_after_them() -> None:
    q, k, v = clip(1, 6, 4, 2, 16)
    before = temporal_attention(q, k, v, causal=True)
    k[:, 4:], v[:, 4:] = 100.0, -100.0
    after = temporal_attention(q, k, v, causal=True)
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3), (2, 1), (1, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_is_added_to_the_logits_of_its_head_and_sample(
    device: str, leading: tuple[int, ...], causal: bool
) -> None:
    q, k, v = clip(2, 10, 6, 3, 40, dtype=torch.float32, device=device)
    bias = 2 * random(*leading, 10, 10, seed=9, dtype=torch.float32, device=device)
    got = temporal_attention(q, k, v, bias=bias, causal=causal, scale=0.3)
    close(got, literal(q, k, v, bias=bias, causal=causal, scale=0.3))


def test_a_frame_that_may_see_none_gets_zeros_and_no_gradient(device: str) -> None:
    """As for the pictures beside a clip in joint training, whose masks cut the clip in parts."""
    q, k, v = (x.requires_grad_() for x in clip(1, 8, 4, 2, 40, dtype=torch.float32, device=device))
    bias = torch.zeros(8, 8, device=device)
    bias[:5, 5:] = bias[5:, :5] = -INF
    bias[7] = -INF
    got = temporal_attention(q, k, v, bias=bias)
    close(got, literal(q, k, v, bias=bias))
    assert not got[:, 7].any()
    (dq,) = torch.autograd.grad(got.square().sum(), q)
    assert bool(dq.isfinite().all()) and not dq[:, 7].any() and bool(dq[:, 6].any())


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "one projection of three": lambda x: torch.cat((x, x, x), -1)[..., : x.shape[-1]],
    "frames inside the pixels": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "heads outside": lambda x: x.permute(0, 3, 1, 2, 4).contiguous().permute(0, 2, 3, 1, 4),
    "rows that start nowhere special": lambda x: torch.cat((x, x[..., :3]), -1)[..., 3:],
    "one frame for all": lambda x: x[:, :1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same(device: str, layout: str) -> None:
    q, k, v = clip(2, 6, 5, 2, 40, dtype=torch.float32, device=device)
    moved = [LAYOUTS[layout](x) for x in (q, k, v)]
    assert all(x.stride(-1) == 1 and not x.is_contiguous() for x in moved)
    got = temporal_attention(*moved)
    assert got.is_contiguous()
    close(got, literal(*moved))


def test_large_logits_stay_finite(device: str) -> None:
    q, k, v = clip(1, 8, 4, 2, 40, dtype=torch.float32, device=device)
    close(temporal_attention(100 * q, 100 * k, v), literal(100 * q, 100 * k, v))


def test_gradients_are_those_of_finite_differences() -> None:
    q, k, v = (x.requires_grad_() for x in clip(2, 3, 3, 2, 2))
    bias = random(2, 3, 3, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(temporal_attention, (q, k, v))
    assert torch.autograd.gradcheck(lambda *x: temporal_attention(*x[:3], bias=x[3], causal=True), (q, k, v, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_gradients_of_pixels_taken_block_by_block_are_the_definitions(
    device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal, "_BACKWARD_LOGITS", 3 * 2 * 100)
    q, k, v = (x.requires_grad_() for x in clip(2, 10, 7, 2, 40, dtype=dtype, device=device))
    bias = random(2, 1, 10, 10, seed=5, dtype=torch.float32, device=device).requires_grad_()
    weight = random(2, 10, 7, 2, 40, seed=6, dtype=dtype, device=device)
    got = torch.autograd.grad(temporal_attention(q, k, v, bias=bias), (q, k, v, bias), weight)
    exact = torch.autograd.grad(literal(q, k, v, bias=bias), (q, k, v, bias), weight.double())
    for ours, theirs in zip(got, exact, strict=True):
        bound = TOLERANCE[dtype] * 5 * (1 + float(theirs.abs().max()))
        assert ours.dtype == theirs.dtype and float((ours.double() - theirs.double()).abs().max()) < bound


def test_a_clip_longer_than_the_kernels_block_takes_the_reference() -> None:
    kernel, obstacle = temporal.temporal_kernel(33)
    choice = decide("temporal_attention", "cuda", "sm90", "float16", head_dim=40, kernel=kernel, obstacle=obstacle)
    assert choice.backend == "torch" and "32 frames" in choice.why
    q, k, v = clip(1, 40, 3, 2, 16)
    close(temporal_attention(q, k, v, causal=True), literal(q, k, v, causal=True))


@pytest.mark.parametrize("frames", [16, 32])
@pytest.mark.parametrize("arch", ["sm80", "sm90", "sm100", "gfx942"])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_every_head_size_of_the_usual_models_has_a_kernel_on_every_chip(frames: int, arch: str, size: int) -> None:
    kernel, obstacle = temporal.temporal_kernel(frames)
    choice = decide("temporal_attention", "cuda", arch, "float16", head_dim=size, kernel=kernel, obstacle=obstacle)
    assert choice.backend == "triton" and choice.tile is not None


def test_the_op_is_registered_as_autograd_and_the_compiler_need_it(opcheck: Callable[..., None]) -> None:
    q, k, v = (x.requires_grad_() for x in clip(2, 4, 3, 2, 8, dtype=torch.float32))
    bias = random(1, 2, 4, 4, dtype=torch.float32).requires_grad_()
    opcheck("temporal_attention", (q, k, v, bias, True, 0.4))
    opcheck("temporal_attention", (q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3), None, False, 0.4))
    plain = [x.detach() for x in (q, q, k, v, bias)]
    opcheck("temporal_attention_backward", (*plain, True, 0.4), compiled=False)
    opcheck("temporal_attention_backward", (*plain[:4], None, True, 0.4), compiled=False)


def test_it_compiles_to_one_graph_with_its_gradient() -> None:
    q, k, v = (x.requires_grad_() for x in clip(1, 4, 3, 2, 8, dtype=torch.float32))

    def both(run: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        out = run(q, k, v, causal=True).sin()
        return (out.detach(), *torch.autograd.grad(out.sum(), (q, k, v)))

    compiled = torch.compile(temporal_attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(both(compiled), both(temporal_attention))


GOOD = (2, 3, 4, 2, 8)


def bad(**changes: Any) -> dict[str, Any]:
    return {"q": torch.zeros(GOOD), "k": torch.zeros(GOOD), "v": torch.zeros(GOOD), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({name: torch.zeros(2, 0, 4, 2, 8) for name in "qkv"}, r"\(2, 0, 4, 2, 8\).*no dimension 0"),
        ({"k": torch.zeros(2, 5, 4, 2, 8)}, r"\(2, 5, 4, 2, 8\).*wanted one shape"),
        ({name: torch.zeros(3, 4, 2, 8) for name in "qkv"}, r"\(3, 4, 2, 8\).*samples, frames, pixels"),
        ({"v": torch.zeros(GOOD, dtype=torch.float16)}, "v is torch.float16 on cpu; wanted.*q: torch.float32"),
        ({"k": torch.zeros(GOOD, device="meta")}, "k is torch.float32 on meta; wanted.*one device"),
        ({name: torch.zeros(GOOD, dtype=torch.int64) for name in "qkv"}, "q is torch.int64.*floating dtype"),
        ({"q": torch.zeros(2, 3, 4, 8, 2).transpose(3, 4)}, "q has strides.*last dimension to lie together"),
        ({"bias": torch.zeros(3, 4)}, r"bias of shape \(3, 4\); wanted \[3, 3\]"),
        ({"bias": torch.zeros(5, 3, 3)}, r"bias of shape \(5, 3, 3\); wanted .*\[2, 3, 3\] \(heads\)"),
        ({"bias": torch.zeros(3)}, r"bias of shape \(3,\); wanted"),
        ({"bias": torch.zeros(3, 3, dtype=torch.bool)}, "bias is torch.bool on cpu; wanted a floating dtype"),
        ({"scale": 0.0}, "scale is 0.0; wanted a finite number above 0"),
        ({"scale": math.nan}, "scale is nan; wanted"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        temporal_attention(**bad(**changes))
