"""Which implementation runs, for which reason, and what forcing one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mezzotint_kernels import dispatch
from mezzotint_kernels.dispatch import OPS, Choice, architecture, choose, decide, forced
from mezzotint_kernels.tiles import Tile

TILE = Tile(128, 64, warps=8)


@pytest.fixture(autouse=True)
def nothing_is_forced(monkeypatch):
    monkeypatch.delenv("MEZZOTINT_KERNELS", raising=False)


@pytest.fixture
def tiles(monkeypatch):
    """A table of tiles, {(kernel, head size, arch): Tile}, in place of the package's."""
    rows: dict[tuple[str, int, str], Tile] = {}
    monkeypatch.setattr(dispatch, "find", lambda *key: rows.get(key))
    return rows


@pytest.fixture
def with_triton(monkeypatch):
    monkeypatch.setattr(dispatch, "_without_triton", lambda: None)


def test_a_cpu_takes_the_reference():
    x = torch.zeros(1)
    assert choose("noise_step", x) == Choice("noise_step", "torch", "on a CPU the reference is the fast path")


def test_a_gpu_takes_the_kernel_with_its_tile(tiles, with_triton):
    tiles["temporal", 40, "sm90"] = TILE
    choice = decide("temporal_attention", "cuda", "sm90", "float16", head_dim=40)
    assert choice == Choice("temporal_attention", "triton", OPS["temporal_attention"].why, TILE)


def test_torchs_own_attention_is_taken_on_a_gpu_and_the_reason_says_that_ours_is_not_timed(with_triton):
    choice = decide("attention", "cuda", "sm90", "float16", head_dim=64)
    assert choice.backend == "torch" and "until ours has been timed on a GPU" in choice.why


def test_a_plain_call_goes_to_torch(tiles, with_triton):
    tiles["temporal", 40, "sm90"] = TILE
    choice = decide("temporal_attention", "cuda", "sm90", "float16", head_dim=40, plain=True)
    assert choice == Choice("temporal_attention", "torch", "torch's own implementation serves this call")


def test_without_a_configuration_the_reference_is_taken(tiles, with_triton):
    choice = decide("attention_indexed", "cuda", "sm75", "float16", head_dim=48)
    assert choice.backend == "torch" and choice.tile is None
    assert choice.why == "no configuration for it on sm75 has passed the audit"


def test_float32_products_need_a_configuration_of_their_own(tiles, with_triton):
    tiles["p2p", 40, "sm90"] = tiles["noise_step", 0, "sm90"] = TILE
    assert decide("p2p_attention", "cuda", "sm90", "float32", head_dim=40).backend == "torch"
    assert decide("noise_step", "cuda", "sm90", "float32").backend == "triton"
    tiles["p2p.fp32", 40, "sm90"] = Tile(64, 32)
    assert decide("p2p_attention", "cuda", "sm90", "float32", head_dim=40).tile == Tile(64, 32)


def test_an_op_may_name_the_kernel_that_it_would_launch(tiles, with_triton):
    tiles["p2p_pair", 160, "sm90"] = TILE
    assert decide("p2p_attention", "cuda", "sm90", "float16", head_dim=160).backend == "torch"
    assert decide("p2p_attention", "cuda", "sm90", "float16", head_dim=160, kernel="p2p_pair").tile == TILE


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"dtype": "float64"}, "float64; the kernel takes float16, bfloat16, float32"),
        ({"obstacle": "a bias that needs a gradient"}, "a bias that needs a gradient"),
        ({"device": "mps", "arch": "mps"}, "the tensors are on 'mps'; the kernels need a GPU ('cuda')"),
    ],
)
def test_what_the_kernel_cannot_do_goes_to_the_reference_and_is_an_error_where_it_is_forced(
    facts, why, tiles, with_triton
):
    tiles["temporal", 40, "sm90"] = TILE
    call = {"device": "cuda", "arch": "sm90", "dtype": "float16", "head_dim": 40, **facts}
    assert decide("temporal_attention", **call) == Choice("temporal_attention", "torch", why)
    with pytest.raises(ValueError, match="MEZZOTINT_KERNELS=triton, but temporal_attention") as raised:
        decide("temporal_attention", **call, force="triton")
    assert str(raised.value).endswith(why)


def test_torch_can_be_forced_where_the_kernel_would_run(tiles, with_triton):
    tiles["temporal", 40, "sm90"] = TILE
    choice = decide("temporal_attention", "cuda", "sm90", "float64", head_dim=40, force="torch")
    assert choice == Choice("temporal_attention", "torch", "MEZZOTINT_KERNELS=torch")


def test_the_kernel_can_be_forced_where_torch_is_preferred(tiles, with_triton):
    tiles["attention_forward", 64, "sm90"] = TILE
    choice = decide("attention", "cuda", "sm90", "float16", head_dim=64, force="triton")
    assert choice == Choice("attention", "triton", "MEZZOTINT_KERNELS=triton", TILE)


