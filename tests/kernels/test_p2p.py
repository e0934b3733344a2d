"""Prompt-to-prompt on folded values, against whole maps in float64; on a GPU, the kernel by the same tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import fold, p2p_attention, p2p_attention_folded, p2p_attention_with_maps
from mezzotint_kernels.dispatch import decide
from mezzotint_kernels.p2p_launch import obstacle

INF = math.inf
TOLERANCE = {torch.float64: 1e-13, torch.float32: 4e-6, torch.float16: 3e-3, torch.bfloat16: 2.5e-2}
USUAL = {"cpu": torch.float32, "cuda": torch.float16}
"""The kernel has no clean configuration for float32 on any chip."""
SOURCE = [0, 0, 2, 0, 2]
"""A source with two edits, and another with one."""

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """On a GPU dispatch takes the kernel by itself, for the dtypes that it has a configuration for."""
    return request.param


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


def inputs(
    queries: int = 20,
    tokens: int = 11,
    size: int = 40,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    rows: int = 5,
) -> tuple[Tensor, Tensor, Tensor]:
    """q [rows, 2, queries, size] and k, v [rows, 2, tokens, size], views of [B, N, H, D]."""
    return tuple(
        random(rows, n, 2, size, seed=seed, dtype=dtype, device=device).transpose(1, 2)
        for seed, n in ((1, queries), (2, tokens), (3, tokens))
    )  # type: ignore[return-value]


def edit(tokens: int = 11, device: str = "cpu", rows: int = 5) -> dict[str, Tensor]:
    """A mapping that spreads tokens, shares between 0 and 1, weights about 1: everything at once."""
    mapping = random(rows, tokens, tokens, seed=4, device=device).softmax(-1)
    alpha = random(rows, tokens, seed=5, device=device).sigmoid()
    return {"mapping": mapping, "alpha": alpha, "c": 1 + 0.5 * random(rows, tokens, seed=6, device=device)}


def maps(
    q: Tensor,
    k: Tensor,
    source: list[int],
    *,
    mapping: Tensor | None = None,
    alpha: Tensor | None = None,
    c: Tensor | None = None,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The paper's maps [B, H, N, T] in float64, as its code makes them: probabilities, changed row by row."""
    rows, tokens = q.shape[0], k.shape[2]
    logits = q.double() @ k.double().mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if key_bias is not None:
        logits = logits + key_bias.double().expand(rows, -1)[:, None, None]
    plain = logits.softmax(-1).nan_to_num(0.0)
    one = torch.ones(rows, tokens, dtype=torch.float64, device=q.device)
    share = one if alpha is None else alpha.double() * one
    weight = one if c is None else c.double() * one
    found = []
    for b, s in enumerate(source):
        p = plain[b]
        if s != b:
            moved = plain[s]
            if mapping is not None:
                moved = moved @ (mapping if mapping.dim() == 2 else mapping[b]).double()
            p = share[b] * moved + (1 - share[b]) * p
        found.append(p * weight[b])
    return torch.stack(found)


def close(got: Tensor, exact: Tensor, tolerance: float | None = None) -> None:
    tolerance = TOLERANCE[got.dtype] if tolerance is None else tolerance
    torch.testing.assert_close(got.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_folding_the_edit_into_the_values_is_editing_the_maps(device: str, dtype: torch.dtype, size: int) -> None:
    if device == "cuda" and dtype in (torch.float32, torch.float64):
        pytest.skip("the kernel does not take this dtype")
    q, k, v = inputs(63, 77, size, dtype, device)
    changes = edit(77, device)
    got = p2p_attention(q, k, v, SOURCE, **changes)
    assert got.dtype == dtype and got.stride() == q.stride()
    close(got, maps(q, k, SOURCE, **changes) @ v.double())


def test_each_part_of_an_edit_may_be_left_out_or_shared_by_all_rows(device: str) -> None:
    q, k, v = inputs(dtype=USUAL[device], device=device)
    for name, value in edit(device=device).items():
        for change in (value, value[1], value.float()):
            got = p2p_attention(q, k, v, SOURCE, **{name: change})
            close(got, maps(q, k, SOURCE, **{name: change}) @ v.double())


def test_replacing_a_word_gives_its_place_in_the_picture_to_the_new_word() -> None:
    """The source's tokens 3 and 4 become the edit's token 3, and the tokens after it move up."""
    q, k, v = inputs(rows=2)
    mapping = torch.zeros(11, 11, dtype=torch.float64)
    for s, t in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), *((t + 1, t) for t in range(4, 10))]:
        mapping[s, t] = 1.0
    got = p2p_attention(q, k, v, [0, 0], mapping=mapping)
    p = (q[0] @ k[0].mT * 40**-0.5).softmax(-1)
    moved = torch.cat((p[..., :3], p[..., 3:4] + p[..., 4:5], p[..., 5:], torch.zeros_like(p[..., :1])), -1)
    close(got[1], moved @ v[1])


