"""Distances between sets of features, against closed forms, float64 references and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.spatial.distance import cdist
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from mezzotint import UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_metrics.clip import clip_score
from mezzotint_metrics.features import Features
from mezzotint_metrics.frechet import fid
from mezzotint_metrics.kernel import kid, squared_discrepancy
from mezzotint_metrics.neighbours import precision_recall
from mezzotint_metrics.score import inception_score, score_of
from mezzotint_metrics.statistics import Statistics, statistics


def gaussian(count, width, seed, shift=0.0, scale=1.0):
    numbers = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Features(numbers * scale + shift, "test")


def known(mean, covariance, count=1000):
    mean = torch.as_tensor(mean, dtype=torch.float64)
    return Statistics(mean, torch.as_tensor(covariance, dtype=torch.float64), count, "test")


def correlated(width, seed):
    half = torch.randn(width, 2 * width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return half @ half.mT / width


# --- Fréchet ---


def test_of_two_normal_distributions_on_a_line_it_is_the_closed_form():
    got = check_node(fid, real=known([1.0], [[4.0]]), generated=known([0.0], [[0.25]]))["report"].data
    assert got["fid"] == pytest.approx((1 - 0) ** 2 + (2 - 0.5) ** 2, abs=1e-14)


def test_of_covariances_that_commute_it_is_the_distance_of_their_deviations():
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    a, b = torch.arange(1.0, 9.0, dtype=torch.float64), torch.linspace(3.0, 0.0, 8, dtype=torch.float64)
    one, other = (known(torch.zeros(8), turn @ (s * s).diag() @ turn.mT) for s in (a, b))
    assert fid(one, other).data["fid"] == pytest.approx((a - b).square().sum().item(), abs=1e-6)


def test_a_shift_of_the_mean_adds_its_square():
    moved = Features(gaussian(500, 16, 0).data + 0.25, "test")
    got = fid(statistics([gaussian(500, 16, 0)]), statistics([moved])).data
    assert got["fid"] == pytest.approx(16 * 0.25**2, abs=1e-9)
    assert got["mean"] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("count", [1000, 10])
def test_a_set_is_at_no_distance_from_itself_whatever_its_rank(count):
    same = statistics([gaussian(count, 64, 1)])
    got = fid(same, same).data
    assert 0 <= got["fid"] < 1e-6
    assert got["full_rank"] is (count > 64)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_symmetric_and_equals_scipy_s_and_torchmetrics(seed):
    one = known(torch.randn(24, generator=torch.Generator().manual_seed(seed)), correlated(24, seed))
    other = known(torch.zeros(24), correlated(24, seed + 100))
    got = fid(one, other).data["fid"]
    root = linalg.sqrtm(one.covariance.numpy() @ other.covariance.numpy()).real
    traces = np.trace(one.covariance.numpy() + other.covariance.numpy() - 2 * root)
    assert got == pytest.approx(one.mean.square().sum().item() + traces, rel=1e-10)
    theirs = _compute_fid(one.mean, one.covariance, other.mean, other.covariance).item()
    assert got == pytest.approx(theirs, rel=1e-10)
    assert got == pytest.approx(fid(other, one).data["fid"], rel=1e-12)


def test_its_bias_falls_as_one_over_the_count():
    found = [
        fid(*(statistics([gaussian(count, 16, seed)]) for seed in (1, 2))).data["fid"]
        for count in (100, 1000, 10000)
    ]
    assert 5 < found[0] / found[1] < 20 and 5 < found[1] / found[2] < 20


# --- kernel ---


def test_the_kernel_distance_of_two_points_is_computed_by_hand():
    a, b = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[0.0], [1.0]]).double()
    # Kernel (x y + 1)^3 in one dimension: within a (2 + 1)^3, within b 1, across 1, 8, 1 and 27.
    assert squared_discrepancy(a, b) == pytest.approx(27 + 1 - 2 * (1 + 8 + 1 + 27) / 4, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_kernel_distance_equals_torchmetrics(shift):
    a, b = gaussian(80, 12, 0).data, gaussian(60, 12, 1, shift).data
    b_of_equal_count = gaussian(80, 12, 1, shift).data
    assert squared_discrepancy(a, b_of_equal_count) == pytest.approx(
        poly_mmd(a, b_of_equal_count).item(), rel=1e-9
    )
    whole = kid(fake_context(), Features(a), Features(b_of_equal_count), subset_size=80).data
    theirs = KernelInceptionDistance(
        feature=torch.nn.Identity(), subsets=1, subset_size=80, reset_real_features=False
    )
    theirs.update(a, real=True)
    theirs.update(b_of_equal_count, real=False)
    assert whole["kid"] == pytest.approx(theirs.compute()[0].item(), rel=1e-9)
    assert math.isfinite(squared_discrepancy(a, b))


def test_its_mean_over_subsets_is_that_of_the_whole_sets_within_its_own_error():
    a, b = gaussian(300, 8, 0), gaussian(250, 8, 1, 0.3)
    got = check_node(kid, real=a, generated=b, subsets=100, subset_size=50)["report"].data
    whole = squared_discrepancy(a.data, b.data)
    assert abs(got["kid"] - whole) < 4 * got["std"] / math.sqrt(100)


def test_it_is_unbiased_where_sets_are_equal_in_distribution():
    found = torch.tensor([
        squared_discrepancy(gaussian(30, 6, 2 * i).data, gaussian(30, 6, 2 * i + 1).data) for i in range(300)
    ])  # fmt: skip
    assert found.mean().abs() < 4 * found.std() / math.sqrt(300)
    assert (found < 0).any()


# --- Inception score ---


def test_sure_and_even_predictions_score_the_number_of_classes_and_constant_ones_score_1():
    sure = Features(torch.eye(8).repeat(20, 1) * 1e4)
    unsure = Features(torch.ones(160, 8) * 3)
    assert score_of(sure.data.double()) == pytest.approx(8, rel=1e-12)
    got = check_node(inception_score, logits=unsure, splits=10)["report"].data
    assert got["inception_score"] == pytest.approx(1, abs=1e-12) and got["std"] == pytest.approx(0, abs=1e-12)


def test_the_inception_score_equals_torchmetrics():
    logits = gaussian(200, 10, 3, scale=2.0)
    theirs = InceptionScore(feature=torch.nn.Identity(), splits=1)
    theirs.update(logits.data)
    got = inception_score(fake_context(), logits, splits=1).data["inception_score"]
    with pytest.warns(UserWarning, match="std"):  # its deviation over one split
        assert got == pytest.approx(theirs.compute()[0].item(), rel=1e-10)


def test_each_split_is_scored_alone_and_all_samples_are_used():
    logits = gaussian(103, 5, 4, scale=2.0)
    got = inception_score(fake_context(), logits, splits=103).data
    assert got["inception_score"] == pytest.approx(1, abs=1e-12), "a split of one sample has no variety"
    shuffled = inception_score(fake_context(), Features(logits.data.flip(0)), splits=1).data
    plain = inception_score(fake_context(), logits, splits=1).data
    assert shuffled["inception_score"] == pytest.approx(plain["inception_score"], rel=1e-12)


# --- precision and recall ---


def shares(real, generated, k):
    """Kynkäänniemi et al.'s definition, over every pair."""
    radius_r = np.sort(cdist(real, real), axis=1)[:, k]
    radius_g = np.sort(cdist(generated, generated), axis=1)[:, k]
    across = cdist(generated, real)
    return (across <= radius_r).any(axis=1).mean(), (across.T <= radius_g).any(axis=1).mean()


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_equal_the_definition_over_every_pair(k):
    a, b = gaussian(120, 5, 0), gaussian(90, 5, 1, shift=0.8, scale=0.7)
    got = check_node(precision_recall, real=a, generated=b, neighbours=k)["report"].data
    assert (got["precision"], got["recall"]) == shares(a.data.numpy(), b.data.numpy(), k)
    assert 0 < got["recall"] < got["precision"] < 1


