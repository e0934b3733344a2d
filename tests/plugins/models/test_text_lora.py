"""LoRA of both networks of a checkpoint: what a file does in diffusers' pipeline it does here, and back."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file

from mezzotint import Conditioning, NoiseLevel, UserError
from mezzotint_kernels import normals
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.lora import apply_lora, lora, text_lora
from mezzotint_models.lora_files import export_lora, pack_lora, read_lora
from mezzotint_models.networks import join_parts, parts_of

TEXTS = ["a red circle", "a large blue square on the left"]
LEVEL = NoiseLevel(alpha=0.6, sigma=0.8, time=500.0)
OF_UNET, OF_TEXT = ("to_q", "to_k", "to_v", "to_out.0"), ("q_proj", "k_proj", "v_proj", "out_proj", "fc1")


@pytest.fixture
def pipeline(tiny):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=tiny.vae, text_encoder=copy.deepcopy(tiny.text), tokenizer=tiny.tokenizer,
        unet=copy.deepcopy(tiny.unet), scheduler=tiny.scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def random_pairs(module, wanted, rank=3):
    torch.manual_seed(7)
    made = {}
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and name.endswith(wanted):
            name = name.removeprefix("text_model.")
            made[name] = (torch.randn(rank, layer.in_features) * 0.2, torch.randn(layer.out_features, rank) * 0.2)
    return made


def diffusers_names(tiny):
    made = {}
    for prefix, module, wanted in (
        ("unet.", tiny.unet, OF_UNET),
        ("text_encoder.text_model.", tiny.text, OF_TEXT),
    ):
        for name, (a, b) in random_pairs(module, wanted).items():
            made[f"{prefix}{name}.lora_A.weight"], made[f"{prefix}{name}.lora_B.weight"] = a, b
    return made


def kohya_names(tiny, alpha):
    made = {}
    for prefix, module, wanted in (("unet", tiny.unet, OF_UNET), ("te_text_model", tiny.text, OF_TEXT)):
        for name, (a, b) in random_pairs(module, wanted).items():
            layer = f"lora_{prefix}_{name.replace('.', '_')}"
            made[f"{layer}.lora_down.weight"], made[f"{layer}.lora_up.weight"] = a, b
            made[f"{layer}.alpha"] = torch.tensor(float(alpha))
    return made


@torch.no_grad()
def theirs(pipeline, texts=TEXTS):
    ids = pipeline.tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt").input_ids
    context = pipeline.text_encoder(ids).last_hidden_state
    x = normals(1, (len(texts), 4, 8, 8))
    return context, pipeline.unet(x, 500, encoder_hidden_states=context).sample


@torch.no_grad()
def ours(denoiser, encoder, ctx, texts=TEXTS):
    with put_on(encoder, ctx) as model:
        context = model.condition(texts).context
    with put_on(denoiser, ctx) as model:
        x = normals(1, (len(texts), 4, 8, 8))
        return context, model.predict(x, LEVEL, Conditioning(context=context)).combined()


def put_on(recipe, ctx):
    from contextlib import nullcontext

    model = ctx.realise(recipe)
    assert len(recipe.patches) <= 1
    return recipe.patches[0].apply(model, ctx) if recipe.patches else nullcontext(model)


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "metadata"])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_a_file_for_both_networks_does_here_what_it_does_in_diffusers(
    tiny, ctx, pipeline, source_of, tmp_path, layout, strength
):
    path = tmp_path / "theirs.safetensors"
    plain = theirs(pipeline)
    if layout == "metadata":
        path = saved_by_diffusers(pipeline, tmp_path)
    else:
        save_file(diffusers_names(tiny) if layout == "diffusers" else kohya_names(tiny, alpha=2), path)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="it")
    pipeline.set_adapters("it", strength)
    found = checkpoint(tiny.source)
    made = apply_lora(found.denoiser, found.text_encoder, source=source_of(path), strength=strength)
    for here, there, before in zip(ours(*made, ctx), theirs(pipeline), plain, strict=True):
        assert torch.allclose(here, there, atol=1e-5)
        assert not torch.allclose(here, before, atol=1e-2)


def saved_by_diffusers(pipeline, folder):
    """By its own scripts' way: alpha is not the rank, and stands in the header alone."""
    from peft import LoraConfig, get_peft_model_state_dict

    states, told = {}, {}
    for name, module, wanted in (
        ("unet", pipeline.unet, OF_UNET),
        ("text_encoder", pipeline.text_encoder, OF_TEXT),
    ):
        torch.manual_seed(5)
        config = LoraConfig(r=4, lora_alpha=10, target_modules=list(wanted), init_lora_weights=False)
        module.add_adapter(config, "mine")
        states[f"{name}_lora_layers"] = get_peft_model_state_dict(module, adapter_name="mine")
        told[f"{name}_lora_adapter_metadata"] = module.peft_config["mine"].to_dict()
    pipeline.save_lora_weights(folder, **states, **told)
    return folder / "pytorch_lora_weights.safetensors"