def test_refining_a_prompt_leaves_new_words_their_own_place() -> None:
    q, k, v = inputs(rows=2)
    alpha = torch.ones(11, dtype=torch.float64)
    alpha[5] = 0.0
    got = p2p_attention(q, k, v, [0, 0], alpha=alpha)
    p, own = (q @ k.mT * 40**-0.5).softmax(-1)
    close(got[1], torch.cat((p[..., :5], own[..., 5:6], p[..., 6:]), -1) @ v[1])


def test_re_weighting_a_word_scales_what_it_contributes_and_nothing_else(device: str) -> None:
    q, k, v = inputs(rows=2, dtype=USUAL[device], device=device)
    c = torch.ones(11, device=device)
    c[4] = 3.0
    plain, changed = p2p_attention(q, k, v, [0, 1]), p2p_attention(q, k, v, [0, 1], c=c)
    p = (q.double() @ k.double().mT * 40**-0.5).softmax(-1)
    close(changed, plain.double() + 2 * p[..., 4:5] * v[:, :, 4:5].double())


def test_an_edit_into_the_same_prompt_is_plain_attention(device: str) -> None:
    q, k, v = inputs(dtype=USUAL[device], device=device)
    q, k = q[SOURCE], k[SOURCE]
    exact = maps(q, k, list(range(5))) @ v.double()
    close(p2p_attention(q, k, v, SOURCE), exact)
    close(p2p_attention(q, k, v, SOURCE, **{"alpha": torch.full((11,), 0.3, device=device)}), exact)


def test_rows_that_are_no_edits_are_plain_attention_to_the_last_bit() -> None:
    q, k, v = inputs(dtype=torch.float32)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    changes = edit() | {"c": None}
    got = p2p_attention(q, k, v, SOURCE, **changes)
    assert torch.equal(got[[0, 2]], plain[[0, 2]]) and not torch.equal(got[1], plain[1])
    assert torch.equal(p2p_attention(q, k, v, list(range(5)), **changes), plain)


def test_maps_of_words_are_columns_of_the_maps_that_were_used(device: str) -> None:
    words = (random(5, 3, 11, seed=7, device=device) > 0).float()
    for dtype in {USUAL[device], torch.float16}:
        q, k, v = inputs(dtype=dtype, device=device)
        changes = edit(device=device)
        got = p2p_attention_with_maps(q, k, v, SOURCE, words, **changes)
        exact = maps(q, k, SOURCE, **changes)
        assert got.maps.dtype == torch.float32 and got.maps.shape == (5, 3, 2, 20)
        close(got.maps, torch.einsum("bhnt,bkt->bkhn", exact, words.double()), 3e-6)
        close(got.out, exact @ v.double())


def test_a_token_that_is_taken_away_gets_nothing(device: str) -> None:
    q, k, v = inputs(dtype=USUAL[device], device=device)
    key_bias = torch.zeros(5, 11, device=device)
    key_bias[0, 7:] = key_bias[1, 9:] = key_bias[3] = -INF
    words = torch.ones(5, 1, 11, device=device)
    changes = edit(device=device)
    exact = maps(q, k, SOURCE, key_bias=key_bias, **changes)
    got = p2p_attention_with_maps(q, k, v, SOURCE, words, key_bias=key_bias, **changes)
    close(got.out, exact @ v.double())
    close(got.maps[:, 0], exact.sum(-1))
    shared = p2p_attention(q, k, v, SOURCE, key_bias=key_bias[:1], scale=0.5)
    close(shared, maps(q, k, SOURCE, key_bias=key_bias[:1], scale=0.5) @ v.double())


