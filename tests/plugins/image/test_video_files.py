"""Clips in files: what is written comes back, and what is hostile is refused with a reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image as Pillow

from mezzotint import UserError, Video
from mezzotint.fingerprint import folder_digest
from mezzotint.testing import run_graph
from mezzotint_image.pixels import to_pillow
from mezzotint_image.video_formats import video_format, write_formatted
from mezzotint_image.video_reading import load_video
from mezzotint_image.writers import write_video


def _clip(frames: int = 8, height: int = 48, width: int = 64, fps: float = 8.0) -> Video:
    """Smooth colours that drift, so that a codec's loss is small and no two frames are equal."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width), indexing="ij")
    t = torch.linspace(0, 2, frames).reshape(-1, 1, 1)
    planes = [torch.sin(x + t), torch.cos(y - t), torch.sin(x + y + 2 * t)]
    return Video((torch.stack(planes, dim=-1) / 2 + 0.5).unsqueeze(0), fps)


def _written(folder: Path, clip: Video, suffix: str, name: str = "clip") -> Path:
    path = folder / f"{name}.{suffix}"
    (content,) = write_video(clip, SimpleNamespace(suffix=suffix, options={}))
    path.write_bytes(content)
    return path


def _encoded(
    path: Path, sizes: list[tuple[int, int]], codec: str = "libvpx", rate: int = 8, step: int = 1
) -> Path:
    """A file of one frame for each (width, height), each encoded by itself, so that they may differ."""
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "yuv420p"
        for index, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create(codec, "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base = Fraction(1, rate)
            picture = numpy.full((height, width, 3), 40 * index % 255, numpy.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = 0
            for packet in [*encoder.encode(frame), *encoder.encode(None)]:
                packet.stream, packet.pts, packet.dts = stream, index * step, index * step
                packet.time_base = Fraction(1, rate)
                container.mux(packet)
    return path


# --- what is written comes back ---


@pytest.mark.parametrize(("suffix", "bound"), [("mp4", 0.02), ("webm", 0.02), ("gif", 0.05), ("webp", 0.5 / 255)])
@pytest.mark.parametrize("fps", [8.0, 12.5, 24.0])
def test_a_clip_comes_back_with_its_frames_its_rate_and_its_colours(tmp_path, suffix, bound, fps):
    clip = _clip(fps=fps)
    found = load_video(_written(tmp_path, clip, suffix))
    assert found.data.shape == clip.data.shape and found.data.dtype == torch.float32
    # Animations count in milliseconds, GIF in hundredths of a second, over a third of a second here.
    assert found.fps == pytest.approx(fps, rel={"gif": 0.02, "webp": 0.002}.get(suffix, 1e-9))
    off = (found.data - clip.data).abs()
    assert off.mean() < bound
    # Each frame is nearer to its own than to its neighbours.
    for index in range(7):
        own, next_one = off[:, index].mean(), (found.data[:, index] - clip.data[:, index + 1]).abs().mean()
        assert own < next_one


def test_a_folder_of_frames_comes_back_exactly_numbers_as_numbers(tmp_path):
    clip = _clip(frames=12)
    for index, frame in enumerate(clip.data[0]):
        to_pillow(frame).save(tmp_path / f"frame{index}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    found = load_video(tmp_path, rate=12.0)
    assert found.fps == 12.0 and found.data.shape == clip.data.shape
    assert (found.data - clip.data).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_odd_sides_are_padded_by_their_last_row_and_column(tmp_path, suffix):
    clip = _clip(height=47, width=63)
    found = load_video(_written(tmp_path, clip, suffix)).data
    assert list(found.shape) == [1, 8, 48, 64, 3]
    assert (found[:, :, :47, :63] - clip.data).abs().mean() < 0.02
    cut = load_video(_written(tmp_path, clip, suffix), width=32, height=24)
    assert list(cut.data.shape) == [1, 8, 24, 32, 3]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_animations_keep_odd_sides(tmp_path, suffix):
    assert list(load_video(_written(tmp_path, _clip(height=47, width=63), suffix)).data.shape) == [1, 8, 47, 63, 3]


def test_alpha_survives_in_webp(tmp_path):
    clip = Video(torch.cat([_clip().data, torch.linspace(0.5, 1, 64).expand(1, 8, 48, 64)[..., None]], -1), 8.0)
    found = load_video(_written(tmp_path, clip, "webp"), channels=4)
    assert (found.data - clip.data).abs().max() <= 0.5 / 255 + 1e-6


def test_a_picture_is_a_clip_of_one_frame(tmp_path):
    to_pillow(_clip().data[0, 0]).save(tmp_path / "a.png")
    found = load_video(tmp_path / "a.png", rate=5.0, channels=4)
    assert list(found.data.shape) == [1, 1, 48, 64, 4] and found.fps == 5.0 and (found.data[..., 3] == 1).all()


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "webp"])
def test_frames_are_taken_by_the_time_they_are_shown_at(tmp_path, suffix):
    path = _written(tmp_path, _clip(), suffix)
    every = load_video(path).data
    assert torch.equal(load_video(path, fps=8.0).data, every)
    assert torch.equal(load_video(path, fps=4.0).data, every[:, ::2])
    assert torch.equal(load_video(path, fps=16.0).data, every.repeat_interleave(2, 1))
    assert torch.equal(load_video(path, start=0.5).data, every[:, 4:])
    assert torch.equal(load_video(path, start=0.25, frames=3).data, every[:, 2:5])
    assert torch.equal(load_video(path, start=0.25, fps=4.0, frames=2).data, every[:, 2:6:2])
    with pytest.raises(UserError, match="start is 3"):
        load_video(path, start=3.0)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_frames_that_a_writer_joined_are_repeated(tmp_path, suffix):
    clip = _clip()
    clip = clip.replace(data=clip.data[:, [0, 1, 1, 1, 2, 3, 3, 4]])
    found = load_video(_written(tmp_path, clip, suffix))
    assert list(found.data.shape) == list(clip.data.shape) and found.fps == pytest.approx(8.0, rel=0.01)
    assert torch.equal(found.data[:, 1], found.data[:, 3]) and not torch.equal(found.data[:, 3], found.data[:, 4])


def test_a_still_animation_has_its_time_when_a_rate_is_asked_for(tmp_path):
    still = _clip().replace(data=_clip().data[:, :1].expand(-1, 8, -1, -1, -1))
    pictures = [to_pillow(frame) for frame in still.data[0, :2]]
    pictures[1].putpixel((0, 0), (1, 2, 3))
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[0, 900])
    assert list(load_video(tmp_path / "a.gif", fps=10.0).data.shape)[:2] == [1, 10]


