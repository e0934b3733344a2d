"""AnimateDiff's motion modules as temporal layers: transformers over the frames, behind a U-Net's attention.

Guo et al. 2024, "AnimateDiff", section 4.2. The modules are diffusers' AnimateDiffTransformer3D; what attends over
time in them is computed by `mezzotint_kernels`, and is an attention site as every other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mezzotint import UserError
from mezzotint_video.places import attention_places

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint_video.temporal_attention import Through
    from mezzotint_video.temporal_layers import Clip

__all__ = ["MotionModules", "OverTime", "take_over"]


class OverTime:
    """How one attention layer of a motion module is computed: diffusers calls it in place of its own processor.

    heads, head: of the layer, for its attention site.
    """

    def __init__(self, name: str, layer: Any) -> None:
        self.name, self.heads, self.head = name, int(layer.heads), int(layer.inner_dim // layer.heads)

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        batch: int = 1,
        through: Callable[[str], Through | None] | None = None,
    ) -> Tensor:
        """hidden_states: [B * P, F, C], with B `batch`; the rest is not there in a motion module."""
        from mezzotint_kernels import temporal_attention

        query, key, value = (
            projection(hidden_states)
            .unflatten(-1, (self.heads, self.head))
            .unflatten(0, (batch, -1))
            .transpose(1, 2)
            for projection in (layer.to_q, layer.to_k, layer.to_v)
        )  # [B, F, P, H, D]
        injected = through(self.name) if through is not None else None
        if injected is not None:
            out = injected(query, key, value, None)
        else:
            out = temporal_attention(query, key, value, scale=layer.scale)
        tokens = out.transpose(1, 2).flatten(3).flatten(0, 1).to(hidden_states.dtype)
        projected: Tensor = layer.to_out[1](layer.to_out[0](tokens))
        return projected


def take_over(adapter: Any) -> None:
    """Every attention of diffusers' MotionAdapter is computed by `OverTime` from now on."""
    from diffusers.models.attention_processor import Attention

    for name, layer in list(adapter.named_modules()):
        if isinstance(layer, Attention):
            layer.set_processor(OverTime(name, layer))


class MotionModules:
    """diffusers' MotionAdapter behind the layers of one U-Net: `Layers` of mezzotint_video.places.

    Nothing is told to them: not the frame rate, not the words. A clip of one frame passes as it is, where
    diffusers would send it through.

    Raises: UserError: modules of a U-Net with other blocks or other widths.
    """

    def __init__(self, adapter: Any, unet: Any) -> None:
        self.adapter = adapter
        self.modules: dict[str, Any] = dict(_placed(adapter, unet))
        self.attentions = {
            layer.processor.name: layer.processor
            for module in self.modules.values()
            for layer in module.modules()
            if isinstance(getattr(layer, "processor", None), OverTime)
        }
        self.frames = int(adapter.config["motion_max_seq_length"])

    @property
    def names(self) -> list[str]:
        """The layers of the U-Net that these lie behind."""
        return list(self.modules)

    def parameters(self) -> Iterator[Tensor]:
        """Of all modules."""
        yield from self.adapter.parameters()

    def modulation(self, clip: Clip) -> None:
        """Nothing. Raises: UserError: more frames than they were trained on, which have no positions."""
        if clip.frames > self.frames:
            raise UserError(
                f"these motion modules know clips of up to {self.frames} frames; got {clip.frames}. Take fewer, "
                f"or put video.windows behind video.inflate, which shows them the clip in parts"
            )

    def retold(self, clip: Clip) -> None:
        """Nothing: the words are of the whole clip."""

    def behind(
        self, name: str, h: Tensor, clip: Clip, told: Tensor | None, through: Callable[[str], Through | None]
    ) -> Tensor:
        """h [B * (F + images), C, H, W], the output of the U-Net's layer `name`, after the module behind it."""
        import torch

        if clip.apart or clip.frames < 2:
            return h
        rows = h.reshape(clip.batch, clip.frames + clip.images, *h.shape[1:])
        frames = rows[:, : clip.frames].flatten(0, 1)
        module = self.modules[name]
        made: Tensor = module(
            frames.to(module.proj_in.weight.dtype),
            num_frames=clip.frames,
            cross_attention_kwargs={"batch": clip.batch, "through": through},
        ).to(h.dtype)
        if not clip.images:
            return made
        both = torch.cat([made.reshape_as(rows[:, : clip.frames]), rows[:, clip.frames :]], dim=1)
        return both.flatten(0, 1)


def _placed(adapter: Any, unet: Any) -> Iterator[tuple[str, Any]]:
    """(the U-Net's layer, the module behind it), in the order of the network."""
    places: dict[str, list[tuple[str, int]]] = {}
    for name, width in attention_places(unet):
        places.setdefault(name.rsplit(".", 2)[0], []).append((name, width))
    blocks = {f"down_blocks.{n}": block for n, block in enumerate(adapter.down_blocks)}
    blocks |= {f"up_blocks.{n}": block for n, block in enumerate(adapter.up_blocks)}
    if adapter.mid_block is not None:
        blocks["mid_block"] = adapter.mid_block
    else:
        places.pop("mid_block", None)
    other = "the motion modules are of another model"
    if blocks.keys() != places.keys():
        one = min(blocks.keys() ^ places.keys())
        raise UserError(f"{other}: {one} is in {'them' if one in blocks else 'this denoiser'} alone")
    for block, there in places.items():
        modules = blocks[block].motion_modules
        if len(there) != len(modules):
            raise UserError(
                f"{other}: they have {len(modules)} for {block}, this denoiser has {len(there)} places there"
            )
        for (name, width), module in zip(there, modules, strict=True):
            if module.in_channels != width:
                raise UserError(
                    f"{other}: behind {name} they are {module.in_channels} channels wide, this denoiser's U-Net "
                    f"is {width}"
                )
            yield name, module
