"""`video.inflate`: a denoiser of pictures with temporal layers, as a patch on its recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mezzotint import (
    AttentionSite,
    Conditioning,
    Context,
    Denoiser,
    Injector,
    NoiseLevel,
    Patch,
    Prediction,
    Recipe,
    Source,
    UserError,
    Weights,
    node,
)

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint_video.places import Attached, Layers
    from mezzotint_video.temporal_layers import Clip

__all__ = ["Animated", "Inflated", "InflatedPredictor", "clip_of", "inflate", "load_layers", "without_video"]


@dataclass(frozen=True, eq=False)
class LayersRecipe(Recipe):
    """Temporal layers as a model of their own, which the pool keeps."""


@dataclass(frozen=True, eq=False)
class Inflated(Patch):
    """Temporal layers behind those of a U-Net; a picture, a clip of one frame, passes as if they were not there.

    source, config, weights: of a recipe, see `mezzotint_models.recipe_for`.
    """

    source: Source
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    loader: str = "video.layers"
    mutates: ClassVar[bool] = True
    innermost: ClassVar[bool] = True

    @contextmanager
    def apply(self, model: Any, ctx: Context) -> Iterator[Any]:
        """Raises: UserError: no U-Net; temporal layers that it has already, or that are another model's."""
        from mezzotint_video.places import Attached, unet_of

        if isinstance(model, InflatedPredictor):
            raise UserError(
                "video.inflate: the denoiser has temporal layers already; give video.inflate the denoiser of "
                "pictures, or leave one of the two out"
            )
        unet = unet_of(model.module)
        with Attached(unet, self.layers(unet, ctx)).on() as attached:
            yield InflatedPredictor(model, attached)

    def layers(self, unet: Any, ctx: Context) -> Layers:
        """What goes behind the U-Net's layers."""
        found: Layers = ctx.realise(
            LayersRecipe(self.source, self.loader, dict(self.config), weights=self.weights)
        )
        return found


@dataclass(frozen=True, eq=False)
class Animated(Inflated):
    """AnimateDiff's motion modules behind a U-Net's layers. config: "model" is that of a MotionAdapter."""

    loader: str = "video.motion_adapter"

    def layers(self, unet: Any, ctx: Context) -> Layers:
        """Raises: UserError: modules of a U-Net with other blocks or other widths."""
        from mezzotint_video.motion_modules import MotionModules

        try:
            return MotionModules(super().layers(unet, ctx), unet)
        except UserError as error:
            raise UserError(f"{self.source.uri}: {error}") from error


class InflatedPredictor:
    """A predictor of clips [B, C, F, H, W]; of pictures [B, C, H, W] it is the model itself."""

    def __init__(self, model: Any, attached: Attached) -> None:
        self.model, self.attached = model, attached
        self.schedule = model.schedule
        # Switched off for what should be asked of each frame by itself.
        self.temporal = True

    def __getattr__(self, name: str) -> Any:
        if name in ("model", "attached"):
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    def attention_sites(self) -> tuple[AttentionSite, ...]:
        """The model's own, and those over time."""
        return (*self.model.attention_sites, *self.attached.sites)

    @contextmanager
    def inject(self, injector: Injector, sites: Iterable[AttentionSite]) -> Iterator[None]:
        """Put `injector` at these sites, over what is there already, while the block runs.

        Raises: UserError: no site, or one that is not this denoiser's.
        """
        chosen = list(sites)
        mine = [site.name for site in chosen if site.kind == "temporal"]
        others = [site for site in chosen if site.kind != "temporal"]
        before = dict(self.attached.injectors)
        with ExitStack() as stack:
            if others or not mine:
                stack.enter_context(self.model.inject(injector, others))
            for name in mine:
                self.attached.injectors[name] = (*before.get(name, ()), injector)
            try:
                yield
            finally:
                self.attached.injectors = before

    @contextmanager
    def uninjected(self) -> Iterator[None]:
        """No injector anywhere while the block runs."""
        before, self.attached.injectors = self.attached.injectors, {}
        try:
            with self.model.uninjected():
                yield
        finally:
            self.attached.injectors = before

    @contextmanager
    def frames_apart(self) -> Iterator[None]:
        """Each frame is taken by itself while the block runs; side channels are read all the same."""
        before, self.temporal = self.temporal, False
        try:
            yield
        finally:
            self.temporal = before

    @property
    def nbytes(self) -> int:
        layers: Any = self.attached.layers
        own = sum(p.nbytes for p in layers.parameters()) if hasattr(layers, "parameters") else 0
        return int(self.model.nbytes) + int(own)

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """As the model's own; `concat` [B, C, F, H, W] and its `low_res_level` go to the temporal layers that read
        side channels, `fps` to all.

        Raises: UserError: side channels of a clip that these temporal layers do not read.
        """
        reads_side = bool(getattr(self.attached.layers, "config", {}).get("side"))
        if not reads_side and conditioning is not None and conditioning.concat is not None:
            if conditioning.concat.ndim == 5:
                raise UserError(
                    f"the conditioning has side channels {list(conditioning.concat.shape)} of a clip under "
                    "`concat`, and these temporal layers were trained without any; video.inflate wants others"
                )
        plain = without_video(conditioning, reads_side)
        prediction: Prediction
        if x.ndim != 5 or ((x.shape[2] < 2 or not self.temporal) and not reads_side):
            prediction = self.model.predict(x, level, plain)
            return prediction
        clip = clip_of(x, conditioning, apart=not self.temporal)
        words = self.attached.layers.retold(clip)
        if plain is not None and words is not None:
            plain = replace(plain, context=words)
        with self.attached.over(clip, level):
            prediction = self.model.predict(x, level, plain)
        return prediction


