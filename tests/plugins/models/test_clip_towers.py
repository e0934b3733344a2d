"""CLIP's towers: transformers' own numbers, from a folder as it saves them and from a value."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from mezzotint import Conditioning, Image, UserError
from mezzotint_models.image_encoders import encode_image, fitted, image_encoder
from mezzotint_models.networks import pack_network
from mezzotint_models.prompt import encode_text
from mezzotint_models.text_encoders import text_encoder

MEAN, DEVIATION = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
TEXTS = ["a red circle", "a large blue square on the left"]


@pytest.fixture(scope="module")
def clip(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory, source_of: Any) -> SimpleNamespace:
    """A small random CLIP as a folder in transformers' layout, and as a value."""
    vocabulary = len(tiny.tokenizer)
    text = {
        "vocab_size": vocabulary, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 16,
        "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    model.save_pretrained(folder)
    for file in (tiny.folder / "tokenizer").iterdir():
        shutil.copy(file, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": DEVIATION}))
    files = {file.name: file.read_text() for file in (tiny.folder / "tokenizer").iterdir()}
    weights = pack_network(
        model,
        text_encoder={"kind": "clip", "tokenizer": files},
        image_encoder={"size": 16, "mean": MEAN, "std": DEVIATION},
    )
    return SimpleNamespace(model=model, folder=folder, source=source_of(folder), weights=weights)


def ids_of(tiny: SimpleNamespace, texts: list[str]) -> torch.Tensor:
    return tiny.tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt").input_ids


def normalised(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("kind", ["folder", "value"])
def test_texts_are_embedded_as_transformers_does(clip: Any, tiny: Any, ctx: Any, kind: str) -> None:
    encoder = text_encoder(source=clip.source) if kind == "folder" else text_encoder(clip.weights)
    with torch.no_grad():
        made = encode_text(ctx, encoder, text=TEXTS)
        ids = ids_of(tiny, TEXTS)
        expected = normalised(clip.model.get_text_features(ids).pooler_output)
        states = clip.model.text_model(ids).last_hidden_state
    torch.testing.assert_close(made.pooled, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(made.context, states, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["folder", "value"])
def test_pictures_are_embedded_as_transformers_does(clip: Any, ctx: Any, kind: str) -> None:
    encoder = image_encoder(source=clip.source) if kind == "folder" else image_encoder(clip.weights)
    pixels = torch.rand(3, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    made = encode_image(ctx, encoder, Image(pixels), batch=2)
    with torch.no_grad():
        given = ((pixels - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).permute(0, 3, 1, 2)
        expected = normalised(clip.model.get_image_features(given).pooler_output)
    torch.testing.assert_close(made.pooled, expected, atol=1e-6, rtol=1e-5)
    assert made.context is None


def test_a_later_word_changes_nothing_before_it(clip: Any, ctx: Any) -> None:
    with torch.no_grad():
        one = encode_text(ctx, text_encoder(clip.weights), text="a red circle").context
        other = encode_text(ctx, text_encoder(clip.weights), text="a red square").context
    assert one is not None and other is not None
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert (one[:, 3] - other[:, 3]).abs().max() > 1e-4


def test_the_end_mark_is_looked_up_and_need_not_be_the_highest_id(clip: Any, ctx: Any, services: Any) -> None:
    tower = services.realise(text_encoder(clip.weights), ctx)
    end = tower.tokenizer.eos_token_id
    states = torch.arange(10.0).view(2, 5, 1)
    ids = torch.tensor([[1, end + 7, end, end, end], [1, 2, 3, end + 9, end]])
    assert tower.at_end(states, ids).flatten().tolist() == [2.0, 9.0]


def test_a_batch_in_another_order_gives_the_same_rows_in_that_order(clip: Any, ctx: Any) -> None:
    with torch.no_grad():
        ahead = encode_text(ctx, text_encoder(clip.weights), text=TEXTS).pooled
        back = encode_text(ctx, text_encoder(clip.weights), text=TEXTS[::-1]).pooled
    assert ahead is not None and back is not None
    torch.testing.assert_close(back.flip(0), ahead)


def test_the_gradient_of_an_embedding_reaches_the_pixels(clip: Any, ctx: Any, services: Any) -> None:
    tower = services.realise(image_encoder(clip.weights), ctx)
    tower.clip.double()
    pixels = torch.rand(1, 32, 32, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    along = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def height(x: torch.Tensor) -> torch.Tensor:
        return (tower.embed(x).double() * along).sum()

    wanted = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(height(wanted), wanted)
    step = torch.zeros_like(pixels)
    step[0, 5, 9, 1] = 1e-2
    slope = (height(pixels + step) - height(pixels - step)) / 2e-2
    assert slope.item() == pytest.approx(gradient[0, 5, 9, 1].item(), rel=0.05)


def test_larger_pictures_are_averaged_and_wide_ones_cut_in_the_middle() -> None:
    wide = torch.zeros(1, 1, 4, 8)
    wide[..., 2:6] = torch.arange(16.0).view(4, 4)
    assert fitted(wide, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(fitted(wide[..., 2:6], 4), wide[..., 2:6])
    assert fitted(wide, 6).shape == (1, 1, 6, 6)


def test_pooled_of_stable_diffusions_encoder_is_what_it_was(tiny: Any, ctx: Any) -> None:
    from mezzotint_models.checkpoint import checkpoint

    with torch.no_grad():
        made = encode_text(ctx, checkpoint(source=tiny.source).text_encoder, text=TEXTS)
        expected = tiny.text(ids_of(tiny, TEXTS)).pooler_output
    torch.testing.assert_close(made.pooled, expected, atol=1e-5, rtol=1e-5)


def test_a_folder_that_is_not_clip_is_refused(tiny: Any, clip: Any, source_of: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"wanted a CLIP folder"):
        text_encoder(source=tiny.source)
    with pytest.raises(UserError, match=r"model_type clip\), got 'clip_text_model'"):
        image_encoder(source=source_of(tiny.folder / "text_encoder"))
    shutil.copytree(clip.folder, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").rename(tmp_path / "clip" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no model.safetensors"):
        from mezzotint_models.image_encoders import load_image_encoder

        load_image_encoder(image_encoder(source=source_of(tmp_path / "clip")), None)  # type: ignore[arg-type]


def test_pictures_with_alpha_are_refused(clip: Any, ctx: Any) -> None:
    with pytest.raises(UserError, match=r"wanted pictures \[B, H, W, 3\], got \[1, 4, 4, 4\]"):
        encode_image(ctx, image_encoder(clip.weights), Image(torch.zeros(1, 4, 4, 4)))


def test_glides_transformer_encodes_prompts(tiny: Any, ctx: Any) -> None:
    from mezzotint_models.glide_text import GlideText

    torch.manual_seed(0)
    end = len(tiny.tokenizer) - 1
    network = GlideText(vocabulary=len(tiny.tokenizer), end=end, length=16, width=8, layers=1, heads=2, pooled=6)
    files = {file.name: file.read_text() for file in (tiny.folder / "tokenizer").iterdir()}
    weights = pack_network(network, text_encoder={"kind": "glide", "tokenizer": files})
    with torch.no_grad():
        made = encode_text(ctx, text_encoder(weights), text=TEXTS)
        expected = network(ids_of(tiny, TEXTS))
    assert isinstance(made, Conditioning)
    torch.testing.assert_close((made.context, made.pooled), expected)


def test_a_masked_text_model_says_which_tokens_count(tiny: Any, ctx: Any) -> None:
    files = {file.name: file.read_text() for file in (tiny.folder / "tokenizer").iterdir()}
    weights = pack_network(tiny.text, text_encoder={"kind": "clip", "tokenizer": files, "masked": True})
    with torch.no_grad():
        mask = encode_text(ctx, text_encoder(weights), text=["", "a red circle"]).mask
    assert mask is not None
    assert mask.sum(1).tolist() == [2, 5], "both marks and the words"
    assert mask[1, :5].tolist() == [1] * 5
