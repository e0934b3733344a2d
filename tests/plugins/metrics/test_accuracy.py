"""Prompt accuracy, and features out of a denoiser, on the small world."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, Denoiser, Image, Latents, Recipe, Sigmas, Source, UserError, Video
from mezzotint.testing import check_node, fake_context, tiny_denoiser
from mezzotint_metrics.accuracy import prompt_accuracy, video_accuracy
from mezzotint_metrics.bootstrap import bootstrap
from mezzotint_metrics.extraction import classifier_logits, denoiser_features, embedding_features
from mezzotint_smallworld.motion_nodes import clips
from mezzotint_smallworld.nodes import pictures


def test_the_world_s_own_pictures_are_right_and_those_of_other_prompts_wrong():
    drawn = pictures(seed=3, count=12, split="test")
    right = check_node(prompt_accuracy, images=[drawn.image], prompts=drawn.captions)["report"].data
    assert right["accuracy"] == right["score"]["all"] >= 90
    assert [row["prompt"] for row in right["rows"]] == drawn.captions
    assert 100 * sum(row["all"] for row in right["rows"]) / 12 == pytest.approx(right["accuracy"])
    wrong = prompt_accuracy([drawn.image], prompts=drawn.captions[1:] + drawn.captions[:1]).data
    assert wrong["accuracy"] == 0


def test_a_prompt_for_each_batch_is_a_prompt_for_each_of_its_pictures():
    batches = [pictures(seed=seed, count=1, things=1) for seed in (0, 1)]
    twice = [Image(each.image.data.repeat(3, 1, 1, 1)) for each in batches]
    got = prompt_accuracy(twice, prompts=[each.captions[0] for each in batches]).data
    assert [row["prompt"] for row in got["rows"]] == [c for each in batches for c in each.captions * 3]


@pytest.mark.parametrize(
    ("images", "prompts", "message"),
    [
        ([], [], "at least one picture"),
        ([Image(torch.zeros(3, 64, 64, 3))], ["a red circle"] * 2, "2 prompts for 3 pictures"),
        ([Image(torch.zeros(1, 32, 32, 3))], ["a red circle"], r"got \[1, 32, 32, 3\]"),
        ([Image(torch.zeros(1, 64, 64, 3))], ["a red dog"], "expected a shape"),
    ],
)
def test_what_cannot_be_judged_is_refused(images, prompts, message):
    with pytest.raises(UserError, match=message):
        prompt_accuracy(images, prompts=prompts)


class Middle(torch.nn.Module):
    """A U-Net of a middle alone, whose features are known: the sums of its input's channels."""

    def __init__(self):
        super().__init__()
        self.mid_block = torch.nn.Identity()


class FakePredictor:
    def __init__(self):
        self.module = Middle()

    def predict(self, x, level, conditioning):
        self.module.mid_block(x * level.time)


RECIPE = Denoiser(Source("test:middle", "", "0123456789abcdef"), "test.middle")
LEVEL = Sigmas((0.5, 1.0), (0.0, 0.0), (2.0, 0.0))


def test_features_are_means_over_places_of_the_middle_block_at_the_first_level():
    data = torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    ctx = fake_context(loaders={"test.middle": lambda recipe, ctx: FakePredictor()})
    inputs = {"denoiser": RECIPE, "latents": Latents(data), "conditioning": Conditioning(), "sigmas": LEVEL}
    got = check_node(denoiser_features, ctx=ctx, **inputs, batch=3)["features"]
    torch.testing.assert_close(got.data, data.mean(dim=(2, 3)) * 0.5 * 2.0)
    assert "test:middle" in got.network and "time 2" in got.network


def test_noise_is_added_as_the_level_says():
    ctx = fake_context(loaders={"test.middle": lambda recipe, ctx: FakePredictor()})
    noisy = Sigmas((0.0, 1.0), (1.0, 0.0), (1.0, 0.0))
    got = denoiser_features(ctx, RECIPE, Latents(torch.zeros(400, 2, 8, 8)), Conditioning(), noisy).data
    assert got.std().item() == pytest.approx(1 / 8, rel=0.1)


