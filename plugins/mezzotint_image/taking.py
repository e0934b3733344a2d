"""Which frames of a file become a clip, and how much of them may be in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from mezzotint import Image, UserError, Video

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Shown", "Stream", "Taking"]

# So much earlier than it should a frame may begin: animations count in hundredths of a second.
_EARLY = Fraction(6, 1000)


@dataclass(frozen=True)
class Shown:
    """One frame of a file.

    pixels: [H, W, C] uint8, or float32 in 0..1. start, seconds: when and for how long it is shown.
    """

    pixels: Tensor
    start: Fraction
    seconds: Fraction


@dataclass(frozen=True)
class Stream:
    """The frames of a file in order. rate: frames per second if the file says so."""

    frames: Iterator[Shown]
    rate: Fraction | None


@dataclass
class Taking:
    """What is wanted of a file called `name`; see `load_video`. One object takes one clip."""

    name: str
    fps: float | None
    start: float
    frames: int | None
    most: int
    max_pixels: int
    width: int | None
    height: int | None
    fit: Literal["stretch", "crop", "pad", "inside"]
    channels: Literal[3, 4]
    kept: list[Tensor] = field(default_factory=list)
    spans: list[Fraction] = field(default_factory=list)

    def take(self, stream: Stream) -> Video:
        """The clip. Raises: UserError: no frames, too many, too large, several sizes."""
        read, seconds = 0, Fraction(0)
        for shown in stream.frames:
            read += 1
            if read > 64 * self.most:
                raise UserError(
                    f"{self.name}: over {64 * self.most} frames are to be read; raise most, or give start"
                )
            seconds = max(seconds, shown.start + shown.seconds)
            self._offer(shown)
            if self.frames is not None and len(self.kept) >= self.frames:
                break
        if not self.kept:
            if read:
                raise UserError(f"{self.name} lasts {float(seconds):g} s, and start is {self.start:g}")
            raise UserError(f"{self.name}: there are no frames in it")
        return self._clip(stream.rate)

    def check_length(self, count: int, seconds: float | None) -> None:
        """Raises: UserError: what the file says of its length is too much, before anything is decoded."""
        if self.frames is not None or self.start:
            return
        expected = count if self.fps is None else round((seconds or 0) * self.fps)
        if expected > self.most:
            raise self._too_many(expected)

    def check_size(self, width: int, height: int) -> None:
        """Raises: UserError: one frame is too large, before it is decoded."""
        if width * height > self.max_pixels:
            raise UserError(f"{self.name}: frames of {width}x{height} are over max_pixels, {self.max_pixels}")

    def _offer(self, shown: Shown) -> None:
        """Keep a frame as often as it is wanted."""
        end = shown.start + shown.seconds
        if self.fps is None:
            if shown.start + min(_EARLY, shown.seconds / 2) >= Fraction(self.start):
                self._keep(shown.pixels, 1)
                self.spans.append(shown.seconds)
            return
        rate = Fraction(self.fps).limit_denominator(100_000)
        early = min(_EARLY, 1 / (4 * rate))
        # Frame k is what is shown at start + k / rate.
        until = -((Fraction(self.start) + early - end) * rate // 1)
        self._keep(shown.pixels, max(0, int(until) - len(self.kept)))

    def _keep(self, pixels: Tensor, times: int) -> None:
        if self.frames is not None:
            times = min(times, self.frames - len(self.kept))
        if times < 1:
            return
        if self.frames is None and len(self.kept) + times > self.most:
            raise self._too_many(len(self.kept) + times)
        frame = self._shaped(pixels)
        if self.kept and frame.shape != self.kept[0].shape:
            raise UserError(
                f"{self.name}: frame {len(self.kept)} is {_size(frame)}, those before are {_size(self.kept[0])}; "
                "a clip has one size: give width and height to scale all of them"
            )
        self.check_total(len(self.kept) + times, frame.shape[1], frame.shape[0])
        self.kept += [frame] * times

    def check_total(self, count: int, width: int, height: int) -> None:
        """Raises: UserError: all frames together have too many pixels."""
        if count * width * height > self.max_pixels:
            raise UserError(
                f"{self.name}: {count} frames of {width}x{height} are over max_pixels, {self.max_pixels}; raise "
                "it, take fewer frames, or give a smaller width and height"
            )

    def _too_many(self, count: int) -> UserError:
        return UserError(
            f"{self.name}: the clip gives at least {count} frames, and most is {self.most}; raise most, or say "
            "with frames how many to take"
        )

    def _shaped(self, pixels: Tensor) -> Tensor:
        if self.width is None and self.height is None:
            return pixels
        from mezzotint_image.resizing import resize

        whole = Image(_floats(pixels).unsqueeze(0))
        return resize(whole, width=self.width, height=self.height, fit=self.fit).image.data[0]

    def _clip(self, rate: Fraction | None) -> Video:
        """The frames kept as one tensor; each is let go as soon as it is copied."""
        import torch

        if self.fps is not None:
            fps, repeats = self.fps, [1] * len(self.kept)
        elif rate is not None:
            fps, repeats = float(rate), [1] * len(self.kept)
        else:
            fps, repeats = _even_rate(self.spans)
        limit = sum(repeats) if self.frames is None else min(self.frames, sum(repeats))
        if self.frames is None and limit > self.most:
            raise self._too_many(limit)
        height, width = self.kept[0].shape[:2]
        self.check_total(limit, width, height)
        data = torch.empty(1, limit, height, width, self.channels)
        place = 0
        self.kept.reverse()
        for times in repeats:
            frame: Any = _floats(self.kept.pop())
            data[0, place : min(place + times, limit)] = frame
            place += times
            if place >= limit:
                break
        self.kept.clear()
        return Video(data, fps)


def _floats(pixels: Tensor) -> Tensor:
    return pixels if pixels.is_floating_point() else pixels.float().div_(255)


def _size(frame: Tensor) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"


def _even_rate(spans: list[Fraction]) -> tuple[float, list[int]]:
    """A rate at which every frame lasts a whole number of frames, and those numbers.

    Writers of animations join equal frames, so that a long one stands for several.
    """
    shortest = min(spans)
    repeats = [max(1, round(span / shortest)) for span in spans]
    return float(sum(repeats) / sum(spans)), repeats
