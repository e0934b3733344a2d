"""Muon: orthogonal steps for hidden matrices, AdamW's for the rest, shared work, exact resume."""

from __future__ import annotations

import torch
from torch import nn

from mezzotint_training.muon import MuonAdamW, is_hidden, orthogonalise
from mezzotint_training.randomness import step_generator
from mezzotint_training.recipe import Recipe
from mezzotint_training.single import Single
from mezzotint_training.state import load_state, save_state
from mezzotint_training.trainer import Trainer


def test_orthogonalise_balances_singular_values():
    generator = torch.Generator().manual_seed(0)
    for shape in ((20, 50), (50, 20), (30, 30)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=generator)))
        assert values.max() < 1.25
        assert values.median() > 0.65


def test_steps_agree_with_torchs_muon():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(12, 20))
    theirs = nn.Parameter(ours.detach().clone())
    options = {"lr": 0.02, "weight_decay": 0.01, "momentum": 0.95}
    mine = MuonAdamW({"layer.weight": ours}, **options)
    reference = torch.optim.Muon([theirs], nesterov=True, adjust_lr_fn="match_rms_adamw", **options)
    start = ours.detach().clone()
    for step in range(4):
        gradient = torch.randn(12, 20, generator=step_generator(0, step))
        for parameter, optimiser in ((ours, mine), (theirs, reference)):
            parameter.grad = gradient.clone()
            optimiser.step()
    # torch iterates in bfloat16.
    assert (ours - theirs).norm() < 0.05 * (ours - start).norm()


def test_the_rest_agrees_with_adamw():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(12))
    theirs = nn.Parameter(ours.detach().clone())
    options = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    pairs = ((ours, MuonAdamW({"layer.bias": ours}, **options)), (theirs, torch.optim.AdamW([theirs], **options)))
    for step in range(5):
        gradient = torch.randn(12, generator=step_generator(0, step))
        for parameter, optimiser in pairs:
            parameter.grad = gradient.clone()
            optimiser.step()
    torch.testing.assert_close(ours, theirs)


def test_a_convolution_is_the_matrix_of_its_outputs():
    torch.manual_seed(0)
    conv = nn.Parameter(torch.randn(6, 4, 3, 3))
    flat = nn.Parameter(conv.detach().clone().reshape(6, -1))
    gradient = torch.randn(6, 4, 3, 3)
    conv.grad, flat.grad = gradient, gradient.reshape(6, -1)
    for parameter in (conv, flat):
        MuonAdamW({"layer.weight": parameter}).step()
    torch.testing.assert_close(conv.reshape(6, -1), flat)


def test_edges_and_vectors_are_not_hidden():
    matrix, vector = torch.zeros(2, 2), torch.zeros(2)
    assert is_hidden("unet.mid_block.resnets.0.conv1.weight", matrix)
    assert not is_hidden("unet.mid_block.resnets.0.conv1.bias", vector)
    for name in (
        "unet.conv_in.weight",
        "text.embeddings.token_embedding.weight",
        "unet.time_embedding.linear_1.weight",
    ):
        assert not is_hidden(name, matrix)


def test_copies_share_the_work_and_make_the_same_step():
    torch.manual_seed(0)
    start = {f"layer.{i}.weight": torch.randn(4, 6) for i in range(3)}
    gradients = [torch.randn(4, 6) for _ in start]

    def stepped(**options):
        parameters = {name: nn.Parameter(value.clone()) for name, value in start.items()}
        for parameter, gradient in zip(parameters.values(), gradients, strict=True):
            parameter.grad = gradient.clone()
        MuonAdamW(parameters, **options).step()
        return list(parameters.values())

    whole, parts = stepped(), []
    stepped(rank=1, world=2, total=lambda flat: parts.append(flat.clone()))
    shared = stepped(rank=0, world=2, total=lambda flat: flat.add_(parts[0]))
    for one, two in zip(whole, shared, strict=True):
        torch.testing.assert_close(one, two)


class Product:
    """Learn one matrix by another, so that both kinds of parameter are tuned."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 5))

    @property
    def modules(self):
        return {"net": self.model}

    def loss(self, batch, generator):
        noisy = batch + 0.1 * torch.randn(batch.shape, generator=generator)
        return (self.model(noisy) - batch).square().mean(), {}


def test_resumed_run_is_bit_identical(tmp_path):
    def run():
        recipe = Recipe(steps=12, warm_up=2, learning_rate=1e-2, optimiser="muon")
        batches = lambda step, rank: torch.randn(8, 5, generator=step_generator(5, step))  # noqa: E731
        return Trainer(Single(Product(), batches), recipe)

    whole, first, second = run(), run(), run()
    whole.run()
    first.run(until=5)
    save_state(tmp_path / "state.safetensors", *first.state())
    second.restore(*load_state(tmp_path / "state.safetensors"))
    second.run()
    wanted, got = whole.state()[0], second.state()[0]
    assert any(name.startswith("optimiser/momentum/") for name in wanted)
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
