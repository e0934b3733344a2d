"""Tar shards as a data set: what outgrows a folder stays where it is, and is read item by item."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Context, Dataset, Source, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint_training.tar_index import Sample

__all__ = ["READER", "ShardReader", "open_shards", "shards"]

READER = "training.shards"
CAPTIONS = ("caption", "text")  # names in a .json
MAX_PIXELS = 64_000_000
KINDS = ("", "txt", "json")


class ShardReader:
    """Items of a data set that `training.shards` found, read from the archives when they are asked for."""

    def __init__(self, dataset: Dataset) -> None:
        config = dataset.config
        self.files = [Path(name) for name in config["files"]]
        self.sizes: list[int] = list(config["sizes"])
        self.places: Tensor = config["places"]
        self.size = int(config["size"])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """ "image": [size, size, 3] uint8; "caption": str.

        Raises: UserError: the picture or the caption is damaged; the shard was changed or moved since.
        """
        from mezzotint_image import decode_picture
        from mezzotint_training.picture_folder import square

        shard, offset, size, *_ = self.places[index].tolist()
        where = f"{self.files[shard].name}, sample {index}"
        colour, _ = decode_picture(io.BytesIO(self._read(shard, offset, size)), where, MAX_PIXELS)
        if colour.shape[-1] == 1:
            colour = colour.repeat(1, 1, 3)
        return {"image": square(colour[None], self.size).numpy(), "caption": self.caption(index)}

    def caption(self, index: int) -> str:
        """The caption alone; empty if the data set has none."""
        shard, _, _, offset, size, kind = self.places[index].tolist()
        if not KINDS[kind]:
            return ""
        where = f"{self.files[shard].name}, sample {index}"
        try:
            text = self._read(shard, offset, size).decode("utf-8-sig")
            said = _from_json(json.loads(text)) if KINDS[kind] == "json" else text
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: its {KINDS[kind]} is damaged: {error}") from error
        if said is None:
            raise UserError(f"{where}: wanted an object with {' or '.join(CAPTIONS)} in its .json")
        return said.strip()

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        file = self.files[shard]
        try:
            with file.open("rb") as opened:
                if opened.seek(0, 2) != self.sizes[shard]:
                    raise UserError(f"{file.name}: changed since it was indexed; run the graph again")
                opened.seek(offset)
                return opened.read(size)
        except OSError as error:
            raise UserError(f"{file}: cannot be read any more: {error.strerror or error}") from error


def _from_json(found: Any) -> str | None:
    """The caption in a sample's .json."""
    if not isinstance(found, dict):
        return None
    return next((found[name] for name in CAPTIONS if isinstance(found.get(name), str)), None)


def open_shards(dataset: Dataset, ctx: Context) -> ShardReader:
    """The loader of reader "training.shards"."""
    return ShardReader(dataset)


@node("training.shards")
def shards(ctx: Context, source: Source, *, size: Annotated[int, Field(ge=4, le=1024)] = 64) -> Dataset:
    """Tar archives of pictures with their captions (WebDataset), read item by item while something is trained.

    A sample is a picture and what shares its name up to the first dot: 0001.jpg with 0001.txt, or 0001.json with a
    caption or text. Archives must not be compressed. They are walked through once, and must stay where they are.

    source: one .tar file, or a folder whose .tar files are taken by name.
    size: the side that pictures are scaled to, in pixels, after the middle square was cut out.

    Raises: UserError: no archive or no picture; an archive that is damaged, compressed or cut short, or that holds
    links, names that lead elsewhere, or too large members; what is no picture; one caption too few.
    """
    import torch

    from mezzotint_training.tar_index import samples_of

    files = _archives(Path(source.path))
    rows: list[tuple[int, ...]] = []
    bare: str | None = None
    said = 0
    for number, file in enumerate(files):
        samples = samples_of(file)
        _check_pictures(file, samples)
        for sample in samples:
            text = sample.text or (0, 0)
            rows.append((number, *(sample.picture or (0, 0)), *text, KINDS.index(sample.text_kind)))
            said += sample.text is not None
            bare = bare or (None if sample.text else f"{sample.key!r} in {file.name}")
        ctx.progress(number + 1, len(files))
    if not rows:
        raise UserError(f"training.shards: no picture in {', '.join(file.name for file in files[:3])}")
    if said and bare:
        raise UserError(f"training.shards: {len(rows)} pictures, {said} captions: {bare} has none")
    config = {
        "files": [str(file) for file in files], "sizes": [file.stat().st_size for file in files],
        "places": torch.tensor(rows, dtype=torch.int64), "size": size,
    }  # fmt: skip
    return Dataset(READER, config, len(rows))


def _archives(found: Path) -> list[Path]:
    if found.is_file():
        return [found.resolve()]
    files = sorted(path.resolve() for path in found.glob("*.tar") if path.is_file()) if found.is_dir() else []
    if not files:
        raise UserError(f"training.shards: no .tar file in {found.name}")
    return files


def _check_pictures(file: Path, samples: list[Sample]) -> None:
    """Each picture's header is read, so that training meets no text that calls itself a picture.

    Raises: UserError: one that is no picture, or has too many pixels.
    """
    from mezzotint_image import open_picture

    with file.open("rb") as opened:
        for sample in samples:
            assert sample.picture is not None
            opened.seek(sample.picture[0])
            head = io.BytesIO(opened.read(sample.picture[1]))
            open_picture(head, f"{file.name}, {sample.key!r}", MAX_PIXELS).close()
