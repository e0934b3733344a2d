"""models.checkpoint: what it reads, and that it reads no weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mezzotint import UserError
from mezzotint_models.checkpoint import checkpoint, latent_space, pack
from mezzotint_models.description import PACKED_KEY
from mezzotint_models.schedule import schedule_from


def test_a_folder_gives_three_recipes_with_what_its_configs_say(tiny):
    denoiser, text_encoder, autoencoder = checkpoint(tiny.source)
    assert (denoiser.channels, denoiser.sample_size, denoiser.downscale) == (4, 8, 2)
    assert (autoencoder.channels, autoencoder.downscale, autoencoder.scale) == (4, 2, 0.18215)
    assert denoiser.space == autoencoder.space == "kl-f2c4-x0.18215"
    assert denoiser.schedule.prediction == "eps" and denoiser.schedule.beta_end == 0.012
    assert [r.loader for r in (denoiser, text_encoder, autoencoder)] == [
        "models.unet", "models.clip_text", "models.autoencoder_kl",
    ]  # fmt: skip


def test_configs_read_from_shapes_make_the_folder_s_networks(tiny, original):
    unet, text, vae = (recipe.config["model"] for recipe in checkpoint(original))
    for found, wanted in (
        (unet, tiny.unet.config),
        (vae, tiny.vae.config),
        (text, tiny.text.config.to_dict()),
    ):
        for key in found.keys() - {"_class_name", "sample_size", "architectures"}:
            value = list(wanted[key]) if isinstance(wanted[key], tuple) else wanted[key]
            assert found[key] == value, key


def test_reading_a_checkpoint_opens_no_weights_and_imports_no_torch(tiny, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny.folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    code = (
        "import sys; from mezzotint import Source; from mezzotint_models.checkpoint import checkpoint; "
        f"checkpoint(Source('x', {str(bare)!r}, '0')); "
        "bad = {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_registering_the_plugin_imports_no_torch():
    code = (
        "import sys, mezzotint_models as m; m.register_nodes(lambda f: None); "
        "m.register_loaders(lambda n, f: None); assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
         ("scaled_linear", "v", True)),
        ({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}, ("cosine", "x0", False)),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, ("flow", "flow", False)),
        ({}, ("linear", "eps", False)),
    ],
)  # fmt: skip
def test_a_scheduler_config_becomes_a_noise_schedule(config, wanted):
    schedule = schedule_from(config, "here")
    assert (schedule.kind, schedule.prediction, schedule.zero_terminal_snr) == wanted


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid' is not known"),
        ({"prediction_type": "noise"}, "prediction_type 'noise' is not known"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"num_train_timesteps": -1}, "num_train_timesteps must be"),
        ({"beta_end": "big"}, "beta_end must be a number"),
    ],
)
def test_a_scheduler_that_is_not_known_is_named(config, message):
    with pytest.raises(UserError, match=message):
        schedule_from(config, "here")


def test_a_latent_space_is_named_by_its_scaling_so_that_tuned_decoders_fit():
    first = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 4, "scaling_factor": 0.18215}
    assert latent_space(first, "")[0] == latent_space({**first, "act_fn": "other"}, "")[0] == "kl-f8c4-x0.18215"
    assert latent_space({**first, "scaling_factor": 0.13025}, "")[0] != latent_space(first, "")[0]


def test_a_packed_file_says_the_same_as_its_folder(tiny, packed):
    for recipe, wanted in zip(checkpoint(packed), checkpoint(tiny.source), strict=True):
        assert recipe.config["model"] == wanted.config["model"] and recipe.loader == wanted.loader
    with pytest.raises(UserError, match="one file already"):
        pack(packed)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".pth"])
def test_pickles_are_refused_with_the_way_out(tmp_path, suffix, source_of):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"any code.*safetensors\.torch\.save_file"):
        checkpoint(source_of(path))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x01", b"\xff" * 8, b"\xff" * 64, (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}", (9).to_bytes(8, "little") + b'{"a": 1}}',
        (70).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}    ',
    ],
)  # fmt: skip
def test_damaged_safetensors_end_in_a_clear_error(tmp_path, content, source_of):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        checkpoint(source_of(path))


def _header(metadata: dict) -> bytes:
    text = json.dumps({"__metadata__": metadata}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"unet": 1}', "[" * 100_000, '{"unet":{},"vae":{},"text_encoder":{}}']
)
def test_a_damaged_configuration_in_the_header_ends_in_a_clear_error(tmp_path, text, source_of):
    path = tmp_path / "model.safetensors"
    path.write_bytes(_header({PACKED_KEY: text}))
    with pytest.raises(UserError, match="is damaged"):
        checkpoint(source_of(path))


def _edited(tiny, tmp_path: Path, part: str, change) -> Path:
    folder = tmp_path / "edited"
    shutil.copytree(tiny.folder, folder)
    config = folder / part
    config.write_text(change(config.read_text()))
    return folder


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("unet/config.json", lambda t: t.replace("UNet2DConditionModel", "UNet3DConditionModel"), "UNet3D"),
        ("vae/config.json", lambda t: t.replace("AutoencoderKL", "os.system"), "its vae is a os.system"),
        (
            "text_encoder/config.json",
            lambda t: t.replace("CLIPTextModel", "T5EncoderModel"),
            "T5EncoderModel",
        ),
        ("vae/config.json", lambda t: t[:20], "not JSON"),
        ("vae/config.json", lambda t: "[]", "wanted a JSON object"),
        ("vae/config.json", lambda t: t.replace('"latent_channels": 4', '"latent_channels": "4"'), "odd"),
    ],
)
def test_a_config_cannot_choose_what_is_loaded(tiny, tmp_path, part, change, message, source_of):
    with pytest.raises(UserError, match=message):
        checkpoint(source_of(_edited(tiny, tmp_path, part, change)))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(tiny, tmp_path, part, source_of):
    shutil.copytree(tiny.folder, tmp_path / "less")
    shutil.rmtree(tmp_path / "less" / part)
    with pytest.raises(UserError, match=part):
        checkpoint(source_of(tmp_path / "less"))


def test_a_pipeline_of_another_family_is_named(tiny, tmp_path, source_of):
    shutil.copytree(tiny.folder, tmp_path / "xl")
    (tmp_path / "xl" / "text_encoder_2").mkdir()
    with pytest.raises(UserError, match=r"SDXL.*supported are"):
        checkpoint(source_of(tmp_path / "xl"))


def test_a_file_without_the_three_parts_is_named(tmp_path, source_of):
    (tmp_path / "lora.safetensors").write_bytes(_header({}))
    with pytest.raises(UserError, match="has no unet under"):
        checkpoint(source_of(tmp_path / "lora.safetensors"))
