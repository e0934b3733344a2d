"""Weights without what a checkpoint has: nothing is lost on the way out and back."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, UserError, Weights
from mezzotint.testing import check_node
from mezzotint_models import build_network, pack_network, part_of, trunk_tensors
from mezzotint_models.architecture import unet
from mezzotint_models.shared import leave_out, put_back


@pytest.fixture(scope="module")
def started(tiny) -> Weights:
    """A network of pixels with the checkpoint's own tensors wherever they fit."""
    torch.manual_seed(0)
    made = unet(
        size=8, channels=[32, 64], layers=2, attention="cross", context=64, plain_levels=0, head_channels=[4, 8],
        schedule="scaled_linear",
    )  # fmt: skip
    network = made.build()
    known = trunk_tensors(tiny.source)
    own = network.state_dict()
    network.load_state_dict({n: t for n, t in known.items() if n in own and own[n].shape == t.shape}, strict=False)
    one = pack_network(network, denoiser=made.record())
    return Weights(
        {f"unet/{name}": tensor for name, tensor in one.tensors.items()}, target="parts",
        meta={"parts": {"unet": {"target": one.target, "meta": dict(one.meta)}}},
    )  # fmt: skip


def test_what_a_checkpoint_has_comes_back_to_the_bit(started, tiny):
    less = leave_out(started, source=tiny.source)
    sizes = [sum(tensor.numel() for tensor in weights.tensors.values()) for weights in (less, started)]
    assert 0 < sizes[0] < 0.9 * sizes[1]
    again = put_back(less, source=tiny.source)
    assert again.tensors.keys() == started.tensors.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in started.tensors.items())
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    told = Conditioning(context=torch.ones(1, 2, 64))
    wanted = build_network(part_of(started, "unet"))(x, torch.tensor(5.0), told)
    assert torch.equal(build_network(part_of(again, "unet"))(x, torch.tensor(5.0), told), wanted)


def test_a_tensor_that_tuning_moved_stays(started, tiny):
    name = next(n for n in started.tensors if n.endswith("mid_block.resnets.0.conv1.weight"))
    moved = started.replace(tensors={**started.tensors, name: started.tensors[name] + 1e-3})
    less = leave_out(moved, source=tiny.source)
    assert name in less.tensors and name not in leave_out(started, source=tiny.source).tensors
    assert torch.equal(put_back(less, source=tiny.source).tensors[name], moved.tensors[name])


def test_half_precision_is_compared_in_half_precision(started, tiny):
    half = started.replace(tensors={name: tensor.half() for name, tensor in started.tensors.items()})
    less = leave_out(half, source=tiny.source)
    assert less.tensors.keys() == leave_out(started, source=tiny.source).tensors.keys()


def test_a_file_that_left_something_out_itself_gives_back_the_rest_with_its_trunk(started, tiny, tmp_path):
    import json

    from safetensors.torch import save_file

    from mezzotint import Source

    less = leave_out(started, source=tiny.source)
    header = {"mezzotint.target": "parts", "parts": json.dumps(less.meta["parts"])}
    save_file({n: t.clone() for n, t in less.tensors.items()}, tmp_path / "first.safetensors", header)
    first = Source("first", str(tmp_path / "first.safetensors"), "1")
    name = next(iter(less.tensors))
    moved = started.replace(tensors={**started.tensors, name: started.tensors[name] + 1})
    second = leave_out(leave_out(moved, source=first), source=tiny.source)
    assert second.tensors.keys() == {name}
    again = put_back(second, source=first, trunk=tiny.source)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in moved.tensors.items())
    with pytest.raises(UserError, match="is neither in the weights nor in"):
        put_back(second, source=first)


def test_what_is_in_neither_is_named(started, tiny):
    own = next(name for name in started.tensors if "conv_in.weight" in name)
    less = leave_out(started, source=tiny.source)
    broken = less.replace(tensors={name: tensor for name, tensor in less.tensors.items() if name != own})
    with pytest.raises(UserError, match=r"conv_in\.weight is neither in the weights nor in"):
        put_back(broken, source=tiny.source)
    with pytest.raises(UserError, match="no tensor in common"):
        leave_out(Weights({"unet/x": torch.zeros(2)}), source=tiny.source)


def test_the_nodes_keep_every_node_s_promises(started, tiny):
    less = check_node(leave_out, weights=started, source=tiny.source)["weights"]
    check_node(put_back, weights=less, source=tiny.source)
