"""The families through the trainer, and their nodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mezzotint import Cancelled, Dataset, Image, UserError, Weights
from mezzotint.testing import fake_context
from mezzotint_families import nodes
from mezzotint_families.building import build_family, pack_family
from mezzotint_families.gan import Generator
from mezzotint_families.realnvp import RealNVP
from mezzotint_families.vae import VAE
from mezzotint_families.vqvae import VQVAE
from mezzotint_training import Pictures, sheet_of
from mezzotint_training.train_node import train

SCENES = Dataset(
    reader="smallworld.scenes", config={"seed": 0, "things": 1, "split": "train", "unnamed": 0.0}, length=24
)
SMALL = {"steps": 4, "batch": 4, "report_every": 2, "validate_every": 2, "optimiser": "adam"}
OBJECTIVES = {
    "vae": lambda: nodes.vae(size=8, channels=8, codes=4),
    "bernoulli": lambda: nodes.vae(size=8, channels=8, codes=4, likelihood="bernoulli"),
    "realnvp": lambda: nodes.realnvp(size=8, hidden=4),
    "vqvae": lambda: nodes.vqvae(size=8, channels=8, codes=8, width=4, prior_channels=8, prior_layers=1),
    "gradient": lambda: nodes.vqvae(size=8, channels=8, codes=8, width=4, update="gradient", prior_channels=8),
    "gan": lambda: nodes.gan(size=8, channels=8, noise=4),
    "hinge": lambda: nodes.gan(size=8, channels=8, noise=4, loss="hinge"),
    "wgan": lambda: nodes.wgan(size=8, channels=8, noise=4, critic_steps=2),
    "clipping": lambda: nodes.wgan(size=8, channels=8, noise=4, critic_steps=2, constraint="clipping"),
}
FIGURES = {
    "vae": {"elbo", "kl", "mse"},
    "bernoulli": {"elbo", "kl"},
    "realnvp": {"loss", "round_trip"},
    "vqvae": {"mse", "perplexity", "bits_per_code"},
    "gradient": {"mse", "perplexity"},
    "gan": {"divergence", "spread"},
    "hinge": {"spread"},
    "wgan": {"distance", "spread"},
    "clipping": {"distance", "spread"},
}
SMALLEST = {
    "vae": lambda: VAE(size=8, channels=8, codes=4),
    "realnvp": lambda: RealNVP(size=8, hidden=4),
    "vqvae": lambda: VQVAE(size=8, channels=8, codes=8, width=4, prior_channels=8, prior_layers=1),
    "gan": lambda: Generator(size=8, channels=8, noise=4),
}


def smallest(family):
    torch.manual_seed(0)
    return pack_family(SMALLEST[family]())


@pytest.mark.parametrize("family", OBJECTIVES)
def test_each_objective_trains_and_its_weights_make_pictures(family):
    trained = train(fake_context(), OBJECTIVES[family](), SCENES, **SMALL)
    assert FIGURES[family] <= trained.report.data["validation"][-1].keys()
    made = nodes.sample(fake_context(), trained.weights, count=3).data
    assert made.shape == (3, 8, 8, 3)
    assert made.min() >= 0
    assert made.max() <= 1
    assert trained.sheet.data.shape[-1] == 3


def test_clipping_holds_for_the_critic_after_a_step_of_its_own():
    task = OBJECTIVES["clipping"]().open(fake_context(), Scenes(24), 0, 4)
    task.after("critic")
    assert max(float(p.detach().abs().max()) for p in task.critic.parameters()) <= 0.01 + 1e-9
    assert max(float(p.detach().abs().max()) for p in task.model.parameters()) > 0.01


def test_a_critics_step_leaves_the_generator_without_a_gradient():
    task = OBJECTIVES["wgan"]().open(fake_context(), Scenes(24), 0, 4)
    loss, _ = task.loss(task.batch(0, 0), "critic", torch.Generator().manual_seed(0))
    loss.backward()
    assert all(parameter.grad is None for parameter in task.model.parameters())


@pytest.mark.parametrize("family", SMALLEST)
def test_weights_make_the_same_network_again(family):
    weights = smallest(family)
    again = pack_family(build_family(weights))
    assert again.meta == weights.meta
    assert all(torch.equal(again.tensors[name], value) for name, value in weights.tensors.items())


@pytest.mark.parametrize("family", SMALLEST)
def test_a_sample_is_the_same_alone_and_in_a_batch(family):
    weights = smallest(family)
    many = nodes.sample(fake_context(), weights, count=3, seed=5).data
    alone = nodes.sample(fake_context(), weights, count=1, seed=7).data
    assert torch.allclose(many[2], alone[0], atol=1e-5)


@pytest.mark.parametrize("family", ["vae", "realnvp", "gan"])
def test_an_interpolation_begins_and_ends_in_samples(family):
    weights = smallest(family)
    way = nodes.interpolate(fake_context(), weights, rows=2, steps=5, seed=3).data
    ends = nodes.sample(fake_context(), weights, count=4, seed=3).data
    assert way.shape[0] == 10
    for row in range(2):
        assert torch.allclose(way[5 * row], ends[row], atol=1e-4)
        assert torch.allclose(way[5 * row + 4], ends[row + 2], atol=1e-4)


def test_codes_have_nothing_between_them():
    with pytest.raises(UserError, match="nothing between them"):
        nodes.interpolate(fake_context(), smallest("vqvae"))


def test_a_flow_gives_a_picture_back():
    picture = Image(torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0)))
    back = nodes.reconstruct(fake_context(), smallest("realnvp"), picture)
    assert (back.data - picture.data).abs().max() < 1 / 256 + 1e-4  # within the level's cell


def test_what_cannot_be_reconstructed_is_refused():
    with pytest.raises(UserError, match="no way back"):
        nodes.reconstruct(fake_context(), smallest("gan"), Image(torch.zeros(1, 8, 8, 3)))
    with pytest.raises(UserError, match=r"wanted \[B, 8, 8, 3\].*got \[1, 12, 8, 3\]"):
        nodes.reconstruct(fake_context(), smallest("vae"), Image(torch.zeros(1, 12, 8, 3)))


def test_other_weights_are_refused():
    with pytest.raises(UserError, match=r"families\.vae.*got those of UNet"):
        nodes.sample(fake_context(), Weights({}, target="UNet"))


class Scenes:
    """A reader of flat pictures; item i has the level i."""

    def __init__(self, length, shape=(16, 16, 3), key="image"):
        self.length, self.shape, self.key = length, shape, key

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {self.key: np.full(self.shape, index, dtype=np.uint8)}


def test_held_out_pictures_are_never_in_a_batch():
    pictures = Pictures(Scenes(40), 8, 12, 0)
    seen = {int(each[0, 0, 0]) for step in range(9) for each in pictures.batch(step, 0)}
    held = {round(float(each[0, 0, 0]) * 255) for each in pictures.held_out()}
    assert held == {36, 37, 38, 39}
    assert seen == set(range(36))


def test_pictures_are_cut_square_and_averaged():
    class Halves(Scenes):
        def __getitem__(self, index):
            picture = np.zeros((16, 24, 3), dtype=np.uint8)
            picture[:, 12:] = 200
            return {"image": picture}

    (picture,) = Pictures(Halves(10), 8, 1, 0).levels([0])
    assert picture.shape == (3, 8, 8)
    assert picture[:, :, :4].max() == 0
    assert picture[:, :, 4:].min() == 200


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (Scenes(9), "at least 10 pictures to train on, got 9"),
        (Scenes(20, shape=(6, 6, 3)), "6 pixels across, less than the size 8"),
        (Scenes(20, shape=(16, 16, 4)), r"\[H, W, 3\] uint8, got \[16, 16, 4\]"),
        (Scenes(20, key="caption"), "items with an image, got caption"),
    ],
)
def test_a_data_set_that_does_not_do_is_refused(reader, message):
    with pytest.raises(UserError, match=message):
        Pictures(reader, 8, 2, 0).batch(0, 0)


def test_a_sheet_has_every_picture_at_its_place():
    sheet = sheet_of(torch.linspace(0, 0.9, 10).view(10, 1, 1, 1).expand(10, 3, 4, 4), columns=8, enlarged=1).data
    assert sheet.shape == (1, 12, 48, 3)
    assert sheet[0, 3, 3 + 6 * 7, 0] == pytest.approx(0.7)
    assert sheet[0, 6 + 3, 3 + 6, 0] == pytest.approx(0.9)
    assert sheet[0, 6 + 3, 3 + 12, 0] == 1


@pytest.mark.parametrize("family", ["vqvae", "wgan"])
def test_a_stopped_run_goes_on_in_the_same_bits(family):
    whole = train(fake_context(), OBJECTIVES[family](), SCENES, **SMALL)
    stopped = fake_context(cancel_at=1)
    with pytest.raises(Cancelled):
        train(stopped, OBJECTIVES[family](), SCENES, **SMALL)
    again = train(fake_context(state=stopped.states[-1]), OBJECTIVES[family](), SCENES, **SMALL)
    assert all(torch.equal(again.weights.tensors[name], value) for name, value in whole.weights.tensors.items())
    assert again.report.data == whole.report.data
