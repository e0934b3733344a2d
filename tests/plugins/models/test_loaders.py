"""The loaders against diffusers' and transformers' own components: equal to the bit."""

from __future__ import annotations

import shutil
import socket

import pytest
import torch

from mezzotint import Conditioning, NoiseLevel, UserError
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.prompt import encode_text

TEXTS = ["a red circle on the left", "a large blue square"]
LEVEL = NoiseLevel(alpha=0.6, sigma=0.8, time=500.0)


@pytest.fixture(params=["folder", "original", "packed"])
def recipes(request, tiny, original, packed):
    """The same weights in each layout; the original file has its tokenizer from elsewhere."""
    if request.param == "original":
        return checkpoint(original, config=tiny.source)
    return checkpoint(tiny.source if request.param == "folder" else packed)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a loader opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def _ids(tiny):
    return tiny.tokenizer(
        TEXTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    ).input_ids


def test_text_embeddings_equal_those_of_the_pipeline(recipes, tiny, ctx, no_network):
    found = encode_text(ctx, recipes.text_encoder, text=TEXTS)
    with torch.no_grad():
        wanted = tiny.text(_ids(tiny))
    assert torch.equal(found.context, wanted.last_hidden_state)
    assert torch.equal(found.pooled, wanted.pooler_output)
    assert found.mask is None and not found.context.requires_grad


def test_clip_skip_takes_an_earlier_layer_through_the_final_norm(tiny, ctx):
    found = encode_text(ctx, checkpoint(tiny.source).text_encoder, text=TEXTS, clip_skip=1)
    with torch.no_grad():
        hidden = tiny.text(_ids(tiny), output_hidden_states=True).hidden_states[-2]
        wanted = getattr(tiny.text, "text_model", tiny.text).final_layer_norm(hidden)
    assert torch.equal(found.context, wanted)
    with pytest.raises(UserError, match="clip_skip must be below 3"):
        encode_text(ctx, checkpoint(tiny.source).text_encoder, text="a", clip_skip=3)


def test_a_prompt_that_is_too_long_says_what_would_be_lost(tiny, ctx):
    encoder = checkpoint(tiny.source).text_encoder
    text = " ".join(["a red circle"] * 5) + " blue square"
    with pytest.raises(UserError, match="reads 14 tokens, and 'circle blue square' at the end"):
        encode_text(ctx, encoder, text=text)
    cut = encode_text(ctx, encoder, text=text, too_long="cut")
    kept = encode_text(ctx, encoder, text=" ".join(["a red circle"] * 5).removesuffix(" circle"))
    assert torch.equal(cut.context, kept.context)
    with pytest.raises(UserError, match="empty list"):
        encode_text(ctx, encoder, text=[])


def test_the_denoiser_equals_the_unet_of_the_pipeline(recipes, tiny, ctx, no_network):
    model = ctx.realise(recipes.denoiser)
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 16, 64)
    found = model.predict(x, LEVEL, Conditioning(context=context))
    with torch.no_grad():
        wanted = tiny.unet(x, 500, encoder_hidden_states=context).sample
    assert torch.equal(found.combined(), wanted) and found.kind == "eps"
    assert model.nbytes == sum(p.numel() * 4 for p in tiny.unet.parameters())


def test_one_context_serves_a_whole_batch(tiny, ctx):
    model = ctx.realise(checkpoint(tiny.source).denoiser)
    x, context = torch.randn(3, 4, 8, 8), torch.randn(1, 16, 64)
    one = model.predict(x, LEVEL, Conditioning(context=context)).combined()
    each = model.predict(x, LEVEL, Conditioning(context=context.expand(3, -1, -1))).combined()
    assert torch.equal(one, each)


def test_a_clip_is_its_frames(tiny, ctx):
    model = ctx.realise(checkpoint(tiny.source).denoiser)
    x, context = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 16, 64)
    clip = model.predict(x, LEVEL, Conditioning(context=context)).combined()
    per_frame = context.unsqueeze(1).expand(-1, 3, -1, -1)
    assert torch.equal(clip, model.predict(x, LEVEL, Conditioning(context=per_frame)).combined())
    for frame in range(3):
        single = model.predict(x[:, :, frame], LEVEL, Conditioning(context=context)).combined()
        torch.testing.assert_close(clip[:, :, frame], single, atol=1e-5, rtol=1e-4)


