"""benchmarks/kernels.py, as far as it goes without a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mezzotint_kernels.dispatch import OPS

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "kernels.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_kernels", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so_and_that_is_no_failure(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kernels.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main() == 0
    assert "No GPU here" in capsys.readouterr().out


def test_it_has_a_case_for_each_op(benchmark):
    cases = benchmark.on(torch.device("cpu"), torch.float32)
    assert {case.op for case in cases} == set(OPS) - {"attention_with_lse"}  # attention's own kernel


def test_each_ops_smallest_case_is_a_call_that_the_op_takes(benchmark):
    last = {
        case.op: case for case in benchmark.on(torch.device("cpu"), torch.float32) if "pixels 4x" not in case.label
    }
    for op in ("attention", "temporal_attention", "p2p_attention", "noise_step", "normals"):
        with torch.inference_mode():
            call, size = last[op].make()
        assert callable(call) and (size > 0 or op == "normals")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_case_runs_by_the_reference(benchmark):
    for case in benchmark.on(torch.device("cpu"), torch.float32):
        with torch.inference_mode():
            call, _ = case.make()
            call()


def test_a_ratio_above_one_is_torch_taking_longer(benchmark):
    result = benchmark.Result("attention", "small", 0.5, 1.0, None, 2.0, why="no configuration")
    line = benchmark.show([result]).splitlines()[1]
    assert line.split() == [
        "attention:",
        "small",
        "0.5000",
        "1.0000",
        "2.00",
        "-",
        "2.0000",
        "-",
        "no",
        "configuration",
    ]
