"""Picture encoders: CLIP's picture tower, and the node that embeds pictures with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Context, Image, ImageEncoder, NoiseLevel, Source, UserError, Weights, node
from mezzotint_models.classifiers import NoisyModel, schedule_in
from mezzotint_models.clip_folder import FOLDER, folder_network, folder_record, is_folder
from mezzotint_models.packed import Part, network_of, recipe_for, record_of
from mezzotint_models.weights import nbytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["ImageTower", "NoisedImageTower", "encode_image", "image_encoder", "load_image_encoder"]

LOADER = "models.packed_image_encoder"


@node("models.image_encoder")
def image_encoder(
    weights: Weights | None = None, *, source: Source | None = None, part: Part = ""
) -> ImageEncoder:
    """A picture encoder that a training graph made, from its file or from the value; or a CLIP folder's tower.

    weights: what training gave; in its place, `source`.
    source: a .safetensors file or its bundled name; or a folder with CLIP, as transformers saves it.
    part: which network of those, where several encode pictures.
    Raises: UserError: both or neither are given; no picture encoder in there, or several; a damaged file.
    """
    where = "models.image_encoder"
    if weights is None and source is not None and is_folder(source):
        record, recipe = folder_record(source, "image_encoder", where)
    else:
        meta, recipe = recipe_for("image_encoder", weights, source, part, node=where)
        record = record_of(meta, "image_encoder")
    config = {**recipe.pop("config"), "record": _checked(record, where)}
    return ImageEncoder(**recipe, loader=LOADER, config=config)


def _checked(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        size, mean, deviation = int(record["size"]), list(record["mean"]), list(record["std"])
        if not 1 <= size <= 8192 or len(mean) != 3 or len(deviation) != 3 or not all(s > 0 for s in deviation):
            raise ValueError(f"size {size}, mean {mean}, std {deviation}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: the record 'image_encoder' is damaged: {error!r}") from error
    found = {"size": size, "mean": mean, "std": deviation, "noised": bool(record.get("noised"))}
    return {**found, "schedule": dict(record["schedule"])} if "schedule" in record else found


@node("models.encode_image", device=True)
def encode_image(
    ctx: Context, encoder: ImageEncoder, image: Image, *, batch: Annotated[int, Field(ge=1, le=4096)] = 64
) -> Conditioning:
    """Embed pictures: where CLIP places them in the space that it has in common with texts.

    encoder: of models.image_encoder.
    image: [B, H, W, 3] of any size: cut square in its middle, and brought to the encoder's size.
    batch: pictures evaluated at once.

    returns: pooled [B, D], of length 1.
    Raises: UserError: no picture, or pictures without three channels.
    """
    import torch

    pixels = image.data
    if pixels.ndim != 4 or not len(pixels) or pixels.shape[-1] != 3:
        raise UserError(
            f"models.encode_image: wanted pictures [B, H, W, 3], got {list(pixels.shape)}; image.composite takes "
            "alpha away"
        )
    tower = ctx.realise(encoder)
    made = []
    with torch.no_grad():
        for start in range(0, len(pixels), batch):
            made.append(tower.embed(pixels[start : start + batch]))
            ctx.progress(min(start + batch, len(pixels)), len(pixels))
    return Conditioning(pooled=torch.cat(made))


class ImageTower:
    """A realised picture encoder. `clip` is transformers' CLIPModel.

    size: side of the pictures that it reads. Gradients flow to the pictures; the weights are frozen.
    """

    def __init__(self, clip: Any, record: Mapping[str, Any]) -> None:
        self.clip = clip
        self.size = int(record["size"])
        self.mean, self.deviation = list(record["mean"]), list(record["std"])

    @property
    def nbytes(self) -> int:
        return nbytes(self.clip)

    def embed(self, pixels: Tensor) -> Tensor:
        """Embeddings [B, D] float32 of length 1. pixels: [B, H, W, 3] in 0..1; what lies outside is not cut."""
        from torch.nn.functional import normalize

        parameter = next(self.clip.parameters())
        x = fitted(pixels.to(parameter.device, parameter.dtype).movedim(-1, 1), self.size)
        mean, deviation = (x.new_tensor(numbers).view(3, 1, 1) for numbers in (self.mean, self.deviation))
        made: Tensor = self.clip.get_image_features((x - mean) / deviation).pooler_output
        return normalize(made.float(), dim=-1)


class NoisedImageTower(ImageTower):
    """A realised picture tower that reads noisy samples too."""

    def __init__(self, network: Any, record: Mapping[str, Any]) -> None:
        super().__init__(network, record)
        self.noisy = NoisyModel(network, network.config, schedule_in(record))

    def embed(self, pixels: Tensor) -> Tensor:
        """As an ImageTower's: the pictures are samples without noise."""
        parameter = next(self.clip.parameters())
        x = fitted(pixels.to(parameter.device, parameter.dtype).movedim(-1, 1), self.size)
        return self.embed_noisy(x * 2 - 1, NoiseLevel(1.0, 0.0, 0.0))

    def embed_noisy(self, x: Tensor, level: NoiseLevel) -> Tensor:
        """Embeddings [B, D] float32 of length 1. x: [B, 3, size, size], noisy as the level says."""
        from torch.nn.functional import normalize

        return normalize(self.noisy(x, level), dim=-1)


def fitted(pixels: Tensor, size: int) -> Tensor:
    """[B, C, H, W] as [B, C, size, size], differentiable: cut square in the middle; averaged down, or bilinear."""
    from torch.nn.functional import adaptive_avg_pool2d, interpolate

    height, width = pixels.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[..., top : top + side, left : left + side]
    if side == size:
        return square
    if side % size == 0:
        return adaptive_avg_pool2d(square, size)
    return interpolate(square, (size, size), mode="bilinear", align_corners=False, antialias=side > size)


def load_image_encoder(recipe: ImageEncoder, ctx: Context) -> ImageTower:
    """Loader `models.packed_image_encoder`."""
    if recipe.config.get("layout") == FOLDER:
        return ImageTower(folder_network(recipe, ctx), recipe.config["record"])
    network = network_of(recipe, ctx)
    if type(network).__name__ == "NoisyEncoder":
        return NoisedImageTower(network, recipe.config["record"])
    if not hasattr(network, "get_image_features"):
        raise UserError(f"{recipe.source.uri}: a {type(network).__name__} has no picture tower")
    return ImageTower(network, recipe.config["record"])