def test_gradients_reach_what_asks_for_them_and_nothing_else(tiny, ctx):
    model = ctx.realise(checkpoint(tiny.source).denoiser)
    x = torch.randn(1, 4, 8, 8)
    assert not model.predict(x, LEVEL, Conditioning(context=torch.randn(1, 16, 64))).combined().requires_grad
    context = torch.randn(1, 16, 64, requires_grad=True)
    model.predict(x, LEVEL, Conditioning(context=context)).combined().sum().backward()
    assert context.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in model.module.parameters())


@pytest.mark.parametrize(
    ("conditioning", "message"),
    [
        (None, "has no context"),
        (Conditioning(), "has no context"),
        (Conditioning(context=torch.zeros(1, 16, 63)), "64 wide"),
        (Conditioning(context=torch.zeros(3, 16, 64)), "3 rows"),
        (
            Conditioning(context=torch.zeros(1, 16, 64), concat=torch.zeros(1, 5, 8, 8)),
            "takes 4 channels, got 9",
        ),
    ],
)
def test_conditioning_that_does_not_fit_is_refused(tiny, ctx, conditioning, message):
    model = ctx.realise(checkpoint(tiny.source).denoiser)
    with pytest.raises(UserError, match=message):
        model.predict(torch.zeros(2, 4, 8, 8), LEVEL, conditioning)


@pytest.mark.parametrize("frames", [(), (2,)])
def test_a_network_with_twice_the_channels_says_its_variance(frames, tiny, ctx, monkeypatch):
    model = ctx.realise(checkpoint(tiny.source).denoiser)
    x = torch.randn(2, 4, *frames, 8, 8)
    conditioning = Conditioning(context=torch.randn(1, 16, 64))
    plain = model.predict(x, LEVEL, conditioning)
    assert plain.variance is None
    last = model.module.conv_out
    doubled = torch.nn.Conv2d(last.in_channels, 8, last.kernel_size, padding=last.padding)
    with torch.no_grad():
        doubled.weight.copy_(torch.cat((last.weight, 2 * last.weight)))
        doubled.bias.copy_(torch.cat((last.bias, 2 * last.bias)))
    monkeypatch.setattr(model.module, "conv_out", doubled)
    both = model.predict(x, LEVEL, conditioning)
    torch.testing.assert_close(both.combined(), plain.combined())
    torch.testing.assert_close(both.variance, 2 * plain.combined())


def test_half_precision_computes_in_it_and_answers_in_the_caller_s_type(tiny, ctx):
    model = ctx.realise(checkpoint(tiny.source, dtype="bfloat16").denoiser)
    assert next(model.module.parameters()).dtype == torch.bfloat16
    out = model.predict(torch.randn(1, 4, 8, 8), LEVEL, Conditioning(context=torch.randn(1, 16, 64)))
    assert out.combined().dtype == torch.float32


def test_the_autoencoder_equals_that_of_the_pipeline(recipes, tiny, ctx, no_network):
    model = ctx.realise(recipes.autoencoder)
    pixels, latents = torch.rand(2, 16, 12, 3), torch.randn(2, 4, 8, 6)
    with torch.no_grad():
        wanted = tiny.vae.encode(pixels.permute(0, 3, 1, 2).contiguous() * 2 - 1).latent_dist.mode() * 0.18215
        image = tiny.vae.decode(latents / 0.18215).sample
    assert torch.equal(model.encode(pixels), wanted)
    assert torch.equal(model.decode(latents), (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1))


