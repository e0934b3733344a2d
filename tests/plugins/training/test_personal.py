"""A subject from a few pictures: what moves, what the prior keeps, and what is refused."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, Image, Source, TextEncoder, UserError
from mezzotint.testing import fake_context
from mezzotint_kernels import normals
from mezzotint_models import part_of
from mezzotint_models.lora import lora
from mezzotint_models.tuned import tuned
from mezzotint_sampling.nodes import guide
from mezzotint_training.personal import personalise
from mezzotint_training.train_node import train

PLAIN = {
    "batch": 2, "warm_up": 0, "cool_down": 0.0, "ema": 0.0, "weight_decay": 0.0, "report_every": 10,
    "learning_rate": 2e-3,
}  # fmt: skip
PICTURES = Image(normals(0, (3, 8, 8, 3)).sigmoid())
PRIOR = Image(normals(9, (4, 8, 8, 3)).sigmoid())
WITH = {"prior": PRIOR, "prior_prompts": ["a circle"]}
ENCODER = TextEncoder(Source("texts", "", "0" * 64), loader="test.texts")


class Texts:
    """Each prompt as fixed random vectors of its own."""

    def condition(self, prompts):
        return Conditioning(context=torch.cat([normals(sum(map(ord, prompt)), (1, 4, 16)) for prompt in prompts]))


pytestmark = pytest.mark.usefixtures("quick_charts")


def context():
    return fake_context(loaders={"test.texts": lambda recipe, ctx: Texts()})


def learnt(model, steps=12, layers=("",), **more):
    made = personalise(model, ENCODER, PICTURES, prompts=["a toy"], layers=list(layers), **more)
    return train(context(), made, steps=steps, validate_every=steps, **PLAIN)


def names(model):
    return {name for name, _ in context().realise(model).module.named_parameters()}


def test_all_of_the_denoiser_may_move_and_the_pools_own_does_not(model):
    inside = context()
    realised = inside.realise(model)
    before = {name: p.detach().clone() for name, p in realised.module.named_parameters()}
    changes = part_of(learnt(model).weights, "tuned")
    assert set(changes.tensors) == names(model)
    assert sum(bool(change.abs().max() > 0) for change in changes.tensors.values()) > 0.9 * len(before)
    assert all(torch.equal(p, before[name]) for name, p in realised.module.named_parameters())


def test_exactly_the_layers_that_are_named_change(model):
    weights = learnt(model, layers=["attn2.to_k", "attn2.to_v"]).weights
    changes = part_of(weights, "tuned").tensors
    assert set(changes) == {n for n in names(model) if "attn2.to_k" in n or "attn2.to_v" in n}
    assert all(change.abs().max() > 0 for change in changes.values())


def test_a_change_of_low_rank_has_that_rank_on_those_layers_and_is_what_was_trained(model):
    made = personalise(model, ENCODER, PICTURES, prompts=["a toy"], layers=["attn"], rank=2)
    task = made.open(context(), None, 0, 2)
    weights = task.weights()["lora"]
    assert all(tensor.shape[0 if ".lora_A." in name else 1] == 2 for name, tensor in weights.tensors.items())
    with torch.no_grad():
        for parameter in task.modules["unet"].parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    x, told = normals(1, (1, 3, 8, 8)), Conditioning(context=normals(2, (1, 4, 16)))
    with torch.no_grad():
        wanted = task.unet(x, torch.tensor([500]), told)
    inside = context()
    realised = inside.realise(model)
    (patch,) = lora(model, task.weights()["lora"]).patches
    with patch.apply(realised, inside) as put_on, torch.no_grad():
        got = put_on.module(x, torch.tensor([500]), encoder_hidden_states=told.context).sample
        plain = {n.split(".lora_")[0] for n in weights.tensors}
    assert torch.allclose(got, wanted, atol=1e-5)
    assert plain == {n.removesuffix(".weight") for n in names(model) if ".attn" in n and n.endswith(".weight")}


def test_the_loss_is_the_subjects_and_lambda_times_the_priors(model):
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        task = personalise(
            model, ENCODER, PICTURES, prompts=["a toy"], layers=["attn2"], prior_weight=weight, **WITH
        ).open(context(), None, 0, 2)
        losses[weight], parts = task.loss(task.batch(0, 0), "subject", torch.Generator().manual_seed(1))
        assert losses[weight].item() == pytest.approx(
            (parts["subject"] + weight * parts["prior"]).item(), rel=1e-6
        )
    alone = personalise(model, ENCODER, PICTURES, prompts=["a toy"], layers=["attn2"]).open(context(), None, 0, 2)
    assert losses[0.0].item() == pytest.approx(
        alone.loss(alone.batch(0, 0), "subject", torch.Generator().manual_seed(1))[0].item(), rel=1e-6
    )
    assert losses[3.0] > losses[1.0] > losses[0.0]


def test_the_subject_is_learnt_and_the_prior_holds_its_own_pictures(model):
    rest = {"steps": 25, **WITH}
    (kept,) = learnt(model, prior_weight=1.0, **rest).report.data["validation"]
    (free,) = learnt(model, prior_weight=0.0, **rest).report.data["validation"]
    assert kept["loss"] < 0.9 * kept["loss_at_first"]
    assert kept["prior"] < free["prior"]


def test_training_goes_on_from_what_was_tuned_before_and_its_differences_go_on_top(model):
    first = learnt(model, layers=["attn2"]).weights
    before = tuned(model, first)
    objective = personalise(before, ENCODER, PICTURES, prompts=["a toy"], layers=["attn2"])
    task = objective.open(context(), None, 0, 2)
    plain, changes = context().realise(model).module, part_of(first, "tuned").tensors
    with torch.no_grad():
        for name, parameter in task.unet.network.named_parameters():
            moved = plain.get_parameter(name) + changes.get(name, 0)
            assert torch.allclose(parameter, moved, atol=1e-7)
            if parameter.requires_grad:
                parameter.add_(0.5)
    assert all(torch.allclose(c, torch.tensor(0.5)) for c in task.weights()["tuned"].tensors.values())


def test_a_denoiser_with_guidance_is_refused(model):
    guided = guide(model, Conditioning(context=normals(0, (1, 4, 16))))
    with pytest.raises(UserError, match=r"as it is, or with models\.tuned, .* guide it afterwards"):
        personalise(guided, ENCODER, PICTURES, prompts=["a toy"], layers=["attn2"])


def test_differences_count_as_much_as_they_are_asked_to(model):
    weights = learnt(model, layers=["attn2.to_v"]).weights
    inside = context()
    realised = inside.realise(model)
    changes = part_of(weights, "tuned").tensors
    before = {name: realised.module.get_parameter(name).detach().clone() for name in changes}
    (patch,) = tuned(model, weights, strength=0.5).patches
    with patch.apply(realised, inside) as put_on:
        for name, change in changes.items():
            assert torch.allclose(put_on.module.get_parameter(name), before[name] + change / 2)
    assert tuned(model, weights, strength=0) is model


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"pictures": Image(PICTURES.data[:1])}, "one picture is learnt by heart.*give three to five"),
        ({"layers": []}, "nothing would be trained; give layers"),
        ({"layers": [], "rank": 4, "word": "<toy>"}, "rank 4 wants layers"),
        ({"word": "<new>"}, "no prompt has the new word '<new>'"),
        ({"prompts": ["a {}"]}, "stands for a new word, and there is none"),
        ({"prior": PRIOR}, "prior pictures and their prompts belong together"),
        ({"prior": PRIOR, "prior_prompts": ["a", "b"]}, "2 prompts for 4 prior pictures; give one for each"),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_training(model, more, message):
    given = {"pictures": PICTURES, "prompts": ["a toy"], "layers": ["attn2"], **more}
    with pytest.raises(UserError, match=message):
        personalise(model, ENCODER, **given)


def test_what_training_finds_wrong_says_what_there_is(model):
    with pytest.raises(UserError, match=r"no name of the denoiser's tensors has 'attn3'.*attn2"):
        personalise(model, ENCODER, PICTURES, prompts=["a"], layers=["attn3"]).open(context(), None, 0, 2)
    with pytest.raises(UserError, match="names no linear layers, which a LoRA changes"):
        personalise(model, ENCODER, PICTURES, prompts=["a"], layers=["conv_in"], rank=2).open(
            context(), None, 0, 2
        )
    large = Image(normals(0, (2, 16, 16, 3)).sigmoid())
    with pytest.raises(
        UserError, match=r"trained on 8x8 pictures of 3 channels, got \[16, 16, 3\]; image\.resize"
    ):
        personalise(model, ENCODER, large, prompts=["a"], layers=["attn2"]).open(context(), None, 0, 2)
