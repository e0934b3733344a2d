"""Every sampler beside diffusers' and k-diffusion's own: what docs/parity.md shows stays so."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from mezzotint_sampling.samplers import SAMPLERS

ROOT = Path(__file__).parents[3]
# diffusers' KDPM2 gives tensors to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")


def load() -> Any:
    spec = importlib.util.spec_from_file_location("parity", ROOT / "benchmarks" / "parity.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["parity"] = module
    spec.loader.exec_module(module)
    return module


parity = load()
THEIRS, K_DIFFUSION = list(parity.diffusers_cases()), list(parity.k_cases())


def named(case: Any) -> str:
    return f"{case.label}-{case.schedule}-{case.peer}"


@pytest.mark.parametrize("case", THEIRS, ids=named)
def test_samples_are_those_of_diffusers(case: Any) -> None:
    assert parity.error_of(case) < parity.BOUNDS[case.dtype]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", K_DIFFUSION, ids=named)
def test_samples_are_those_of_k_diffusion(case: Any) -> None:
    if parity.k_sampling() is None:
        pytest.skip("k-diffusion is not installed; `make parity` installs it and runs this")
    assert parity.error_of(case) < parity.BOUNDS[case.dtype]


def test_the_page_has_a_row_for_every_comparison_and_none_beyond_its_bound() -> None:
    page = (ROOT / "docs" / "parity.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    shown = {(label, peer, dtype): cells for label, peer, dtype, *cells in rows[2:]}
    assert shown.keys() == {(case.label, case.peer, case.dtype) for case in (*THEIRS, *K_DIFFUSION)}
    for (_, _, dtype), cells in shown.items():
        assert all(float(cell) < parity.BOUNDS[dtype] for cell in cells if cell)


def test_every_sampler_but_restart_is_compared() -> None:
    # dpmpp_2s is dpmpp_2s_ancestral without noise, which test_samplers.py holds.
    compared = {case.sampler for case in (*THEIRS, *K_DIFFUSION)}
    assert SAMPLERS.keys() - compared == {"restart", "dpmpp_2s"}