def test_values_folded_once_serve_many_steps(device: str) -> None:
    q, k, v = inputs(dtype=torch.float16, device=device)
    changes = edit(device=device)
    own = torch.tensor([s == b for b, s in enumerate(SOURCE)], device=device)
    changes["alpha"] = changes["alpha"].masked_fill(own[:, None], 0.0)
    w, u = fold(v, **changes)
    assert torch.equal(p2p_attention_folded(q, k, w, u, SOURCE), p2p_attention(q, k, v, SOURCE, **changes))


def test_folding_is_its_formula() -> None:
    _, _, v = inputs()
    changes = edit()
    w, u = fold(v, **changes)
    diagonal = torch.diag_embed(changes["alpha"] * changes["c"])
    close(w, (changes["mapping"] @ diagonal)[:, None] @ v)
    close(u, torch.diag_embed((1 - changes["alpha"]) * changes["c"])[:, None] @ v)


def test_gradients_are_those_of_finite_differences() -> None:
    q, k, v = (x.requires_grad_() for x in inputs(3, 4, 2, rows=3))
    changes = edit(4, rows=3)
    alpha = changes.pop("alpha").requires_grad_()
    words = random(3, 2, 4, seed=8).requires_grad_()
    key_bias = torch.zeros(3, 4, dtype=torch.float64)
    key_bias[1] = -INF

    def run(q: Tensor, k: Tensor, v: Tensor, words: Tensor, alpha: Tensor) -> tuple[Tensor, ...]:
        return p2p_attention_with_maps(q, k, v, [0, 0, 1 - 1], words, alpha=alpha, key_bias=key_bias, **changes)

    assert torch.autograd.gradcheck(run, (q, k, v, words, alpha))


def test_half_precision_gradients_are_the_definitions(device: str) -> None:
    q, k, v = (x.detach().requires_grad_() for x in inputs(dtype=torch.float16, device=device))
    changes = edit(device=device)
    weight = random(*q.shape, seed=9, dtype=torch.float16, device=device)
    got = torch.autograd.grad(p2p_attention(q, k, v, SOURCE, **changes), (q, k, v), weight)
    exact = torch.autograd.grad(maps(q, k, SOURCE, **changes) @ v.double(), (q, k, v), weight.double())
    for ours, theirs in zip(got, exact, strict=True):
        assert float((ours.double() - theirs.double()).abs().max()) < 4e-3 * (1 + float(theirs.abs().max()))


def test_what_the_kernel_has_no_room_for_takes_the_reference() -> None:
    assert obstacle(80, 16) is None
    for tokens, words, why in ((81, 0, "80 tokens"), (77, 17, "16 weightings")):
        choice = decide("p2p_attention", "cuda", "sm90", "float16", head_dim=40, obstacle=obstacle(tokens, words))
        assert choice.backend == "torch" and why in choice.why
    q, k, v = inputs(tokens=150)
    close(p2p_attention(q, k, v, SOURCE, **edit(150)), maps(q, k, SOURCE, **edit(150)) @ v)


@pytest.mark.parametrize("arch", ["sm80", "sm90", "sm100", "gfx942"])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_which_head_sizes_have_a_kernel_on_which_chip(arch: str, size: int) -> None:
    choice = decide("p2p_attention", "cuda", arch, "float16", head_dim=size, obstacle=obstacle(77, 1))
    if (size, arch) == (160, "sm80"):
        # Every tile of it spills; its layers are the small ones, where two launches of torch's attention serve.
        assert choice.backend == "torch" and "on sm80 has passed the audit" in choice.why
    else:
        assert choice.backend == "triton" and choice.tile is not None