def test_a_set_covers_itself_and_nothing_far_away():
    a = gaussian(50, 4, 0)
    same = precision_recall(fake_context(), a, a).data
    far = precision_recall(fake_context(), a, Features(a.data + 100, "test")).data
    assert (same["precision"], same["recall"]) == (1, 1) and (far["precision"], far["recall"]) == (0, 0)


def test_losing_a_mode_costs_recall_and_no_precision():
    two_modes = Features(torch.cat([gaussian(100, 4, 0).data, gaussian(100, 4, 1, 50.0).data]))
    got = precision_recall(fake_context(), two_modes, Features(gaussian(100, 4, 2).data)).data
    assert got["precision"] > 0.8 and got["recall"] < 0.55


def test_equal_samples_lie_within_a_radius_of_0():
    copies = Features(torch.full((10, 3), 0.1))
    got = precision_recall(fake_context(), copies, copies).data
    assert (got["precision"], got["recall"]) == (1, 1)


# --- CLIP score ---


def test_a_clip_score_is_the_clamped_cosine_of_each_pair():
    pictures = Features(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]]))
    text = Features(torch.tensor([[5.0, 0.0]]))
    got = check_node(clip_score, image=pictures, text=text)["report"].data
    assert got["scores"] == pytest.approx([100, 0, 0, 100 / math.sqrt(2)], abs=1e-9)
    assert got["clip_score"] == pytest.approx(sum(got["scores"]) / 4, abs=1e-12)


