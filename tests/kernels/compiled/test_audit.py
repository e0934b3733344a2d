"""Every configuration that dispatch can choose, compiled: no spills, matrix instructions, wide loads, exactness.

Runs without a GPU and without CUDA, and not in a process that interprets.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import triton
import triton.language as tl

from mezzotint_kernels._triton.configs import TILES
from mezzotint_kernels.audit import __main__ as command
from mezzotint_kernels.audit import build, collect, document
from mezzotint_kernels.audit.bounds import best_case
from mezzotint_kernels.audit.case import ARCHITECTURES, Case
from mezzotint_kernels.audit.collect import all_cases
from mezzotint_kernels.audit.figures import Figures, problems
from mezzotint_kernels.audit.machine import Mix
from mezzotint_kernels.audit.run import Finding, look_at
from mezzotint_kernels.dispatch import OPS
from mezzotint_kernels.tiles import FALLBACK, Tile

CASES = all_cases()
BUILDS = [(case, arch) for case in CASES for arch in ARCHITECTURES if case.tile(arch) is not None]
MOST_MOVED = 1.05
"""noise_step: bytes moved, against each input read once and each output written once."""


def named(builds: list[tuple[Case, str]]) -> list[object]:
    return [pytest.param(case, arch, id=f"{case.name}-{arch}") for case, arch in builds]


@pytest.mark.parametrize(("case", "arch"), named([(case, arch) for case, arch in BUILDS if case.ci]))
def test_one_shape_of_each_op_compiles_clean(case: Case, arch: str):
    assert look_at(case, arch).problems == []


BORROWED = [(case, arch) for case in CASES for arch in FALLBACK if case.tile(arch) is not None]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "arch"), named([b for b in BUILDS if not b[0].ci] + BORROWED))
def test_every_configuration_that_dispatch_can_choose_compiles_clean(case: Case, arch: str):
    assert look_at(case, arch).problems == []


def test_every_row_of_the_table_of_tiles_is_compiled_by_some_case():
    compiled = {(case.kernel, case.head_dim, arch) for case, arch in BUILDS}
    assert set(TILES) - compiled == set()


def test_every_op_has_a_kernel_that_each_ci_run_compiles_for_every_chip():
    chosen = [case for case in CASES if case.ci]
    assert {rule.kernel for rule in OPS.values()} <= {case.kernel for case in chosen}
    assert max(Counter(case.op for case in chosen).values()) == 1
    assert all(case.tile(arch) for case in chosen for arch in ARCHITECTURES)


def test_kernels_whose_bits_must_repeat_are_held_to_it():
    assert {case.op for case in CASES if case.reproducible} == {"noise_step", "normals"}
    assert all(case.reproducible for case in CASES if case.op in ("noise_step", "normals"))


STEPS = [case for case in CASES if case.kernel == "noise_step"]


@pytest.mark.parametrize("case", STEPS, ids=lambda case: case.name)
def test_noise_step_asks_for_hardly_more_than_the_fewest_bytes(case: Case):
    for arch in ARCHITECTURES:
        tile = case.tile(arch)
        assert tile is not None
        moved = case.moved_bytes(tile) if case.moved_bytes else case.fewest_bytes
        assert case.fewest_bytes <= moved <= MOST_MOVED * case.fewest_bytes


def test_the_bytes_that_noise_step_says_it_moves_are_those_of_its_machine_code():
    case = STEPS[0]
    assert case.label.startswith("DDIM, ")  # no noise, so no key of 8 bytes, which would look like data
    figures, tile = look_at(case, "sm90").figures, case.tile("sm90")
    assert figures is not None and tile is not None
    assert figures.mix.loop_free
    # Data is loaded 8 and 16 bytes a thread; the row's numbers 4, the same ones for the whole program.
    per_thread = sum(
        bits // 8 * count
        for kind in (figures.mix.loads, figures.mix.stores)
        for bits, count in kind.items()
        if bits > 32
    )
    numbers = 4 * figures.mix.loads.get(32, 0)
    moved = case.grid(tile) * (per_thread * 32 * tile.warps + numbers)
    assert case.fewest_bytes * 0.99 <= moved <= MOST_MOVED * case.fewest_bytes


# What the checks are worth: kernels that break them.


@triton.jit
def _arithmetic(p_x, p_out, OPERATION: tl.constexpr, BLOCK: tl.constexpr):
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(p_x + o).to(tl.float32)
    if OPERATION == "fused":
        x = x * x + x
    elif OPERATION == "exact":
        x = tl.div_rn(tl.sqrt_rn(x), x + 2.0)
    elif OPERATION == "approximate":
        x = tl.exp2(x)
    elif OPERATION == "divided":
        x = x / (x + 2.0)
    tl.store(p_out + o, x.to(p_out.dtype.element_ty))


@triton.jit
def _product(p_x, p_out, BLOCK: tl.constexpr):
    o = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    x = tl.load(p_x + o)
    tl.store(p_out + o, tl.dot(x, tl.trans(x)))


def probe(function: object, monkeypatch: pytest.MonkeyPatch, tile: Tile, **arguments: object) -> Case:
    """A case of a kernel of this file, with its tile in the table."""
    for arch in ARCHITECTURES:
        monkeypatch.setitem(TILES, ("probe", 0, arch), tile)
    return Case(
        op="probe",
        label="probe",
        kernel="probe",
        head_dim=0,
        function=f"{__name__}:{function.__name__}",
        arguments=lambda tile, arch: {"p_x": "*fp16", "p_out": "*fp32", "BLOCK": tile.rows, **arguments},
        grid=lambda tile: 1,
        has_dot=False,
        fewest_bytes=1,
    )


@pytest.mark.parametrize("arch", ["sm80", "gfx942"])
@pytest.mark.parametrize(
    ("operation", "reproducible", "fused", "approximate"),
    [
        ("fused", False, True, False),
        ("fused", True, False, False),
        ("exact", True, False, False),
        ("approximate", True, False, True),
    ],
)
def test_fused_and_approximate_arithmetic_is_seen_and_exact_roots_and_quotients_are_not_taken_for_it(
    monkeypatch, arch: str, operation: str, reproducible: bool, fused: bool, approximate: bool
):
    case = probe(_arithmetic, monkeypatch, Tile(1024), OPERATION=operation)
    figures = look_at(replace(case, reproducible=reproducible), arch).figures
    assert figures is not None
    assert (figures.fused > 0, figures.approximate > 0) == (fused, approximate)


def test_a_plain_quotient_is_approximate_on_nvidia(monkeypatch):
    case = probe(_arithmetic, monkeypatch, Tile(1024), OPERATION="divided")
    assert look_at(replace(case, reproducible=True), "sm80").problems == [
        "8 approximate or flushing operations where every bit counts"
    ]


def test_what_the_jit_would_know_of_alignment_decides_the_width_of_loads(monkeypatch):
    case = probe(_arithmetic, monkeypatch, Tile(1024), OPERATION="exact")
    unaligned = replace(case, arguments=lambda tile, arch: {**case.arguments(tile, arch), "p_x": "*fp16:2"})
    assert look_at(case, "sm80").problems == []
    assert look_at(unaligned, "sm80").problems == ["8 loads of 2 bytes or 1"]


def test_a_product_without_matrix_instructions_and_spilled_registers_are_problems(monkeypatch):
    by_matrix = replace(probe(_product, monkeypatch, Tile(64)), has_dot=True)
    assert look_at(by_matrix, "sm80").problems == []
    without = replace(probe(_arithmetic, monkeypatch, Tile(1024), OPERATION="exact"), has_dot=True)
    assert look_at(without, "sm80").problems == ["a product, and no matrix instruction"]
    starved = replace(probe(_product, monkeypatch, Tile(64, maxnreg=32)), has_dot=True)
    assert any("spills: " in problem for problem in look_at(starved, "sm80").problems)


MIX = Mix(
    100, {"HMMA": 4}, {128: 2}, {128: 1}, {}, 0, 0, loop=64, loop_flops=4 * 4096, loop_slow=8, loop_free=False
)
GOOD = Figures(64, 0, 0, 0, 1024, 8, 0.5, MIX, 0, 0, 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"stack": 16}, ["spills: 16 bytes of stack, 0 instructions"]),
        ({"shared": 200 * 1024, "resident": 0}, ["204800 bytes of shared memory; the chip has 166912"]),
        ({"resident": 0}, ["64 registers a thread: no block fits the chip"]),
        ({"mix": replace(MIX, loads={128: 2, 16: 3})}, ["3 loads of 2 bytes or 1"]),
        ({"mix": replace(MIX, matrix={})}, ["a product, and no matrix instruction"]),
        ({"fused": 2}, ["2 fused multiply-adds where every bit counts"]),
        ({"approximate": 1}, ["1 approximate or flushing operations where every bit counts"]),
    ],
)
def test_each_breach_is_said_in_words(monkeypatch, change: dict[str, object], said: list[str]):
    case = replace(probe(_product, monkeypatch, Tile(64)), has_dot=True, reproducible=True)
    assert problems(case, "sm80", replace(GOOD, **change)) == said


def test_the_least_time_is_that_of_the_tightest_limit(monkeypatch):
    case = replace(probe(_product, monkeypatch, Tile(64)), has_dot=True, flops=10**12, fewest_bytes=10**6)
    bound = best_case(case, "sm80", GOOD)
    # 1e12 operations are 61,035,156 turns of a warp around a loop of 64 instructions, 4 in a clock on each of
    # 108 multiprocessors of 1.41 GHz.
    assert bound is not None and bound.by == "issue"
    assert bound.seconds == pytest.approx(10**12 / 16384 * 64 / 4 / 108 / 1.41e9)
    assert best_case(replace(case, fewest_bytes=10**11), "sm80", GOOD).by == "memory"
    assert best_case(case, "sm100", GOOD) is None


# The command.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "sm_91"], "no architecture 'sm_91'; did you mean 'sm90'?"),
        (["--arch", ""], "no architecture ''"),
        (["--case", "attention_indexd"], "no case 'attention_indexd'; did you mean 'attention_indexed'?"),
        (["--write", "x.md", "--arch", "sm90"], "leave --arch and --case out"),
    ],
)
def test_what_the_command_does_not_know_is_refused_with_the_nearest(capsys, arguments: list[str], message: str):
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_a_number_of_processes_below_one_is_refused(capsys, jobs: str):
    with pytest.raises(SystemExit):
        command.main(["--jobs", jobs])
    assert "wanted a number of processes" in capsys.readouterr().err


def test_the_command_says_what_is_missing_or_in_the_way(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setenv("MEZZOTINT_KERNELS", "interpret")
        assert command.main(["--arch", "sm90"]) == 2
    assert "unset it for the audit" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("triton.knobs.NvidiaTool.from_path", staticmethod(lambda path: None))
        assert command.main(["--arch", "sm90"]) == 2
    assert "has no nvdisasm" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "triton", None)
        assert command.main(["--arch", "sm90"]) == 2
    assert "pip install triton" in capsys.readouterr().err


def test_a_case_that_gives_wrong_arguments_or_names_no_kernel_is_said_to(monkeypatch):
    case = probe(_arithmetic, monkeypatch, Tile(64), OPERATION="fused")
    assert "gives no OPERATION" in look_at(probe(_arithmetic, monkeypatch, Tile(64)), "sm80").problems[0]
    assert (
        "takes no SUM"
        in look_at(probe(_arithmetic, monkeypatch, Tile(64), OPERATION="", SUM=1), "sm80").problems[0]
    )
    assert "there is no " in look_at(replace(case, function="mezzotint_kernels:nothing"), "sm80").problems[0]
    assert "no @triton.jit function" in look_at(replace(case, function="json:dumps"), "sm80").problems[0]
    wrong = probe(_product, monkeypatch, Tile(60))
    assert "does not compile for sm80" in look_at(wrong, "sm80").problems[0]


def test_two_cases_of_one_name_are_refused(monkeypatch):
    case = probe(_product, monkeypatch, Tile(64))
    monkeypatch.setattr(collect, "_of_subject", lambda subject: [case])
    with pytest.raises(build.AuditError, match="two cases are named 'probe: probe'"):
        all_cases()


def test_tables_go_between_the_marks_and_the_prose_around_them_stays(monkeypatch, tmp_path: Path):
    finding = Finding(replace(probe(_product, monkeypatch, Tile(64, 32)), label="small"), "sm80", GOOD)
    path = tmp_path / "kernels.md"
    path.write_text(f"# Kernels\n\n{document.BEGIN}\nold\n{document.END}\n\nMore.\n")
    document.rewrite(path, [finding], "3.7.1")
    text = path.read_text()
    assert text.startswith("# Kernels\n") and text.endswith("More.\n") and "old" not in text
    assert "| small | sm80 | 64x32 w4 s2 | 64 | 0 | 1 | 8 | 0.50 | 4 HMMA | 2x16 B | 1x16 B | 64 |" in text
    document.rewrite(path, [finding], "3.7.1")
    assert path.read_text() == text
    path.write_text("# Kernels\n")
    with pytest.raises(build.AuditError, match="has no line"):
        document.rewrite(path, [finding], "3.7.1")
    with pytest.raises(build.AuditError, match="No such file"):
        document.rewrite(tmp_path / "missing.md", [finding], "3.7.1")


def test_a_finding_is_json(monkeypatch):
    finding = Finding(probe(_product, monkeypatch, Tile(64)), "sm80", GOOD)
    row = json.loads(json.dumps(finding.as_json()))
    assert row["figures"]["registers"] == 64
    assert row["figures"]["mix"]["loads"] == {"128": 2}
    assert row["tile"]["rows"] == 64
