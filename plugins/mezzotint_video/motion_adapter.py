"""AnimateDiff's files: a motion adapter as diffusers saves it, or one file with the authors' own tensor names.

They are read from safetensors only. What a file holds is seen from its header; the numbers are read when a node
needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint import Context, Recipe, Source, UserError, Weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NETWORK", "adapter_config", "config_of", "load_adapter"]

NETWORK = "video.motion_adapter"
MODULES = ".motion_modules."
# Of every published file; the tensors do not say them.
HEADS, GROUPS, FRAMES = 8, 32, 32
_MOST_FRAMES = 4096


def adapter_config(source: Source) -> dict[str, Any] | None:
    """The configuration of diffusers' MotionAdapter that a source is, from its header alone; None: it is another.

    Raises: UserError: a folder of something else, a damaged file, motion modules that are no plain ones.
    """
    from mezzotint_models import read_header, read_json

    path, where = Path(source.path), f"video.inflate: {source.uri}"
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(
                f"{where}: a folder of temporal layers is a motion adapter as diffusers saves it, with config.json"
            )
        found = read_json(path / "config.json")
        named = found.get("_class_name")
        if named != "MotionAdapter":
            raise UserError(f"{where}: wanted a MotionAdapter as diffusers saves it, got {named!r}")
        config = {key: value for key, value in found.items() if not key.startswith("_")}
    elif path.suffix.lower() == ".safetensors" and path.is_file():
        shapes, _ = read_header(path)
        if not any(MODULES in name for name in shapes):
            return None
        if any("lora" in name for name in shapes):
            raise UserError(f"{where}: a motion LoRA changes motion modules and is none; these are not read")
        config = config_of(shapes, where)
    else:
        return None
    if config.get("conv_in_channels"):
        raise UserError(
            f"{where}: its modules come with a first layer that reads a picture (PIA), which is not supported"
        )
    return config


def config_of(shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, Any]:
    """The configuration of diffusers' MotionAdapter, from the names and shapes of the authors' own file."""
    names = {name.replace(".temporal_transformer", ""): shape for name, shape in shapes.items()}
    blocks = _count(names, "down_blocks.")
    layers = [_count(names, f"down_blocks.{n}{MODULES}") for n in range(blocks)]
    norms = [names.get(f"down_blocks.{n}{MODULES}0.norm.weight", ()) for n in range(blocks)]
    if not blocks or 0 in layers or any(len(shape) != 1 for shape in norms):
        raise UserError(f"{where}: has {MODULES.strip('.')} without a whole set of down_blocks")
    inside = [_count(names, f"down_blocks.{n}{MODULES}0.transformer_blocks.") for n in range(blocks)]
    tables = {shape[1] for name, shape in names.items() if _is_table(name) and len(shape) == 3}
    if len(tables) > 1:
        raise UserError(f"{where}: its modules know clips of different lengths: {sorted(tables)} frames")
    middle = f"mid_block{MODULES}"
    return {
        "block_out_channels": [shape[0] for shape in norms],
        "motion_layers_per_block": layers,
        "motion_transformer_layers_per_block": inside,
        "motion_mid_block_layers_per_block": max(_count(names, middle), 1),
        "motion_transformer_layers_per_mid_block": max(_count(names, f"{middle}0.transformer_blocks."), 1),
        "motion_num_attention_heads": HEADS,
        "motion_norm_num_groups": GROUPS,
        "motion_max_seq_length": next(iter(tables), FRAMES),
        "use_motion_mid_block": any(name.startswith(middle) for name in names),
        "conv_in_channels": names.get("conv_in.weight", (0, 0))[1],
    }


def _count(names: Mapping[str, Any], prefix: str) -> int:
    """How many numbered things there are under a prefix."""
    return len({name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)})


def _is_table(name: str) -> bool:
    return name.endswith((".pos_encoder.pe", ".pos_embed.pe"))


def load_adapter(recipe: Recipe, ctx: Context) -> Any:
    """Loader `video.motion_adapter`: diffusers' MotionAdapter, whose attention is ours.

    Raises: UserError: a damaged file, a configuration that makes no network, tensors missing, unknown or of
        another shape.
    """
    from mezzotint_models import network_of
    from mezzotint_video.motion_modules import take_over

    config = dict(recipe.config["model"])
    tensors = _with_tables(_read(recipe.source), config, recipe.source)
    weights = Weights(tensors, target=NETWORK, meta={"class": NETWORK, "config": config})
    adapter = network_of(recipe.replace(weights=weights, config={**recipe.config, "part": ""}), ctx)
    take_over(adapter)
    return adapter


def _read(source: Source) -> dict[str, Tensor]:
    """The tensors by diffusers' names."""
    from safetensors import safe_open

    from mezzotint_models import folder_tensors, read_header

    path = Path(source.path)
    if path.is_dir():
        return folder_tensors(path, "diffusion_pytorch_model")
    shapes, _ = read_header(path)
    with safe_open(path, framework="pt") as file:
        return _from_original({name: file.get_tensor(name) for name in shapes}, source)


def _from_original(tensors: dict[str, Tensor], source: Source) -> dict[str, Tensor]:
    import torch
    from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

    made: dict[str, Tensor] = convert_animatediff_checkpoint_to_diffusers(tensors)
    for name, table in tensors.items():
        # diffusers has one table of positions for both attentions of a block.
        block, tail, _ = name.partition(".attention_blocks.")
        if tail and _is_table(name):
            key = block.replace(".temporal_transformer", "") + ".pos_embed.pe"
            if key in made and not torch.equal(made[key], table):
                raise UserError(f"{source.uri}: {block} has two attentions with different positions")
            made[key] = table
    return made


def _with_tables(tensors: dict[str, Tensor], config: Mapping[str, Any], source: Source) -> dict[str, Tensor]:
    """With the positions of frames where a file leaves them out, since they are the same in all."""
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    frames = config.get("motion_max_seq_length", FRAMES)
    if not isinstance(frames, int) or not 1 <= frames <= _MOST_FRAMES:
        raise UserError(f"{source.uri}: motion_max_seq_length is {frames!r}, wanted frames in 1 to {_MOST_FRAMES}")
    made = dict(tensors)
    for name, tensor in tensors.items():
        if name.endswith(".norm1.weight") and tensor.ndim == 1:
            key = name.removesuffix("norm1.weight") + "pos_embed.pe"
            if key not in made:
                made[key] = SinusoidalPositionalEmbedding(len(tensor), frames).pe
    return made
