"""`mezzotint kernels`, and what MEZZOTINT_KERNELS changes for a run."""

from __future__ import annotations

import sys

import pytest

from mezzotint.settings import Settings, numerics_profile

OPS = {"attention", "attention_indexed", "attention_terms", "temporal_attention", "p2p_attention", "noise_step"}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setenv("MEZZOTINT_DEVICE", "cpu")
    monkeypatch.delenv("MEZZOTINT_KERNELS", raising=False)


def test_kernels_shows_each_op_once_on_a_cpu_with_the_reason(cli):
    done = cli("kernels")
    lines = [line.split()[0] for line in done.out.splitlines()[3:]]
    assert done.code == 0 and OPS < set(lines) and len(lines) == len(set(lines))
    assert "on cpu" in done.out and "on a CPU the reference is the fast path" in done.out


def test_kernels_as_json_has_a_row_per_dtype_and_head_size(cli):
    rows = cli("kernels", "--json").json
    found = [row["head_dim"] for row in rows if (row["op"], row["dtype"]) == ("attention", "float16")]
    assert found == [40, 64, 80, 128, 160]
    assert set(rows[0]) == {"op", "dtype", "head_dim", "backend", "why", "tile"}


def test_kernels_shows_what_would_run_on_a_gpu_that_is_not_here(cli):
    done = cli("kernels", "--arch", "sm90")
    assert done.code == 0 and "For a GPU of sm90" in done.out
    (line,) = [line for line in done.out.splitlines() if line.startswith("attention ")]
    assert "until ours has been timed on a GPU" in line


@pytest.mark.parametrize("arch", ["h100", "sm9", "sm90a", "gfx", ""])
def test_an_architecture_that_is_none_is_refused(cli, arch):
    done = cli("kernels", "--arch", arch)
    assert done.code == 2 and f"unknown architecture {arch!r}; wanted one like sm80" in done.err


def test_what_is_forced_and_cannot_run_is_shown_with_what_is_missing(cli, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "triton")
    done = cli("kernels")
    assert done.code == 1 and "nothing" in done.out and "the kernels need a GPU" in done.out


def test_an_unknown_value_is_an_error(cli, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "cuda")
    done = cli("kernels")
    assert done.code == 2 and "MEZZOTINT_KERNELS=cuda; wanted one of torch, triton, interpret" in done.err


def test_without_the_kernels_or_torch_it_says_so(cli, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("mezzotint_kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mezzotint_kernels", None)
    done = cli("kernels")
    assert done.code == 2 and "the kernels cannot be imported" in done.err
    monkeypatch.delitem(sys.modules, "mezzotint_kernels")
    monkeypatch.setitem(sys.modules, "torch", None)
    done = cli("kernels")
    assert done.code == 2 and "torch is not installed" in done.err


def test_results_of_other_kernels_have_other_keys(monkeypatch):
    plain = numerics_profile(Settings())
    monkeypatch.setenv("MEZZOTINT_KERNELS", "interpret")
    assert numerics_profile(Settings()) == f"{plain},kernels=interpret"


def test_a_run_with_a_wrong_value_is_refused_once_and_before_it_begins(cli, sum_graph, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "nonsense")
    done = cli("run", sum_graph)
    assert done.code == 2 and done.err.count("nonsense") == 1
    assert "wanted one of torch, triton, interpret" in done.err
