"""LoRA: the files of the ecosystem in and out, put on a model as diffusers puts them on, and refused elsewhere."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from mezzotint import Conditioning, NoiseLevel, UserError, Weights
from mezzotint_kernels import normals
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.lora import lora
from mezzotint_models.lora_files import export_lora, pack_lora, read_lora

LEVEL = NoiseLevel(alpha=0.6, sigma=0.8, time=500.0)
LAYERS = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture
def pipeline(tiny):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=tiny.vae, text_encoder=tiny.text, tokenizer=tiny.tokenizer, unet=copy.deepcopy(tiny.unet),
        scheduler=tiny.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def adapter(unet, rank=4, alpha=8):
    """diffusers' own adapter on attention, both halves random."""
    from peft import LoraConfig

    torch.manual_seed(3)
    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(LAYERS), init_lora_weights=False), "theirs"
    )


def asked(unet):
    x, told = normals(1, (1, 4, 8, 8)), normals(2, (1, 16, 64))
    with torch.no_grad():
        return unet(x, 500, encoder_hidden_states=told).sample


def answered(made, ctx):
    model = ctx.realise(made)
    for patch in made.patches:
        with patch.apply(model, ctx) as put_on, torch.no_grad():
            return put_on.predict(
                normals(1, (1, 4, 8, 8)), LEVEL, Conditioning(context=normals(2, (1, 16, 64)))
            ).combined()
    return model.predict(normals(1, (1, 4, 8, 8)), LEVEL, Conditioning(context=normals(2, (1, 16, 64)))).combined()


def random_lora(unet, rank=4):
    torch.manual_seed(5)
    made = {}
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(LAYERS) and ".attn" in name:
            made[f"{name}.lora_A.weight"] = torch.randn(rank, module.in_features) * 0.1
            made[f"{name}.lora_B.weight"] = torch.randn(module.out_features, rank) * 0.1
    return made


@pytest.mark.parametrize("layout", ["peft", "scripts", "processors"])
def test_a_lora_that_diffusers_saved_does_here_what_it_does_there(
    tiny, ctx, pipeline, source_of, tmp_path, layout
):
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    plain = asked(pipeline.unet)
    adapter(pipeline.unet, alpha=4)
    state = get_peft_model_state_dict(pipeline.unet, adapter_name="theirs")
    if layout == "scripts":
        state = convert_state_dict_to_diffusers(state)
    elif layout == "processors":
        state = {by_processor(name): tensor for name, tensor in state.items()}
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=state)
    weights = read_lora(source_of(tmp_path / "pytorch_lora_weights.safetensors"))
    ours = answered(lora(checkpoint(tiny.source).denoiser, weights), ctx)
    assert torch.allclose(ours, asked(pipeline.unet), atol=2e-6)
    assert not torch.allclose(ours, plain, atol=1e-3)


def by_processor(name):
    """As diffusers named them before peft: attn1.processor.to_q_lora.down.weight."""
    layer, side = name.removesuffix(".weight").rsplit(".", 1)
    block, projection = layer.removesuffix(".0").rsplit(".", 1)
    return f"{block}.processor.{projection}_lora.{'down' if side == 'lora_A' else 'up'}.weight"


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.7])
def test_diffusers_loads_what_we_export_and_says_the_same_at_any_strength(tiny, ctx, pipeline, tmp_path, strength):
    weights = pack_lora(random_lora(tiny.unet))
    path = tmp_path / "ours.safetensors"
    save_file(dict(export_lora(weights).tensors), path)
    pipeline.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="ours")
    pipeline.set_adapters("ours", strength)
    ours = answered(lora(checkpoint(tiny.source).denoiser, weights, strength=strength), ctx)
    assert torch.allclose(ours, asked(pipeline.unet), atol=2e-6)
    assert not torch.allclose(ours, asked(tiny.unet), atol=1e-3)


def test_the_names_that_are_written_are_those_that_diffusers_writes(tiny, pipeline, tmp_path):
    from peft import get_peft_model_state_dict

    adapter(pipeline.unet)
    state = get_peft_model_state_dict(pipeline.unet, adapter_name="theirs")
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=state)
    theirs = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    ours = export_lora(pack_lora(random_lora(tiny.unet))).tensors
    assert {name: tensor.shape for name, tensor in theirs.items()} == {n: t.shape for n, t in ours.items()}


def test_kohyas_layout_is_the_same_change(tiny, ctx, source_of, tmp_path):
    made = random_lora(tiny.unet)
    theirs = {}
    for name, tensor in made.items():
        layer, side = name.removesuffix(".weight").rsplit(".", 1)
        below = f"lora_unet_{layer.replace('.', '_')}"
        theirs[f"{below}.{'lora_down' if side == 'lora_A' else 'lora_up'}.weight"] = tensor
        theirs[f"{below}.alpha"] = torch.tensor(2.0)
    save_file(theirs, tmp_path / "kohya.safetensors")
    weights = read_lora(source_of(tmp_path / "kohya.safetensors"))
    denoiser = checkpoint(tiny.source).denoiser
    # alpha 2 of rank 4 is half of it.
    wanted = answered(lora(denoiser, pack_lora(made), strength=0.5), ctx)
    assert torch.allclose(answered(lora(denoiser, weights), ctx), wanted, atol=1e-6)


def test_nothing_stays_behind_and_strength_nothing_is_the_denoiser(tiny, ctx):
    denoiser = checkpoint(tiny.source).denoiser
    weights = pack_lora(random_lora(tiny.unet))
    assert lora(denoiser, weights, strength=0) is denoiser
    model = ctx.realise(denoiser)
    (patch,) = lora(denoiser, weights).patches
    with patch.apply(model, ctx):
        moved = {n for n, p in model.module.named_parameters() if not torch.equal(p, tiny.unet.get_parameter(n))}
    assert moved == {f"{name.split('.lora_')[0]}.weight" for name in weights.tensors}
    assert all(torch.equal(p, tiny.unet.get_parameter(n)) for n, p in model.module.named_parameters())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("elsewhere.to_q", "is for another model: this one has no layer"),
        ("", r"is for another model: .*is \[3, 3\]"),
    ],
)
def test_a_lora_for_another_model_is_refused_and_changes_nothing(tiny, ctx, layer, message):
    own = next(iter(random_lora(tiny.unet))).split(".lora_")[0]
    good = random_lora(tiny.unet)
    wrong = {f"{layer or own}.lora_A.weight": torch.ones(1, 3), f"{layer or own}.lora_B.weight": torch.ones(3, 1)}
    denoiser = checkpoint(tiny.source).denoiser
    model = ctx.realise(denoiser)
    (patch,) = lora(denoiser, pack_lora({**good, **wrong})).patches
    with pytest.raises(UserError, match=message), patch.apply(model, ctx):
        pass
    assert all(torch.equal(p, tiny.unet.get_parameter(n)) for n, p in model.module.named_parameters())


def test_files_that_hold_no_lora_say_what_was_wanted(source_of, tmp_path):
    (tmp_path / "it.ckpt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="safetensors"):
        read_lora(source_of(tmp_path / "it.ckpt"))
    save_file({"conv.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"wanted a LoRA, pairs of lora_A and lora_B.*conv\.weight"):
        read_lora(source_of(tmp_path / "other.safetensors"))
    save_file({"unet.a.lora_A.weight": torch.ones(2, 2)}, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="only one half of a"):
        read_lora(source_of(tmp_path / "half.safetensors"))
    with pytest.raises(UserError, match="lora"):
        export_lora(Weights({}, target="UNet", meta={"class": "UNet", "config": {}}))