def test_a_turned_clip_is_upright(tmp_path):
    """Phones write what the sensor saw, and say by how much it is turned."""
    path = _written(tmp_path, _clip(), "mp4")
    content = path.read_bytes()
    # The track header's matrix: the identity in 16.16 and 2.30 numbers, then a quarter turn.
    same = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    at = content.index(same, content.index(b"tkhd"))
    plain = load_video(path).data
    path.write_bytes(content[:at] + turned + content[at + len(same) :])
    found = load_video(path).data
    assert list(found.shape) == [1, 8, 64, 48, 3]
    # The matrix maps (x, y) to (48 - y, x): a quarter turn clockwise.
    assert torch.equal(found, torch.rot90(plain, -1, (2, 3)))


def test_av1_and_vp8_are_read(tmp_path):
    assert list(load_video(_encoded(tmp_path / "a.webm", [(64, 48)] * 3)).data.shape) == [1, 3, 48, 64, 3]
    path = _encoded(tmp_path / "b.webm", [(64, 64)], codec="libsvtav1")
    assert list(load_video(path).data.shape) == [1, 1, 64, 64, 3]


# --- what is hostile is refused ---


@pytest.mark.parametrize("content", [b"", b"just some text, no clip at all\n" * 9, b"#EXTM3U\n/etc/passwd\n"])
def test_a_text_file_is_no_clip_whatever_its_name(tmp_path, content):
    """A playlist too: the library would open what it names."""
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.mp4: not a clip of a kind that is read: MP4, WebM"):
        load_video(tmp_path / "a.mp4")


