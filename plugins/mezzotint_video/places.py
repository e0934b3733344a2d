"""Where temporal layers go in a U-Net, and how they come on and off: by hooks, so that no network is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from mezzotint import AttentionSite, Injector, NoiseLevel, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mezzotint_video.temporal_attention import Through
    from mezzotint_video.temporal_layers import Clip

__all__ = ["Attached", "Layers", "attention_places", "residual_places", "unet_of"]


class Layers(Protocol):
    """What may lie behind a U-Net's layers: TemporalLayers, or an AnimateDiff motion adapter."""

    @property
    def names(self) -> list[str]: ...

    def modulation(self, clip: Clip) -> Tensor | None: ...

    def retold(self, clip: Clip) -> Tensor | None: ...

    def behind(
        self, name: str, h: Tensor, clip: Clip, told: Tensor | None, through: Callable[[str], Through | None]
    ) -> Tensor: ...


def unet_of(module: Any) -> Any:
    """diffusers' network of a realised denoiser's module. Raises: UserError: it is no U-Net."""
    inner = getattr(module, "network", module)
    if not hasattr(inner, "down_blocks") or not hasattr(inner, "mid_block"):
        raise UserError(f"temporal layers go into a U-Net; this denoiser is a {type(module).__name__}")
    return inner


def residual_places(unet: Any) -> list[list[Any]]:
    """[name, output channels] of each residual block, in the order of the modules."""
    return [
        [name, module.out_channels]
        for name, module in unet.named_modules()
        if type(module).__name__ == "ResnetBlock2D"
    ]


def attention_places(unet: Any) -> list[list[Any]]:
    """[name, channels] of each place of a spatial attention: a transformer, or a plain attention layer.

    Where a block has none, behind its residual blocks, as motion modules do.
    """
    places = []
    for block_name, block in _blocks(unet):
        attentions = list(getattr(block, "attentions", None) or [])
        kind = "attentions" if attentions else "resnets"
        for number, layer in enumerate(attentions or block.resnets):
            if layer is not None:
                places.append([f"{block_name}.{kind}.{number}", _width(layer, block.resnets[number])])
    return places


def _blocks(unet: Any) -> Iterator[tuple[str, Any]]:
    for number, block in enumerate(unet.down_blocks):
        yield f"down_blocks.{number}", block
    if unet.mid_block is not None:
        yield "mid_block", unet.mid_block
    for number, block in enumerate(unet.up_blocks):
        yield f"up_blocks.{number}", block


def _width(layer: Any, residual: Any) -> int:
    for name in ("out_channels", "in_channels", "query_dim"):
        if isinstance(getattr(layer, name, None), int):
            return int(getattr(layer, name))
    return int(residual.out_channels)


class Attached:
    """Temporal layers behind those of a network, while `on` holds; what runs through them is said by `clip`."""

    def __init__(self, unet: nn.Module, layers: Layers) -> None:
        self.unet, self.layers = unet, layers
        self.clip: Clip | None = None
        self.level = NoiseLevel(1.0, 0.0, 0.0)
        self.told: Tensor | None = None
        self.injectors: dict[str, tuple[Injector, ...]] = {}
        there = dict(unet.named_modules())
        missing = [name for name in layers.names if name not in there]
        if missing:
            raise UserError(
                f"the temporal layers are of another model: this one has no layer {missing[0]!r} to go behind"
            )
        self.sites = tuple(self._sites())
        self.handles: list[Any] = []

    def _sites(self) -> Iterator[AttentionSite]:
        halvings = len(getattr(self.unet.config, "block_out_channels", (0,))) - 1
        for name, layer in getattr(self.layers, "attentions", {}).items():
            name = name.replace("-", ".")
            part, level = "middle", halvings
            if name.startswith(("down_blocks.", "up_blocks.")):
                part, number = name.split("_")[0], int(name.split(".")[1])
                level = number if part == "down" else halvings - number
            yield AttentionSite(f"{name}.temporal", "temporal", part, level, layer.heads, layer.head)

    @contextmanager
    def on(self) -> Iterator[Attached]:
        """The hooks are there while the block runs."""
        self.handles = [
            self.unet.get_submodule(name).register_forward_hook(self._hook(name)) for name in self.layers.names
        ]
        try:
            yield self
        finally:
            self.off()

    def off(self) -> None:
        """Take the hooks off."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    @contextmanager
    def over(self, clip: Clip, level: NoiseLevel | None = None) -> Iterator[None]:
        """The next evaluations are of this clip."""
        self.level = level or self.level
        # A picture is a clip of one frame, and passes as it is.
        self.told = None if clip.passes else self.layers.modulation(clip)
        self.clip = clip
        try:
            yield
        finally:
            self.clip = self.told = None

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(module: Any, given: Any, out: Any) -> Any:
            if self.clip is None:
                return None
            first = out[0] if isinstance(out, tuple) else getattr(out, "sample", out)
            made = self.layers.behind(name, first, self.clip, self.told, self._through)
            if isinstance(out, tuple):
                return (made, *out[1:])
            return made if first is out else type(out)(sample=made)

        return hook

    def _through(self, name: str) -> Through | None:
        """The attention of one layer through its injectors, or None where there is none."""
        stack = self.injectors.get(f"{name}.temporal", ())
        if not stack:
            return None
        site = next(site for site in self.sites if site.name == f"{name}.temporal")
        from mezzotint_video.injected import computed

        return computed(site, stack, self.level)
