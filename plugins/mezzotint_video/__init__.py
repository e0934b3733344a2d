"""Video: temporal layers that turn a model of pictures into one of clips, and the systems made of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mezzotint import hookimpl

if TYPE_CHECKING:
    from mezzotint_video.motion_objective import MotionObjective

__all__ = ["MotionObjective", "register_loaders", "register_nodes", "register_ports"]

_HOME = {"MotionObjective": "motion_objective"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    """The nodes of this plugin."""
    from mezzotint_models import register_network
    from mezzotint_video.conditions import condition
    from mezzotint_video.content_words import content_words
    from mezzotint_video.decomposed import decompose
    from mezzotint_video.depth_side import condition_on_depth
    from mezzotint_video.dynamic_text import words_over_time
    from mezzotint_video.frame_loop import next_frames
    from mezzotint_video.frame_objective import learn_frames
    from mezzotint_video.frame_start import start_frames
    from mezzotint_video.frames import join_frames, take_frames
    from mezzotint_video.inflate import inflate
    from mezzotint_video.motion_objective import learn_motion
    from mezzotint_video.one_shot import tune_on_clip
    from mezzotint_video.reconstruction import keep_frames
    from mezzotint_video.residual_objective import learn_residual
    from mezzotint_video.side_channels import condition_on_frames, condition_on_slow_clip
    from mezzotint_video.sparse_causal import sparse_causal
    from mezzotint_video.temporal_guidance import guide_temporally
    from mezzotint_video.triplane_figures import check_planes, seams
    from mezzotint_video.triplane_nodes import (
        continue_clip,
        decode_planes,
        empty_planes,
        encode_planes,
        plane_autoencoder,
    )
    from mezzotint_video.triplane_training import learn_plane_diffusion, learn_planes, plane_denoiser
    from mezzotint_video.windows import windows

    register_network("video.triplane_autoencoder", "mezzotint_video.triplane_autoencoder:TriplaneAutoencoder")
    register_network("video.plane_denoiser", "mezzotint_video.triplane_denoiser:PlaneDenoiser")
    register_network("video.motion_adapter", "diffusers:MotionAdapter")
    register_network("video.temporal_layers", "mezzotint_video.temporal_layers:TemporalLayers")
    for function in (inflate, condition, learn_motion, keep_frames, take_frames, join_frames, windows):
        register(function)
    for function in (decompose, learn_residual, condition_on_frames, condition_on_slow_clip, words_over_time):
        register(function)
    for function in (sparse_causal, tune_on_clip, condition_on_depth, guide_temporally):
        register(function)
    for function in (content_words, start_frames, learn_frames, next_frames):
        register(function)
    for function in (learn_planes, plane_denoiser, learn_plane_diffusion, plane_autoencoder):
        register(function)
    for function in (encode_planes, decode_planes, empty_planes, continue_clip, check_planes, seams):
        register(function)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    register("video.layers", _load_layers)
    register("video.motion_adapter", _load_motion_adapter)
    register("video.planes", _load_planes)


def _load_layers(recipe: Any, ctx: Any) -> Any:
    # Imported when it is called: a listing of nodes loads no torch.
    from mezzotint_video.inflate import load_layers

    return load_layers(recipe, ctx)


def _load_motion_adapter(recipe: Any, ctx: Any) -> Any:
    from mezzotint_video.motion_adapter import load_adapter

    return load_adapter(recipe, ctx)


def _load_planes(recipe: Any, ctx: Any) -> Any:
    from mezzotint_video.triplane_model import load_planes

    return load_planes(recipe, ctx)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    """The patches that a recipe can carry, and what can be trained."""
    from mezzotint_video.decomposed import Decomposed
    from mezzotint_video.frame_objective import FrameObjective
    from mezzotint_video.frame_predictor import ShownPast
    from mezzotint_video.inflate import Animated, Inflated, LayersRecipe
    from mezzotint_video.motion_objective import MotionObjective
    from mezzotint_video.one_shot import OneShotObjective
    from mezzotint_video.reconstruction import KnownFrames
    from mezzotint_video.residual_objective import ResidualObjective
    from mezzotint_video.sparse_causal import SparseCausal
    from mezzotint_video.temporal_guidance import TemporalGuidance
    from mezzotint_video.triplane_objectives import PlaneAutoencoderObjective, PlaneDiffusionObjective
    from mezzotint_video.windows import Windows

    register(PlaneAutoencoderObjective)
    register(PlaneDiffusionObjective)
    for kind in (FrameObjective, ShownPast, OneShotObjective, SparseCausal, TemporalGuidance):
        register(kind)
    for kind in (Animated, Inflated, LayersRecipe, MotionObjective, KnownFrames, Decomposed, ResidualObjective):
        register(kind)
    register(Windows)