def test_a_header_without_anything_behind_it_is_damaged(tmp_path):
    for name, head in (("a.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"), ("a.webm", b"\x1aE\xdf\xa3\x01\0\0\0")):
        (tmp_path / name).write_bytes(head)
        with pytest.raises(UserError, match="damaged or cut short"):
            load_video(tmp_path / name)


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "webp"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_clip_that_is_cut_short_is_refused(tmp_path, suffix, share):
    path = _written(tmp_path, _clip(frames=16), suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cut short|cannot be opened"):
        load_video(path)


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "webp"])
def test_damaged_bytes_give_an_error_of_ours_or_a_clip(tmp_path, suffix):
    path = _written(tmp_path, _clip(), suffix)
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        places = torch.randint(0, len(content), (12,), generator=generator).tolist()
        values = torch.randint(0, 256, (12,), generator=generator).tolist()
        broken = bytearray(content)
        for place, value in zip(places, values, strict=True):
            broken[place] = value
        path.write_bytes(bytes(broken))
        try:
            found = load_video(path, max_pixels=1 << 20)
        except UserError:
            continue
        assert torch.isfinite(found.data).all()


def test_a_sound_is_no_clip(tmp_path):
    import av

    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 8000), numpy.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="there is no video in it, only audio"):
        load_video(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", [b"zzzz", b"WRLE"])
def test_a_codec_that_is_not_known_or_not_wanted_is_named(tmp_path, name):
    path = _written(tmp_path, _clip(), "mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", name))
    with pytest.raises(UserError, match="its codec is"):
        load_video(path)


def test_sizes_that_change_in_mid_clip_are_refused_unless_all_are_scaled(tmp_path):
    path = _encoded(tmp_path / "a.webm", [(64, 48), (64, 48), (32, 32)])
    with pytest.raises(UserError, match="frame 2 is 32x32, those before are 64x48"):
        load_video(path)
    assert list(load_video(path, width=16, height=16).data.shape) == [1, 3, 16, 16, 3]


def test_a_folder_of_several_sizes_or_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(UserError, match="no picture in the folder"):
        load_video(tmp_path)
    for index, size in enumerate([(8, 8), (8, 6)]):
        Pillow.new("RGB", size).save(tmp_path / f"{index}.png")
    with pytest.raises(UserError, match="frame 1 is 8x6, those before are 8x8"):
        load_video(tmp_path)
    with pytest.raises(UserError, match="at least 2 frames, and most is 1"):
        load_video(tmp_path, most=1)
    (tmp_path / "1.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"1\.png: "):
        load_video(tmp_path)


def test_a_folder_whose_links_lead_out_of_it_is_refused_before_it_is_read(tmp_path):
    """A path input is digested when the run is planned."""
    (tmp_path / "clip").mkdir()
    Pillow.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "clip" / "0.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="leads out of"):
        folder_digest(tmp_path / "clip")


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "webp"])
def test_too_many_frames_are_refused_by_bounds_that_can_be_raised(tmp_path, suffix):
    path = _written(tmp_path, _clip(frames=20), suffix)
    with pytest.raises(UserError, match="most is 19; raise most"):
        load_video(path, most=19)
    with pytest.raises(UserError, match="over max_pixels"):
        load_video(path, max_pixels=20 * 48 * 64 - 1)
    assert load_video(path, most=20, max_pixels=20 * 48 * 64).data.shape[1] == 20
    assert load_video(path, most=19, frames=19).data.shape[1] == 19
    with pytest.raises(UserError, match="most is 1024"):
        load_video(path, fps=1000.0)
    with pytest.raises(UserError, match=r"64x48 (are|is) over max_pixels"):
        load_video(path, max_pixels=3000)


def test_a_clip_that_says_that_it_lasts_for_ever_is_refused_before_memory_goes(tmp_path):
    """Two frames, a million seconds apart: at eight a second the first would be there eight million times."""
    path = _encoded(tmp_path / "a.webm", [(64, 48)] * 2, step=8_000_000)
    with pytest.raises(UserError, match="most is 1024"):
        load_video(path, fps=8.0)
    assert load_video(path, fps=8.0, frames=5).data.shape[1] == 5


def test_a_million_frames_are_not_read_one_by_one(tmp_path):
    """A GIF of one pixel and very many frames is small; what it says of itself is not believed."""
    frame = b"\x21\xf9\x04\0\0\0\0\0\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    head = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff"
    (tmp_path / "a.gif").write_bytes(head + frame * 1_000_000 + b"\x3b")
    with pytest.raises(UserError, match="most is 64"):
        load_video(tmp_path / "a.gif", most=64)
    assert load_video(tmp_path / "a.gif", frames=10).data.shape[1] == 10


