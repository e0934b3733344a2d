"""Training: one loop for every objective, and the nodes that train the bundled model.

A plugin that has something to train derives its classes from `Objective` and `Task` here. No name below loads
torch before it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mezzotint import hookimpl

if TYPE_CHECKING:
    from mezzotint_training.checkpoint import build, join, pack, split
    from mezzotint_training.conditioner import Conditioner, Conditions
    from mezzotint_training.diffusion_task import freeze
    from mezzotint_training.drawing import ddim, pixels_of
    from mezzotint_training.epochs import rows
    from mezzotint_training.noising import Process, clean_of, eps_of, level_weights, target_of
    from mezzotint_training.objective import Objective, Part, Task
    from mezzotint_training.pictures import Pictures, sheet_of, to_image
    from mezzotint_training.reading import load_tokenizer, tokenise

__all__ = [
    "Conditioner",
    "Conditions",
    "Objective",
    "Part",
    "Pictures",
    "Process",
    "Task",
    "build",
    "clean_of",
    "ddim",
    "eps_of",
    "freeze",
    "join",
    "level_weights",
    "load_tokenizer",
    "pack",
    "pixels_of",
    "register_loaders",
    "register_nodes",
    "register_ports",
    "rows",
    "sheet_of",
    "split",
    "target_of",
    "to_image",
    "tokenise",
]

_HOME = {
    "Conditioner": "conditioner",
    "Conditions": "conditioner",
    "Objective": "objective",
    "Part": "objective",
    "Pictures": "pictures",
    "Process": "noising",
    "Task": "objective",
    "build": "checkpoint",
    "clean_of": "noising",
    "ddim": "drawing",
    "eps_of": "noising",
    "freeze": "diffusion_task",
    "join": "checkpoint",
    "level_weights": "noising",
    "load_tokenizer": "reading",
    "pack": "checkpoint",
    "pixels_of": "drawing",
    "rows": "epochs",
    "sheet_of": "pictures",
    "split": "checkpoint",
    "target_of": "noising",
    "to_image": "pictures",
    "tokenise": "reading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_training.bundled_pictures import digits, emoji
    from mezzotint_training.contrastive import contrastive
    from mezzotint_training.diffusion_nodes import (
        condition_on_labels,
        condition_on_text,
        condition_on_trained_text,
        diffusion,
    )
    from mezzotint_training.events import events
    from mezzotint_training.first_stage import first_stage
    from mezzotint_training.imagic import fit_conditioning, fit_denoiser, fitted_conditioning
    from mezzotint_training.label_conditioners import condition_on_class_token, condition_on_layout
    from mezzotint_training.latent_start import start_from_latents
    from mezzotint_training.mixture import mix
    from mezzotint_training.nodes import autoencoder, checkpoint, denoiser, text_encoder
    from mezzotint_training.noisy import noised_clip, noisy_classifier
    from mezzotint_training.personal import personalise
    from mezzotint_training.picture_folder import pictures
    from mezzotint_training.shards import shards
    from mezzotint_training.together import together
    from mezzotint_training.train_node import train
    from mezzotint_training.tuning import tune

    for function in (fit_conditioning, fit_denoiser, fitted_conditioning, personalise, together):
        register(function)
    for function in (condition_on_class_token, condition_on_layout, tune):
        register(function)
    for function in (diffusion, condition_on_labels, condition_on_text, condition_on_trained_text, events):
        register(function)
    for function in (noisy_classifier, noised_clip, start_from_latents):
        register(function)
    for function in (shards, digits, emoji, mix):
        register(function)
    for function in (train, pictures, text_encoder, autoencoder, denoiser, checkpoint, contrastive, first_stage):
        register(function)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    from mezzotint_training import bundled_pictures, mixture, picture_folder, shards

    register(mixture.READER, mixture.open_mixture)
    register(picture_folder.READER, picture_folder.open_pictures)
    register(shards.READER, shards.open_shards)
    register(bundled_pictures.READER, bundled_pictures.open_tiles)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    from mezzotint_training.checkpoint import Checkpoint, write_checkpoint
    from mezzotint_training.conditioner import Conditioner
    from mezzotint_training.conditioners import LabelConditioner, TextConditioner, TrainedTextConditioner
    from mezzotint_training.contrastive import ContrastiveObjective
    from mezzotint_training.diffusion import DiffusionObjective
    from mezzotint_training.events import EventLog, write_events
    from mezzotint_training.first_stage import FirstStage
    from mezzotint_training.imagic import PictureObjective
    from mezzotint_training.label_conditioners import ClassTokenConditioner, LayoutConditioner
    from mezzotint_training.latent_text import DecoderTraining, LatentTraining, TextTraining
    from mezzotint_training.noisy import NoisedClipObjective, NoisyClassifierObjective
    from mezzotint_training.objective import Objective
    from mezzotint_training.personal import PersonalObjective
    from mezzotint_training.together import TogetherObjective
    from mezzotint_training.tuning import TuningObjective

    register(EventLog, suffix="tfevents", media_type="application/octet-stream", writer=write_events)
    register(Checkpoint, suffix="safetensors", media_type="application/octet-stream", writer=write_checkpoint)
    for kind in (Conditioner, DiffusionObjective, LabelConditioner, TextConditioner, TrainedTextConditioner):
        register(kind)
    register(Objective)
    for kind in (TextTraining, DecoderTraining, LatentTraining):
        register(kind)
    for kind in (ContrastiveObjective, NoisyClassifierObjective, NoisedClipObjective):
        register(kind)
    for kind in (
        FirstStage,
        ClassTokenConditioner,
        LayoutConditioner,
        TuningObjective,
        PictureObjective,
        PersonalObjective,
        TogetherObjective,
    ):
        register(kind)
