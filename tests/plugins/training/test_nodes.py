"""A Stable-Diffusion-shaped model by its training nodes: it goes on in the same bits, and diffusers loads it."""

from __future__ import annotations

import copy

import pytest
import torch

from mezzotint import Cancelled, Dataset, UserError, Weights
from mezzotint.testing import check_node, fake_context
from mezzotint_training import split
from mezzotint_training.checkpoint import build, write_checkpoint
from mezzotint_training.mixture import mix
from mezzotint_training.nodes import autoencoder, checkpoint, denoiser, text_encoder
from mezzotint_training.train_node import train

CONFIG = {"seed": 0, "things": None, "split": "train", "unnamed": 0.0}
SCENES = Dataset(reader="smallworld.scenes", config=CONFIG, length=24)
SMALL = {"steps": 2, "batch": 2, "report_every": 1}
DENOISER = {"channels": [16, 32], "heads": 2}


def trained(objective, ctx=None, dataset=SCENES, **more):
    return train(ctx or fake_context(previews=False), objective, dataset, **{**SMALL, **more})


pytestmark = pytest.mark.usefixtures("quick_charts")


def words_objective():
    return text_encoder(width=16, layers=1, heads=2)


def code_objective():
    return autoencoder(channels=[16, 16, 32], fitted_on=16)


@pytest.fixture(scope="module")
def words():
    return trained(words_objective(), steps=4, batch=4)


@pytest.fixture(scope="module")
def code():
    return trained(code_objective())


@pytest.fixture(scope="module")
def whole(words, code):
    return trained(denoiser(code.weights, words.weights, **DENOISER), optimiser="muon")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def resumed(objective, **more):
    """What training gives that was cancelled in its first step and then run again with the state it saved."""
    stopped = fake_context(cancel_at=1, previews=False)
    keep = stopped._services.save_state
    stopped._services.save_state = lambda state: keep(copy.deepcopy(dict(state)))
    with pytest.raises(Cancelled):
        trained(objective, stopped, **more)
    assert stopped.states, "nothing was saved"
    return trained(objective, fake_context(state=stopped.states[-1], previews=False), **more)


def test_a_stopped_text_encoder_goes_on_in_the_same_bits(words):
    again = resumed(words_objective(), steps=4, batch=4)
    assert same(again.weights.tensors, words.weights.tensors)
    assert again.report.data == words.report.data and "right" in again.report.data["curve"][0]


def test_a_stopped_autoencoder_goes_on_in_the_same_bits(code):
    assert same(resumed(code_objective()).weights.tensors, code.weights.tensors)


def test_a_stopped_denoiser_goes_on_in_the_same_bits(whole, words, code):
    again = resumed(denoiser(code.weights, words.weights, **DENOISER), optimiser="muon")
    assert same(again.weights.tensors, whole.weights.tensors)
    assert again.report.data == whole.report.data


def test_training_changes_the_text_encoder_that_it_starts_from(whole, words):
    text = split(whole.weights)["text_encoder"]
    assert not same(text.tensors, words.weights.tensors)
    assert text.meta["text_encoder"]["tokenizer"] == words.weights.meta["tokenizer"]


def test_the_encoder_is_the_projection_that_was_fitted_and_only_the_decoder_learns(code):
    more = trained(code_objective(), init=code.weights)
    moved = {name.split(".")[0] for name, value in more.weights.tensors.items()
             if not torch.equal(value, code.weights.tensors[name])}  # fmt: skip
    assert moved == {"decoder", "post_quant_conv"}
    model = build(code.weights, "AutoencoderKL")
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = model.encode(pictures).latent_dist.mode()
        twice = model.encode(pictures.flip(0)).latent_dist.mode()
    assert latents.shape == (2, 8, 16, 16)
    assert torch.allclose(latents.flip(0), twice, atol=1e-4)


def test_sheets_show_every_sample(whole, code):
    assert whole.sheet.data.shape == (1, 2 * 66, 8 * 66, 3)
    assert code.sheet.data.shape == (1, 2 * 66, 8 * 66, 3)


def test_a_second_phase_starts_from_the_first(whole, words, code):
    objective = denoiser(code.weights, words.weights, **DENOISER)
    second = trained(objective, init=whole.weights, steps=1, learning_rate=1e-12, ema=0.0)
    for name, value in whole.weights.tensors.items():
        torch.testing.assert_close(second.weights.tensors[name], value, rtol=0, atol=1e-6)


