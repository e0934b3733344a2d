"""Philox normals: the published vectors, where each number comes from, and how normal they are."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from mezzotint_kernels import Draw, normals
from mezzotint_kernels.philox import MAX_NORMAL, philox4x32, stream_id

# Random123 1.14, tests/kat_vectors, philox4x32 10: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(int(word, 16)) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_random123s_known_vectors(counter: str, key: str, result: str) -> None:
    assert philox4x32(words(counter), words(key)) == words(result)


def test_a_samples_numbers_do_not_depend_on_its_place_in_a_batch() -> None:
    batch = normals(7, (3, 4, 5, 5))
    for i in range(3):
        assert torch.equal(batch[i : i + 1], normals(7 + i, (1, 4, 5, 5)))


def test_a_seed_tensor_keys_each_sample_as_it_is() -> None:
    seeds = torch.tensor([9, 7, 9])
    drawn = normals(seeds, (3, 2, 3, 3))
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[1:2], normals(7, (1, 2, 3, 3)))


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32 + 5, 2**63 - 1, 2**64 - 1, -1])
def test_int_and_tensor_seeds_agree_on_all_64_bits(seed: int) -> None:
    signed = (seed + 2**63) % 2**64 - 2**63
    tensor = torch.tensor([signed])
    assert torch.equal(normals(seed, (1, 33)), normals(tensor, (1, 33)))


def test_the_upper_half_of_a_seed_counts() -> None:
    assert not torch.equal(normals(5, (1, 64)), normals(5 + 2**32, (1, 64)))


def test_seeds_wrap_at_64_bits_inside_a_batch() -> None:
    assert torch.equal(normals(2**64 - 1, (2, 8))[1:], normals(0, (1, 8)))


def test_a_longer_clip_begins_with_the_numbers_of_a_shorter_one() -> None:
    long = normals(3, (2, 4, 9, 5, 7))
    assert torch.equal(long[:, :, :4], normals(3, (2, 4, 4, 5, 7)))


def test_a_clip_of_one_frame_has_the_numbers_of_the_picture() -> None:
    assert torch.equal(normals(3, (2, 4, 1, 5, 7))[:, :, 0], normals(3, (2, 4, 5, 7)))


def test_a_longer_frame_begins_with_the_numbers_of_a_shorter_one() -> None:
    assert torch.equal(normals(3, (2, 101))[:, :50], normals(3, (2, 50)))


def test_many_rows_equal_rows_drawn_one_at_a_time() -> None:
    many = normals(0, (40, 3, 32, 32))
    assert torch.equal(many[37:38], normals(37, (1, 3, 32, 32)))


@pytest.mark.parametrize("change", [{"step": 1}, {"stream": 1}, {"stream": "a"}])
def test_steps_and_streams_are_unrelated(change: dict[str, int | str]) -> None:
    first, second = normals(1, (1, 20_000)), normals(1, (1, 20_000), **change)
    correlation = torch.corrcoef(torch.cat((first, second)))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(20_000)


def test_a_stream_name_has_a_fixed_number() -> None:
    # sha256("sampling.noise") and sha256("") in any other tool.
    assert stream_id("") == int.from_bytes(bytes.fromhex("e3b0c442"), "little")
    assert stream_id(12) == 12
    assert torch.equal(normals(1, (1, 9), stream="x"), normals(1, (1, 9), stream=stream_id("x")))


def test_numbers_are_normal() -> None:
    drawn = normals(11, (1, 1_000_000)).flatten().double().numpy()
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    assert abs(stats.skew(drawn)) < 0.01
    assert abs(stats.kurtosis(drawn)) < 0.02
    assert abs(drawn).max() < MAX_NORMAL


def test_neighbours_are_unrelated() -> None:
    drawn = normals(11, (1, 200_000)).flatten()
    for lag in range(1, 5):
        pair = torch.stack((drawn[:-lag], drawn[lag:]))
        assert abs(torch.corrcoef(pair)[0, 1]) < 4 / math.sqrt(200_000)


def test_the_transform_is_box_mullers_to_float32_accuracy() -> None:
    word = torch.arange(50_000)
    zero = torch.tensor(0)
    a, b, c, d = philox4x32((word, zero, zero, zero), (torch.tensor(5), zero))
    wanted = []
    for i1, i2 in ((a, b), (c, d)):
        u = ((i1 >> 9) * 2 + 1).double() * 2.0**-24
        place = (((i2 & 0x3FFFFFFF) >> 6) - 0x800000).double() * (math.pi / 2 * 2.0**-24)
        angle = place + (i2 >> 30).double() * (math.pi / 2)
        radius = (-2 * u.log()).sqrt()
        wanted += [radius * angle.cos(), radius * angle.sin()]
    exact = torch.stack(wanted, dim=-1).flatten()
    assert (normals(5, (1, 200_000)).flatten().double() - exact).abs().max() < 1e-6


def test_the_bits_are_those_written_down() -> None:
    """The first numbers of seed 0: they must never change, on any device or version."""
    patterns = normals(0, (1, 8)).view(torch.int32).flatten().tolist()
    assert patterns == [
        1027639365, -1079155200, -1085861864, 1036273808,
        1016954081, 1047670148, 1060785392, -1092246605,
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_float32_rounded_once(dtype: torch.dtype) -> None:
    assert torch.equal(normals(1, (2, 9), dtype=dtype), normals(1, (2, 9)).to(dtype))


def test_a_draw_can_share_one_frame() -> None:
    drawn = Draw(4, step=2, stream="s", shared_frames=True).normals((1, 3, 5, 4, 4))
    assert drawn.shape == (1, 3, 5, 4, 4)
    for f in range(5):
        assert torch.equal(drawn[:, :, f], normals(4, (1, 3, 4, 4), step=2, stream="s"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1, "shape": ()}, "batch dimension"),
        ({"seed": 1, "shape": (1, -2)}, "sizes of 0 or more"),
        ({"seed": 1, "shape": (1, 2), "dtype": torch.int32}, "dtype must be a float dtype; got torch.int32"),
        ({"seed": 1, "shape": (1, 2), "step": 2**32}, "step must be in"),
        ({"seed": 1, "shape": (1, 2), "stream": -1}, "stream must be in"),
        ({"seed": torch.zeros(3, dtype=torch.int64), "shape": (2, 2)}, "got torch.int64 of shape"),
        ({"seed": torch.zeros(2), "shape": (2, 2)}, "must hold integers"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normals(**arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(2, 3, 65, 67), (2, 4, 5, 8, 8), (2, 3, 5, 7, 7)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_gpus_numbers_are_the_cpus_bit_for_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    options = {"step": 2**32 - 1, "stream": "s", "dtype": dtype}
    assert torch.equal(normals(-1, shape, **options, device="cuda").cpu(), normals(-1, shape, **options))
