"""Frames out of MP4 and WebM files with PyAV.

The container is told from the file's first bytes, never guessed by the library: among what it knows are playlists,
which would have it open other files and addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, Never

from mezzotint import UserError
from mezzotint_image.taking import Shown, Stream, Taking

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["container", "container_format"]

# What cameras, editors and the writers here make. The library's many others are old and little tried.
_CODECS = frozenset(
    "h264 hevc mpeg4 mjpeg prores dnxhd vp8 vp9 av1 libdav1d libaom-av1 libvpx libvpx-vp9 ffv1 png theora".split()
)
_MAX_RATE = 1000
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_STILLS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")


def container_format(head: bytes) -> str | None:
    """The library's name of the container that a file with these first bytes is, or None."""
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if head[4:8] in _BOXES and head[8:12] not in _STILLS:
        return "mov"
    return None


def container(file: BinaryIO, form: str, wanted: Taking) -> Stream:
    """The frames of the first video stream. The file stays open until they are read.

    Raises: UserError: as `load_video`; also while the frames are read.
    """
    import av
    import av.error

    try:
        opened = av.open(
            file, "r", format=form, io_open=_refuse_more,
            # Also while the library looks into the file: a header can claim frames of gigabytes.
            options={"max_pixels": str(wanted.max_pixels)},
        )  # fmt: skip
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        raise UserError(f"{wanted.name}: damaged or cut short, its header cannot be read: {error}") from error
    if not opened.streams.video:
        kinds = ", ".join(sorted({s.type for s in opened.streams})) or "nothing"
        opened.close()
        raise UserError(f"{wanted.name}: there is no video in it, only {kinds}")
    stream = opened.streams.video[0]
    try:
        rate = _checked(stream, opened, wanted)
    except UserError:
        opened.close()
        raise
    return Stream(_frames(opened, stream, rate, wanted), rate)


def _refuse_more(url: str, flags: int, options: object) -> Never:
    raise PermissionError(f"a clip may not open other files, {url!r} for one")


def _checked(stream: Any, opened: Any, wanted: Taking) -> Fraction | None:
    """The frame rate that the file says, None if none is needed. Raises: UserError: by the header alone."""
    context = stream.codec_context
    if context is None or context.name not in _CODECS:
        got = "one that is not known" if context is None else repr(context.name)
        raise UserError(f"{wanted.name}: its codec is {got}; read are H.264, H.265, VP8, VP9, AV1 and some more")
    wanted.check_size(context.width, context.height)
    seconds = _seconds(stream, opened)
    wanted.check_length(stream.frames, seconds)
    rate = stream.average_rate or stream.guessed_rate
    if wanted.fps is None and (not rate or not 0 < rate <= _MAX_RATE):
        raise UserError(
            f"{wanted.name}: a frame rate of {float(rate or 0):g}; give fps to take frames by their times"
        )
    return Fraction(rate) if rate and 0 < rate <= _MAX_RATE else None


def _seconds(stream: Any, opened: Any) -> float | None:
    """How long the clip lasts, if the file says it."""
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    if opened.duration is not None and len(opened.streams) == 1:
        return float(opened.duration / 1_000_000)
    return None


def _frames(opened: Any, stream: Any, rate: Fraction | None, wanted: Taking) -> Iterator[Shown]:
    """Each frame as soon as it is known how long it is shown: one behind the decoder."""
    import av.error

    read, end, usual = 0, Fraction(0), 1 / rate if rate else Fraction(1, 25)
    origin = (stream.start_time or 0) * (stream.time_base or Fraction(0))
    before: tuple[Tensor, Fraction] | None = None
    lasting = _seconds(stream, opened)
    try:
        if wanted.start > 0 and stream.time_base:
            opened.seek(int((Fraction(wanted.start) + origin) / stream.time_base), stream=stream, backward=True)
        for frame in opened.decode(stream):
            if frame.is_corrupt:
                raise UserError(f"{wanted.name}: damaged or cut short at frame {read}")
            wanted.check_size(frame.width, frame.height)
            time = frame.pts * frame.time_base - origin if frame.pts is not None else end
            if before is not None:
                yield Shown(before[0], before[1], max(time - before[1], Fraction(0)))
            before, end, read = (_pixels(frame, wanted.channels), time), time + usual, read + 1
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        raise UserError(f"{wanted.name}: damaged or cut short after {read} frames: {error}") from error
    finally:
        opened.close()
    if before is not None:
        _check_whole(stream, lasting, read, end, wanted)
        yield Shown(before[0], before[1], usual)


def _check_whole(stream: Any, seconds: float | None, read: int, end: Fraction, wanted: Taking) -> None:
    """Raises: UserError: the file says that it has more frames than were found, or lasts longer."""
    if stream.frames and not wanted.start and read < stream.frames:
        raise UserError(f"{wanted.name}: cut short: {read} of its {stream.frames} frames are there")
    if not stream.frames and seconds is not None and stream.average_rate:
        missing = seconds - float(end)
        if missing > 1.5 / stream.average_rate:
            raise UserError(f"{wanted.name}: cut short: the last {missing:g} of its {seconds:g} s are missing")


def _pixels(frame: Any, channels: int) -> Tensor:
    """[H, W, C] uint8, upright."""
    import torch

    array = frame.to_ndarray(format="rgb24" if channels == 3 else "rgba")
    pixels = torch.from_numpy(array)
    turns = round(frame.rotation / 90) % 4
    return torch.rot90(pixels, turns).contiguous() if turns else pixels