def test_forcing_triton_on_a_cpu_says_that_a_gpu_is_missing(monkeypatch):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "triton")
    with pytest.raises(ValueError, match=r"normals of float32 cannot run as a Triton kernel: .*need a GPU"):
        choose("normals", torch.zeros(1))


@pytest.mark.parametrize("value", ["cuda", "Triton", "interpret "])
def test_an_unknown_value_is_refused_with_the_three_that_there_are(monkeypatch, value):
    monkeypatch.setenv("MEZZOTINT_KERNELS", value)
    with pytest.raises(ValueError, match=f"MEZZOTINT_KERNELS={value}; wanted one of torch, triton, interpret"):
        choose("normals", torch.zeros(1))


def test_an_empty_value_forces_nothing(monkeypatch):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "")
    assert forced() is None


def test_an_unknown_op_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no op is named 'atention'; there are attention, "):
        choose("atention", torch.zeros(1))


def test_a_choice_is_made_once_for_calls_alike_and_anew_when_another_is_forced(monkeypatch):
    x = torch.zeros(2)
    assert choose("attention", x, head_dim=40) is choose("attention", torch.ones(3), head_dim=40)
    assert choose("attention", x, head_dim=40) is not choose("attention", x, head_dim=80)
    monkeypatch.setenv("MEZZOTINT_KERNELS", "torch")
    assert choose("attention", x, head_dim=40).why == "MEZZOTINT_KERNELS=torch"


def test_the_architecture_of_a_cpu_is_its_name():
    assert architecture(torch.device("cpu")) == "cpu"


@pytest.mark.gpu
def test_the_architecture_of_a_gpu_is_a_name_of_the_table():
    assert architecture(torch.device("cuda")).startswith(("sm", "gfx"))


@pytest.mark.parametrize("op", OPS)
def test_every_kernel_has_a_configuration_for_every_audited_architecture(op):
    from mezzotint_kernels._triton.configs import TILES

    assert {"sm80", "sm90", "sm100", "gfx942"} <= {arch for kernel, _, arch in TILES if kernel == OPS[op].kernel}


def test_the_table_has_every_op_and_every_head_size_in_use():
    rows = dispatch.table("cpu")
    assert {row.op for row in rows} == set(OPS)
    assert {row.head_dim for row in rows if row.op == "attention"} == {40, 64, 80, 128, 160}
    assert {row.backend for row in rows} == {"torch"}


def test_the_table_says_what_runs_on_an_architecture_that_is_not_here(tiles, with_triton):
    tiles["noise_step", 0, "sm90"] = TILE
    rows = {(row.op, row.dtype, row.head_dim): row for row in dispatch.table("cuda", "sm90")}
    assert rows["attention", "float16", 64].backend == "torch"
    assert rows["noise_step", "float32", 0].backend == "triton"
    assert rows["noise_step", "float32", 0].tile == TILE


def test_the_table_shows_what_cannot_run_with_the_reason():
    rows = dispatch.table("cpu", force="triton")
    assert {row.backend for row in rows} == {None}
    assert all("need a GPU" in row.why for row in rows)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_neither_the_package_nor_the_choice_imports_torch_or_triton():
    run(
        "import sys, mezzotint_kernels, mezzotint_kernels.dispatch as dispatch; "
        "dispatch.table('cpu'); assert not {'torch', 'triton', 'numpy'} & set(sys.modules)"
    )


def test_all_runs_where_triton_cannot_be_imported():
    run(
        "import sys; sys.modules['triton'] = None\n"
        "import torch, mezzotint_kernels as m\n"
        "from mezzotint_kernels.dispatch import choose, decide\n"
        "[getattr(m, name) for name in m.__all__]\n"
        "m.noise_step(torch.ones(1, 4), [torch.ones(1, 4)], m.Coefficients(cx=1.0), noise=m.Draw(1))\n"
        "choice = decide('noise_step', 'cuda', 'sm90', 'float16')\n"
        "assert choice.backend == 'torch' and choice.why.startswith('Triton cannot be imported'), choice\n"
        "try: decide('noise_step', 'cpu', 'cpu', 'float16', force='interpret')\n"
        "except ValueError as error: assert 'Triton cannot be imported' in str(error)\n"
        "else: raise AssertionError\n"
    )


def test_no_public_name_is_hidden_by_a_module_of_the_same_name():
    """Importing a module makes it an attribute of its package, in place of a function that loads lazily."""
    import mezzotint_kernels

    modules = {path.stem for path in Path(mezzotint_kernels.__file__).parent.iterdir()}
    assert not modules & set(mezzotint_kernels.__all__)
