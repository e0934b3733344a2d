"""Weights that say what they are: a file and a value make the same model, and a bad one makes none."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from mezzotint import Conditioning, Denoiser, Image, Latents, NoiseLevel, PluginError, Source, UserError, Weights
from mezzotint_image.tensors import write_weights
from mezzotint_models import build_network, pack_network, part_of, parts_of, register_network
from mezzotint_models.architecture import unet
from mezzotint_models.autoencoder import autoencoder
from mezzotint_models.denoiser import denoiser
from mezzotint_models.latents import decode, encode
from mezzotint_models.networks import NETWORKS, start_network
from mezzotint_models.packed import cast, load_weights, meta_of
from mezzotint_models.pixels import to_image, to_latents

LEVEL = NoiseLevel(alpha=0.6, sigma=0.8, time=500.0)
CONDITIONING = Conditioning(context=torch.randn(2, 5, 12), label=torch.tensor([1, 4]))
X = torch.randn(2, 3, 8, 8)


@pytest.fixture(scope="module")
def architecture():
    return unet(
        size=8, channels=[8, 16], head_channels=8, attention="joint", context=12, classes=4, prediction="v",
        learned_variance=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def module(architecture):
    torch.manual_seed(0)
    made = architecture.build()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval().requires_grad_(False)  # torch computes with others in another order


@pytest.fixture(scope="module")
def weights(module, architecture):
    return pack_network(module, denoiser=architecture.record(), note="three steps", steps=3)


def joined(**parts: Weights) -> Weights:
    """Several networks as one value, as training gives it."""
    return Weights(
        {f"{name}/{key}": t for name, part in parts.items() for key, t in part.tensors.items()},
        target="parts",
        meta={"parts": {name: {"target": p.target, "meta": dict(p.meta)} for name, p in parts.items()}},
    )


@pytest.fixture
def written(tmp_path, source_of):
    """Writes a value as an output of a graph is written."""

    def write(value: Weights, name: str = "net") -> Source:
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(write_weights(value)[0])
        return source_of(path)

    return write


def predicted(ctx, recipe):
    found = ctx.realise(recipe).predict(X, LEVEL, CONDITIONING)
    return torch.cat([found.outputs[0], found.variance], dim=1)


def test_a_value_a_file_and_the_module_itself_predict_the_same_bits(weights, module, written, ctx):
    with torch.no_grad():
        wanted = module(X, torch.tensor(500.0), CONDITIONING)
    along = denoiser(weights)
    from_file = denoiser(source=written(weights))
    assert torch.equal(predicted(ctx, along), wanted)
    assert torch.equal(predicted(ctx, from_file), wanted)
    assert torch.equal(build_network(weights)(X, torch.tensor(500.0), CONDITIONING), wanted)


def test_a_recipe_knows_its_schedule_and_space_without_reading_the_numbers(weights, architecture, written, ctx):
    source = written(joined(unet=weights))
    for recipe in (denoiser(weights), denoiser(source=source), denoiser(source=source, part="unet")):
        assert isinstance(recipe, Denoiser) and recipe.loader == "models.network"
        assert (recipe.channels, recipe.sample_size, recipe.space, recipe.downscale) == (3, 8, "pixels", 1)
        assert (recipe.schedule.kind, recipe.schedule.prediction) == ("cosine", "v")
    assert ctx.realise(recipe).predict(X, LEVEL, CONDITIONING).kind == "v"


def test_equal_weights_have_equal_fingerprints_and_others_others(weights):
    again = weights.replace(tensors={name: t.clone() for name, t in reversed(weights.tensors.items())})
    assert denoiser(weights).source.fingerprint == denoiser(again).source.fingerprint
    name = next(iter(weights.tensors))
    other = weights.replace(tensors={**weights.tensors, name: weights.tensors[name] + 1e-6})
    retold = weights.replace(meta={**weights.meta, "config": {**weights.meta["config"], "groups": 1}})
    assert len({denoiser(w).source.fingerprint for w in (weights, other, retold)}) == 3


def test_a_file_is_read_back_as_the_value_that_was_written(weights, written):
    for value in (weights, joined(unet=weights, other=pack_network(torch_encoder()))):
        found = load_weights(written(value))
        assert (found.kind, found.target, found.meta) == (value.kind, value.target, value.meta)
        assert list(found.tensors) == sorted(value.tensors)
        assert all(torch.equal(found.tensors[name], t) for name, t in value.tensors.items())


def torch_encoder():
    """A network of transformers, which counts its positions in a buffer."""
    return start_network(
        "CLIPTextModel",
        {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
         "num_attention_heads": 1, "max_position_embeddings": 6},
    ).eval()  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_cast_file_predicts_what_rounded_numbers_do(weights, written, ctx, dtype):
    half = cast(weights, dtype=dtype)
    rounded = weights.replace(tensors={n: t.to(getattr(torch, dtype)).float() for n, t in weights.tensors.items()})
    assert torch.equal(predicted(ctx, denoiser(source=written(half))), predicted(ctx, denoiser(rounded)))
    assert torch.allclose(predicted(ctx, denoiser(half)), predicted(ctx, denoiser(weights)), atol=0.1)


def test_a_number_too_large_for_half_precision_is_not_turned_into_infinity():
    with pytest.raises(UserError, match="a has numbers that float16 cannot hold"):
        cast(Weights({"a": torch.tensor([7e4])}))
    whole = Weights({"a": torch.tensor([7e4]), "n": torch.tensor([70000])})
    assert cast(whole, dtype="bfloat16").tensors["n"].dtype == torch.int64


# --- parts and roles ---


def test_a_part_is_found_by_its_name_by_its_role_or_because_it_is_the_only_one(weights):
    text = pack_network(torch_encoder(), text_encoder={"kind": "clip"})
    both = joined(unet=weights, text=text)
    assert list(parts_of(both)) == ["unet", "text"]
    assert part_of(both, "text").meta == part_of(both, "text_encoder").meta == text.meta
    assert part_of(weights, "").meta == weights.meta
    with pytest.raises(UserError, match=r"no 'classifier'; there is unet \(mezzotint.unet, denoiser"):
        part_of(both, "classifier")
    with pytest.raises(UserError, match="2 networks that could be meant"):
        part_of(both, "")


def test_two_denoisers_in_one_value_must_be_told_apart(weights, ctx):
    other = weights.replace(tensors={name: t * 0.5 for name, t in weights.tensors.items()})
    both = joined(large=weights, small=other)
    with pytest.raises(UserError, match=r"models\.denoiser: the weights have 2 networks"):
        denoiser(both)
    assert torch.equal(predicted(ctx, denoiser(both, part="small")), predicted(ctx, denoiser(other)))


def test_a_loader_can_ask_what_the_weights_say_of_themselves(weights, written):
    text = pack_network(torch_encoder(), text_encoder={"kind": "clip", "tokenizer": {"vocab.json": "{}"}})
    from mezzotint_models import recipe_for

    for given in ((joined(text=text, unet=weights), None), (None, written(joined(text=text, unet=weights)))):
        _, fields = recipe_for("text_encoder", *given)
        recipe = Denoiser(**fields, loader="x")
        assert meta_of(recipe)["text_encoder"]["tokenizer"] == {"vocab.json": "{}"}


@pytest.mark.parametrize("both", [True, False])
def test_either_a_value_or_a_file(weights, written, both):
    with pytest.raises(UserError, match=r"models\.denoiser: give either weights along an edge, or the name"):
        denoiser(weights, source=written(weights)) if both else denoiser()


# --- all networks of transformers and diffusers that a file may name ---


def test_networks_of_transformers_come_back_with_their_positions():
    module, ids = torch_encoder(), torch.tensor([[1, 2, 3]])
    packed = pack_network(module)
    assert not any("attn_implementation" in key or key.startswith("_") for key in packed.meta["config"])
    with torch.no_grad():
        wanted = module(ids).last_hidden_state
    assert torch.equal(build_network(packed)(ids).last_hidden_state, wanted)


def test_a_configuration_cannot_choose_another_implementation(monkeypatch):
    """transformers would fetch one from a hub by that name."""
    packed = pack_network(torch_encoder())
    config = {**packed.meta["config"], "attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel"}
    built = build_network(packed.replace(meta={**packed.meta, "config": config}))
    assert built.config._attn_implementation == "mezzotint"


def test_an_autoencoder_decodes_what_the_checkpoint_s_own_does(tiny, written, ctx):
    from mezzotint_models.checkpoint import checkpoint

    own = checkpoint(tiny.source).autoencoder
    record = {"channels": 4, "downscale": 2, "space": own.space, "scale": own.scale, "shift": own.shift}
    packed = pack_network(tiny.vae, autoencoder=record)
    image = Image(torch.rand(1, 8, 8, 3))
    wanted = encode(ctx, own, image)
    for recipe in (autoencoder(packed), autoencoder(source=written(packed))):
        found = encode(ctx, recipe, image)
        assert torch.equal(found.data, wanted.data) and found.space == wanted.space
        assert torch.equal(decode(ctx, recipe, wanted).data, decode(ctx, own, wanted).data)


def test_a_network_in_stable_diffusion_s_shape_predicts_what_its_checkpoint_does(tiny, ctx):
    from mezzotint_models.checkpoint import checkpoint

    record = {
        "schedule": {"kind": "scaled_linear"}, "channels": 4, "sample_size": 8, "space": "", "downscale": 2,
    }  # fmt: skip
    recipe = denoiser(pack_network(tiny.unet, denoiser=record))
    x, told = torch.randn(1, 4, 8, 8), Conditioning(context=torch.randn(1, 16, 64))
    models = (ctx.realise(recipe), ctx.realise(checkpoint(tiny.source).denoiser))
    first, second = (model.predict(x, LEVEL, told).combined() for model in models)
    assert torch.equal(first, second)


# --- what is refused ---


def test_only_the_registry_chooses_code(weights, monkeypatch):
    for name in ("os:system", "torch.nn:Linear", "mezzotint_models.conditioned_unet:ConditionedUNet", 3, None):
        with pytest.raises(UserError, match=r"is not known; known are mezzotint\.unet"):
            build_network(weights.replace(meta={**weights.meta, "class": name}))
    assert all(":" in target for target in NETWORKS.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 10**9}, "has 1000000000 layers, and .* tensors for it"),
        ({"channels": [8] * 10**4}, "has 10000 entries of channels"),
        ({"channels": [10**12]}, "has channels 1000000000000"),
        ({"plain_levels": 10**9}, "makes no network"),
        ({"patch": 3}, "makes no network"),
        ({"attention": "evil"}, "makes no network"),
        ({"unheard": 1}, "makes no network.*unheard"),
        ({"channels": [8, 24]}, "does not fit its configuration"),
        ({"classes": 5}, r"label_embedding.weight has shape \[5, 32\], wanted \[6, 32\]"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_before_anything_is_allocated(weights, change, message):
    config = {**weights.meta["config"], **change}
    with pytest.raises(UserError, match=message):
        build_network(weights.replace(meta={**weights.meta, "config": config}))


@pytest.mark.parametrize("config", [None, [], "x"])
def test_a_configuration_that_is_none_is_refused(weights, config):
    with pytest.raises(UserError, match="not there or damaged"):
        build_network(weights.replace(meta={**weights.meta, "config": config}))


@pytest.mark.parametrize(
    "record",
    [
        None, 3, {}, {"schedule": {}}, {"schedule": {"kind": "evil"}}, {"schedule": {"unheard": 1}},
        {"schedule": {"train_steps": 0}}, {"schedule": {"prediction": "x"}}, {"schedule": {"beta_end": -1}},
        {"schedule": 3}, {"channels": 0}, {"channels": "3"}, {"sample_size": 10**9}, {"downscale": True},
    ],
)  # fmt: skip
def test_a_damaged_record_is_a_clear_error(weights, architecture, record):
    whole = architecture.record()
    damaged = {**whole, **record} if isinstance(record, dict) and record else record
    if record == {"schedule": {}}:  # every field has a default
        damaged = {key: value for key, value in whole.items() if key != "schedule"}
    with pytest.raises(UserError, match=r"models\.denoiser: "):
        denoiser(weights.replace(meta={**weights.meta, "denoiser": damaged}))


def test_weights_of_something_else_say_what_they_are():
    text = pack_network(torch_encoder(), text_encoder={"kind": "clip"})
    with pytest.raises(UserError, match=r"no 'denoiser'; there is CLIPTextModel \(CLIPTextModel, text_encoder\)"):
        denoiser(text)


def test_parts_that_are_damaged_are_refused(weights):
    for meta in ({}, {"parts": 3}, {"parts": {"a": 3}}, {"parts": {"a": {"meta": 3}}}):
        with pytest.raises(UserError, match="'parts' is damaged"):
            parts_of(Weights({}, target="parts", meta=meta))
    with pytest.raises(UserError, match="a tensor 'b/x' of no part"):
        parts_of(Weights({"b/x": 0}, target="parts", meta={"parts": {"a": {"meta": {}}}}))


def _nodes(source):
    return (lambda: load_weights(source), lambda: denoiser(source=source), lambda: autoencoder(source=source))


def _refused(source, message):
    for run in _nodes(source):
        with pytest.raises(UserError, match=message):
            run()


def test_a_pickle_is_not_loaded(tmp_path, source_of):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    for name in ("net.ckpt", "net.pt", "net.safetensors"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Trap()))
        _refused(source_of(path), "pickle|not a whole safetensors")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("keep", [0, 7, 100, 2000, -1])
def test_a_file_that_is_cut_off_is_refused_before_its_numbers_are_read(weights, written, keep):
    source = written(weights)
    with open(source.path, "rb+") as file:
        size = file.seek(0, 2)
        file.truncate(keep if keep >= 0 else size + keep)
    _refused(source, "not a whole safetensors file")


def test_a_header_that_promises_too_much_is_refused(tmp_path, source_of):
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    _refused(source_of(path), "not a whole safetensors file")
    _refused(source_of(tmp_path / "absent.safetensors"), "there is none at")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "does not say which network it is"),
        ({"class": "mezzotint.unet"}, "does not say which network it is"),
        ({"parts": "[1]", "mezzotint.target": "parts"}, "'parts' is damaged|several|no '"),
        ({"parts": "[" * 100_000, "mezzotint.target": "parts"}, "nested too deep|damaged"),
        ({"class": "mezzotint.unet", "config": "{}", "mezzotint.kind": "low"}, "says that it holds 'low', which"),
    ],
)
def test_a_foreign_or_hostile_header_is_refused(tmp_path, source_of, header, message):
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata=header)
    for run in _nodes(source_of(path))[1:]:
        with pytest.raises(UserError, match=message):
            run()


def test_a_file_whose_numbers_are_of_another_network_is_refused_with_its_name(weights, written, ctx):
    meta = {**weights.meta, "config": {**weights.meta["config"], "context": 13}}
    source = written(weights.replace(meta=meta), "wrong")
    recipe = denoiser(source=source)
    with pytest.raises(UserError, match=r"wrong.safetensors: ConditionedUNet does not fit .*add_k_proj"):
        ctx.realise(recipe)


def test_meta_travels_as_json_in_the_header(weights, written):
    source = written(weights)
    with open(source.path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))["__metadata__"]
    assert header["class"] == "mezzotint.unet" and json.loads(header["denoiser"])["space"] == "pixels"
    assert load_weights(source).meta["note"] == "three steps" and load_weights(source).meta["steps"] == 3


# --- the predictor ---


def test_a_row_of_conditioning_serves_a_batch_and_a_clip_is_its_frames(weights, ctx):
    model = ctx.realise(denoiser(weights))
    one = Conditioning(context=CONDITIONING.context[:1], label=CONDITIONING.label[:1])
    two = Conditioning(context=one.context.expand(2, -1, -1), label=one.label.expand(2))
    first = model.predict(X, LEVEL, one).combined()
    assert torch.equal(first, model.predict(X, LEVEL, two).combined())
    clip = model.predict(X.movedim(0, 1)[None], LEVEL, one)
    assert torch.equal(clip.combined()[0].movedim(1, 0), first) and clip.variance.shape == (1, 3, 2, 8, 8)
    with pytest.raises(UserError, match=r"has 3 rows \(context\), the latents 2"):
        model.predict(X, LEVEL, Conditioning(context=torch.randn(3, 5, 12), label=torch.zeros(1).long()))


def test_injectors_stack_at_joint_sites_and_see_text_and_places(weights, ctx):
    model = ctx.realise(denoiser(weights))
    plain, seen = model.predict(X, LEVEL, CONDITIONING).combined(), []

    def watch(call, attend):
        seen.append((call.key.shape[2] - call.query.shape[2], call.size, call.level))
        return attend(call)

    with model.inject(watch, [s for s in model.attention_sites if s.kind == "joint"]):
        assert torch.equal(model.predict(X, LEVEL, CONDITIONING).combined(), plain)
    assert set(seen) == {(5, (2, 2), LEVEL)} and len(seen) == len(model.attention_sites)


def test_gradients_reach_the_sample_and_the_text_and_no_weight(weights, ctx):
    model = ctx.realise(denoiser(weights))
    x, context = X.clone().requires_grad_(), CONDITIONING.context.clone().requires_grad_()
    told = Conditioning(context=context, label=CONDITIONING.label)
    model.predict(x, LEVEL, told).combined().square().sum().backward()
    assert x.grad.abs().sum() > 0 and context.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_features_are_taken_from_the_middle_of_the_network(weights, ctx):
    middle = ctx.realise(denoiser(weights)).module.mid_block
    assert isinstance(middle, torch.nn.Module) and "mid_block" not in dict(build_network(weights).named_children())


# --- pixels ---


def test_pictures_become_latents_in_minus_one_to_one_and_come_back():
    image = Image(torch.rand(2, 4, 6, 3))
    latents = to_latents(image)
    assert latents.data.shape == (2, 3, 4, 6) and latents.space == "pixels" and latents.downscale == 1
    assert torch.equal(latents.data[1, 2], image.data[1, :, :, 2] * 2 - 1)
    assert torch.allclose(to_image(latents).data, image.data, atol=1e-6)
    grey = to_latents(Image(torch.rand(1, 4, 4, 1))).data
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_what_is_no_picture_is_refused():
    with pytest.raises(UserError, match="alpha"):
        to_latents(Image(torch.rand(1, 4, 4, 4)))
    with pytest.raises(UserError, match=r"take models\.decode"):
        to_image(Latents(torch.zeros(1, 3, 4, 4), space="kl-f8c4-x0.18"))
    with pytest.raises(UserError, match=r"wanted \[B, 3, H, W\]"):
        to_image(Latents(torch.zeros(1, 4, 4, 4), space="pixels"))
    assert to_image(Latents(torch.full((1, 3, 2, 2), 9.0), space="pixels")).data.max() == 1


# --- a plugin's own ---


class Halved(torch.nn.Module):
    """A denoiser that says of x that half of it is noise, times a number that it learns."""

    def __init__(self, *, start: float = 0.5) -> None:
        super().__init__()
        self.config = {"start": start}
        self.factor = torch.nn.Parameter(torch.tensor(start))

    def forward(self, x, time, conditioning):
        return self.factor * x


def test_a_plugin_s_own_network_is_a_denoiser_by_its_registered_name(ctx, architecture, monkeypatch):
    monkeypatch.setattr("mezzotint_models.networks.NETWORKS", dict(NETWORKS))
    with pytest.raises(UserError, match="Halved is no network that a file can hold"):
        pack_network(Halved())
    register_network("mine.halved", f"{__name__}:Halved")
    register_network("mine.halved", f"{__name__}:Halved")
    with pytest.raises(PluginError, match=r"two networks are called 'mine\.halved'"):
        register_network("mine.halved", "elsewhere:Other")
    model = ctx.realise(denoiser(pack_network(Halved(start=0.25), denoiser=architecture.record())))
    assert torch.equal(model.predict(X, LEVEL, None).combined(), X * 0.25)
    assert model.attention_sites == ()
    with pytest.raises(UserError, match="no attention that could be changed"):
        model.inject(lambda call, attend: attend(call), ())
