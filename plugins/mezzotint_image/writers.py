"""How pictures, masks, clips and reports become files. One value and options give the same bytes every time.

A writer takes the value and the output's info (`suffix`: the file's ending, `options`: what the caller asked
for) and gives one byte string per file: a batch gives several.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mezzotint import Image, Mask, Report, UserError, Video
from mezzotint_image.pixels import to_pillow

if TYPE_CHECKING:
    from PIL import Image as Pillow

__all__ = ["options_of", "still", "write_image", "write_mask", "write_report", "write_video"]

_STILL = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}


def options_of(info: Any) -> tuple[str, Mapping[str, Any]]:
    """The suffix without its dot, and the options, of an output's info (None: all defaults)."""
    suffix = str(getattr(info, "suffix", "") or "").lower().removeprefix(".")
    return suffix, getattr(info, "options", None) or {}


def write_image(image: Image, info: Any = None) -> list[bytes]:
    """One file per picture of the batch: PNG unless the suffix says jpg or webp.

    options: `quality` 1..100 for jpg (default 95) and webp (lossless without it).
    """
    suffix, options = options_of(info)
    return [still(to_pillow(picture), suffix or "png", options) for picture in image.data]


def write_mask(mask: Mask, info: Any = None) -> list[bytes]:
    """One grey PNG per mask of the batch, and per frame of a clip's masks."""
    suffix, options = options_of(info)
    height, width = mask.data.shape[-2:]
    planes = mask.data.reshape(-1, height, width)
    return [still(to_pillow(plane), suffix or "png", options) for plane in planes]


def write_report(report: Report, info: Any = None) -> list[bytes]:
    """JSON, keys in the report's own order. Numbers that JSON lacks become null, since "NaN" is not JSON."""
    text = json.dumps(_finite(report.data), indent=2, ensure_ascii=False, allow_nan=False)
    return [(text + "\n").encode("utf-8")]


def write_video(video: Video, info: Any = None) -> list[bytes]:
    """One file per clip of the batch: MP4 (H.264), or WebM, GIF or WebP by the suffix.

    Frames go to the encoder one by one: beside the clip there is one frame in memory, and the file.

    options: `quality` 0..100 (default 80; webp: lossless without it).
    """
    suffix, options = options_of(info)
    suffix = suffix or "mp4"
    quality = _quality(options, 80)
    if not video.fps > 0 or not math.isfinite(video.fps):
        raise UserError(f"a video needs frames per second above 0, got {video.fps}")
    if video.fps > 1000:
        raise UserError(f"a video has at most 1000 frames per second, got {video.fps:g}; image.resample_video")
    if 0 in video.data.shape[1:]:
        raise UserError(f"a video needs at least one frame, of at least one pixel; got {list(video.data.shape)}")
    if suffix in ("mp4", "webm"):
        from mezzotint_image.video_files import encode_video

        return [encode_video(clip, video.fps, suffix, quality) for clip in video.data]
    if suffix in ("gif", "webp"):
        from mezzotint_image.moving import moving

        return [_animation(moving(clip), len(clip), video.fps, suffix, options) for clip in video.data]
    raise UserError(f"video is written as mp4, webm, gif or webp, not as {suffix!r}")


def still(picture: Pillow.Image, suffix: str, options: Mapping[str, Any]) -> bytes:
    """One picture as a file. Raises: UserError: a kind that is not written, alpha where there is none."""
    if suffix not in _STILL:
        raise UserError(f"pictures are written as {', '.join(_STILL)}, not as {suffix!r}")
    out = io.BytesIO()
    if suffix == "png":
        # Level 6 is zlib's own default; stated, so that a change of Pillow's changes no bytes.
        picture.save(out, "PNG", compress_level=6)
    elif suffix == "webp":
        picture.save(out, "WEBP", **_webp(options))
    else:
        if picture.mode == "RGBA":
            raise UserError("JPEG has no alpha channel: write the picture as png or webp")
        picture.save(out, "JPEG", quality=_quality(options, 95), subsampling=0)
    return out.getvalue()


def _animation(clip: Pillow.Image, count: int, fps: float, suffix: str, options: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    kwargs: dict[str, Any] = {"save_all": True, "loop": 0}
    if suffix == "webp":
        clip.save(out, "WEBP", duration=_durations(count, fps, 1), **kwargs, **_webp(options))
    else:
        # GIF counts in hundredths of a second.
        clip.save(out, "GIF", duration=_durations(count, fps, 10), disposal=1, optimize=False, **kwargs)
    return out.getvalue()


def _durations(count: int, fps: float, unit: int) -> list[int]:
    """Milliseconds per frame in whole units; errors do not add up over a clip."""
    ends = [round((index + 1) * 1000 / fps / unit) for index in range(count)]
    return [max(1, end - start) * unit for start, end in zip([0, *ends], ends, strict=False)]


def _webp(options: Mapping[str, Any]) -> dict[str, Any]:
    if "quality" in options:
        return {"quality": _quality(options, 80), "method": 4}
    return {"lossless": True, "quality": 80, "method": 4, "exact": True}


def _quality(options: Mapping[str, Any], default: int) -> int:
    quality = options.get("quality", default)
    if isinstance(quality, bool) or not isinstance(quality, int | float) or not 0 <= quality <= 100:
        raise UserError(f"quality must be 0 to 100, got {quality!r}")
    return int(quality)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
