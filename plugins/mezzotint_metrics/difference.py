"""Pictures against others, pixel by pixel: which are the same to the bit, and how far off the rest is."""

from __future__ import annotations

import math

from mezzotint import Image, Report, UserError, node

__all__ = ["picture_difference"]

_WHERE = "metrics.picture_difference"


@node("metrics.picture_difference")
def picture_difference(image: Image, reference: Image) -> Report:
    """How far pictures are from those that they are compared with, one by one.

    image: [B, H, W, C].
    reference: of the same shape, such as the same prompts and seeds before a change.

    returns: "identical", the number of pictures that are their references to the bit; "pictures", how many there
    are; "difference", the mean absolute difference, 0..255; and "rows", for each picture "identical",
    "difference" and "psnr", in dB against the range 0..1 (null where there is no difference).
    Raises: UserError: no pictures, or of another shape.
    """
    import torch

    ours, theirs = image.data, reference.data.to(image.data.device)
    if ours.shape != theirs.shape or not len(ours):
        got = f"{list(ours.shape)} and {list(theirs.shape)}"
        raise UserError(
            f"{_WHERE}: wanted as many pictures of one size, got {got}; image.select and image.resize help"
        )
    rows = []
    for mine, other in zip(ours, theirs, strict=True):
        off = mine.double() - other.double()
        squared = off.square().mean().item()
        rows.append(
            {
                "identical": torch.equal(mine, other),
                "difference": 255 * off.abs().mean().item(),
                "psnr": -10 * math.log10(squared) if squared else None,
            }
        )
    same = sum(bool(row["identical"]) for row in rows)
    mean = sum(float(row["difference"] or 0) for row in rows) / len(rows)
    return Report({"identical": same, "pictures": len(rows), "difference": mean, "rows": rows})
