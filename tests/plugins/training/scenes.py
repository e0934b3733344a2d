"""Small pictures, networks and encoders for the tests of the diffusion objective."""

from __future__ import annotations

import numpy as np
import torch

from mezzotint import Autoencoder, Conditioning, Dataset, Source, TextEncoder
from mezzotint.testing import fake_context
from mezzotint_models import pack_network
from mezzotint_models.architecture import unet

NOWHERE = Source("tests", "", "")
WORLD = Dataset(
    reader="smallworld.scenes", config={"seed": 0, "things": 1, "split": "train", "unnamed": 0.0}, length=30
)
PICTURES = Dataset("tests.pictures", {}, 40)


class Pictures:
    """Random pictures [16, 16, 3], a caption and a label each. without: what the items lack."""

    def __init__(self, dataset, ctx):
        self.length, self.config = dataset.length, dataset.config
        self.read = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.read.append(index)
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        item = {"image": pixels, "caption": f"picture {index}", "label": index % 3}
        return {name: value for name, value in item.items() if name not in self.config.get("without", ())}


class Encoder:
    """Two tokens, four wide, that say how long a text is; nothing says nothing."""

    def __init__(self, recipe, ctx):
        self.seen = SEEN
        self.seen.clear()

    def condition(self, texts, clip_skip=0):
        self.seen.extend(texts)
        sizes = torch.tensor([float(len(text)) for text in texts])
        return Conditioning(
            context=sizes[:, None, None].expand(-1, 2, 4).clone(), pooled=sizes[:, None].expand(-1, 4)
        )


class Halves:
    """Latents are means of 2x2 pixels in -1..1, and a fourth channel of zeros."""

    def __init__(self, recipe, ctx):
        self.count = 0

    def encode(self, pixels):
        self.count += len(pixels)
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1) * 2 - 1, 2)
        return torch.cat([small, torch.zeros_like(small[:, :1])], 1)

    def decode(self, latents):
        return (
            (latents[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3) / 2 + 0.5).clamp(0, 1).movedim(1, -1)
        )


SEEN = []
ENCODER = TextEncoder(NOWHERE, "tests.encoder")
AUTOENCODER = Autoencoder(NOWHERE, "tests.halves", channels=4, downscale=2, space="halves")
LOADERS = {"tests.pictures": Pictures, "tests.encoder": Encoder, "tests.halves": Halves}


def context(**more):
    return fake_context(loaders=LOADERS, **more)


def tiny(autoencoder=None, **settings):
    """An architecture of 8x8 pixels."""
    return unet(autoencoder, **{"size": 8, "patch": 1, "channels": [8, 8], "head_channels": 8, **settings})


def opened(objective, dataset=PICTURES, batch=8, seed=0):
    """The task of an objective."""
    ctx = context()
    torch.manual_seed(seed)
    return objective.open(ctx, ctx.open_dataset(dataset), seed, batch)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def text_unet():
    """diffusers' U-Net of pixels 8x8 that reads tokens 16 wide, and its weights as a denoiser."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 8), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4, cross_attention_dim=16, attention_head_dim=2,
    )  # fmt: skip
    record = {
        "schedule": {"prediction": "v"}, "channels": 3, "sample_size": 8, "space": "pixels", "downscale": 1,
        "patch": 1,
    }  # fmt: skip
    return unet, pack_network(unet, denoiser=record)
