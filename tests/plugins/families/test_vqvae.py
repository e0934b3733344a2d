"""The codebook's gradients, indices and updates, and the prior over codes."""

from __future__ import annotations

import pytest
import torch

from mezzotint import UserError
from mezzotint_families.codebook import Codebook, perplexity
from mezzotint_families.vqvae import VQVAE, CodePrior, quantised_errors


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x():
    return torch.randn(2, 4, 3, 5, generator=seeded())


def test_forward_is_the_nearest_vector_and_backward_the_identity(x):
    book = Codebook(7, 4)
    x = x.requires_grad_(True)
    out = book(x)
    distances = (x.movedim(1, -1)[..., None, :] - book.vectors).square().sum(-1)
    assert torch.equal(out.indices, distances.argmin(-1))
    assert torch.allclose(out.vectors, book.look_up(out.indices), atol=1e-6)
    slope = torch.randn(out.vectors.shape, generator=seeded(1))
    out.vectors.backward(slope)
    assert torch.equal(x.grad, slope)


def test_indices_are_in_range_and_survive_a_round_trip(x):
    book = Codebook(7, 4)
    indices = book.nearest(x)
    assert indices.min() >= 0
    assert indices.max() < 7
    assert torch.equal(book.nearest(book.look_up(indices)), indices)


def test_half_precision_inputs_find_the_same_vectors():
    book = Codebook(64, 4)
    with torch.no_grad():
        book.vectors.add_(100)  # the expanded square of such numbers has no half precision left
    wanted = torch.randint(64, (1, 6, 6), generator=seeded())
    x = book.look_up(wanted)
    assert torch.equal(book.nearest(x.bfloat16().float()), book.nearest(x.bfloat16()))


def test_only_the_codebook_term_moves_the_codebook_and_only_the_commitment_the_encoder(x):
    book = Codebook(7, 4, update="gradient")
    x = x.requires_grad_(True)
    out = book(x)
    out.codebook.backward()
    assert book.vectors.grad.abs().max() > 0
    assert x.grad is None
    book.vectors.grad = None
    out = book(x)
    (out.commitment + out.vectors.square().mean()).backward()
    assert book.vectors.grad is None
    assert x.grad.abs().max() > 0


def test_a_moving_average_codebook_has_no_parameters_and_goes_to_the_means():
    book = Codebook(2, 1, decay=0.9)
    book.vectors.copy_(torch.tensor([[-1.0], [1.0]]))
    book.sums.copy_(book.vectors)
    assert not list(book.parameters())
    x = torch.tensor([-3.0, -5.0, 2.0, 2.5, 3.0]).view(5, 1, 1, 1)
    for _ in range(200):
        book.follow(x, book.nearest(x), seeded())
    assert book.vectors.flatten().tolist() == pytest.approx([-4.0, 2.5], abs=1e-3)


def test_one_update_is_the_formula():
    book = Codebook(2, 1, decay=0.75)
    book.vectors.copy_(torch.tensor([[-1.0], [1.0]]))
    book.sums.copy_(book.vectors)
    x = torch.tensor([-2.0, -3.0, -4.0, 5.0]).view(4, 1, 1, 1)
    book.follow(x, book.nearest(x), seeded())
    # counts: 0.75 * 1 + 0.25 * n; sums: 0.75 * m + 0.25 * sum of x
    wanted = [(-0.75 + 0.25 * -9) / (0.75 + 0.25 * 3), (0.75 + 0.25 * 5) / (0.75 + 0.25)]
    assert book.vectors.flatten().tolist() == pytest.approx(wanted)


def test_a_vector_that_nothing_comes_to_starts_again_among_the_inputs():
    book = Codebook(2, 1, decay=0.5)
    book.vectors.copy_(torch.tensor([[0.0], [1000.0]]))
    book.sums.copy_(book.vectors)
    x = torch.linspace(-1, 1, 64).view(64, 1, 1, 1)
    for _ in range(20):
        book.follow(x, book.nearest(x), seeded())
    assert book.vectors.abs().max() < 1
    assert perplexity(book.nearest(x), 2) > 1.5


def test_perplexity_counts_the_codes_in_use():
    assert perplexity(torch.zeros(50, dtype=torch.int64), 8).item() == pytest.approx(1)
    assert perplexity(torch.arange(8).repeat(5), 8).item() == pytest.approx(8)


def test_the_prior_sees_only_codes_before_its_own():
    torch.manual_seed(0)
    prior = CodePrior(5, 8, 2)
    indices = torch.randint(5, (1, 4, 4), generator=seeded())
    changed = indices.clone()
    changed[0, 1, 2] = (changed[0, 1, 2] + 1) % 5
    moved = (prior(changed) - prior(indices)).abs().amax(1)[0] > 1e-7
    flat = moved.flatten()
    assert not flat[: 1 * 4 + 3].any()  # what comes before, and the place itself
    assert flat[1 * 4 + 3 :].any()


def test_the_prior_learns_a_pattern_and_samples_it():
    torch.manual_seed(0)
    prior = CodePrior(2, 8, 1)
    board = (torch.arange(4)[:, None] + torch.arange(4)[None]) % 2
    boards = torch.stack((board, 1 - board))
    optimiser = torch.optim.Adam(prior.parameters(), 1e-2)
    for _ in range(120):
        loss = prior.loss(boards)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    drawn = prior.sample(torch.randn(8, 4, 4, generator=seeded(1)))
    assert all(torch.equal(each, boards[each[0, 0]]) for each in drawn)


def test_tiny_training_uses_many_codes_and_beats_the_mean_picture():
    torch.manual_seed(0)
    model = VQVAE(size=8, channels=16, codes=32, width=8, decay=0.9)
    generator = seeded(2)
    shades = torch.rand(48, 3, 2, 2, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    optimiser = torch.optim.Adam([*model.encoder.parameters(), *model.decoder.parameters()], 3e-3)
    for _ in range(120):
        inputs = model.encode(shades)
        errors = quantised_errors(model, shades, inputs)
        optimiser.zero_grad()
        (errors.reconstruction + 0.25 * errors.quantised.commitment).backward()
        optimiser.step()
        model.codebook.follow(inputs, errors.quantised.indices, generator)
    with torch.no_grad():
        error = (model.reconstruct(shades) - shades).square().mean()
        used = perplexity(model.codebook.nearest(model.encode(shades)), 32)
    assert used > 4
    assert error < (shades - shades.mean(0)).square().mean() / 4


def test_a_side_that_is_no_multiple_of_four_is_refused():
    with pytest.raises(UserError, match="multiple of 4 and at least 8, got 18"):
        VQVAE(size=18)
