"""The bundled priors on captions of combinations that no training has seen."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from mezzotint import Conditioning, Dataset, Noise, Source
from mezzotint.testing import fake_context
from mezzotint_models import build_network, part_of
from mezzotint_smallworld import resolve_source
from mezzotint_unclip.code_sampling import sample_codes
from mezzotint_unclip.pairs import Pairs, pairs
from mezzotint_unclip.prior_nodes import keep_nearest, prior

COUNT = 48
WORLD = {"seed": 0, "things": 1, "unnamed": 0.0}


def source(name):
    path = resolve_source(f"bundled:{name}")
    return Source(f"bundled:{name}", str(path), name)


def weights(name):
    from mezzotint_models.packed import load_weights

    return load_weights(source(name))


@pytest.fixture(scope="module")
def clip():
    from mezzotint_models.image_encoders import image_encoder
    from mezzotint_models.text_encoders import text_encoder

    return image_encoder(source=source("clip")), text_encoder(source=source("clip"))


@pytest.fixture(scope="module")
def unseen(clip):
    world = Dataset("smallworld.scenes", {**WORLD, "split": "test"}, COUNT)
    return Pairs(pairs(fake_context(), world, *clip))


@pytest.fixture(scope="module")
def told(unseen):
    return Conditioning(context=unseen.context.float(), pooled=unseen.text)


def sampled(told, seed):
    from mezzotint_sampling.nodes import empty_latents, sigmas
    from mezzotint_sampling.sampler_node import sample

    model = prior(source=source("dalle2_prior"))
    start, levels = empty_latents(model, width=1, height=1, batch=COUNT), sigmas(model, steps=8)
    return sample(fake_context(), model, told, start, levels, Noise(seed=seed), sampler="ddim", eta=1.0)


def nearer(found, unseen):
    """Mean cosine with the pictures' own embeddings: of what was found, and of the texts'."""
    return cosine_similarity(found, unseen.image).mean(), cosine_similarity(unseen.text, unseen.image).mean()


def test_the_diffusion_prior_comes_nearer_to_unseen_pictures_than_their_texts(unseen, told):
    found = keep_nearest([sampled(told, 0), sampled(told, 1000)], told).pooled
    own, text = nearer(found, unseen)
    assert own > text + 0.08


def test_the_autoregressive_prior_comes_nearer_to_unseen_pictures_than_their_texts(unseen, told):
    found = sample_codes(fake_context(), told, source=source("dalle2_prior_ar")).pooled
    own, text = nearer(found, unseen)
    assert own > text + 0.05


@torch.no_grad()
def test_the_diffusion_prior_s_error_is_below_that_of_the_mean(clip, unseen, told):
    model = build_network(part_of(weights("dalle2_prior"), ""))
    seen = Pairs(pairs(fake_context(), Dataset("smallworld.scenes", {**WORLD, "split": "train"}, 96), *clip))
    noise = torch.randn(unseen.image.shape, generator=torch.Generator().manual_seed(0))
    made = model(noise, torch.full((COUNT,), 999.0), told.context, told.pooled) / model.scale
    error = (made - unseen.image).square().mean()
    mean = (seen.image.mean(0) - unseen.image).square().mean()
    assert error < 0.6 * mean


@torch.no_grad()
def test_codes_keep_what_an_unseen_embedding_says(unseen):
    codes = build_network(part_of(weights("dalle2_prior_ar"), "")).codes
    kept = codes.project(unseen.image) @ codes.basis + codes.mean
    assert (kept - unseen.image).square().sum(-1).mean() < 0.05
    assert cosine_similarity(codes.decode(codes.encode(unseen.image)), unseen.image).min() > 0.9
