"""docs/hooks.md is complete, and its examples run."""

import inspect
import re
import sys
from pathlib import Path

import pytest

from mezzotint import Conditioning, Image, NoiseLevel, UserError, hookspecs, node
from mezzotint.plugins import load_registry
from mezzotint.testing import fake_latents, run_graph, tiny_denoiser

PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"
HOOKS = {n: f for n, f in vars(hookspecs).items() if getattr(f, "mezzotint_spec", None)}


def test_every_hook_is_documented_with_its_arguments_in_the_order_of_the_code():
    headings = re.findall(r"^## (\w+)\(([^)]*)\)$", PAGE.read_text(), re.MULTILINE)
    assert headings == [(name, ", ".join(inspect.signature(spec).parameters)) for name, spec in HOOKS.items()]


def test_every_hook_has_an_example_and_a_test_of_it(blocks):
    assert [b.file for b in blocks("hooks.md") if b.file] == [f"hook_{name}.py" for name in HOOKS]
    assert [name for name in HOOKS if f"test_the_example_of_{name}" not in globals()] == []


@pytest.fixture
def example(request, blocks, tmp_path):
    """A registry with the example of the hook that the test is named after, and its module."""
    name = f"hook_{request.node.name.removeprefix('test_the_example_of_')}.py"
    path = tmp_path / name
    path.write_text(next(b.text for b in blocks("hooks.md") if b.file == name))
    registry = load_registry(namespaces=(), installed=False, files=[path])
    module = sys.modules[f"mezzotint_file_{path.stem}"]
    module.path = path
    yield registry, module
    del sys.modules[module.__name__]


@node("acme.nothing")
def nothing() -> Conditioning:
    """Tell the model nothing."""
    return Conditioning()


def test_the_examples_work_together_in_a_run(blocks, tmp_path, capsys):
    names = ("register_samplers", "before_node", "after_node", "before_step", "after_step")
    files = [tmp_path / f"hook_{name}.py" for name in names]
    for file in files:
        file.write_text(next(b.text for b in blocks("hooks.md") if b.file == file.name))
    model = {"ref": "model"}
    graph = {
        "format": 1,
        "name": "sampling",
        "nodes": {
            "model": {"use": "testing.denoiser@1", "inputs": {"mean": 2.0, "std": 0.01}},
            "empty": {"use": "sampling.empty_latents@1", "inputs": {"denoiser": model, "width": 64, "height": 64}},
            "sigmas": {"use": "sampling.sigmas@1", "inputs": {"denoiser": model, "steps": 3}},
            "noise": {"use": "sampling.noise@1", "inputs": {"seed": 1}},
            "nothing": {"use": "acme.nothing@1"},
            "sample": {
                "use": "sampling.sample@1",
                "inputs": {
                    "denoiser": model,
                    "conditioning": {"ref": "nothing"},
                    "latents": {"ref": "empty"},
                    "sigmas": {"ref": "sigmas"},
                    "noise": {"ref": "noise"},
                    "sampler": "plain_ddim",
                },
            },
        },
        "outputs": {"latents": {"ref": "sample"}},
    }
    latents = run_graph(graph, [*files, nothing]).outputs["latents"]
    assert (latents.data - 2.0).abs().max() < 0.1
    assert "sample (sampling.sample@1) ...\n" in capsys.readouterr().err
    modules = {name: sys.modules.pop(f"mezzotint_file_hook_{name}") for name in names}
    assert set(modules["after_node"].seconds_by_type) >= {"sampling.sample@1", "testing.denoiser@1"}
    assert sorted(modules["before_step"].levels, reverse=True) == modules["before_step"].levels
    assert [step for step, _ in modules["after_step"].spread] == [0, 1, 2]


def test_the_example_of_register_nodes(example):
    registry, module = example
    assert registry.node("acme.invert", 1).fn is module.invert
    import torch

    assert module.invert(Image(torch.ones(1, 2, 2, 3))).data.sum() == 0


def test_the_example_of_register_ports(example):
    registry, module = example
    assert registry.ports["Palette"] is module.Palette
    writer = registry.writer(module.Palette)
    assert (writer.suffix, writer.fn(module.Palette(("#ff0000",)), None)) == ("json", [b'["#ff0000"]'])


def test_the_example_of_register_loaders(example):
    registry, _ = example
    model = registry.loaders["acme.zero"](tiny_denoiser(), None)
    prediction = model.predict(fake_latents().data, NoiseLevel(0.0, 1.0, 999.0), None)
    assert prediction.combined().abs().max() == 0


def test_the_example_of_register_samplers(example):
    registry, _ = example
    from mezzotint_sampling.samplers import State, ddim

    levels = [NoiseLevel(0.1, 0.9, 900.0), NoiseLevel(0.6, 0.7, 500.0), NoiseLevel(1.0, 0.0, 0.0)]
    rows = []

    def advance(x, here, there, row, history=()):
        rows.append(row)
        return type("Result", (), {"x": x, "x0": x})()

    for sampler in (registry.samplers["plain_ddim"], ddim):
        assert [s.step for s in sampler(advance, levels, State(0, None))] == [1, 2]
    assert [(r.cx, r.c0) for r in rows[:2]] == [(r.cx, r.c0) for r in rows[2:]]


def test_the_example_of_register_interpreters(example):
    registry, _ = example
    from mezzotint import Dialogue

    read = registry.interpreters["steps"]
    inputs = {"steps": {"type": "integer", "default": 10}}
    once = Dialogue("graph.json").after("finer", read(Dialogue("graph.json"), "finer", inputs=inputs))
    assert once.inputs == {"steps": 20}
    assert once.after("back", read(once, "back", inputs=inputs)).inputs == {}
    with pytest.raises(UserError, match="not 'nicer'"):
        read(once, "nicer", inputs=inputs)


def test_the_example_of_resolve_source(example):
    registry, module = example
    assert registry.resolve_source(f"shelf:{module.path.name}") == module.path
    assert registry.resolve_source("other:x") is None
    with pytest.raises(UserError, match="there is no 'x' on the shelf"):
        registry.resolve_source("shelf:x")


def test_the_example_of_before_node(example, capsys):
    registry, _ = example
    registry.hooks.before_node(name="sheet", use="image.solid@1", inputs={})
    assert capsys.readouterr().err == "sheet (image.solid@1) ...\n"


def test_the_example_of_after_node(example):
    registry, module = example
    for seconds in (1.0, 2.0):
        registry.hooks.after_node(name="sheet", use="image.solid@1", outputs={}, seconds=seconds)
    assert module.seconds_by_type == {"image.solid@1": 3.0}


def test_the_example_of_node_error(example):
    registry, module = example
    registry.hooks.node_error(name="sheet", use="image.solid@1", error=ValueError("no"))
    assert module.failures == ["sheet: no"]


def test_the_example_of_before_step(example):
    registry, module = example
    registry.hooks.before_step(step=0, steps=1, x=None, level=NoiseLevel(0.5, 1.0, 0.0))
    assert module.levels == [2.0]


def test_the_example_of_after_step(example):
    registry, module = example
    data = fake_latents().data
    registry.hooks.after_step(step=0, steps=1, x=data, x0=data)
    assert module.spread == [(0, float(data.std()))]
