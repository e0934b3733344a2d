"""The training nodes: they train, stop, go on in the same bits, and make a folder that diffusers loads."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Cancelled, Dataset, UserError, Weights
from mezzotint.testing import fake_context
from mezzotint_training.checkpoint import build, write_checkpoint
from mezzotint_training.nodes import autoencoder, checkpoint, denoiser, text_encoder

SCENES = Dataset(
    reader="smallworld.scenes", config={"seed": 0, "things": None, "split": "train", "unnamed": 0.0}, length=24
)
TINY_TEXT = {"steps": 4, "batch": 4, "width": 16, "layers": 1, "heads": 2, "report_every": 2}
TINY_AUTOENCODER = {"steps": 2, "batch": 2, "channels": [16, 16, 32], "fitted_on": 16, "report_every": 1}
TINY_DENOISER = {"steps": 4, "batch": 4, "channels": [16, 32], "heads": 2, "report_every": 2}


@pytest.fixture(scope="module")
def words():
    return text_encoder(fake_context(), SCENES, **TINY_TEXT)


@pytest.fixture(scope="module")
def code():
    return autoencoder(fake_context(), SCENES, **TINY_AUTOENCODER)


@pytest.fixture(scope="module")
def trained(words, code):
    return denoiser(fake_context(), [SCENES], code.weights, words.weights, **TINY_DENOISER)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def resumed(node, *inputs, **parameters):
    """What a node gives that was cancelled at its first report and then run again with the state it saved."""
    stopped = fake_context(cancel_at=1)
    with pytest.raises(Cancelled):
        node(stopped, *inputs, **parameters)
    assert stopped.states, "nothing was saved"
    return node(fake_context(state=stopped.states[-1]), *inputs, **parameters)


def test_a_stopped_text_encoder_goes_on_in_the_same_bits(words):
    again = resumed(text_encoder, SCENES, **TINY_TEXT)
    assert same(again.weights.tensors, words.weights.tensors)
    assert again.report.data == words.report.data


def test_a_stopped_autoencoder_goes_on_in_the_same_bits(code):
    again = resumed(autoencoder, SCENES, **TINY_AUTOENCODER)
    assert same(again.weights.tensors, code.weights.tensors)


def test_a_stopped_denoiser_goes_on_in_the_same_bits(trained, words, code):
    again = resumed(denoiser, [SCENES], code.weights, words.weights, **TINY_DENOISER)
    assert same(again.unet.tensors, trained.unet.tensors)
    assert same(again.text_encoder.tensors, trained.text_encoder.tensors)
    assert again.report.data == trained.report.data


def test_training_changes_the_text_encoder_that_it_starts_from(trained, words):
    assert not same(trained.text_encoder.tensors, words.weights.tensors)


def test_the_encoder_is_the_projection_that_was_fitted(code):
    model = build(code.weights, "AutoencoderKL")
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = model.encode(pictures).latent_dist.mode()
        twice = model.encode(pictures.flip(0)).latent_dist.mode()
    assert latents.shape == (2, 8, 16, 16)
    assert torch.allclose(latents.flip(0), twice, atol=1e-4)


def test_sheets_show_every_sample(trained, code):
    assert trained.sheet.data.shape == (1, 2 * 66, 8 * 66, 3)
    assert code.sheet.data.shape == (1, 2 * 66, 8 * 66, 3)


def test_the_checkpoint_is_a_folder_that_diffusers_loads(tmp_path, trained, code):
    from diffusers import StableDiffusionPipeline

    value = checkpoint(code.weights, trained.text_encoder, trained.unet)
    for name, content in write_checkpoint(value, None).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path, safety_checker=None, local_files_only=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    (picture,) = pipeline("a red circle", num_inference_steps=1, output_type="np", height=64, width=64).images
    assert picture.shape == (64, 64, 3)


def test_weights_of_another_model_are_refused_by_name(words):
    with pytest.raises(UserError, match="wanted the weights of a AutoencoderKL, got those of CLIPTextModel"):
        build(words.weights, "AutoencoderKL")
    with pytest.raises(UserError, match="something unnamed"):
        build(Weights(tensors={}), "AutoencoderKL")
