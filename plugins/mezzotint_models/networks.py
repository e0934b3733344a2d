"""Networks by name: numbers that were trained become the module they belong to, and back.

`Weights.meta` says which network: {"class": a name below, "config": what it is made from}, and what the network is
good for, one record per role ("denoiser", "text_encoder", "image_encoder", "autoencoder", "classifier", ...).
A file never names code: only these classes are built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mezzotint import PluginError, UserError, Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "NETWORKS", "build_network", "config_of", "fill", "join_parts", "make_network", "pack_network", "part_of",
    "parts_of", "register_network", "start_network",
]  # fmt: skip

NETWORKS: dict[str, str] = {
    "mezzotint.unet": "mezzotint_models.conditioned_unet:ConditionedUNet",
    "mezzotint.glide_text": "mezzotint_models.glide_text:GlideText",
    "mezzotint.noisy_encoder": "mezzotint_models.noisy_encoder:NoisyEncoder",
    "mezzotint.class_tokens": "mezzotint_models.label_networks:ClassTokens",
    "mezzotint.layout_encoder": "mezzotint_models.label_networks:LayoutEncoder",
    "UNet2DConditionModel": "diffusers:UNet2DConditionModel",
    "AutoencoderKL": "diffusers:AutoencoderKL",
    "VQModel": "diffusers:VQModel",
    "CLIPTextModel": "transformers:CLIPTextModel",
    "CLIPModel": "transformers:CLIPModel",
    "T5EncoderModel": "transformers:T5EncoderModel",
    "BertModel": "transformers:BertModel",
    "families.vae": "mezzotint_families.vae:VAE",
    "families.realnvp": "mezzotint_families.realnvp:RealNVP",
    "families.vqvae": "mezzotint_families.vqvae:VQVAE",
    "families.gan": "mezzotint_families.gan:Generator",
    "unclip.diffusion_prior": "mezzotint_unclip.diffusion_prior:DiffusionPrior",
    "unclip.autoregressive_prior": "mezzotint_unclip.autoregressive_prior:AutoregressivePrior",
    "unclip.decoder_condition": "mezzotint_unclip.decoder_condition:DecoderCondition",
}
"""Name in a file: module and class. A class of ours has `config`, its arguments as JSON."""

_MOST_LAYERS = 512


def register_network(name: str, target: str) -> None:
    """Make a class of a plugin known, when the plugin is imported. target: "module:Class".

    The class takes keyword arguments that are JSON and keeps them as `config`. Its names begin with the plugin's.
    Raises: PluginError: the name is another class's.
    """
    if NETWORKS.setdefault(name, target) != target:
        raise PluginError(f"two networks are called {name!r}: {NETWORKS[name]} and {target}")


def pack_network(module: nn.Module, **meta: Any) -> Weights:
    """A module's numbers with what is needed to build it again, on the CPU, copied.

    meta: role records and whatever else should be told: JSON.
    Raises: UserError: a class that `NETWORKS` does not have.
    """
    name = _name_of(module)
    tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in module.state_dict().items()}
    return Weights(tensors, kind="full", target=name, meta={"class": name, "config": config_of(module), **meta})


def build_network(weights: Weights) -> Any:
    """The module that `pack_network` took apart: float32, on the CPU, in evaluation mode, frozen.

    Raises: UserError: several networks (take `part_of`), an unknown class, a configuration that makes no network,
        tensors missing, unknown or of another shape.
    """
    import torch

    return fill(make_network(weights.meta, weights.tensors), weights.tensors, "cpu", torch.float32)


def part_of(weights: Weights, wanted: str) -> Weights:
    """One network out of a value that may hold several.

    wanted: the part's name, or a role that exactly one part has; "" for the only part.
    Raises: UserError: none or several; the message names what is there.
    """
    parts = parts_of(weights)
    if wanted in parts and weights.target == "parts":
        return parts[wanted]
    found = [name for name, part in parts.items() if not wanted or wanted in part.meta]
    if len(found) == 1:
        return parts[found[0]]
    there = ", ".join(f"{name} ({_told(part)})" for name, part in parts.items()) or "nothing"
    if not found:
        raise UserError(f"the weights have no {wanted!r}; there is {there}")
    raise UserError(f"the weights have {len(found)} networks that could be meant; name one: {there}")


def parts_of(weights: Weights) -> dict[str, Weights]:
    """The networks of a value by name; a value with one network has it under its class's name.

    Raises: UserError: a record of parts that is damaged.
    """
    if weights.target != "parts":
        return {str(weights.meta.get("class", weights.target)): weights}
    described = weights.meta.get("parts")
    if not isinstance(described, Mapping) or not all(
        isinstance(part, Mapping) and isinstance(part.get("meta"), Mapping) for part in described.values()
    ):
        raise UserError("the weights say that they have parts, and not which: their 'parts' is damaged")
    tensors: dict[str, dict[str, Any]] = {name: {} for name in described}
    for key, value in weights.tensors.items():
        name, _, rest = key.partition("/")
        if name not in tensors:
            raise UserError(f"the weights have a tensor {key!r} of no part; parts are {', '.join(tensors)}")
        tensors[name][rest] = value
    return {
        name: Weights(tensors[name], target=str(part.get("target", "")), meta=dict(part["meta"]))
        for name, part in described.items()
    }


def join_parts(parts: Mapping[str, Weights]) -> Weights:
    """Several networks' weights as one value of parts, which `parts_of` takes apart."""
    described = {name: {"target": part.target, "meta": dict(part.meta)} for name, part in parts.items()}
    tensors = {f"{name}/{key}": value for name, part in parts.items() for key, value in part.tensors.items()}
    return Weights(tensors, target="parts", meta={"parts": described})


