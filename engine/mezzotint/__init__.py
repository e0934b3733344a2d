"""Mezzotint: headless, plugin-based node-graph generation of images and video.

Everything public is here. Importing this package imports neither torch nor networkx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "errors": (
        "Cancelled", "GraphError", "MezzotintError", "NodeError", "NodeTimeout", "PluginError", "Problem",
        "StoreError", "TransientError", "UserError",
    ),
    "values": ("Patch", "Port", "Recipe", "Source", "Value"),
    "ports": (
        "Autoencoder", "Conditioning", "Dataset", "Denoiser", "Image", "ImageEncoder", "Latents", "Mask", "Noise",
        "NoiseSchedule", "Report", "Sigmas", "TextEncoder", "Video", "Weights",
    ),
    "predictor": ("NoiseLevel", "Prediction", "PredictionKind", "Predictor"),
    "sites": ("Attend", "AttentionCall", "AttentionSite", "Injector", "Rows", "SiteKind"),
    "context": ("Context", "NoiseSource"),
    "nodes": ("node",),
    "signature": ("Registered",),
    "hookspecs": ("API_VERSION", "hookimpl"),
    "api": ("LoadedGraph", "load"),
    "dialogue": ("Dialogue", "Edit", "Turn"),
    "builder": ("GraphBuilder",),
    "runner": ("RunResult",),
    "runtime": ("Runtime", "default_runtime"),
    "settings": ("Settings",),
}  # fmt: skip

_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_WHERE)
__version__ = "0.1.0"

if TYPE_CHECKING:
    from mezzotint.api import LoadedGraph as LoadedGraph
    from mezzotint.api import load as load
    from mezzotint.builder import GraphBuilder as GraphBuilder
    from mezzotint.context import Context as Context
    from mezzotint.context import NoiseSource as NoiseSource
    from mezzotint.dialogue import Dialogue as Dialogue
    from mezzotint.dialogue import Edit as Edit
    from mezzotint.dialogue import Turn as Turn
    from mezzotint.errors import *  # noqa: F403
    from mezzotint.hookspecs import API_VERSION as API_VERSION
    from mezzotint.hookspecs import hookimpl as hookimpl
    from mezzotint.nodes import node as node
    from mezzotint.ports import *  # noqa: F403
    from mezzotint.predictor import *  # noqa: F403
    from mezzotint.runner import RunResult as RunResult
    from mezzotint.runtime import Runtime as Runtime
    from mezzotint.runtime import default_runtime as default_runtime
    from mezzotint.settings import Settings as Settings
    from mezzotint.signature import Registered as Registered
    from mezzotint.sites import *  # noqa: F403
    from mezzotint.values import *  # noqa: F403


def __getattr__(name: str) -> Any:
    # Lazy, so that `mezzotint --help` pays for nothing that it does not use.
    if name in _WHERE:
        return getattr(importlib.import_module(f"mezzotint.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'mezzotint' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
