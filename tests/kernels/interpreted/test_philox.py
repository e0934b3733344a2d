"""The kernel's words and normals by Triton's interpreter: Random123's vectors, and the reference's bits."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from mezzotint_kernels import normals
from mezzotint_kernels._triton.philox import words
from mezzotint_kernels.philox import normals_reference
from mezzotint_kernels.philox_launch import layout

# Random123 1.14, tests/kat_vectors, philox4x32 10: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@triton.jit
def words_kernel(p_out, p_counter, p_key):
    """The four words of the counter [4] int32 and the key [1] int64."""
    b_word = tl.load(p_counter + tl.arange(0, 1))
    b_frame = tl.load(p_counter + 1 + tl.arange(0, 1))
    b_0, b_1, b_2, b_3 = words(tl.load(p_key), b_word, b_frame, tl.load(p_counter + 2), tl.load(p_counter + 3))
    o_0 = tl.arange(0, 1)
    tl.store(p_out + o_0, b_0.to(tl.int32, bitcast=True))
    tl.store(p_out + 1 + o_0, b_1.to(tl.int32, bitcast=True))
    tl.store(p_out + 2 + o_0, b_2.to(tl.int32, bitcast=True))
    tl.store(p_out + 3 + o_0, b_3.to(tl.int32, bitcast=True))


def integers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_the_kernels_words_are_random123s(counter: str, key: str, result: str) -> None:
    low, high = integers(key)
    out = torch.empty(4, dtype=torch.int32)
    words_kernel[(1,)](
        out, torch.tensor(integers(counter)).to(torch.int32), torch.tensor([(high << 32 | low) % 2**64]).long()
        if high < 2**31 else torch.tensor([(high << 32 | low) - 2**64]),
    )  # fmt: skip
    assert [w % 2**32 for w in out.tolist()] == integers(result)


SHAPES = [
    (1, 1),
    (2, 3),
    (1, 1500),
    (3, 4, 7, 5),
    (2, 3, 1, 5, 5),
    (2, 3, 4, 6, 6),
    (2, 3, 4, 5, 5),
    (1, 1, 2, 1, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_normals_are_the_references_bit_for_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    options = {"step": 12, "stream": "s", "dtype": dtype}
    got = normals(3, shape, **options)
    assert got.shape == shape and torch.equal(got, normals_reference(3, shape, **options))


@pytest.mark.parametrize("seed", [-1, 2**31, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("word", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_all_64_bits_of_a_seed_and_all_32_of_step_and_stream_count(seed: int, word: int) -> None:
    got = normals(seed, (2, 9), step=word, stream=2**32 - 1 - word)
    assert torch.equal(got, normals_reference(seed, (2, 9), step=word, stream=2**32 - 1 - word))


def test_an_empty_batch_and_empty_samples_give_empty_tensors() -> None:
    assert normals(1, (0, 4)).shape == (0, 4)
    assert normals(1, (2, 0, 3)).shape == (2, 0, 3)


def test_the_layouts_differ_only_in_how_they_are_worked_out() -> None:
    """[C, F, P]: by quads where a frame has 4 k pixels, one by one where it has not; both are drawn above."""
    assert [layout(shape)[2] for shape in ((2, 3, 1, 5, 5), (2, 3, 4, 6, 6), (2, 3, 4, 5, 5))] == [0, 1, 2]
