"""The attention of diffusers' and transformers' networks, computed by `mezzotint_kernels`.

diffusers' own processors replace each other. Here each layer has one processor for good, with a stack of
injectors, so that patches compose; see `mezzotint.AttentionSite`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mezzotint import AttentionCall, AttentionSite, Injector, NoiseLevel, SiteKind, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["AttentionLayers", "transformers_attention"]

_NOWHERE = NoiseLevel(1.0, 0.0, 0.0)


class AttentionLayers:
    """The attention layers of a network of diffusers, and the injectors that are there now.

    sites: in the order of the network's modules.
    level, picture: of the evaluation that runs; whoever calls the network says so through `at`.
    halved: how often the picture was halved before it came to the network, by patches.
    """

    def __init__(self, module: nn.Module, halved: int = 0) -> None:
        self.halved = halved
        self.sites: tuple[AttentionSite, ...] = tuple(self._take_over(module))
        self.injectors: dict[str, tuple[Injector, ...]] = {site.name: () for site in self.sites}
        self.level = _NOWHERE
        self.picture: tuple[int, int] | None = None

    def _take_over(self, module: nn.Module) -> Iterator[AttentionSite]:
        from diffusers.models import attention_processor as theirs

        plain = (theirs.AttnProcessor, theirs.AttnProcessor2_0)
        joint = (theirs.AttnAddedKVProcessor, theirs.AttnAddedKVProcessor2_0)
        halvings = len(getattr(module.config, "block_out_channels", (0,))) - 1
        for name, layer in module.named_modules():
            # Layers of another kind stay diffusers' own, and are no sites.
            kind = type(getattr(layer, "processor", None))
            if kind in plain or kind in joint:
                site = _site(name, layer, halvings, self.halved)
                layer.set_processor((_JointProcessor if kind in joint else _SiteProcessor)(self, site))
                yield site

    def at(self, level: NoiseLevel, picture: tuple[int, int] | None) -> None:
        """Says which evaluation comes: its noise level, and the picture's height and width."""
        self.level, self.picture = level, picture

    @contextmanager
    def inject(self, injector: Injector, sites: Iterable[AttentionSite]) -> Iterator[None]:
        """Put `injector` over what is at `sites` already, while the block runs.

        Raises: UserError: no site, or a site that this network does not have.
        """
        names = [site.name for site in sites]
        if not names:
            raise UserError("an injector was given no attention site of the denoiser to work at")
        unknown = [name for name in names if name not in self.injectors]
        if unknown:
            raise UserError(f"the denoiser has no attention site {unknown[0]!r}")
        before = {name: self.injectors[name] for name in names}
        self.injectors.update({name: (*stack, injector) for name, stack in before.items()})
        try:
            yield
        finally:
            self.injectors.update(before)

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """No injector at all while the block runs: for an evaluation of an injector's own."""
        before = self.injectors
        self.injectors = {name: () for name in before}
        try:
            yield
        finally:
            self.injectors = before


class _SiteProcessor:
    """One layer's computation: diffusers calls it in place of a processor of its own."""

    def __init__(self, layers: AttentionLayers, site: AttentionSite) -> None:
        self.layers = layers
        self.site = site

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        residual = hidden_states
        if layer.spatial_norm is not None:
            hidden_states = layer.spatial_norm(hidden_states, temb)
        # [B, C, H, W] or [B, N, C]
        tokens = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
        if layer.group_norm is not None:
            tokens = layer.group_norm(tokens.transpose(1, 2)).transpose(1, 2)
        read = tokens if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and layer.norm_cross:
            read = layer.norm_encoder_hidden_states(read)
        call = self._call(layer, tokens, read, attention_mask)
        out = _through(self.layers.injectors[self.site.name], call)
        out = out.transpose(1, 2).flatten(2).to(tokens.dtype)
        out = layer.to_out[1](layer.to_out[0](out))
        if residual.ndim == 4:
            out = out.transpose(1, 2).reshape(residual.shape)
        if layer.residual_connection:
            out = out + residual
        return out / layer.rescale_output_factor

    def _call(self, layer: Any, tokens: Tensor, read: Tensor, mask: Tensor | None) -> AttentionCall:
        query, key, value = (
            projected.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for projected in (layer.to_q(tokens), layer.to_k(read), layer.to_v(read))
        )
        if layer.norm_q is not None:
            query = layer.norm_q(query)
        if layer.norm_k is not None:
            key = layer.norm_k(key)
        bias, key_bias = _biases(mask)
        return AttentionCall(
            self.site, query, key, value, self.layers.level, bias, key_bias, None, self._size(tokens.shape[1])
        )

    def _size(self, tokens: int) -> tuple[int, int] | None:
        """The picture at this depth: each halving rounds up, as a convolution of stride 2 does."""
        if self.layers.picture is None:
            return None
        height, width = self.layers.picture
        for _ in range(self.site.level):
            height, width = (height + 1) // 2, (width + 1) // 2
        return (height, width) if height * width == tokens else None


