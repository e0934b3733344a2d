"""What moves when a word is learnt: alone, with keys and values, or beside other words."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Image, UserError
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.networks import part_of
from mezzotint_training.personal import personalise
from mezzotint_training.together import together

KEYS_AND_VALUES = ["attn2.to_k", "attn2.to_v"]


def subject(tiny, word: str = "<thing>", layers: list[str] = KEYS_AND_VALUES, **given):
    found = checkpoint(tiny.source)
    side = found.denoiser.sample_size * found.denoiser.downscale
    pictures = Image(torch.rand(3, side, side, 3, generator=torch.Generator().manual_seed(len(word))))
    settings = {"prompts": ["a {}", "a {} on the left"], "word": word, "begin": "circle", "vectors": 2, **given}
    return personalise(found.denoiser, found.text_encoder, pictures, found.autoencoder, layers=layers, **settings)


def learnt(objective, ctx, steps: int = 2):
    """The task after some steps of Adam with weight decay, which moves whatever it is given."""
    task = objective.open(ctx, None, 0, 2)
    moving = [p for module in task.modules.values() for p in module.parameters() if p.requires_grad]
    optimiser, generator = torch.optim.AdamW(moving, lr=1e-2, weight_decay=0.1), torch.Generator().manual_seed(0)
    for step in range(steps):
        optimiser.zero_grad()
        task.loss(task.batch(step, 0), "subject", generator)[0].backward()
        optimiser.step()
    return task


def unchanged(tiny, network) -> dict[str, bool]:
    before = dict(tiny.unet.named_parameters())
    return {name: torch.equal(value, before[name]) for name, value in network.named_parameters()}


def test_textual_inversion_moves_the_rows_of_its_word_and_nothing_else(tiny, ctx):
    task = learnt(subject(tiny, layers=[]), ctx)
    made = task.weights()
    assert list(made) == ["words"] and all(unchanged(tiny, task.unet.network).values())
    table = task.encoder.module.get_input_embeddings().weight
    assert torch.equal(table, tiny.text.get_input_embeddings().weight)
    (number,) = tiny.tokenizer("circle", add_special_tokens=False).input_ids
    rows = part_of(made["words"], "words").tensors["<thing>"]
    assert rows.shape == (2, 64) and (rows != table[number]).any(1).all()


def test_custom_diffusion_moves_keys_and_values_of_cross_attention_and_the_word(tiny, ctx):
    task = learnt(subject(tiny), ctx)
    same = unchanged(tiny, task.unet.network)
    wanted = {name for name in same if "attn2.to_k" in name or "attn2.to_v" in name}
    assert wanted and {name for name, is_same in same.items() if not is_same} == wanted
    made = task.weights()
    assert set(made["tuned"].tensors) == wanted and set(made) == {"tuned", "words"}


def test_a_word_learns_so_many_times_as_fast_as_the_layers(tiny, ctx):
    task = learnt(subject(tiny, word_rate=5.0), ctx, steps=1)
    # Adam's first step is the learning rate in each number, 0.01.
    table = task.encoder.module.get_input_embeddings().weight
    (number,) = tiny.tokenizer("circle", add_special_tokens=False).input_ids
    made = task.weights()
    moved = (part_of(made["words"], "words").tensors["<thing>"] - table[number]).abs()
    assert moved.median().item() == pytest.approx(0.05, rel=1e-2)
    layers = torch.cat([change.abs().flatten() for change in made["tuned"].tensors.values()])
    assert layers.quantile(0.9).item() < 0.012


def test_subjects_together_have_one_change_and_a_word_each_and_the_mean_of_their_losses(tiny, ctx):
    task = together([subject(tiny, "<a>"), subject(tiny, "<bc>")]).open(ctx, None, 0, 2)
    batch, noise = task.batch(0, 0), torch.Generator
    loss, _ = task.loss(batch, "subject", noise().manual_seed(1))
    shared = noise().manual_seed(1)
    each = []
    for number, one in enumerate(task.tasks):
        own = {name.partition("/")[2]: rows for name, rows in batch.items() if name.startswith(f"{number}/")}
        each.append(one.loss(own, "subject", shared)[0])
    torch.testing.assert_close(loss, (each[0] + each[1]) / 2)
    assert task.tasks[0].unet is task.tasks[1].unet
    made = learnt(together([subject(tiny, "<a>"), subject(tiny, "<bc>")]), ctx).weights()
    assert list(part_of(made["words"], "words").tensors) == ["<a>", "<bc>"]
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in made["tuned"].tensors)


def test_subjects_that_cannot_be_learnt_together_are_refused(tiny):
    with pytest.raises(UserError, match="each subject wants a new word of its own, got '<a>', '<a>'"):
        together([subject(tiny, "<a>"), subject(tiny, "<a>")])
    with pytest.raises(UserError, match="train one set of layers"):
        together([subject(tiny, "<a>"), subject(tiny, "<b>", ["attn2.to_k"])])
    found = checkpoint(tiny.source)
    with pytest.raises(UserError, match=r"wanted objectives of training\.personalise"):
        together([found.denoiser])
