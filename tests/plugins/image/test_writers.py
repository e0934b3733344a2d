"""Writers: exact where the format is, and the same bytes every time."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image as Pillow

from mezzotint import Conditioning, Image, Latents, Mask, Report, UserError, Video, Weights
from mezzotint_image import register_ports, writers
from mezzotint_image.tensors import write_conditioning, write_latents, write_weights


def info(suffix: str, **options):
    return SimpleNamespace(suffix=suffix, options=options)


def _read(content: bytes) -> torch.Tensor:
    return torch.from_numpy(numpy.array(Pillow.open(io.BytesIO(content))))


def test_pixels_are_rounded_to_the_nearest_and_clamped():
    data = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 254.5 / 255 + 1e-4, 1.0, -3.0, 7.0, float("nan")])
    (content,) = writers.write_image(Image(data.reshape(1, 1, 8, 1)))
    assert _read(content).flatten().tolist() == [0, 0, 1, 255, 255, 0, 255, 0]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_a_batch_gives_one_lossless_file_each(channels, suffix):
    data = torch.randint(0, 256, (3, 5, 4, channels))
    contents = writers.write_image(Image(data / 255), info(suffix))
    assert len(contents) == 3
    for content, wanted in zip(contents, data, strict=True):
        found = _read(content)
        found = found[..., None] if found.ndim == 2 else found
        assert torch.equal(found[..., :channels], wanted.byte())


def test_the_same_picture_gives_the_same_bytes_from_any_memory_layout():
    data = torch.rand(1, 8, 8, 3)
    strided = data.movedim(-1, 1).contiguous().movedim(1, -1)
    assert writers.write_image(Image(data)) == writers.write_image(Image(strided))


def test_masks_are_grey_one_per_frame():
    contents = writers.write_mask(Mask(torch.stack([torch.zeros(2, 3), torch.ones(2, 3)])[None]))
    assert [_read(c).float().mean().item() for c in contents] == [0, 255]


def test_jpeg_has_no_alpha_and_other_suffixes_are_named():
    with pytest.raises(UserError, match="no alpha channel"):
        writers.write_image(Image(torch.zeros(1, 2, 2, 4)), info("jpg"))
    with pytest.raises(UserError, match="not as 'exe'"):
        writers.write_image(Image(torch.zeros(1, 2, 2, 3)), info("exe"))
    with pytest.raises(UserError, match="quality must be 0 to 100"):
        writers.write_image(Image(torch.zeros(1, 2, 2, 3)), info("jpg", quality=101))


def test_a_report_is_json_even_where_numbers_are_not():
    (content,) = writers.write_report(Report({"fid": float("nan"), "rows": [{"x": 1.5, "é": None}]}))
    assert json.loads(content, parse_constant=pytest.fail) == {"fid": None, "rows": [{"x": 1.5, "é": None}]}


def _clip(frames: int = 5, height: int = 15, width: int = 17) -> Video:
    ramp = torch.linspace(0, 1, frames).reshape(1, frames, 1, 1, 1).expand(1, frames, height, width, 3)
    return Video(ramp.clone(), fps=12.5)


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_clip_comes_back_frame_by_frame_with_even_sides(suffix):
    import av

    clip = _clip()
    (content,) = writers.write_video(clip, info(suffix))
    assert writers.write_video(clip, info(suffix)) == [content]
    with av.open(io.BytesIO(content)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == pytest.approx(12.5, rel=0.01)
    assert len(frames) == 5 and frames[0].shape == (16, 18, 3)
    for frame, wanted in zip(frames, clip.data[0], strict=True):
        assert abs(frame.astype(float).mean() - 255 * wanted.mean().item()) < 4


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_keeps_frames_and_time(suffix):
    (content,) = writers.write_video(_clip(), info(suffix))
    assert writers.write_video(_clip(), info(suffix)) == [content]
    with Pillow.open(io.BytesIO(content)) as picture:
        assert picture.n_frames == 5 and picture.size == (17, 15)
        durations = []
        for frame in range(5):
            picture.seek(frame)
            picture.load()
            durations.append(picture.info["duration"])
    assert sum(durations) == 400


@pytest.mark.parametrize(
    ("clip", "suffix", "message"),
    [
        (Video(torch.zeros(1, 0, 4, 4, 3), fps=8), "mp4", "at least one frame"),
        (Video(torch.zeros(1, 0, 4, 4, 3), fps=8), "gif", "at least one frame"),
        (Video(torch.zeros(1, 2, 4, 4, 4), fps=8), "mp4", "no alpha channel"),
        (Video(torch.zeros(1, 2, 4, 4, 3), fps=0), "mp4", "above 0, got 0"),
        (Video(torch.zeros(1, 2, 4, 4, 3), fps=8), "avi", "not as 'avi'"),
    ],
)
def test_clips_that_cannot_be_written_say_why(clip, suffix, message):
    with pytest.raises(UserError, match=message):
        writers.write_video(clip, info(suffix))


def test_weights_are_safetensors_with_sorted_metadata_and_shared_tensors_allowed():
    from safetensors.torch import load

    row = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    tensors, meta = {"b": row, "a": row.t(), "c": row[0]}, {"z": {"k": [1]}, "y": "text"}
    weights = Weights(tensors, kind="difference", meta=meta)
    (content,) = write_weights(weights)
    assert write_weights(weights) == [content]
    assert torch.equal(load(content)["a"], row.t()) and load(content)["b"].dtype == torch.bfloat16
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    assert list(metadata) == sorted(metadata) and metadata["z"] == '{"k": [1]}' and length % 8 == 0


def test_latents_and_conditioning_keep_what_they_know():
    from safetensors.torch import load

    (content,) = write_latents(Latents(torch.ones(1, 4, 2, 2), space="kl-f8c4", mask=torch.zeros(1, 1, 2, 2)))
    assert set(load(content)) == {"latents", "mask"} and b"kl-f8c4" in content[:300]
    (content,) = write_conditioning(Conditioning(context=torch.ones(1, 3, 2), extra={"box": torch.ones(4)}))
    assert set(load(content)) == {"context", "extra.box"}


def test_every_port_that_can_be_an_output_has_a_writer():
    found = {}
    register_ports(lambda port, **how: found.__setitem__(port, how))
    assert {p.__name__: how["suffix"] for p, how in found.items()} == {
        "Image": "png", "Mask": "png", "Video": "mp4", "FormattedVideo": "mp4", "Report": "json",
        "Weights": "safetensors", "Latents": "safetensors", "Conditioning": "safetensors",
    }  # fmt: skip


def test_registering_the_plugin_imports_neither_torch_nor_pillow():
    code = (
        "import sys, mezzotint_image as m; "
        "m.register_nodes(lambda f: None); m.register_ports(lambda p, **k: None); "
        "bad = {'torch', 'numpy', 'PIL', 'av'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