def start_network(name: str, config: Mapping[str, Any]) -> Any:
    """A network to train, on the CPU, its numbers random from torch's generator.

    Raises: UserError: a class that `NETWORKS` does not have, a configuration that makes no network.
    """
    return _made(name, config)


def make_network(meta: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    """The network of a record, on the meta device: nothing is allocated or initialised.

    tensors: what it will be filled with; a configuration that asks for more layers than there are tensors is
    refused before it is built.
    Raises: UserError: as `build_network`.
    """
    import torch

    name, config = meta.get("class"), meta.get("config")
    if not isinstance(config, Mapping):
        raise UserError(f"the configuration of the {name} is not there or damaged")
    _check_sizes(str(name), config, len(tensors))
    with torch.device("meta"):
        return _made(name, config)


def _made(name: Any, config: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in NETWORKS:
        raise UserError(f"a network of class {name!r} is not known; known are {', '.join(NETWORKS)}")
    try:
        return _builder(name)(dict(config))
    except Exception as error:
        raise UserError(f"the configuration of the {name} makes no network: {error}") from error


def fill(module: Any, tensors: Mapping[str, Tensor], device: Any, dtype: torch.dtype) -> Any:
    """Put copies of the tensors into a network from `make_network`, in evaluation mode and frozen.

    Floating tensors become `dtype`. Raises: UserError: tensors missing, unknown or of another shape.
    """
    from mezzotint_models.weights import check_fit

    check_fit(module.state_dict(), tensors, type(module).__name__)
    placed = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else None, copy=True)
        for name, tensor in tensors.items()
    }
    module.load_state_dict(placed, assign=True)
    _fill_buffers(module, device)
    return module.eval().requires_grad_(False)


def config_of(module: Any) -> dict[str, Any]:
    """What a module is made from, as JSON."""
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    # Through text, as a file has it: lists for tuples, names for numbers as keys.
    plain = json.loads(json.dumps(config, default=str))
    return dict(_without_private(plain))


def _private(key: str) -> bool:
    # Where a configuration came from, and which code or types it would like: none of a file's business.
    return key.startswith("_") or "attn_implementation" in key or key in _REFUSED


_REFUSED = ("auto_map", "torch_dtype", "dtype", "quantization_config", "name_or_path", "transformers_version")


def _name_of(module: Any) -> str:
    place = f"{type(module).__module__}:{type(module).__name__}"
    for name, target in NETWORKS.items():
        package, _, cls = target.partition(":")
        if cls == type(module).__name__ and place.startswith(package.partition(".")[0]):
            return name
    raise UserError(f"{type(module).__name__} is no network that a file can hold; known are {', '.join(NETWORKS)}")


def _builder(name: str) -> Callable[[dict[str, Any]], Any]:
    package, _, attribute = NETWORKS[name].partition(":")
    cls = getattr(import_module(package), attribute)
    if hasattr(cls, "config_class"):  # transformers
        return lambda config: cls(_transformers_config(cls.config_class, config))
    if hasattr(cls, "from_config"):  # diffusers
        return lambda config: cls.from_config({k: v for k, v in config.items() if not _private(k)})
    return lambda config: cls(**config)


def _transformers_config(cls: Any, config: dict[str, Any]) -> Any:
    from mezzotint_models.attention import transformers_attention

    # Theirs could also be fetched from a hub, by a name in the configuration.
    clean = {key: value for key, value in config.items() if not _private(key)}
    return cls.from_dict(_without_private(clean), attn_implementation=transformers_attention())


def _without_private(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_private(item) for key, item in value.items() if not _private(str(key))}
    return value


def _check_sizes(name: str, config: Mapping[str, Any], tensors: int) -> None:
    """A number of layers is a loop: one out of all bounds would never end."""
    most = min(_MOST_LAYERS, max(tensors, 1))
    for key, value in _numbers(config):
        if any(word in key for word in ("layers", "blocks", "depth", "entries")) and value > most:
            raise UserError(f"the configuration of the {name} has {value} {key}, and {tensors} tensors for it")
        if abs(value) > 2**31:
            raise UserError(f"the configuration of the {name} has {key} {value}, which no network has")


def _numbers(value: Any, key: str = "") -> list[tuple[str, int]]:
    if isinstance(value, Mapping):
        return [pair for name, item in value.items() for pair in _numbers(item, str(name))]
    if isinstance(value, list | tuple) and not all(isinstance(item, str) for item in value):
        inside = [pair for item in value for pair in _numbers(item, key)]
        # Channels of each level, say: a loop too. Names of classes are none.
        return [(f"entries of {key}", len(value)), *inside] if inside else []
    return [(key, value)] if isinstance(value, int) and not isinstance(value, bool) else []


def _fill_buffers(module: Any, device: Any) -> None:
    """Buffers that no file holds: transformers counts positions in them."""
    import torch

    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            if leaf not in ("position_ids", "token_type_ids"):
                raise UserError(f"the network has a buffer {name!r} that no file holds")
            count = buffer.shape[-1]
            values = (
                torch.arange(count, device=device)
                if leaf == "position_ids"
                else torch.zeros(count, dtype=buffer.dtype, device=device)
            )
            holder = module.get_submodule(owner)
            holder.register_buffer(leaf, values.to(buffer.dtype).expand(buffer.shape).clone(), persistent=False)


def _told(part: Weights) -> str:
    roles = [key for key in part.meta if key not in ("class", "config")]
    return ", ".join([str(part.meta.get("class", part.target or "unnamed")), *roles])
