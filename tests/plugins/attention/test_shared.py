"""Shared self-attention: which rows look at which, and what comes out, against a softmax written out."""

from __future__ import annotations

import math

import pytest
import torch

from mezzotint import AttentionCall, AttentionSite, Denoiser, NoiseLevel, Rows, Source, UserError
from mezzotint_attention import Sites
from mezzotint_attention.injection import Evaluation
from mezzotint_attention.shared import SharedAttention, aligned, share, table_of
from mezzotint_kernels import attention, normals

SITE = AttentionSite("up.attn1", "self", "up", 0, 2, 4)
LEVEL = NoiseLevel(0.6, 0.8, 500.0)
GUIDED = Rows((0, 1, 2, 0, 1, 2), (True,) * 3 + (False,) * 3)


def call(batch: int = 6) -> AttentionCall:
    query, key, value = (normals(seed, (batch, 2, 9, 4)).double() for seed in (1, 2, 3))
    return AttentionCall(SITE, query, key, value, LEVEL, size=(3, 3))


def opened(rows: Rows = GUIDED, **settings: object) -> object:
    made = SharedAttention(**settings).open(None, None)  # type: ignore[arg-type]
    works = made.begin(Evaluation(torch.zeros(len(rows.samples), 4, 3, 3), LEVEL, rows, None))
    return made if works else None


def never(_: AttentionCall) -> torch.Tensor:
    raise AssertionError("the plain attention is not asked for")


def test_each_half_of_a_guided_batch_looks_at_its_own_reference() -> None:
    assert table_of(GUIDED, 1).tolist() == [[0, 1], [1, -1], [2, 1], [3, 4], [4, -1], [5, 4]]


def test_frames_look_at_the_same_frame_of_the_reference() -> None:
    assert table_of(Rows((0, 1), (True, True), 2), 0).tolist() == [[0, -1], [1, -1], [2, 0], [3, 1]]


@pytest.mark.parametrize("strength", [0.25, 1.0, 3.0])
def test_the_softmax_runs_over_both_pictures_places_in_float64(strength: float) -> None:
    one = call()
    got = opened(strength=strength, align=False).attend(one, never)  # type: ignore[attr-defined]
    for row, there in ((1, 0), (2, 0), (4, 3), (5, 3)):
        logits = one.query[row] @ torch.cat([one.key[row], one.key[there]], dim=1).transpose(-1, -2) / 2
        logits[..., 9:] += math.log(strength)
        wanted = logits.softmax(-1) @ torch.cat([one.value[row], one.value[there]], dim=1)
        assert torch.allclose(got[row], wanted, atol=1e-12)
    alone = attention(one.query, one.key, one.value)
    assert torch.allclose(got[[0, 3]], alone[[0, 3]], atol=1e-12)


def test_alignment_gives_the_references_mean_and_deviation_and_leaves_the_reference_as_it_is() -> None:
    x, reference = (normals(seed, (2, 2, 50, 4)).double() * 3 + 1 for seed in (1, 2))
    moved = aligned(x, reference, eps=0.0)
    assert torch.allclose(moved.mean(2), reference.mean(2), atol=1e-12)
    assert torch.allclose(moved.std(2), reference.std(2), atol=1e-12)
    one = call()
    got = opened(align=True).attend(one, never)  # type: ignore[attr-defined]
    assert torch.allclose(got[[0, 3]], attention(one.query, one.key, one.value)[[0, 3]], atol=1e-12)


def test_a_picture_like_its_reference_is_not_changed_by_looking_at_it() -> None:
    one = call(1)
    twice = AttentionCall(
        SITE, *(x.expand(2, -1, -1, -1).contiguous() for x in (one.query, one.key, one.value)), LEVEL
    )
    got = opened(Rows((0, 1), (True, True))).attend(twice, never)  # type: ignore[attr-defined]
    assert torch.allclose(got, attention(twice.query, twice.key, twice.value), atol=1e-9)


def test_without_strength_or_with_one_picture_nothing_is_done() -> None:
    denoiser = Denoiser(source=Source("none", "", "0"), loader="test.none")
    assert share(denoiser, strength=0.0) is denoiser
    assert opened(Rows((0, 0), (True, False))) is None


def test_sites_without_a_kind_are_self_attention_and_those_of_another_kind_are_refused() -> None:
    denoiser = Denoiser(source=Source("none", "", "0"), loader="test.none")
    (patch,) = share(denoiser, Sites(parts=("up",))).patches
    assert patch.sites.kinds == ("self",) and patch.sites.parts == ("up",)
    with pytest.raises(UserError, match=r"attention.share works at layers of kind self; sites asks for cross"):
        share(denoiser, Sites(kinds=("cross",)))


def test_a_reference_beyond_the_batch_is_an_error() -> None:
    with pytest.raises(UserError, match="sample 7 is the reference, and the batch has 3"):
        opened(reference=7)


def test_cross_attention_cannot_be_shared() -> None:
    one = call()
    short = AttentionCall(SITE, one.query, one.key[:, :, :5], one.value[:, :, :5], LEVEL)
    with pytest.raises(UserError, match="works at self-attention"):
        opened().attend(short, never)  # type: ignore[attr-defined]