def test_pictures_score_higher_with_their_own_texts():
    pictures, noise = gaussian(20, 32, 0), gaussian(20, 32, 1, scale=0.5)
    text = pictures.data + noise.data
    own = clip_score(pictures, Features(text)).data["clip_score"]
    assert own > 3 * clip_score(pictures, Features(text.roll(1, 0))).data["clip_score"]


# --- what cannot be measured ---

BROKEN = gaussian(20, 4, 0).data.clone()
BROKEN[7, 2] = math.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, a: kid(c, a, a, subset_size=21), "subset_size is 21, but there are only 20"),
        (lambda c, a: kid(c, a, gaussian(20, 5, 0)), "4 and 5 wide"),
        (lambda c, a: kid(c, a, Features(a.data, "other")), "'test' and of 'other'"),
        (lambda c, a: kid(c, a, gaussian(1, 4, 0)), "at least 2 samples, got 1"),
        (lambda c, a: kid(c, a, Features(BROKEN)), "1 samples are not finite, first of 7"),
        (lambda c, a: precision_recall(c, a, gaussian(3, 4, 0)), "at least 4 samples, got 3"),
        (lambda c, a: precision_recall(c, a, gaussian(20, 5, 0)), "4 and 5 wide"),
        (lambda c, a: inception_score(c, a, splits=21), "20 samples are too few for 21 splits"),
        (lambda c, a: inception_score(c, gaussian(20, 1, 0)), "at least 2 classes, got 1"),
        (lambda c, a: inception_score(c, Features(BROKEN)), "not finite"),
        (lambda c, a: clip_score(a, gaussian(20, 5, 0)), "4 wide, the texts' 5"),
        (lambda c, a: clip_score(a, gaussian(2, 4, 0)), "2 texts for 20 pictures"),
        (lambda c, a: clip_score(a, Features(torch.zeros(1, 4))), "zeros has no direction"),
        (lambda c, a: clip_score(Features(torch.ones(2, 3, 4)), a), r"\[N, D\], got \[2, 3, 4\]"),
        (lambda c, a: fid(statistics([a]), statistics([gaussian(9, 5, 0)])), "4 and 5 wide"),
        (lambda c, a: fid(statistics([a]), statistics([Features(a.data, "other")])), "'test' and of 'other'"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_words(call, message):
    with pytest.raises(UserError, match=message):
        call(fake_context(), gaussian(20, 4, 0))
