"""Contact sheets: many pictures on one, with labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Image, UserError, node
from mezzotint_image.pixels import from_pillow, to_pillow

if TYPE_CHECKING:
    from PIL import Image as Pillow

__all__ = ["contact_sheet"]

_MAX_PIXELS = 1 << 28


@node("image.contact_sheet")
def contact_sheet(
    images: list[Image],
    *,
    columns: Annotated[int, Field(ge=1, le=1000)] | None = None,
    labels: list[str | int | float] | None = None,
    cell: Annotated[int, Field(ge=8, le=8192)] | None = None,
    margin: Annotated[int, Field(ge=0, le=1024)] = 8,
    label_size: Annotated[int, Field(ge=6, le=256)] = 12,
    background: str = "white",
) -> Image:
    """Many pictures on one sheet, row by row, [1, H, W, 3].

    images: single pictures or batches, of any sizes; smaller ones are centred in their cells.
    columns: without it the sheet is about square.
    labels: one per picture, under it, wrapped to its width; numbers are written out.
    cell: the longer side of the cells in pixels: pictures are fitted to it (enlarged with hard pixels).
    Without it they keep their sizes.
    margin: pixels between pictures and around them.
    label_size: height of the letters in pixels.
    background: a CSS name or #rrggbb; letters are black or white, whichever stands out.

    Raises: UserError: no pictures, another number of labels, a sheet of more than 2**28 pixels.
    """
    from PIL import ImageColor

    pictures = [to_pillow(picture) for image in images for picture in image.data]
    if not pictures:
        raise UserError("image.contact_sheet: wanted at least one picture, got none")
    if labels is not None and len(labels) != len(pictures):
        raise UserError(f"image.contact_sheet: {len(labels)} labels for {len(pictures)} pictures")
    try:
        ground = ImageColor.getrgb(background)[:3]
    except ValueError as error:
        raise UserError(f"{background!r} is not a colour; give a CSS name or #rrggbb") from error
    if cell is not None:
        pictures = [_fitted(picture, cell) for picture in pictures]
    width = max(picture.width for picture in pictures)
    texts = [_wrapped(str(label), width, label_size) for label in labels or [""] * len(pictures)]
    across = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    cells = list(zip(pictures, texts, strict=True))
    rows = [cells[start : start + across] for start in range(0, len(cells), across)]
    sheet = _drawn(rows, across, width, margin, label_size, ground)
    return Image(from_pillow(sheet).unsqueeze(0))


def _drawn(
    rows: list[list[tuple[Pillow.Image, str]]],
    across: int,
    width: int,
    margin: int,
    label_size: int,
    ground: tuple[int, ...],
) -> Pillow.Image:
    from PIL import Image as Pillow
    from PIL import ImageDraw

    heights = [max(picture.height for picture, _ in row) for row in rows]
    captions = [_caption_height([text for _, text in row], label_size) for row in rows]
    size = (across * (width + margin) + margin, sum(heights) + sum(captions) + (len(rows) + 1) * margin)
    if size[0] * size[1] > _MAX_PIXELS:
        raise UserError(
            f"image.contact_sheet: the sheet would be {size[0]}x{size[1]}; give cell or fewer pictures"
        )
    sheet = Pillow.new("RGB", size, ground)
    pen = ImageDraw.Draw(sheet)
    ink = "black" if 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2] > 128 else "white"
    style = {"font": _font(label_size), "spacing": round(label_size * 0.2), "anchor": "ma", "align": "center"}
    y = margin
    for row, height, caption in zip(rows, heights, captions, strict=True):
        for column, (picture, text) in enumerate(row):
            x = margin + column * (width + margin)
            corner = (x + (width - picture.width) // 2, y + (height - picture.height) // 2)
            sheet.paste(picture, corner, picture if picture.mode == "RGBA" else None)
            if text:
                pen.multiline_text((x + width / 2, y + height + 4), text, ink, **style)
        y += height + caption + margin
    return sheet


def _caption_height(texts: list[str], label_size: int) -> int:
    lines = max(text.count("\n") + 1 if text else 0 for text in texts)
    return round(lines * label_size * 1.35) + 4 if lines else 0


def _fitted(picture: Pillow.Image, cell: int) -> Pillow.Image:
    from PIL import Image as Pillow

    ratio = cell / max(picture.size)
    size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    return picture.resize(size, Pillow.Resampling.NEAREST if ratio >= 1 else Pillow.Resampling.LANCZOS)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _wrapped(text: str, width: int, size: int) -> str:
    """Lines that fit `width`; a word that does not fit alone is cut with an ellipsis."""
    font = _font(size)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(word, width, font))
    return "\n".join(lines)


def _cut(word: str, width: int, font: Any) -> str:
    if font.getlength(word) <= width:
        return word
    while word and font.getlength(word + "…") > width:
        word = word[:-1]
    return word + "…"
