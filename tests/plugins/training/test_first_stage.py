"""First stages of latent diffusion: the codebook, the divergence, the two players, and the latents' scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import VQModel

from mezzotint import Cancelled, Dataset, UserError
from mezzotint.testing import fake_context
from mezzotint_models.autoencoder import autoencoder
from mezzotint_training.autoencoder import make_autoencoder
from mezzotint_training.codebook_start import CodeUse, nearest, perplexity, start_codebook
from mezzotint_training.first_stage import FirstStage, first_stage
from mezzotint_training.first_stage_task import load_start, make_vq
from mezzotint_training.patch_critic import PatchCritic, adaptive_weight, hinge
from mezzotint_training.train_node import train

pytestmark = pytest.mark.usefixtures("quick_charts")


DATA = Dataset("tests.pictures", {}, 20)
SMALL = {
    "steps": 3,
    "batch": 4,
    "report_every": 1,
    "validate_every": 3,
    "cool_down": 0.0,
    "warm_up": 0,
    "ema": 0.0,
}


class Pictures:
    """Item i: a bright square at a place of its own on a ground of its own; 8x8."""

    def __init__(self, dataset=None, ctx=None, length=20, shape=(8, 8, 3)):
        self.length, self.shape = length, shape

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        picture = np.full(self.shape, 40 + 5 * index, np.uint8)
        picture[index % 5 : index % 5 + 3, index % 4 : index % 4 + 3, :3] = (255, 30 * (index % 7), 0)
        return {"image": picture}


def context(**more):
    return fake_context(loaders={"tests.pictures": Pictures}, **more)


def objective(kind="vq", **more):
    return first_stage(kind=kind, channels=[4, 8], latent_channels=3, codes=16, **more)


def opened(kind="vq", reader=None, **more):
    torch.manual_seed(0)
    return objective(kind, critic_channels=8, **more).open(context(), reader or Pictures(), 0, 4)


def generator():
    return torch.Generator().manual_seed(0)


def latents(count=2):
    return torch.randn(count, 3, 4, 4, dtype=torch.float64, generator=generator()).requires_grad_()


def test_the_gradient_goes_straight_through_to_what_was_quantised():
    quantiser = make_vq((4, 8), 3, 16).double().quantize
    z, weight = latents(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    made, _, (_, _, indices) = quantiser(z)
    (made * weight).sum().backward()
    assert torch.equal(z.grad, weight)
    assert quantiser.embedding.weight.grad is None
    wanted = quantiser.embedding.weight[indices].view(2, 4, 4, 3).permute(0, 3, 1, 2)
    assert torch.allclose(made, wanted, atol=1e-12)


def test_the_commitment_weighs_the_encoders_term_and_the_codebooks_own_is_1():
    quantiser = make_vq((4, 8), 3, 16, commitment=0.25).double().quantize
    z = latents()
    _, loss, (_, _, indices) = quantiser(z)
    loss.backward()
    flat = z.detach().permute(0, 2, 3, 1).reshape(-1, 3)
    away = flat - quantiser.embedding.weight.detach()[indices]
    of_encoder = 0.25 * 2 * away / away.numel()
    assert torch.allclose(z.grad.permute(0, 2, 3, 1).reshape(-1, 3), of_encoder, atol=1e-12)
    of_codes = torch.zeros(16, 3, dtype=torch.float64).index_add_(0, indices, -2 * away / away.numel())
    assert torch.allclose(quantiser.embedding.weight.grad, of_codes, atol=1e-12)
    assert torch.allclose(loss, 1.25 * away.square().mean())


def test_the_divergence_is_that_of_two_normals_over_a_picture():
    task = opened("kl", kl=0.5)
    task.model.double()
    wanted = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    _, bound, figures = task.bottleneck(wanted, generator())
    posterior = task.model.encode(wanted).latent_dist
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean, posterior.std), torch.distributions.Normal(0.0, 1.0)
    ).flatten(1)
    assert torch.allclose(figures["kl"], exact.sum(1).mean())
    assert torch.allclose(bound, 0.5 * exact.sum(1).mean() / (3 * 8 * 8))


def test_the_hinge_is_flat_beyond_its_margins_and_1_where_nothing_is_known():
    zero, far = torch.zeros(3), torch.full((3,), 5.0)
    assert hinge(zero, zero) == 1.0
    assert hinge(far, -far) == 0.0
    real = torch.tensor([0.4], requires_grad=True)
    hinge(real, -far).backward()
    assert real.grad.item() == -0.5


def test_the_adaptive_weight_is_the_ratio_of_the_two_gradients_at_the_last_layer():
    last = torch.tensor([1.0, -2.0], requires_grad=True)
    reconstruction = 3 * last[0] + 4 * last[1]  # gradient of norm 5
    adversarial = (0.3 * last[0] - 0.4 * last[1]) ** 2  # 2 * 1.1 * 0.5
    weight = adaptive_weight(reconstruction, adversarial, last)
    assert weight.item() == pytest.approx(5 / (1.1 + 1e-4), rel=1e-5)
    assert not weight.requires_grad
    assert adaptive_weight(reconstruction, 0 * last.sum(), last, most=100).item() == 100


def test_the_loss_adds_the_critics_opinion_with_both_weights():
    task = opened(adversarial=0.75)
    batch = task.batch(0, 0)
    with_critic, figures = task.loss(batch, "autoencoder", generator())
    plain, _ = opened().loss(batch, "autoencoder", generator())
    wanted = batch[0].permute(0, 3, 1, 2).float() / 127.5 - 1
    made = task.model.decode(task.model.encode(wanted).latents).sample
    opinion = -task.critic(made).mean()
    assert torch.allclose(with_critic, plain + 0.75 * figures["adaptive"] * opinion, atol=1e-5)
    last = task.model.decoder.conv_out.weight
    (of_pictures,) = torch.autograd.grad((made - wanted).abs().mean(), last, retain_graph=True)
    (of_critic,) = torch.autograd.grad(opinion, last)
    assert torch.allclose(figures["adaptive"], of_pictures.norm() / (of_critic.norm() + 1e-4), rtol=1e-4)


def test_the_critic_learns_alone_and_only_from_its_first_batch_on():
    task = opened(adversarial=0.75, adversarial_from=5)
    early, _ = task.loss(task.batch(4, 0), "critic", generator())
    assert early.item() == 0.0
    _, figures = task.loss(task.batch(4, 0), "autoencoder", generator())
    assert "adaptive" not in figures
    late, _ = task.loss(task.batch(5, 0), "critic", generator())
    late.backward()
    assert all(p.grad is None for p in task.model.parameters())
    assert any(p.grad.abs().sum() > 0 for p in task.critic.parameters())


def test_the_critic_judges_patches():
    critic = PatchCritic(8)
    picture = torch.randn(1, 3, 64, 64)
    changed = picture.clone()
    changed[..., :4, :4] += 1
    # Without the normalisation, which sees the whole picture.
    critic = torch.nn.Sequential(*(m for m in critic.layers if not isinstance(m, torch.nn.GroupNorm)))
    apart = (critic(changed) - critic(picture)).abs()[0, 0]
    assert apart.shape == (6, 6)
    assert apart[0, 0] > 0
    assert apart[4:].max() < 1e-6 and apart[:, 4:].max() < 1e-6


@pytest.mark.parametrize("kind", ["vq", "kl"])
def test_scaled_latents_have_unit_spread(kind):
    trained = train(context(), objective(kind), DATA, **SMALL)
    model = context().realise(autoencoder(trained.weights))
    pictures = torch.stack([torch.from_numpy(Pictures()[i]["image"]) for i in range(18)]).float() / 255
    assert model.encode(pictures).std().item() == pytest.approx(1, abs=0.1)
    assert model.encode(pictures).shape == (18, 3, 4, 4)
    assert trained.sheet.data.shape[-1] == 3
    assert {"psnr", "loss"} <= trained.report.data["validation"][-1].keys()


def test_decoding_quantises_first_so_quantised_latents_decode_alike():
    trained = train(context(), objective(), DATA, **SMALL)
    model = context().realise(autoencoder(trained.weights))
    z = 2 * torch.randn(2, 3, 4, 4, generator=generator())
    quantised = model.module.quantize(z / model.scale)[0]
    indices = model.module.quantize(z / model.scale)[2][2]
    assert not torch.allclose(quantised * model.scale, z, atol=0.1)
    assert torch.allclose(model.decode(z), model.decode(quantised * model.scale), atol=1e-5)
    assert torch.equal(model.module.quantize(quantised)[2][2], indices)


def test_a_kl_autoencoder_becomes_one_with_a_codebook_and_the_same_latents():
    torch.manual_seed(0)
    given = make_autoencoder((4, 8), 3).double()
    torch.nn.init.normal_(given.quant_conv.weight)
    model = make_vq((4, 8), 3, 16).double()
    assert not load_start(model, given)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(model.encode(x).latents, given.encode(x).latent_dist.mode(), atol=1e-5)
    z = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert torch.allclose(model.decode(z, force_not_quantize=True).sample, given.decode(z).sample, atol=1e-5)
    assert load_start(make_vq((4, 8), 3, 16), model)
    with pytest.raises(UserError, match="another shape"):
        load_start(make_vq((8, 8), 3, 16), given)


def test_an_encoder_that_is_not_trained_keeps_its_latents_their_name_and_their_scale():
    first = train(context(), objective(), DATA, **SMALL)
    start = autoencoder(first.weights)
    again = train(context(), objective(start=start, train_encoder=False), DATA, **SMALL)
    for name, value in first.weights.tensors.items():
        kept = name.startswith(("encoder.", "quant_conv."))
        assert torch.equal(again.weights.tensors[name], value) == kept or name.startswith("post_quant_conv")
    assert again.weights.meta["autoencoder"] == first.weights.meta["autoencoder"]
    with pytest.raises(UserError, match="'start' has to give the encoder"):
        first_stage(train_encoder=False)


def test_a_codebook_begins_at_the_clusters_of_what_is_there():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres[:, None] + 0.1 * torch.randn(3, 50, 2, generator=generator())).flatten(0, 1)
    found = start_codebook(points, 3, torch.Generator().manual_seed(1), rounds=20)
    assert torch.cdist(centres, found).min(1).values.max() < 5.1
    assert len(start_codebook(points[:2], 8, generator())) == 8
    assert torch.equal(nearest(points, centres), torch.arange(3).repeat_interleave(50))


def test_codes_that_fall_out_of_use_begin_again_at_the_encoders_outputs():
    task = opened()
    indices, encoded = torch.zeros(64, dtype=torch.int64), torch.randn(4, 3, 4, 4)
    before = task.model.quantize.embedding.weight.detach().clone()
    task.use.share[5] = 0.0
    task.lost = (indices, encoded)
    with torch.no_grad():
        task.after("autoencoder")
    now = task.model.quantize.embedding.weight.detach()
    assert torch.equal(now[:5], before[:5])
    vectors = encoded.movedim(1, -1).flatten(0, -2)
    assert (vectors == now[5]).all(1).any()


def test_a_code_is_lost_once_its_share_is_below_a_hundredth_and_then_counted_anew():
    use = CodeUse(4, decay=0.5)
    lost = [use.follow(torch.tensor([0, 1])).tolist() for _ in range(8)]
    assert lost[6] == [False, False, True, True]  # 0.5 ** 7
    assert not any(any(each) for n, each in enumerate(lost) if n != 6)
    assert use.share.tolist() == pytest.approx([2.0, 2.0, 0.5, 0.5], abs=0.02)


def test_perplexity_counts_codes_that_are_used_alike():
    assert perplexity(torch.tensor([0, 1, 2, 3] * 5), 16).item() == pytest.approx(4)
    assert perplexity(torch.zeros(9, dtype=torch.int64), 16).item() == pytest.approx(1)


def test_a_stopped_run_with_two_players_goes_on_in_the_same_bits():
    settings = {**SMALL, "steps": 4}
    made = objective(adversarial=0.75, adversarial_from=1, critic_channels=8)
    whole = train(context(), made, DATA, **settings)
    stopped = context(cancel_at=2)
    with pytest.raises(Cancelled):
        train(stopped, made, DATA, **settings)
    again = train(context(state=stopped.states[-1]), made, DATA, **settings)
    assert all(torch.equal(again.weights.tensors[name], value) for name, value in whole.weights.tensors.items())


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (Pictures(length=9), "at least 10 pictures to train on, got 9"),
        (Pictures(shape=(8, 9, 3)), "2 pixels a latent; got 9x8"),
        (Pictures(shape=(8, 8, 4)), r"\[H, W, 3\] uint8, got \[8, 8, 4\]"),
    ],
)
def test_pictures_that_do_not_do_are_refused(reader, message):
    with pytest.raises(UserError, match=message):
        objective().open(context(), reader, 0, 4).batch(0, 0)


def test_the_settings_travel_as_they_are():
    made = objective("kl", kl=1e-4, adversarial=0.5)
    assert isinstance(made, FirstStage)
    assert (made.kind, made.kl, made.adversarial, made.channels) == ("kl", 1e-4, 0.5, (4, 8))
    assert isinstance(make_vq((4, 8), 3, 16), VQModel)
