"""Pictures from files. The file is a stranger's: every way in which it can be wrong ends in a clear error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, NamedTuple

from pydantic import Field

from mezzotint import Image, Mask, UserError, node

if TYPE_CHECKING:
    from PIL import Image as Pillow
    from torch import Tensor

__all__ = ["Loaded", "decode_picture", "load", "open_picture"]

# Not all that Pillow knows: EPS, for one, starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")


class Loaded(NamedTuple):
    """image: [1, H, W, C] float32 in 0..1.
    mask: [1, H, W]; 1 where the picture is transparent, all 0 if it has no transparency.
    """

    image: Image
    mask: Mask


@node("image.load")
def load(
    path: Path,
    *,
    channels: Literal[1, 3, 4] = 3,
    max_pixels: Annotated[int, Field(ge=1, le=1 << 30)] = 64_000_000,
) -> Loaded:
    """Load a picture, turned upright as its EXIF data say; the first frame of an animation.

    Read are PNG, JPEG, WebP, GIF, BMP, TIFF, PPM and AVIF, of 8 or 16 bits; colour profiles are ignored.

    path: the file.
    channels: 1 grey, 3 colour without alpha (what lay under it stays), 4 colour and alpha.
    max_pixels: larger pictures are refused before they are decoded.

    Raises: UserError: no picture, damaged, cut short, too large.
    """
    colour, alpha = decode_picture(path, path.name, max_pixels)
    if channels == 1:
        colour = _grey(colour)
    elif colour.shape[-1] == 1:
        colour = colour.repeat(1, 1, 3)
    if channels == 4:
        import torch

        colour = torch.cat([colour, alpha.unsqueeze(-1)], dim=-1)
    return Loaded(Image(colour.unsqueeze(0)), Mask((1 - alpha).unsqueeze(0)))


def decode_picture(file: Path | BinaryIO, name: str, max_pixels: int) -> tuple[Tensor, Tensor]:
    """Colour [H, W, 1 or 3] and alpha [H, W] of a file or of bytes, float32 in 0..1; grey stays one channel.

    name: what errors call it. Raises: UserError: as `load`.
    """
    with open_picture(file, name, max_pixels) as picture:
        return _decoded(picture, name)


def open_picture(file: Path | BinaryIO, name: str, max_pixels: int) -> Pillow.Image:
    """A picture whose header alone is read. Raises: UserError: no picture, or over `max_pixels`."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        picture = Pillow.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise UserError(f"{name}: not a picture of a kind that is read: {', '.join(_FORMATS)}") from error
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise UserError(f"{name}: too large: {error}") from error
    except OSError as error:
        raise UserError(f"{name}: cannot be opened: {error.strerror or error}") from error
    except (ValueError, SyntaxError) as error:
        raise UserError(f"{name}: damaged: {error}") from error
    width, height = picture.size
    if width * height > max_pixels:
        picture.close()
        raise UserError(f"{name}: {width}x{height} is over max_pixels, {max_pixels}")
    return picture


def _decoded(picture: Pillow.Image, name: str) -> tuple[Tensor, Tensor]:
    """Colour [H, W, 1 or 3] and alpha [H, W] (ones if there is none), float32 in 0..1."""
    from PIL import ImageOps

    try:
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise UserError(f"{name}: damaged or cut short: {error}") from error
    import torch

    if picture.mode.startswith("I") or picture.mode == "F":
        colour = _deep(picture, name)
        return colour, torch.ones(colour.shape[:2])
    from mezzotint_image.pixels import from_pillow

    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        data = from_pillow(picture.convert("RGBA"))
        colour = data[..., :1] if grey else data[..., :3]
        return colour.contiguous(), data[..., 3].contiguous()
    colour = from_pillow(picture.convert("L" if grey else "RGB"))
    return colour, torch.ones(colour.shape[:2])


def _deep(picture: Pillow.Image, name: str) -> Tensor:
    """Grey of 16 bits (0..65535) or of floats (0..1) as [H, W, 1]."""
    import numpy
    import torch

    array = numpy.array(picture).astype(numpy.float32)
    if picture.mode != "F":
        array /= 65535
    if not (numpy.isfinite(array).all() and array.min(initial=0) >= 0 and array.max(initial=0) <= 1):
        raise UserError(f"{name}: grey values outside 0..65535 (whole numbers) or 0..1 (floats)")
    return torch.from_numpy(array).unsqueeze(-1)


def _grey(colour: Tensor) -> Tensor:
    if colour.shape[-1] == 1:
        return colour
    from mezzotint_image.masks import luminance

    return luminance(colour).unsqueeze(-1)
