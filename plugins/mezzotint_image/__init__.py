"""Pictures, masks and video files: reading, shaping, and the writers of the engine's ports."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, Image, Latents, Mask, Report, Video, Weights, hookimpl

if TYPE_CHECKING:
    from mezzotint_image.chart import draw_chart
    from mezzotint_image.reading import decode_picture, load, open_picture
    from mezzotint_image.sheet import contact_sheet

__all__ = [
    "contact_sheet", "decode_picture", "draw_chart", "load", "open_picture", "register_nodes", "register_ports",
]  # fmt: skip

_HOME = {
    "contact_sheet": "sheet", "decode_picture": "reading", "draw_chart": "chart", "load": "reading",
    "open_picture": "reading",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_image.batches import batch, repeat, select
    from mezzotint_image.canvas import composite, crop, pad, solid
    from mezzotint_image.chart import chart
    from mezzotint_image.clips import contact_strip, frames, resample_video, to_video
    from mezzotint_image.folder import load_folder
    from mezzotint_image.masks import mask_combine, mask_from_image, mask_refine, mask_shape
    from mezzotint_image.outpainting import outpaint
    from mezzotint_image.reading import load
    from mezzotint_image.resizing import resize
    from mezzotint_image.sheet import contact_sheet
    from mezzotint_image.video_formats import video_format
    from mezzotint_image.video_reading import load_video

    pictures = (load, load_folder, solid, resize, crop, pad, outpaint, composite)
    sets = (batch, repeat, select, contact_sheet, chart)
    masks = (mask_from_image, mask_shape, mask_refine, mask_combine)
    clips = (load_video, to_video, frames, resample_video, contact_strip, video_format)
    for function in (*pictures, *sets, *masks, *clips):
        register(function)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    from mezzotint_image import tensors, writers
    from mezzotint_image.video_formats import FormattedVideo, write_formatted

    register(Image, suffix="png", media_type="image/png", writer=writers.write_image)
    register(Mask, suffix="png", media_type="image/png", writer=writers.write_mask)
    register(Video, suffix="mp4", media_type="video/mp4", writer=writers.write_video)
    register(FormattedVideo, suffix="mp4", media_type="video/mp4", writer=write_formatted)
    register(Report, suffix="json", media_type="application/json", writer=writers.write_report)
    for port, writer in (
        (Weights, tensors.write_weights),
        (Latents, tensors.write_latents),
        (Conditioning, tensors.write_conditioning),
    ):
        register(port, suffix="safetensors", media_type="application/octet-stream", writer=writer)