def test_a_bomb_of_one_frame_is_refused_by_its_header(tmp_path):
    size = struct.pack("<HH", 65535, 65535)
    frame = b"\x2c\0\0\0\0" + size + b"\0\2\2\x44\1\0"
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + size + b"\x80\0\0" + b"\0\0\0\xff\xff\xff" + frame + b"\x3b")
    with pytest.raises(UserError, match=r"max_pixels|too large"):
        load_video(tmp_path / "a.gif")
    path = _written(tmp_path, _clip(), "mp4")
    with pytest.raises(UserError, match="max_pixels"):
        load_video(path, max_pixels=64 * 48 - 1)


def test_no_frames_at_all(tmp_path):
    import av

    with av.open(tmp_path / "a.webm", "w") as container:
        stream = container.add_stream("libvpx", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(UserError, match=r"no frames|frame rate of 0|cut short"):
        load_video(tmp_path / "a.webm")


@pytest.mark.parametrize("fps", [0.0, -8.0, float("nan"), float("inf"), 1e5])
@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "webp"])
def test_a_frame_rate_that_is_none_is_not_written(fps, suffix):
    with pytest.raises(UserError, match="frames per second"):
        write_video(_clip().replace(fps=fps), SimpleNamespace(suffix=suffix, options={}))


def test_an_absurd_frame_rate_in_a_file_asks_for_a_sensible_one(tmp_path):
    path = _encoded(tmp_path / "a.mp4", [(64, 48)] * 4, codec="mpeg4", rate=60000)
    with pytest.raises(UserError, match=r"a frame rate of 60000; give fps"):
        load_video(path)
    assert load_video(path, fps=8.0).data.shape[1] == 1


def test_what_is_no_file_is_said(tmp_path):
    with pytest.raises(UserError, match=r"a\.mp4: cannot be read"):
        load_video(tmp_path / "a.mp4")


def test_the_bytes_are_the_same_every_time():
    for suffix in ("mp4", "webm", "gif", "webp"):
        contents = {write_video(_clip(), SimpleNamespace(suffix=suffix, options={}))[0] for _ in range(2)}
        assert len(contents) == 1
        assert io.BytesIO(contents.pop()).read(4)


@pytest.mark.parametrize("format", ["mp4", "webm", "gif", "webp", "frames"])
def test_a_graph_gives_out_a_clip_in_the_format_that_it_asks_for(tmp_path, format):
    to_pillow(_clip().data[0, 0]).save(tmp_path / "a.png")
    doc = {
        "format": 1,
        "name": "one",
        "inputs": {"path": {"type": "string", "format": "video"}},
        "nodes": {
            "read": {"use": "image.load_video@1", "inputs": {"path": {"ref": "inputs.path"}, "rate": 4.0}},
            "longer": {"use": "image.resample_video@1", "inputs": {"video": {"ref": "read"}, "frames": 2}},
            "as": {"use": "image.video_format@1", "inputs": {"video": {"ref": "longer"}, "format": format}},
        },
        "outputs": {"clip": {"ref": "as"}},
    }
    result = run_graph(doc, path=str(tmp_path / "a.png"))
    files = write_formatted(result.outputs["clip"])
    names = ["frame-00000.png", "frame-00001.png"] if format == "frames" else [f"clip.{format}"]
    assert sorted(files) == names
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert list(load_video(tmp_path / names[0]).data.shape[2:]) == [48, 64, 3]


def test_several_clips_have_a_file_each_and_formats_say_what_they_lack():
    two = Video(torch.rand(2, 3, 8, 8, 4), 8.0)
    assert sorted(write_formatted(video_format(two, format="webp"))) == ["clip-000.webp", "clip-001.webp"]
    assert len(write_formatted(video_format(two, format="frames"))) == 6
    with pytest.raises(UserError, match="webm has no alpha"):
        video_format(two, format="webm")
    with pytest.raises(UserError, match="gif has no quality"):
        video_format(two, format="gif", quality=3)
    with pytest.raises(UserError, match="frame rate is 0"):
        video_format(two.replace(fps=0.0), format="webp")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "webp"])
def test_writing_takes_no_second_copy_of_the_clip(suffix):
    """512 frames that share one frame's memory: as floats of their own they would be 402 MB."""
    program = f"""
import resource, torch
from types import SimpleNamespace
from mezzotint import Video
from mezzotint_image.writers import write_video
def write(frames):
    write_video(Video(torch.zeros(1, 1, 256, 256, 3).expand(1, frames, -1, -1, -1), 8.0), how)
how = SimpleNamespace(suffix={suffix!r}, options={{}})
write(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write(512)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50 * 1024
