"""A trained text-to-image model as one value, written as a folder that diffusers loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mezzotint import Port, UserError, Weights

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Checkpoint", "build", "join", "pack", "split", "write_checkpoint"]


@dataclass(frozen=True, eq=False)
class Checkpoint(Port):
    """The parts of a Stable-Diffusion-shaped model. parts: their weights by name; tokenizer: its files' texts."""

    parts: Mapping[str, Weights]
    tokenizer: Mapping[str, str] = field(default_factory=dict)


def pack(module: nn.Module, name: str, config: Mapping[str, Any], **meta: Any) -> Weights:
    """A module's weights, with what is needed to build it again."""
    tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in module.state_dict().items()}
    return Weights(tensors=tensors, kind="full", target=name, meta={"class": name, "config": dict(config), **meta})


def join(parts: Mapping[str, Weights]) -> Weights:
    """Several models' weights as one value, tensors by "part/name"; `split` takes it apart."""
    return Weights(
        tensors={f"{name}/{key}": value for name, part in parts.items() for key, value in part.tensors.items()},
        target="parts",
        meta={"parts": {name: {"target": p.target, "meta": dict(p.meta)} for name, p in parts.items()}},
    )


def split(weights: Weights) -> dict[str, Weights]:
    """What `join` put together.

    Raises: UserError: the weights are of one model.
    """
    if weights.target != "parts":
        raise UserError(
            f"wanted the weights of several models, got those of {weights.target or 'something unnamed'}"
        )
    found: dict[str, dict[str, Any]] = {name: {} for name in weights.meta["parts"]}
    for name, value in weights.tensors.items():
        part, _, key = name.partition("/")
        found[part][key] = value
    return {
        name: Weights(tensors=found[name], target=of["target"], meta=dict(of["meta"]))
        for name, of in weights.meta["parts"].items()
    }


def build(weights: Weights, name: str) -> Any:
    """The module that `pack` took apart.

    Raises: UserError: if the weights are of another kind of model.
    """
    if weights.target != name:
        raise UserError(f"wanted the weights of a {name}, got those of {weights.target or 'something unnamed'}")
    module = _make(name, dict(weights.meta["config"]))
    module.load_state_dict(dict(weights.tensors))
    return module


def _make(name: str, config: dict[str, Any]) -> Any:
    if name == "CLIPTextModel":
        from transformers import CLIPTextConfig, CLIPTextModel

        return CLIPTextModel(CLIPTextConfig(**config))
    import diffusers

    classes = {"AutoencoderKL": diffusers.AutoencoderKL, "UNet2DConditionModel": diffusers.UNet2DConditionModel}
    return classes[name].from_config(config)


def write_checkpoint(value: Checkpoint, info: Any) -> dict[str, bytes]:
    """The files of a StableDiffusionPipeline folder in half precision, by relative path."""
    from mezzotint_training.denoiser import make_scheduler
    from mezzotint_training.export import export_pipeline

    with TemporaryDirectory() as temporary, _quiet():
        folder = Path(temporary)
        export_pipeline(
            folder,
            text_encoder=build(value.parts["text_encoder"], "CLIPTextModel"),
            vae=build(value.parts["vae"], "AutoencoderKL"),
            unet=build(value.parts["unet"], "UNet2DConditionModel"),
            scheduler=make_scheduler(),
        )
        files = {
            p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
        }
    return {**files, **{f"tokenizer/{name}": text.encode() for name, text in value.tokenizer.items()}}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' progress bars and advice, which a writer has no use for."""
    import diffusers.utils.logging as theirs
    import transformers.utils.logging as others

    levels = theirs.get_verbosity(), others.get_verbosity()
    theirs.set_verbosity_error()
    others.set_verbosity_error()
    others.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(levels[0])
        others.set_verbosity(levels[1])
        others.enable_progress_bar()
