"""AnimateDiff's motion modules: diffusers' UNetMotionModel to the last digits, from both kinds of files."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MotionAdapter, UNetMotionModel
from safetensors.torch import load_file, save_file
from tiny_unets import WIDTHS, sd15_unet, unet

from mezzotint import Conditioning, Denoiser, Latents, NoiseLevel, NoiseSchedule, Source, UserError
from mezzotint.testing import FakeContext, fake_context
from mezzotint_models.unet import UNetPredictor
from mezzotint_sampling.nodes import guide, noise, sigmas
from mezzotint_sampling.sampler_node import sample
from mezzotint_video.inflate import inflate
from mezzotint_video.motion_adapter import config_of
from mezzotint_video.motion_modules import MotionModules
from mezzotint_video.temporal_layers import Clip
from mezzotint_video.windows import windows

pytestmark = pytest.mark.usefixtures("networks_are_known")
LEVEL = NoiseLevel(0.6, 0.8, 500.0)
X = torch.randn(2, 4, 5, 8, 8, generator=torch.Generator().manual_seed(3))
TOLD = Conditioning(context=torch.randn(2, 6, 24, generator=torch.Generator().manual_seed(4)))
DENOISER = Denoiser(Source("test", "", "0"), loader="test.unet", schedule=NoiseSchedule())


@pytest.fixture(scope="module")
def network() -> Any:
    return sd15_unet()


def adapter_of(*, mid: bool = True, frames: int = 32, widths: tuple[int, ...] = WIDTHS) -> MotionAdapter:
    """With random numbers everywhere, also where training begins with zeros."""
    torch.manual_seed(7)
    made = MotionAdapter(widths, use_motion_mid_block=mid, motion_max_seq_length=frames)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval().requires_grad_(False)


def source(path: Path) -> Source:
    return Source(path.name, str(path), "0" * 64)


def folder(made: MotionAdapter, path: Path) -> Source:
    made.save_pretrained(path / "adapter")
    return source(path / "adapter")


def authors_names(name: str) -> list[str]:
    """What AnimateDiff's authors call a tensor of diffusers': a table of positions lies in each attention."""
    name = re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", name)
    name = re.sub(r"attn(\d)", lambda m: f"attention_blocks.{int(m[1]) - 1}", name)
    name = re.sub(r"norm([12])", lambda m: f"norms.{int(m[1]) - 1}", name).replace("norm3", "ff_norm")
    if not name.endswith("pos_embed.pe"):
        return [name]
    return [name.replace("pos_embed.pe", f"attention_blocks.{number}.pos_encoder.pe") for number in (0, 1)]


def original(made: MotionAdapter, path: Path) -> Source:
    """As AnimateDiff's authors write it."""
    state = made.state_dict().items()
    tensors = {there: tensor.clone() for name, tensor in state for there in authors_names(name)}
    save_file(tensors, path / "mm_sd_v15_v2.safetensors")
    return source(path / "mm_sd_v15_v2.safetensors")


def context(network: Any) -> FakeContext:
    return fake_context(loaders={"test.unet": lambda recipe, ctx: UNetPredictor(network, recipe.schedule)})


def predicted(network: Any, denoiser: Denoiser, x: torch.Tensor = X) -> torch.Tensor:
    ctx = context(network)
    model = ctx.realise(denoiser.replace(patches=()))
    (patch,) = denoiser.patches
    with patch.apply(model, ctx) as there, torch.no_grad():
        return there.predict(x, LEVEL, TOLD).combined()


def wanted(network: Any, adapter: MotionAdapter, x: torch.Tensor = X) -> torch.Tensor:
    theirs = UNetMotionModel.from_unet2d(network, adapter).eval()
    with torch.no_grad():
        words = TOLD.context.repeat_interleave(x.shape[2], 0)
        return theirs(x, torch.tensor(LEVEL.time), encoder_hidden_states=words, return_dict=False)[0]