class _JointProcessor(_SiteProcessor):
    """A layer whose places attend to the text's tokens and to each other in one softmax, the text's keys first.

    Nichol et al. 2022 (GLIDE); diffusers calls it attention with added keys and values.
    """

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        if encoder_hidden_states is None:
            raise UserError("the denoiser's attention reads a text: its conditioning has no context")
        tokens = layer.group_norm(hidden_states.flatten(2)).transpose(1, 2)  # [B, N, C]
        text = encoder_hidden_states
        if layer.norm_cross:
            text = layer.norm_encoder_hidden_states(text)
        out = _through(self.layers.injectors[self.site.name], self._joint(layer, tokens, text, attention_mask))
        out = layer.to_out[1](layer.to_out[0](out.transpose(1, 2).flatten(2).to(tokens.dtype)))
        return out.transpose(1, 2).reshape(hidden_states.shape) + hidden_states

    def _joint(self, layer: Any, tokens: Tensor, text: Tensor, mask: Tensor | None) -> AttentionCall:
        import torch

        keys, values = [layer.add_k_proj(text)], [layer.add_v_proj(text)]
        if not layer.only_cross_attention:
            keys.append(layer.to_k(tokens))
            values.append(layer.to_v(tokens))
        query, key, value = (
            parts.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for parts in (layer.to_q(tokens), torch.cat(keys, dim=1), torch.cat(values, dim=1))
        )
        bias, key_bias = _biases(mask)
        # A mask says which tokens of the text count; places always do.
        places = key.shape[2] - text.shape[1]
        bias = None if bias is None else torch.nn.functional.pad(bias, (0, places))
        key_bias = None if key_bias is None else torch.nn.functional.pad(key_bias, (0, places))
        return AttentionCall(
            self.site, query, key, value, self.layers.level, bias, key_bias, None, self._size(tokens.shape[1])
        )


def _through(injectors: tuple[Injector, ...], call: AttentionCall) -> Tensor:
    """The call through a stack of injectors, the last one first, down to plain attention."""
    if not injectors:
        return _plain(call)
    *covered, last = injectors
    return last(call, lambda inner: _through(tuple(covered), inner))


def _plain(call: AttentionCall) -> Tensor:
    from mezzotint_kernels import attention

    return attention(call.query, call.key, call.value, bias=call.bias, key_bias=call.key_bias, scale=call.scale)


def _biases(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """(bias, key_bias) of diffusers' additive mask: [B, M], [B, 1, M] or [B, N, M]."""
    if mask is None:
        return None, None
    if mask.ndim == 2:
        return None, mask
    if mask.ndim == 3 and mask.shape[1] == 1:
        return None, mask[:, 0]
    return (mask.unsqueeze(1) if mask.ndim == 3 else mask), None


def _site(name: str, layer: Any, halvings: int, halved: int) -> AttentionSite:
    part, level = "", 0
    if name.startswith("mid_block"):
        part, level = "middle", halvings
    elif name.startswith(("down_blocks.", "up_blocks.")):
        part, number = name.split("_")[0], int(name.split(".")[1])
        level = number if part == "down" else halvings - number
    kind: SiteKind = "cross" if layer.is_cross_attention else "self"
    if layer.added_kv_proj_dim is not None:
        kind = "joint"
    return AttentionSite(name, kind, part, level + halved, layer.heads, layer.inner_dim // layer.heads)


def transformers_attention() -> str:
    """Make `mezzotint_kernels` known to transformers; the name to give as `attn_implementation`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    name = "mezzotint"
    AttentionInterface.register(name, _transformers_forward)
    # An additive mask, since the kernels add a bias.
    AttentionMaskInterface.register(name, eager_mask)
    return name


def _transformers_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' shape of an attention function: [B, H, N, D] in, [B, N, H, D] out.

    Raises: UserError: dropout, which is for training a text encoder by other means.
    """
    from mezzotint_kernels import attention

    if dropout:
        raise UserError(f"attention by mezzotint_kernels has no dropout; got {dropout}")
    out = attention(query, key, value, bias=attention_mask, scale=scaling)
    return out.transpose(1, 2), None