def test_latents_of_another_space_and_denoisers_without_a_middle_are_refused():
    ctx = fake_context(loaders={"test.middle": lambda recipe, ctx: FakePredictor()})
    with pytest.raises(UserError, match="space 'a'"):
        other = RECIPE.replace(space="b")
        denoiser_features(ctx, other, Latents(torch.zeros(1, 1, 2, 2), space="a"), Conditioning(), LEVEL)
    with pytest.raises(UserError, match="latents of pictures"):
        denoiser_features(ctx, RECIPE, Latents(torch.zeros(1, 1, 2, 2, 2)), Conditioning(), LEVEL)
    with pytest.raises(UserError, match="no U-Net with a middle"):
        denoiser_features(fake_context(), tiny_denoiser(), Latents(torch.zeros(1, 4, 2, 2)), Conditioning(), LEVEL)


def test_embeddings_become_features_and_a_missing_one_is_refused():
    pooled = torch.ones(2, 5)
    assert check_node(embedding_features, conditioning=Conditioning(pooled=pooled))["features"].data is pooled
    with pytest.raises(UserError, match="no pooled embedding"):
        embedding_features(Conditioning())


def test_a_classifier_is_shown_clean_pictures_from_minus_one_to_one_in_order():
    seen = []

    def classifier(x, level):
        seen.append((x, level))
        return x.mean(dim=(2, 3)) @ torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])

    ctx = fake_context(loaders={"classifier": lambda recipe, ctx: classifier})
    recipe = Recipe(Source("bundled:some", "", "0123456789abcdef"), "classifier")
    colours = torch.linspace(0, 1, 15).reshape(5, 1, 1, 3).expand(5, 4, 4, 3).contiguous()
    got = classifier_logits(ctx, recipe, Image(colours), batch=2)
    torch.testing.assert_close(got.data, colours[:, 0, 0, :2] * 2 - 1)
    assert got.network == "bundled:some logits, 0123456789ab"
    assert [len(x) for x, _ in seen] == [2, 2, 1]
    assert all((level.alpha, level.sigma, level.time) == (1.0, 0.0, 0.0) for _, level in seen)


def test_no_picture_has_no_logits():
    with pytest.raises(UserError, match=r"wanted pictures \[B, H, W, C\], got \[0, 4, 4, 3\]"):
        classifier_logits(fake_context(), Recipe(Source("", "", ""), "x"), Image(torch.zeros(0, 4, 4, 3)))


# --- clips ---


@pytest.fixture(scope="module")
def moving():
    return clips(seed=40, count=6, things=1, motions=["left", "right", "growing"], split="test")


def test_the_worlds_own_clips_are_right_and_backwards_their_motion_is_wrong_and_nothing_else(moving):
    there = check_node(video_accuracy, video=moving.video, prompts=moving.captions)["report"].data
    assert there["accuracy"] == 100 and there["score"]["motion"] == there["score"]["consistency"] == 100
    back = video_accuracy(Video(moving.video.data.flip(1), 8.0), prompts=moving.captions).data
    assert back["accuracy"] == back["score"]["motion"] == 0 and back["score"]["object"] == 100


def test_each_clip_has_a_row_that_bootstrap_reads(moving):
    mixed = Video(torch.cat((moving.video.data[:3], moving.video.data[3:].flip(1))), 8.0)
    got = video_accuracy(mixed, prompts=moving.captions)
    assert [row["motion"] for row in got.data["rows"]] == [True] * 3 + [False] * 3
    assert [row["prompt"] for row in got.data["rows"]] == list(moving.captions)
    assert bootstrap(fake_context(), got, figure="all").data["mean"] == 0.5


@pytest.mark.parametrize(
    ("shape", "prompts", "message"),
    [
        ((0, 8, 64, 64, 3), [], r"wanted clips \[B, F, 64, 64, 3\], got \[0"),
        ((1, 0, 64, 64, 3), ["a red circle, still"], "at least one frame"),
        ((1, 8, 32, 32, 3), ["a red circle, still"], r"reads clips \[B, F, 64, 64, 3\]"),
        ((2, 8, 64, 64, 3), ["a red circle, still"], "1 prompts for 2 clips"),
        ((1, 8, 64, 64, 3), ["a red circle, flying"], "is no motion"),
        ((8, 64, 64, 3), ["a red circle, still"], r"wanted clips \[B, F, 64, 64, 3\]"),
    ],
)
def test_what_is_no_clip_and_what_is_no_prompt_of_clips_are_refused(shape, prompts, message):
    with pytest.raises(UserError, match=message):
        video_accuracy(Video(torch.zeros(shape), 8.0), prompts=prompts)