def test_the_op_is_registered_as_autograd_and_the_compiler_need_it(opcheck: Callable[..., None]) -> None:
    q, k, v = (x.detach().requires_grad_() for x in inputs(4, 3, 8, torch.float32, rows=2))
    words = random(2, 2, 3, dtype=torch.float32).requires_grad_()
    key_bias = random(1, 3, seed=1, dtype=torch.float32)
    opcheck("p2p_attention", (q, k, v, v, [0, 0], key_bias, words, words, 0.4))
    opcheck("p2p_attention", (q.detach(), k, v, v, [0, 1], None, None, None, 0.4), compiled=False)
    plain = [x.detach() for x in (q, random(2, 2, 2, 4, dtype=torch.float32), q, k, v, v)]
    opcheck(
        "p2p_attention_backward", (*plain, [0, 0], key_bias, words.detach(), words.detach(), 0.4), compiled=False
    )


@pytest.mark.parametrize("source", [[0, 0], [0, 1]])
def test_it_compiles_to_one_graph_with_its_gradient(source: list[int]) -> None:
    q, k, v = (x.detach().requires_grad_() for x in inputs(4, 3, 8, torch.float32, rows=2))
    alpha = torch.tensor([1.0, 0.5, 0.0])

    def both(run: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        out = run(q, k, v, source, alpha=alpha).sin()
        return (out.detach(), *torch.autograd.grad(out.sum(), (q, k, v)))

    compiled = torch.compile(p2p_attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(both(compiled), both(p2p_attention))


def bad(**changes: Any) -> dict[str, Any]:
    q, k, v = inputs(4, 3, 8, torch.float32, rows=2)
    return {"q": q, "k": k, "v": v, "source": [0, 0], **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.zeros(2, 4, 8)}, r"q of shape \(2, 4, 8\); wanted \[rows, heads, tokens, size\]"),
        ({"k": torch.zeros(2, 2, 0, 8)}, r"k of shape \(2, 2, 0, 8\).*none of them 0"),
        ({"v": torch.zeros(2, 2, 4, 8)}, "as many keys as values"),
        ({"v": torch.zeros(2, 2, 3, 8).half()}, "v is torch.float16.*one floating dtype"),
        ({"k": torch.zeros(1, 2, 3, 8), "v": torch.zeros(1, 2, 3, 8)}, "have 2, 1 and 1 rows; wanted as many"),
        ({"source": [0]}, r"source is \[0\]; wanted 2 whole numbers in 0..1"),
        ({"source": [0, 2]}, r"source is \[0, 2\]; wanted 2 whole numbers in 0..1"),
        ({"source": [0, -1]}, r"source is \[0, -1\]; wanted 2 whole numbers in 0..1"),
        ({"source": [1, 0]}, r"makes row 0 an edit of row 1, which is an edit itself"),
        ({"mapping": torch.zeros(3, 4)}, r"mapping is torch.float32 \(3, 4\).*wanted.*\[3, 3\] or \[2, 3, 3\]"),
        ({"alpha": torch.zeros(2, 4)}, r"alpha is torch.float32 \(2, 4\).*wanted.*\[3\] or \[2, 3\]"),
        ({"c": torch.zeros(3, dtype=torch.int64)}, r"c is torch.int64 \(3,\).*wanted a floating dtype"),
        ({"c": torch.zeros(3, device="meta")}, "c is torch.float32 .* on meta; wanted.*on cpu"),
        ({"key_bias": torch.zeros(2, 4)}, r"key_bias is torch.float32 \(2, 4\).*\[2, 3\] or \[1, 3\]"),
        ({"key_bias": torch.zeros(2, 3, requires_grad=True)}, "key_bias wants a gradient"),
        ({"scale": -1.0}, "scale is -1.0; wanted a finite number above 0"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        p2p_attention(**bad(**changes))


@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 3), (2, 1, 4), (1, 1, 3)])
def test_words_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"words is .*; wanted a floating dtype, \[2, K, 3\]"):
        p2p_attention_with_maps(**bad(words=torch.zeros(shape)))
