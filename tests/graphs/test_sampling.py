"""The graphs that compare samplers, with few steps."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mezzotint.api import load
from mezzotint_sampling.samplers import SAMPLERS

GRAPHS = Path(__file__).resolve().parents[2] / "graphs" / "sampling"


def test_the_comparison_has_every_sampler_that_solves_an_equation():
    inputs = json.loads((GRAPHS / "compare.json").read_text("utf-8"))["inputs"]
    assert {*inputs["samplers"]["default"]} == SAMPLERS.keys() - {"lcm", "restart"}
    assert len(inputs["references"]["default"]) == len(inputs["samplers"]["default"])


def test_the_comparison_draws_a_row_for_each_sampler_and_a_chart(runtime):
    got = load(GRAPHS / "compare.json", runtime=runtime).run(
        samplers=["euler", "dpmpp_2m_sde"], references=["heun", "dpmpp_2m_sde"], steps=[2, 4], reference_steps=8
    )
    sheet, chart, reports = (got.outputs[name] for name in ("sheet", "chart", "reports"))
    assert sheet.data.shape[-1] == 3 and tuple(chart.data.shape) == (1, 480, 720, 3)
    for report in reports:
        (two, four) = report.data["rows"]
        assert two["steps"] == 2 and two["distance"] > four["distance"] > 0


def test_a_run_is_at_no_distance_from_itself(runtime):
    got = load(GRAPHS / "steps.json", runtime=runtime).run(
        sampler="euler_ancestral", reference="euler_ancestral", steps=[3], reference_steps=3
    )
    assert got.outputs["report"].data == {"rows": [{"steps": 3, "distance": 0.0}]}
    assert torch.isfinite(got.outputs["images"][0].data).all()