def test_diffusers_loads_what_we_export_for_both(tiny, ctx, pipeline, tmp_path):
    weights = join_parts(
        {
            "lora": pack_lora(names(random_pairs(tiny.unet, OF_UNET))),
            "text_lora": pack_lora(names(random_pairs(tiny.text, OF_TEXT)), role="text_lora"),
        }
    )
    save_file(dict(export_lora(weights).tensors), tmp_path / "ours.safetensors")
    pipeline.load_lora_weights(tmp_path, weight_name="ours.safetensors")
    found = checkpoint(tiny.source)
    made = (lora(found.denoiser, weights), text_lora(found.text_encoder, weights))
    for here, there in zip(ours(*made, ctx), theirs(pipeline), strict=True):
        assert torch.allclose(here, there, atol=1e-5)


def names(pairs):
    return {f"{n}.lora_{side}.weight": t for n, pair in pairs.items() for side, t in zip("AB", pair, strict=True)}


def test_a_file_for_one_network_leaves_the_other_and_no_file_leaves_both(tiny, source_of, tmp_path):
    found = checkpoint(tiny.source)
    every = diffusers_names(tiny)
    for kept, roles in (("unet.", {"lora"}), ("text_encoder.", {"text_lora"})):
        save_file({n: t for n, t in every.items() if n.startswith(kept)}, tmp_path / f"{kept}safetensors")
        source = source_of(tmp_path / f"{kept}safetensors")
        made = apply_lora(found.denoiser, found.text_encoder, source=source)
        assert (made.denoiser is found.denoiser) == ("lora" not in roles)
        assert (made.text_encoder is found.text_encoder) == ("text_lora" not in roles)
        assert {role for part in parts_of(read_lora(source)).values() for role in part.meta} >= roles
    made = apply_lora(found.denoiser, found.text_encoder)
    assert made.denoiser is found.denoiser and made.text_encoder is found.text_encoder


def test_the_text_encoder_is_as_it_was_afterwards(tiny, ctx):
    encoder = checkpoint(tiny.source).text_encoder
    weights = pack_lora(names(random_pairs(tiny.text, OF_TEXT)), role="text_lora")
    assert text_lora(encoder, weights, strength=0) is encoder
    model = ctx.realise(encoder)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    (patch,) = text_lora(encoder, weights).patches
    with patch.apply(model, ctx):
        assert any(not torch.equal(v, before[n]) for n, v in model.module.state_dict().items())
    assert all(torch.equal(v, before[n]) for n, v in model.module.state_dict().items())


def test_a_lora_for_other_networks_says_so(tiny, ctx, source_of, tmp_path):
    found = checkpoint(tiny.source)
    pairs = {"encoder.layers.9.self_attn.q_proj": (torch.ones(1, 64), torch.ones(64, 1))}
    (patch,) = text_lora(found.text_encoder, pack_lora(names(pairs), role="text_lora")).patches
    with (
        pytest.raises(UserError, match=r"this one has no layer encoder\.layers\.9"),
        patch.apply(ctx.realise(found.text_encoder), ctx),
    ):
        pass
    path = tmp_path / "sdxl.safetensors"
    save_file({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(1, 2)}, path)
    with pytest.raises(UserError, match="two text encoders, such as SDXL"):
        read_lora(source_of(path))
    save_file(diffusers_names(tiny), path, {"lora_adapter_metadata": "no JSON"})
    with pytest.raises(UserError, match="'lora_adapter_metadata' is damaged"):
        read_lora(source_of(path))
    with pytest.raises(UserError, match="text_lora"):
        text_lora(found.text_encoder, pack_lora(names(pairs)))