def clip_of(x: Tensor, conditioning: Conditioning | None, apart: bool = False) -> Clip:
    """What temporal layers know of an evaluation of x [B, C, F, H, W]."""
    from mezzotint_video.temporal_layers import Clip

    told = conditioning or Conditioning()
    side, context = told.concat, told.context
    batch = x.shape[0]
    return Clip(
        batch, x.shape[2], 0, apart, told.fps,
        None if context is None else context.to(x.device).expand(batch, *context.shape[1:]),
        None if side is None else side.to(x.device).expand(batch, *side.shape[1:]).transpose(1, 2),
        told.low_res_level,
    )  # fmt: skip


def without_video(conditioning: Conditioning | None, reads_side: bool) -> Conditioning | None:
    """What the model of pictures is told: nothing of what the temporal layers read."""
    if conditioning is None:
        return None
    if reads_side:
        return replace(conditioning, fps=None, concat=None, low_res_level=None)
    return replace(conditioning, fps=None)


@node("video.inflate")
def inflate(
    denoiser: Denoiser, weights: Weights | None = None, *, source: Source | None = None, tuned: bool = True
) -> Denoiser:
    """A denoiser of pictures as one of clips: temporal layers, and what else of it was tuned with them.

    denoiser: the one that the layers were trained on, guided or not; guidance stays outside.
    weights: what training gave; in its place, `source`.
    source: a .safetensors file of a training, or its bundled name; or AnimateDiff's motion modules: diffusers'
    folder of a MotionAdapter, or a .safetensors file with the authors' own names. Those were trained with linear
    betas: a schedule that is linear in their roots, as Stable Diffusion's is, becomes linear.
    tuned: whether the picture layers that were trained along are taken too; without them each frame is the
    model's own picture.

    Raises: UserError: both or neither are given; no temporal layers in there; a denoiser that has some already;
    when it runs, layers of another model.
    """
    from mezzotint_models import recipe_for

    if any(isinstance(patch, Inflated) for patch in denoiser.patches):
        raise UserError(
            "video.inflate: the denoiser has temporal layers already; inflate the denoiser of pictures, and leave "
            "the other video.inflate out"
        )
    if source is not None and weights is None:
        animated = _animated(denoiser, source)
        if animated is not None:
            return animated
    meta, recipe = recipe_for("temporal_layers", weights, source, "", node="video.inflate")
    patches: list[Patch] = [Inflated(**recipe)]
    if tuned and meta["temporal_layers"].get("tuned"):
        from mezzotint_models import TunedWeights

        _, changes = recipe_for("tuned", weights, source, "", node="video.inflate")
        patches.append(TunedWeights(**changes))
    return denoiser.replace(patches=(*patches, *denoiser.patches))


def _animated(denoiser: Denoiser, source: Source) -> Denoiser | None:
    """The denoiser with AnimateDiff's motion modules, or None where a source is something else."""
    from mezzotint_video.motion_adapter import adapter_config

    config = adapter_config(source)
    if config is None:
        return None
    schedule = denoiser.schedule
    if schedule.kind == "scaled_linear":
        schedule = replace(schedule, kind="linear")
    patch = Animated(source, {"dtype": "auto", "model": config})
    return denoiser.replace(schedule=schedule, patches=(patch, *denoiser.patches))


def load_layers(recipe: Recipe, ctx: Context) -> Any:
    """Loader `video.layers`: the network of a recipe with temporal layers."""
    from mezzotint_models import network_of

    return network_of(recipe, ctx)