def test_the_old_attention_names_of_published_folders_are_read(tiny, tmp_path, ctx, source_of):
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny.folder, tmp_path / "old")
    file = tmp_path / "old" / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    tensors = load_file(file)
    for new, name in old.items():
        tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
    assert any(".query." in key for key in tensors)
    save_file(tensors, file)
    latents = torch.randn(1, 4, 4, 4)
    first, second = (ctx.realise(checkpoint(source_of(f)).autoencoder) for f in (tmp_path / "old", tiny.folder))
    assert torch.equal(first.decode(latents), second.decode(latents))


def test_shards_are_read_through_their_index_and_stay_in_their_folder(tiny, tmp_path, ctx, source_of):
    folder = tmp_path / "sharded"
    shutil.copytree(tiny.folder, folder)
    shutil.rmtree(folder / "unet")
    tiny.unet.save_pretrained(folder / "unet", max_shard_size="200KB")
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    x, conditioning = torch.randn(1, 4, 8, 8), Conditioning(context=torch.randn(1, 16, 64))
    outs = [
        ctx.realise(checkpoint(source_of(f)).denoiser).predict(x, LEVEL, conditioning).combined()
        for f in (folder, tiny.folder)
    ]
    assert torch.equal(*outs)
    index.write_text('{"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}')
    with pytest.raises(UserError, match="outside its folder"):
        ctx.realise(checkpoint(source_of(folder)).denoiser)


def test_a_file_that_is_replaced_does_not_change_a_loaded_model(tiny, tmp_path, ctx, source_of):
    shutil.copytree(tiny.folder, tmp_path / "copy")
    model = ctx.realise(checkpoint(source_of(tmp_path / "copy")).autoencoder)
    file = tmp_path / "copy" / "vae" / "diffusion_pytorch_model.safetensors"
    before = model.decode(torch.ones(1, 4, 4, 4))
    with file.open("r+b") as handle:
        handle.seek(file.stat().st_size // 2)
        handle.write(b"\0" * 4096)
    assert torch.equal(model.decode(torch.ones(1, 4, 4, 4)), before)


def test_weights_that_do_not_fit_their_config_are_named(tiny, tmp_path, ctx, source_of):
    shutil.copytree(tiny.folder, tmp_path / "odd")
    config = tmp_path / "odd" / "vae" / "config.json"
    config.write_text(config.read_text().replace('"layers_per_block": 2', '"layers_per_block": 1'))
    with pytest.raises(UserError, match=r"vae does not fit .*is not known.* and \d+ more"):
        ctx.realise(checkpoint(source_of(tmp_path / "odd")).autoencoder)
    config.write_text(config.read_text().replace('"norm_num_groups": 32', '"norm_num_groups": 7'))
    with pytest.raises(UserError, match="the configuration of its vae makes no network"):
        ctx.realise(checkpoint(source_of(tmp_path / "odd")).autoencoder)


def test_a_folder_with_pickles_only_is_refused(tiny, tmp_path, ctx, source_of):
    shutil.copytree(tiny.folder, tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "pickled" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80")
    recipes = checkpoint(source_of(tmp_path / "pickled"))
    with pytest.raises(UserError, match=r"only the pickle diffusion_pytorch_model\.bin"):
        ctx.realise(recipes.denoiser)
    with pytest.raises(UserError, match=r"has no diffusion_pytorch_model\.safetensors"):
        ctx.realise(recipes.autoencoder)


def test_an_original_file_without_a_tokenizer_says_what_to_give(original, ctx):
    with pytest.raises(UserError, match=r"no tokenizer.*'config'.*vocab\.json"):
        ctx.realise(checkpoint(original).text_encoder)
    assert ctx.realise(checkpoint(original).denoiser)


def test_a_damaged_tokenizer_ends_in_a_clear_error(tiny, tmp_path, ctx, source_of):
    shutil.copytree(tiny.folder, tmp_path / "bad")
    (tmp_path / "bad" / "tokenizer" / "vocab.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer cannot be read"):
        ctx.realise(checkpoint(source_of(tmp_path / "bad")).text_encoder)
    (tmp_path / "bad" / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"needs vocab\.json and merges\.txt"):
        ctx.realise(checkpoint(source_of(tmp_path / "bad")).text_encoder)
