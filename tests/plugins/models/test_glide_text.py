"""GLIDE's text transformer: who sees whom, what padding is, and that a file holds it."""

from __future__ import annotations

import pytest
import torch

from mezzotint_models.glide_text import GlideText

END = 9


@pytest.fixture
def network() -> GlideText:
    torch.manual_seed(0)
    return GlideText(vocabulary=10, end=END, length=6, width=16, layers=2, heads=2, pooled=5).double().eval()


def ids(*words: int, length: int = 6) -> torch.Tensor:
    return torch.tensor([[*words, *[END] * (length - len(words))]])


def test_a_later_token_changes_the_tokens_before_it(network: GlideText) -> None:
    one, _ = network(ids(8, 1, 2, 3))
    other, _ = network(ids(8, 1, 2, 4))
    assert (one - other)[:, 0].abs().max() > 1e-4


def test_padding_is_not_masked_out_and_is_not_the_end_mark(network: GlideText) -> None:
    before, _ = network(ids(8, 1))
    with torch.no_grad():
        network.padding_embedding[5] += torch.randn(16)
    after, _ = network(ids(8, 1))
    assert (before - after)[:, 1].abs().max() > 1e-4, "padding is seen by the words"
    full, _ = network(torch.tensor([[8, 1, 2, 3, 4, END]]))
    with torch.no_grad():
        network.padding_embedding.fill_(7.0)
    again, _ = network(torch.tensor([[8, 1, 2, 3, 4, END]]))
    assert torch.equal(full, again), "a text without padding has none of its embeddings"


def test_what_stands_behind_the_end_mark_does_not_matter(network: GlideText) -> None:
    one, pooled = network(torch.tensor([[8, 1, END, END, END, END]]))
    other, also = network(torch.tensor([[8, 1, END, 3, 0, 5]]))
    assert torch.equal(one, other) and torch.equal(pooled, also)


def test_pooled_is_the_projection_of_the_last_position(network: GlideText) -> None:
    tokens, pooled = network(ids(8, 1, 2))
    assert tokens.shape == (1, 6, 16) and pooled.shape == (1, 5)
    expected = tokens[:, 5] @ network.projection.weight.T + network.projection.bias
    torch.testing.assert_close(pooled, expected)


def test_a_row_does_not_depend_on_the_rest_of_the_batch(network: GlideText) -> None:
    both = torch.cat((ids(8, 1, 2), ids(8, 3)))
    tokens, pooled = network(both)
    swapped, also = network(both.flip(0))
    torch.testing.assert_close(swapped.flip(0), tokens)
    torch.testing.assert_close(also.flip(0), pooled)


def test_a_layer_is_torchs_own_with_the_same_numbers(network: GlideText) -> None:
    block = network.blocks[0]
    layer = torch.nn.TransformerEncoderLayer(16, 2, 64, 0.0, "gelu", batch_first=True, norm_first=True).double()
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": block.query_key_value.weight,
            "self_attn.in_proj_bias": block.query_key_value.bias,
            "self_attn.out_proj.weight": block.attention_out.weight,
            "self_attn.out_proj.bias": block.attention_out.bias,
            "linear1.weight": block.mlp_in.weight, "linear1.bias": block.mlp_in.bias,
            "linear2.weight": block.mlp_out.weight, "linear2.bias": block.mlp_out.bias,
            "norm1.weight": block.attention_norm.weight, "norm1.bias": block.attention_norm.bias,
            "norm2.weight": block.mlp_norm.weight, "norm2.bias": block.mlp_norm.bias,
        }
    )  # fmt: skip
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    torch.testing.assert_close(block(x), layer(x))


def test_another_length_is_an_error_that_says_which_was_wanted(network: GlideText) -> None:
    with pytest.raises(ValueError, match=r"wanted token ids \[B, 6\], got \[1, 4\]"):
        network(ids(8, 1, length=4))


def test_numbers_come_back_from_a_value(network: GlideText) -> None:
    from mezzotint_models.networks import build_network, pack_network

    weights = pack_network(network.float(), text_encoder={"kind": "glide", "tokenizer": {}})
    again = build_network(weights)
    assert weights.meta["class"] == "mezzotint.glide_text"
    assert torch.equal(again(ids(8, 1))[0], network(ids(8, 1))[0])
