"""Evaluation: distances between sets of pictures by their features, accuracies, and how sure the figures are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mezzotint import hookimpl

__all__ = ["register_loaders", "register_nodes", "register_ports"]


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_metrics.accuracy import prompt_accuracy
    from mezzotint_metrics.bootstrap import bootstrap
    from mezzotint_metrics.clip import clip_score
    from mezzotint_metrics.curve import curve
    from mezzotint_metrics.denoising import denoising_error
    from mezzotint_metrics.difference import picture_difference
    from mezzotint_metrics.extraction import classifier_logits, denoiser_features, embedding_features
    from mezzotint_metrics.frechet import fid
    from mezzotint_metrics.inception import inception_features
    from mezzotint_metrics.kernel import kid
    from mezzotint_metrics.neighbours import precision_recall
    from mezzotint_metrics.retrieval import best_of, rank, retrieval
    from mezzotint_metrics.score import inception_score
    from mezzotint_metrics.statistics import load_statistics, statistics
    from mezzotint_metrics.table import row, table

    seeing = (denoiser_features, classifier_logits, embedding_features, inception_features)
    figures = (fid, kid, inception_score, precision_recall, clip_score, retrieval, prompt_accuracy, bootstrap)
    for function in (*seeing, statistics, load_statistics, *figures, rank, best_of, row, table, curve):
        register(function)
    for function in (denoising_error, picture_difference):
        register(function)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    register("metrics.inception", _load_inception)


def _load_inception(recipe: Any, ctx: Any) -> Any:
    from mezzotint_metrics.inception import load_inception

    return load_inception(recipe, ctx)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    from mezzotint_metrics.features import Features, write_features
    from mezzotint_metrics.statistics import Statistics, write_statistics

    for port, writer in ((Features, write_features), (Statistics, write_statistics)):
        register(port, suffix="safetensors", media_type="application/octet-stream", writer=writer)