def test_the_checkpoint_is_a_folder_that_diffusers_loads(tmp_path, whole, code):
    from diffusers import StableDiffusionPipeline

    for name, content in write_checkpoint(checkpoint(code.weights, whole.weights), None).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path, safety_checker=None, local_files_only=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    (picture,) = pipeline("a red circle", num_inference_steps=1, output_type="np", height=64, width=64).images
    assert picture.shape == (64, 64, 3)


def test_weights_of_another_model_are_refused_by_name(words, code):
    with pytest.raises(UserError, match="wanted the weights of a AutoencoderKL, got those of CLIPTextModel"):
        build(words.weights, "AutoencoderKL")
    with pytest.raises(UserError, match="something unnamed"):
        build(Weights(tensors={}), "AutoencoderKL")
    with pytest.raises(UserError, match="wanted the weights of a AutoencoderKL, got those of CLIPTextModel"):
        denoiser(words.weights, words.weights)
    with pytest.raises(UserError, match="the text encoder has no tokenizer"):
        denoiser(code.weights, words.weights.replace(meta={}))
    with pytest.raises(UserError, match="wanted the weights of several models"):
        checkpoint(code.weights, words.weights)


def test_a_data_set_that_does_not_say_what_its_captions_mean_is_refused():
    class Plain:
        def __len__(self):
            return 20

    ctx = fake_context(loaders={"tests.plain": lambda dataset, ctx: Plain()})
    with pytest.raises(UserError, match="does not say what its captions mean"):
        trained(words_objective(), ctx, Dataset("tests.plain", {}, 20))


def numbered(name, length):
    return Dataset("tests.numbered", {"name": name}, length)


class Numbered:
    def __init__(self, dataset, ctx):
        self.name, self.length = dataset.config["name"], dataset.length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        assert 0 <= index < self.length
        return {"caption": f"{self.name}{index}"}

    def caption(self, index):
        return self[index]["caption"]


@pytest.mark.parametrize(
    ("lengths", "shares", "most"), [((500, 500), [3, 1], 666), ((30, 1000, 1000), None, 90), ((7, 5), [1, 1], 10)]
)
def test_a_mixture_has_its_shares_everywhere_no_item_twice_and_ends_with_its_first_part(lengths, shares, most):
    mixed = mix([numbered(name, length) for name, length in zip("abc", lengths, strict=False)], shares=shares)
    reader = fake_context(loaders={"tests.numbered": Numbered}).open_dataset(mixed)
    captions = [reader.caption(i) for i in range(len(reader))]
    assert captions == [reader[i]["caption"] for i in range(len(reader))]
    assert len(set(captions)) == len(captions) == mixed.length
    assert mixed.length == pytest.approx(most, abs=4) and reader.name == "a"
    wanted = torch.tensor([float(s) for s in shares or [1] * len(lengths)])
    for part in (captions, captions[: max(len(captions) // 3, 4)]):
        found = torch.tensor([float(sum(text[0] == name for text in part)) for name in "abc"[: len(lengths)]])
        torch.testing.assert_close(found / len(part), wanted / wanted.sum(), rtol=0, atol=2 / len(part) + 0.01)
    with pytest.raises(IndexError):
        reader[len(reader)]


def test_a_mixture_of_nothing_or_with_other_shares_is_refused():
    with pytest.raises(UserError, match="0 data sets and 0 shares"):
        mix([])
    with pytest.raises(UserError, match="2 data sets and 1 shares"):
        mix([SCENES, SCENES], shares=[1.0])
    with pytest.raises(UserError, match="at least one"):
        mix([SCENES, SCENES], shares=[1.0, 1000.0])


def test_the_nodes_keep_what_every_node_promises(words, code, whole):
    check_node(text_encoder, width=16)
    check_node(autoencoder, channels=[16, 16, 32])
    check_node(denoiser, autoencoder=code.weights, text_encoder=words.weights, **DENOISER)
    check_node(checkpoint, autoencoder=code.weights, denoiser=whole.weights)
    check_node(mix, datasets=[SCENES, SCENES], shares=[1.0, 2.0])