# What the authors have published: v3 has the blocks of v1 and the positions of v2.
@pytest.mark.parametrize(
    ("mid", "frames", "write"),
    [(False, 24, original), (True, 32, original), (False, 32, folder)],
    ids=["v1", "v2", "v3_by_diffusers"],
)
def test_a_clip_is_predicted_as_by_diffusers_motion_model(
    mid: bool, frames: int, write: Any, network: Any, tmp_path: Path
) -> None:
    adapter = adapter_of(mid=mid, frames=frames)
    got = predicted(network, inflate(DENOISER, source=write(adapter, tmp_path)))
    theirs = wanted(network, adapter)
    plain = UNetPredictor(network, NoiseSchedule()).predict(X, LEVEL, TOLD).combined()
    assert (theirs - plain).abs().max() > 0.1, "modules that do nothing would prove nothing"
    torch.testing.assert_close(got, theirs, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def adapter() -> MotionAdapter:
    return adapter_of()


@pytest.fixture(scope="module")
def animated(adapter: MotionAdapter, tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return inflate(DENOISER, source=original(adapter, tmp_path_factory.mktemp("adapter")))


def test_a_clip_is_sampled_as_by_diffusers_scheduler_and_motion_model(
    network: Any, adapter: MotionAdapter, animated: Denoiser
) -> None:
    """Guided, from the noise that diffusers starts from, over linear betas."""
    from diffusers import DDIMScheduler

    positive, negative = (Conditioning(context=words[None]) for words in TOLD.context)
    levels = sigmas(animated, steps=3, schedule="discrete", spacing="leading", offset=1, end="trained")
    empty = Latents(torch.zeros(1, 4, 5, 8, 8), space="", downscale=8)
    start = noise(seed=5, kind="torch")
    ctx, guided = context(network), guide(animated, negative, scale=7.5)
    got = sample(ctx, guided, positive, empty, levels, start, sampler="ddim").data
    scheduler = DDIMScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(3)
    theirs = UNetMotionModel.from_unet2d(network, adapter).eval()
    words = torch.cat([negative.context, positive.context]).repeat_interleave(5, 0)
    x = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for time in scheduler.timesteps:
            without, given = theirs(x.expand(2, -1, -1, -1, -1), time, encoder_hidden_states=words)[0].chunk(2)
            x = scheduler.step(without + 7.5 * (given - without), time, x).prev_sample
    torch.testing.assert_close(got, x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("write", [folder, original])
def test_a_file_without_tables_of_positions_gets_those_of_every_published_one(
    write: Any, adapter: MotionAdapter, tmp_path: Path
) -> None:
    there = write(adapter, tmp_path)
    file = next(Path(tmp_path).rglob("*.safetensors"))
    kept = {name: value.clone() for name, value in load_file(file).items() if not name.endswith(".pe")}
    save_file(kept, file)
    (patch,) = inflate(DENOISER, source=there).patches
    got = fake_context().realise(Denoiser(there, loader="video.motion_adapter", config=patch.config)).state_dict()
    whole = adapter.state_dict()
    assert got.keys() == whole.keys()
    assert all(torch.equal(got[name], whole[name]) for name in got)


def test_pictures_pass_to_the_bit_alone_and_behind_a_clip(network: Any, animated: Denoiser) -> None:
    picture = X[:, :, :1]
    plain = UNetPredictor(network, NoiseSchedule()).predict(picture, LEVEL, TOLD).combined()
    assert torch.equal(predicted(network, animated, picture), plain)
    modules = MotionModules(realised(animated), network)
    h = torch.randn(2 * 5, 32, 4, 4, generator=torch.Generator().manual_seed(5))
    name = "down_blocks.0.attentions.1"
    alone = modules.behind(name, h.unflatten(0, (2, 5))[:, :3].flatten(0, 1), Clip(2, 3), None, lambda name: None)
    both = modules.behind(name, h, Clip(2, 3, images=2), None, lambda name: None).unflatten(0, (2, 5))
    assert torch.equal(both[:, :3].flatten(0, 1), alone)
    assert torch.equal(both[:, 3:], h.unflatten(0, (2, 5))[:, 3:])
    assert modules.behind(name, h, Clip(2, 5, apart=True), None, lambda name: None) is h


def realised(animated: Denoiser) -> Any:
    (patch,) = animated.patches
    return fake_context().realise(Denoiser(patch.source, loader=patch.loader, config=patch.config))


def test_their_attention_is_a_site_where_an_injector_works(network: Any, animated: Denoiser) -> None:
    ctx = context(network)
    (patch,) = animated.patches
    seen: list[Any] = []

    def nothing(call: Any, attend: Any) -> torch.Tensor:
        seen.append(call)
        return torch.zeros_like(attend(call))

    def the_same(call: Any, attend: Any) -> torch.Tensor:
        return attend(call)

    with patch.apply(ctx.realise(animated.replace(patches=())), ctx) as model, torch.no_grad():
        sites = [site for site in model.attention_sites if site.kind == "temporal"]
        plain = model.predict(X, LEVEL, TOLD).combined()
        with model.inject(the_same, sites):
            same = model.predict(X, LEVEL, TOLD).combined()
        with model.inject(nothing, sites[:1]):
            changed = model.predict(X, LEVEL, TOLD).combined()
    # Two attentions in each of two, three and one modules a block.
    assert len(sites) == 2 * (4 * 2 + 1 + 4 * 3)
    assert sites[0].name == "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.temporal"
    assert {(site.part, site.level) for site in sites} >= {("down", 0), ("middle", 3), ("up", 0)}
    # Each of the 64 places of two clips attends over its five frames, in eight heads.
    assert [tuple(call.query.shape) for call in seen] == [(2 * 64, 8, 5, 4)]
    torch.testing.assert_close(same, plain, atol=1e-5, rtol=0)
    assert (changed - plain).abs().max() > 1e-3


@pytest.mark.parametrize(("mid", "frames"), [(False, 24), (True, 32)], ids=["v1", "v2"])
def test_the_published_sizes_are_read_from_shapes_alone(mid: bool, frames: int) -> None:
    with torch.device("meta"):
        theirs = MotionAdapter(use_motion_mid_block=mid, motion_max_seq_length=frames)
    shapes = {there: tuple(t.shape) for name, t in theirs.state_dict().items() for there in authors_names(name)}
    found = config_of(shapes, "here")
    assert (found["block_out_channels"], found["motion_max_seq_length"]) == ([320, 640, 1280, 1280], frames)
    with torch.device("meta"):
        made = MotionAdapter.from_config(found)
    assert {n: t.shape for n, t in made.state_dict().items()} == {
        n: t.shape for n, t in theirs.state_dict().items()
    }


def test_a_clip_that_is_too_long_for_them_is_seen_in_windows(network: Any, tmp_path: Path) -> None:
    short = inflate(DENOISER, source=folder(adapter_of(frames=4), tmp_path))
    ctx = context(network)
    model = ctx.realise(short.replace(patches=()))
    with ExitStack() as stack, torch.no_grad():
        for patch in windows(short, frames=4, overlap=2, shift=False).patches:
            model = stack.enter_context(patch.apply(model, ctx))
        found = model.predict(X, LEVEL, TOLD).combined()
    assert found.shape == X.shape and found.isfinite().all()
    # The first frame lies in one window alone, of the first four.
    alone = predicted(network, short, X[:, :, :4])
    torch.testing.assert_close(found[:, :, 0], alone[:, :, 0], atol=1e-5, rtol=0)


def test_the_schedule_becomes_the_one_that_they_were_trained_with(animated: Denoiser) -> None:
    assert (DENOISER.schedule.kind, animated.schedule.kind) == ("scaled_linear", "linear")
    cosine = DENOISER.replace(schedule=NoiseSchedule(kind="cosine"))
    assert inflate(cosine, source=animated.patches[0].source).schedule.kind == "cosine"


def test_frames_that_have_no_position_are_refused(network: Any, tmp_path: Path) -> None:
    short = inflate(DENOISER, source=folder(adapter_of(frames=4), tmp_path))
    with pytest.raises(UserError, match=r"clips of up to 4 frames; got 5.*video.windows"):
        predicted(network, short)


def test_motion_modules_go_on_once(animated: Denoiser) -> None:
    with pytest.raises(UserError, match="temporal layers already"):
        inflate(animated, source=animated.patches[0].source)


def test_modules_of_another_model_are_refused(animated: Denoiser, network: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mm_sd.*another model: down_blocks.2 is in them alone"):
        predicted(unet(), animated)
    wide = inflate(DENOISER, source=folder(adapter_of(widths=(32, 64, 96, 64)), tmp_path))
    with pytest.raises(UserError, match=r"down_blocks.2.attentions.0 they are 96 channels wide.*is 64"):
        predicted(network, wide)
    few = inflate(DENOISER, source=folder(adapter_of(widths=(32, 64, 64)), tmp_path))
    with pytest.raises(UserError, match=r"another model: down_blocks.3 is in this denoiser alone"):
        predicted(network, few)


@pytest.mark.parametrize("name", ["mm_sd_v15_v2.ckpt", "mm.pth"])
def test_pickles_are_refused(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / name)
    with pytest.raises(UserError, match="a pickle can run any code"):
        inflate(DENOISER, source=source(tmp_path / name))


def test_a_folder_with_nothing_but_a_pickle_is_refused(adapter: MotionAdapter, tmp_path: Path) -> None:
    there = folder(adapter, tmp_path)
    Path(there.path, "diffusion_pytorch_model.safetensors").rename(Path(there.path, "diffusion_pytorch_model.bin"))
    with pytest.raises(UserError, match="only the pickle"):
        realised(inflate(DENOISER, source=there))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[]", "wanted a JSON object"),
        ("{", "not JSON"),
        ('{"_class_name": "UNet2DConditionModel"}', "wanted a MotionAdapter .* got 'UNet2DConditionModel'"),
        ('{"_class_name": "MotionAdapter", "conv_in_channels": 9}', "PIA"),
        ('{"_class_name": "MotionAdapter", "motion_layers_per_block": 1000000000}', "1000000000 motion_layers"),
        ('{"_class_name": "MotionAdapter", "motion_max_seq_length": 1000000000}', "1000000000, wanted frames"),
        ('{"_class_name": "MotionAdapter", "motion_num_attention_heads": 0}', "makes no network"),
        ('{"_class_name": "MotionAdapter", "block_out_channels": [64, 64, 64, 64]}', "does not fit"),
    ],
)
def test_a_folder_that_lies_is_refused(config: str, message: str, saved: Path) -> None:
    (saved / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        realised(inflate(DENOISER, source=source(saved)))


@pytest.fixture(scope="module")
def saved(adapter: MotionAdapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(folder(adapter, tmp_path_factory.mktemp("saved")).path)


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"as diffusers saves it, with config\.json"):
        inflate(DENOISER, source=source(tmp_path))


MIDDLE = "mid_block.motion_modules.0.temporal_transformer"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"conv_in.weight": (32, 9, 3, 3)}, "PIA"),
        ({f"{MIDDLE}.processor.to_q_lora.down.weight": (4, 64)}, "a motion LoRA"),
        ({f"{MIDDLE}.transformer_blocks.0.attention_blocks.0.pos_encoder.pe": (1, 24, 64)}, r"\[24, 32\] frames"),
        ({f"{MIDDLE}.transformer_blocks.0.attention_blocks.1.pos_encoder.pe": (1, 32, 64)}, "different positions"),
        ({f"{MIDDLE}.surprise": (3,)}, "mid_block.motion_modules.0.surprise is not known"),
        ({f"{MIDDLE}.proj_in.weight": (64, 32)}, r"proj_in.weight has shape \[64, 32\], wanted \[64, 64\]"),
        (
            {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (1, 2)},
            "a whole set of down_blocks",
        ),
    ],
)
def test_a_file_that_is_no_plain_set_of_modules_is_refused(
    more: dict[str, tuple[int, ...]], message: str, animated: Denoiser, tmp_path: Path
) -> None:
    tensors = load_file(animated.patches[0].source.path)
    save_file(tensors | {name: torch.zeros(shape) for name, shape in more.items()}, tmp_path / "mm.safetensors")
    with pytest.raises(UserError, match=message):
        realised(inflate(DENOISER, source=source(tmp_path / "mm.safetensors")))


def test_a_file_with_a_tensor_missing_or_cut_short_is_refused(animated: Denoiser, tmp_path: Path) -> None:
    whole = Path(animated.patches[0].source.path)
    tensors = load_file(whole)
    del tensors[f"{MIDDLE}.proj_out.bias"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=r"0\.proj_out\.bias is missing"):
        realised(inflate(DENOISER, source=source(tmp_path / "less.safetensors")))
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        inflate(DENOISER, source=source(tmp_path / "cut.safetensors"))
