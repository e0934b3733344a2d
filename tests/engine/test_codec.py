"""What an edge carries comes back from its encoded form as it was."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from mezzotint.blobs import BytesTensors, tensor_chunks
from mezzotint.codec import LoadedTypes, decode, encode, peek, raw_bytes, type_name, type_table
from mezzotint.errors import PluginError, StoreError
from mezzotint.ports import Conditioning, Denoiser, Image, Latents, NoiseSchedule, Weights
from mezzotint.values import Patch, Source, Value


@dataclasses.dataclass(frozen=True, eq=False)
class Steer(Patch):
    towards: Conditioning
    layers: tuple[str, ...] = ()
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Grown(Value):
    """Stands for a class that gained and lost fields since its values were stored."""

    old: int
    new: str = "default"
    made: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class CountingTensors(BytesTensors):
    reads = 0

    def read(self, name: str) -> torch.Tensor:
        self.reads += 1
        return super().read(name)


def stored(value: Any) -> tuple[Any, CountingTensors]:
    encoded = encode(value)
    meta = json.loads(json.dumps(encoded.meta, allow_nan=False))
    return meta, CountingTensors(b"".join(tensor_chunks(encoded.tensors)))


def there_and_back(value: Any) -> Any:
    return decode(*stored(value), LoadedTypes())


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    same = a.dtype == b.dtype and a.shape == b.shape
    flat = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return same and flat[0].equal(flat[1])


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**100),
        0.1,
        -0.0,
        5e-324,
        math.inf,
        -math.inf,
        "",
        "\x00 é \ud800 𝄞",
        b"",
        b"\x00\xff",
        [],
        (),
        {},
        [1, (2, [3, ()], {"a": (None,)})],
        {"": {"b": [], "a": ()}},
        {"$tensor": "0"},
        {"$value": "os.system", "fields": {}},
        {"$dict": {"$dict": {}}},
        {"$tuple": [1]},
        {"$float": "nan", "other": 1},
        {"$other": 1},
        {"ref": "node.port"},
    ],
    ids=repr,
)
def test_json_tuples_bytes_and_lookalikes_of_markers_round_trip(value: Any) -> None:
    back = there_and_back(value)
    assert repr(back) == repr(value)
    assert type(back) is type(value)


def test_nan_round_trips_in_strict_json() -> None:
    assert math.isnan(there_and_back({"a": [math.nan]})["a"][0])


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 3, 5)], ids=str)
def test_tensors_of_every_dtype_keep_their_bits(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape) * 3).to(dtype)
    assert same_bits(there_and_back(tensor), tensor)


def test_nan_payloads_keep_their_bits() -> None:
    tensor = torch.tensor([0x7FC00001, -1, 0x7F800000], dtype=torch.int64).to(torch.int32).view(torch.float32)
    assert there_and_back(tensor).view(torch.int32).equal(tensor.view(torch.int32))


def test_layouts_without_gaps_keep_their_strides_because_kernels_round_by_layout() -> None:
    base = torch.randn(2, 3, 4, 5)
    for tensor in (
        base.permute(0, 2, 3, 1),
        base.contiguous(memory_format=torch.channels_last),
        base.transpose(1, 3),
        torch.randn(4, 1).t(),
        base[1:],
    ):
        back = there_and_back(tensor)
        assert back.equal(tensor)
        assert back.stride() == tensor.stride()


def test_layouts_with_gaps_or_overlap_come_back_contiguous() -> None:
    base = torch.randn(4, 6)
    for tensor in (base[:, ::2], base[::2], torch.randn(1).expand(3, 2), base.unfold(1, 3, 1)):
        back = there_and_back(tensor)
        assert back.equal(tensor)
        assert back.is_contiguous()


def test_conjugates_and_gradients_are_resolved() -> None:
    lazy = torch.randn(3, dtype=torch.complex64).conj()
    tuned = torch.nn.Parameter(torch.randn(3))
    back = there_and_back([lazy, tuned])
    assert back[0].equal(lazy.resolve_conj())
    assert back[1].equal(tuned.detach()) and not back[1].requires_grad


def test_one_tensor_in_two_places_is_stored_once() -> None:
    tensor = torch.randn(3)
    encoded = encode([tensor, {"again": tensor}])
    assert len(encoded.tensors) == 1
    back = there_and_back([tensor, {"again": tensor}])
    assert back[0].equal(tensor) and back[1]["again"].equal(tensor)


def test_loaded_tensors_are_aligned_like_fresh_ones_and_may_be_written() -> None:
    back = there_and_back([torch.ones(3, dtype=torch.uint8), torch.ones(5), torch.ones(7, dtype=torch.float64)])
    assert all(tensor.data_ptr() % 64 == 0 for tensor in back)
    assert back[1].add_(1).tolist() == [2.0] * 5


def recipe() -> Denoiser:
    source = Source("bundled:x", "/x", "ab")
    cond = Conditioning(context=torch.randn(1, 2, 3), extra={"maps": [torch.ones(2)], "name": "n"})
    return Denoiser(
        source, "models.unet", {"width": 8}, (Steer(cond, ("mid",)),), schedule=NoiseSchedule("cosine")
    )


def test_a_recipe_whose_patches_hold_tensors_round_trips() -> None:
    before = recipe()
    after = there_and_back(before)
    assert type(after) is Denoiser
    assert (after.source.uri, after.loader, after.config) == ("bundled:x", "models.unet", {"width": 8})
    assert after.schedule.kind == "cosine" and after.channels == 4
    (patch,) = after.patches
    assert type(patch) is Steer and patch.layers == ("mid",)
    assert patch.towards.context.equal(before.patches[0].towards.context)
    assert patch.towards.extra["maps"][0].equal(torch.ones(2))
    assert patch.towards.pooled is None


def test_tensor_fields_load_at_first_touch_and_once() -> None:
    meta, tensors = stored({"a": Latents(torch.ones(1, 4, 2, 2), "s", mask=torch.zeros(1)), "b": recipe()})
    back = decode(meta, tensors, LoadedTypes())
    assert back["a"].space == "s" and back["b"].patches[0].weight == 1.0
    assert tensors.reads == 0
    assert back["a"].data is back["a"].data
    assert tensors.reads == 1
    assert back["a"].mask.equal(torch.zeros(1))
    assert tensors.reads == 2


def test_a_field_with_a_class_level_default_is_lazy_too() -> None:
    meta, tensors = stored(Conditioning(context=torch.ones(1, 1, 1)))
    back = decode(meta, tensors, LoadedTypes())
    assert tensors.reads == 0
    assert back.context.equal(torch.ones(1, 1, 1))
    assert back.pooled is None
    assert Conditioning.context is None and Conditioning().context is None


def test_lists_and_dicts_of_tensors_in_a_field_are_lazy() -> None:
    meta, tensors = stored(Weights({"a": torch.ones(2), "b": torch.zeros(3)}, target="unet"))
    back = decode(meta, tensors, LoadedTypes())
    assert back.target == "unet" and tensors.reads == 0
    assert back.tensors["b"].equal(torch.zeros(3))


def test_a_lazy_value_can_be_changed_and_stored_again() -> None:
    back = there_and_back(Latents(torch.ones(1, 4, 2, 2)))
    again = there_and_back(back.replace(space="other"))
    assert again.space == "other" and again.data.equal(torch.ones(1, 4, 2, 2))


def test_without_laziness_everything_is_read_at_once() -> None:
    meta, tensors = stored({"x": Latents(torch.ones(1))})
    decode(meta, tensors, LoadedTypes(), lazy=False)
    assert tensors.reads == 1


def test_shapes_are_known_and_pixels_readable_without_loading() -> None:
    pixels = torch.rand(1, 2, 2, 3)
    back = there_and_back(Image(pixels))
    info = peek(back, "data")
    assert info is not None and (info.dtype, info.shape) == ("float32", (1, 2, 2, 3))
    found = raw_bytes(back, "data")
    assert found is not None and found[1] == pixels.numpy().tobytes()
    assert back.data.equal(pixels)
    assert raw_bytes(back, "data") is None
    assert peek(back, "data").shape == (1, 2, 2, 3)


def test_decoding_and_looking_import_no_torch() -> None:
    meta, tensors = stored(Image(torch.rand(1, 2, 2, 3)))
    program = (
        "import json, sys\n"
        "from mezzotint.blobs import BytesTensors\n"
        "from mezzotint.codec import *\n"
        "from mezzotint.ports import Image\n"
        f"back = decode(json.loads({json.dumps(meta)!r}), BytesTensors({tensors._data!r}), LoadedTypes())\n"
        "assert peek(back, 'data').shape == (1, 2, 2, 3) and len(raw_bytes(back, 'data')[1]) == 48\n"
        "assert encode({'a': (1, 2.0)}).tensors == {}\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_class_is_refused_and_never_imported() -> None:
    meta, tensors = stored(Latents(torch.ones(1)))
    with pytest.raises(StoreError, match=r"no class is registered .*mezzotint\.ports\.Latents"):
        decode(meta, tensors, type_table(Image))
    meta["$value"] = "antigravity.Value"
    with pytest.raises(StoreError, match=r"antigravity\.Value"):
        decode(meta, tensors, LoadedTypes())
    assert "antigravity" not in sys.modules


def test_a_class_that_is_no_value_is_refused() -> None:
    with pytest.raises(StoreError, match="not a value class"):
        decode({"$value": "x", "fields": {}}, BytesTensors(b""), {"x": subprocess.Popen})  # type: ignore[dict-item]


def test_fields_added_since_take_their_defaults_and_removed_ones_are_an_error() -> None:
    name, types = type_name(Grown), type_table(Grown)
    back = decode({"$value": name, "fields": {"old": 1}}, BytesTensors(b""), types)
    assert (back.old, back.new, back.made) == (1, "default", {})
    with pytest.raises(StoreError, match="lack the field 'old'"):
        decode({"$value": name, "fields": {}}, BytesTensors(b""), types)
    with pytest.raises(StoreError, match="fields that the class lacks: gone"):
        decode({"$value": name, "fields": {"old": 1, "gone": 2}}, BytesTensors(b""), types)


@pytest.mark.parametrize("meta", [{"$float": "x"}, {"$bytes": "*"}, {"$tuple": 3}, {"$value": [], "fields": {}}])
def test_malformed_json_halves_are_a_store_error(meta: Any) -> None:
    with pytest.raises(StoreError):
        decode(meta, BytesTensors(b""), LoadedTypes())


class Colour(enum.StrEnum):
    RED = "red"


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [object()]}, r"value\['a'\]\[0\]: an edge cannot carry a builtins\.object"),
        ({"a": {1: 2}}, r"value\['a'\]: keys must be strings, got 1 \(int\)"),
        ({1, 2}, "cannot carry a builtins.set"),
        (Colour.RED, "Colour"),
        (Weights({"w": torch.ones(2).to_sparse()}), r"value\.tensors\['w'\]: only dense tensors"),
        (Latents(torch.empty(2, device="meta")), r"value\.data: only dense tensors with data"),
        (CYCLE, "nested more than 100 deep"),
        (2**20000, "20001 bits"),
        (test_nan_payloads_keep_their_bits, "function"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored_is_refused_by_the_name_of_its_field(value: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        encode(value)


def test_a_class_that_is_not_registered_is_refused_when_storing() -> None:
    with pytest.raises(PluginError, match=r"patches\[0\]\.towards.*Conditioning is not registered"):
        encode(recipe(), type_table(Denoiser, Source, NoiseSchedule, Steer))


def test_an_undecorated_subclass_is_refused() -> None:
    class Forgot(Image):
        pass

    with pytest.raises(PluginError, match="must be decorated with @dataclass"):
        encode(Forgot(torch.ones(1)))


def test_a_value_is_encoded_while_another_thread_is_still_importing_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    assert encode({"levels": (1.0, 0.5)}).tensors == {}


def test_a_tensor_that_appears_while_its_value_is_encoded_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of a stored value imports torch when it is first touched, in the midst of encoding."""

    class Importing(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            monkeypatch.setitem(sys.modules, "torch", torch)
            return torch.ones(2)

        def __iter__(self) -> Any:
            return iter(["first"])

        def __len__(self) -> int:
            return 1

    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    assert list(encode(Importing()).tensors) == ["0"]
