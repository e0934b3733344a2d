"""Evaluation: distances between sets of pictures or clips by features, accuracies, and how sure those are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mezzotint import hookimpl

__all__ = ["register_loaders", "register_nodes", "register_ports"]


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_metrics.accuracy import prompt_accuracy, video_accuracy
    from mezzotint_metrics.bootstrap import bootstrap
    from mezzotint_metrics.clip import clip_score
    from mezzotint_metrics.clip_objective import learn_clips
    from mezzotint_metrics.consistency import frame_consistency
    from mezzotint_metrics.curve import curve
    from mezzotint_metrics.denoising import denoising_error
    from mezzotint_metrics.difference import picture_difference
    from mezzotint_metrics.extraction import classifier_logits, denoiser_features, embedding_features
    from mezzotint_metrics.frechet import fid, fvd
    from mezzotint_metrics.gathering import gather_clips
    from mezzotint_metrics.inception import inception_features
    from mezzotint_metrics.kernel import kid
    from mezzotint_metrics.neighbours import precision_recall
    from mezzotint_metrics.retrieval import best_of, rank, retrieval
    from mezzotint_metrics.score import inception_score
    from mezzotint_metrics.statistics import load_statistics, statistics
    from mezzotint_metrics.table import row, table
    from mezzotint_metrics.video_features import frame_features, i3d_features, video_features
    from mezzotint_models import register_network

    register_network("metrics.clip_classifier", "mezzotint_metrics.clip_classifier:ClipClassifier")
    of_video = (video_features, frame_features, i3d_features, fvd, frame_consistency, video_accuracy)
    seeing = (denoiser_features, classifier_logits, embedding_features, inception_features)
    figures = (fid, kid, inception_score, precision_recall, clip_score, retrieval, prompt_accuracy, bootstrap)
    others = (learn_clips, gather_clips, rank, best_of, row, table, curve, denoising_error, picture_difference)
    for function in (*seeing, statistics, load_statistics, *figures, *others, *of_video):
        register(function)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    register("metrics.inception", _load_inception)
    register("metrics.clip_network", _load_clip_network)
    register("metrics.i3d", _load_i3d)


def _load_inception(recipe: Any, ctx: Any) -> Any:
    from mezzotint_metrics.inception import load_inception

    return load_inception(recipe, ctx)


def _load_clip_network(recipe: Any, ctx: Any) -> Any:
    from mezzotint_metrics.video_features import load_clip_network

    return load_clip_network(recipe, ctx)


def _load_i3d(recipe: Any, ctx: Any) -> Any:
    from mezzotint_metrics.video_features import load_i3d

    return load_i3d(recipe, ctx)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    from mezzotint_metrics.clip_objective import ClipClassifierObjective
    from mezzotint_metrics.features import Features, write_features
    from mezzotint_metrics.statistics import Statistics, write_statistics

    register(ClipClassifierObjective)
    for port, writer in ((Features, write_features), (Statistics, write_statistics)):
        register(port, suffix="safetensors", media_type="application/octet-stream", writer=writer)
