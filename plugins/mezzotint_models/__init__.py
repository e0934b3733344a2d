"""Models: checkpoints in the Stable Diffusion layouts, and networks that were trained here, by their names.

The network classes and the tokenizer are diffusers' and transformers'; their weights are read here, from
safetensors files only, and nothing is ever fetched from a hub. No name below loads torch before it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint import hookimpl

if TYPE_CHECKING:
    from mezzotint_models.architecture import Architecture
    from mezzotint_models.attention import AttentionLayers
    from mezzotint_models.description import read_header, read_json
    from mezzotint_models.layout import read_boxes
    from mezzotint_models.learnt_words import pack_words, worded
    from mezzotint_models.lora_files import pack_lora
    from mezzotint_models.networks import (
        build_network,
        pack_network,
        part_of,
        parts_of,
        register_network,
        start_network,
    )
    from mezzotint_models.overlapping import blending_weights, even_starts
    from mezzotint_models.packed import meta_of, network_of, recipe_for, record_of
    from mezzotint_models.weights import folder_tensors

__all__ = [
    "Architecture",
    "AttentionLayers",
    "TunedWeights",
    "blending_weights",
    "build_network",
    "even_starts",
    "folder_tensors",
    "meta_of",
    "network_of",
    "pack_lora",
    "pack_network",
    "pack_words",
    "part_of",
    "parts_of",
    "read_boxes",
    "read_header",
    "read_json",
    "recipe_for",
    "record_of",
    "register_loaders",
    "register_network",
    "register_nodes",
    "register_ports",
    "resolve_source",
    "start_network",
    "trunk_tensors",
    "worded",
]

_HOME = {
    "Architecture": "architecture",
    "AttentionLayers": "attention",
    "TunedWeights": "tuned",
    "blending_weights": "overlapping",
    "build_network": "networks",
    "even_starts": "overlapping",
    "folder_tensors": "weights",
    "meta_of": "packed",
    "network_of": "packed",
    "pack_lora": "lora_files",
    "pack_network": "networks",
    "pack_words": "learnt_words",
    "part_of": "networks",
    "parts_of": "networks",
    "read_boxes": "layout",
    "read_header": "description",
    "read_json": "description",
    "recipe_for": "packed",
    "record_of": "packed",
    "register_network": "networks",
    "start_network": "networks",
    "trunk_tensors": "shared",
    "worded": "learnt_words",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_models.architecture import unet
    from mezzotint_models.autoencoder import autoencoder
    from mezzotint_models.checkpoint import checkpoint, pack
    from mezzotint_models.classifiers import classifier
    from mezzotint_models.decoder_tuning import tune_decoder
    from mezzotint_models.denoiser import denoiser
    from mezzotint_models.experts import mixture_of_experts
    from mezzotint_models.image_encoders import encode_image, image_encoder
    from mezzotint_models.label_encoders import encode_labels, encode_layout, label_encoder
    from mezzotint_models.language_model import language_model
    from mezzotint_models.latents import decode, encode, set_mask
    from mezzotint_models.learnt_words import export_words, learnt_words, read_words
    from mezzotint_models.lora import apply_lora, lora, text_lora
    from mezzotint_models.lora_files import export_lora, read_lora
    from mezzotint_models.merging import compress_tuned, merge_concepts
    from mezzotint_models.packed import cast, load_weights
    from mezzotint_models.pixels import to_image, to_latents
    from mezzotint_models.prompt import encode_text
    from mezzotint_models.shared import leave_out, put_back
    from mezzotint_models.text_encoders import text_encoder
    from mezzotint_models.tuned import tuned
    from mezzotint_models.video_latents import decode_video, encode_video, to_video, to_video_latents

    for function in (checkpoint, encode_text, encode, decode, set_mask, pack):
        register(function)
    for function in (text_encoder, language_model, image_encoder, encode_image, classifier):
        register(function)
    for function in (label_encoder, encode_labels, encode_layout, tuned, tune_decoder):
        register(function)
    for function in (lora, text_lora, apply_lora, read_lora, export_lora, learnt_words, read_words, export_words):
        register(function)
    for function in (merge_concepts, compress_tuned, mixture_of_experts):
        register(function)
    for function in (unet, denoiser, autoencoder, load_weights, cast, leave_out, put_back, to_latents, to_image):
        register(function)
    for function in (encode_video, decode_video, to_video_latents, to_video):
        register(function)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    from mezzotint_models.autoencoder import load_autoencoder, load_packed_autoencoder
    from mezzotint_models.classifiers import load_classifier
    from mezzotint_models.clip_text import load_clip_text
    from mezzotint_models.denoiser import load_network
    from mezzotint_models.image_encoders import load_image_encoder
    from mezzotint_models.label_encoders import load_label_encoder
    from mezzotint_models.language_model import load_language_model
    from mezzotint_models.text_encoders import load_text_encoder
    from mezzotint_models.unet import load_unet

    register("models.labels", load_label_encoder)
    register("models.packed_text_encoder", load_text_encoder)
    register("models.packed_image_encoder", load_image_encoder)
    register("models.noisy_classifier", load_classifier)
    register("models.language_model", load_language_model)
    register("models.unet", load_unet)
    register("models.clip_text", load_clip_text)
    register("models.autoencoder_kl", load_autoencoder)
    register("models.packed_autoencoder", load_packed_autoencoder)
    register("models.network", load_network)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    from mezzotint_models.architecture import Architecture
    from mezzotint_models.classifiers import Classifier
    from mezzotint_models.experts import ExpertMixture
    from mezzotint_models.label_encoders import LabelEncoder
    from mezzotint_models.learnt_words import LearntWords
    from mezzotint_models.lora import LowRank
    from mezzotint_models.tuned import TunedWeights

    register(Architecture)
    register(Classifier)
    register(LabelEncoder)
    for kind in (TunedWeights, LowRank, LearntWords, ExpertMixture):
        register(kind)


@hookimpl
def resolve_source(uri: str) -> Path | None:
    """`installed:minilm` is the sentence encoder that the extra mezzotint[minilm] installs."""
    from mezzotint_models.language_model import installed_model

    return installed_model(uri)
