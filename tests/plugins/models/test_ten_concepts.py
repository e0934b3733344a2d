"""Ten concepts in a row: experts keep every one to the bit, and plain fine-tuning forgets."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "ten_concepts.py"


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("ten_concepts", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ten_concepts"] = module
    spec.loader.exec_module(module)
    return module


ten_concepts = _loaded()


def test_the_concepts_are_ten_that_differ_in_colour_and_outline():
    colours, outlines = zip(*ten_concepts.CONCEPTS.values(), strict=True)
    assert len(ten_concepts.CONCEPTS) == len({*colours}) == len({*outlines}) == 10
    for concept, (colour, _) in ten_concepts.CONCEPTS.items():
        pictures = ten_concepts.drawn(concept, ten_concepts.SHOWS + ten_concepts.HELD_OUT).data
        inside = ((pictures * 255).round().int() == pictures.new_tensor(colour).int()).all(-1)
        assert 90 < inside.sum((1, 2)).min() and inside.sum((1, 2)).max() < 900, concept
        assert not inside[:, [0, -1]].any() and not inside[:, :, [0, -1]].any(), concept


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_over_ten_concepts_experts_keep_every_picture_to_the_bit_and_fine_tuning_forgets():
    mixed, plain = ten_concepts.measured(10, ten_concepts.Learner(steps=40))
    assert mixed.identical() == (9, 9) and mixed.forgetting() == 0
    ordinary = [*mixed.ordinary.values()]
    assert all(one.equal(ordinary[0]) for one in ordinary)
    assert sum(mixed.routed) > 0.95 * len(mixed.routed)
    assert plain.identical()[0] == 0 and plain.forgetting() > 0.02
    # Both have learnt each concept when it is new.
    assert all(mixed.errors[one, one] < 0.2 and plain.errors[one, one] < 0.2 for one in range(10))
