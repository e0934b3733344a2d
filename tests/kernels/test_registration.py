"""How an op is registered: what its callers get with and without gradients, and what opcheck says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mezzotint_kernels
from mezzotint_kernels.registration import library, register

CALLS: list[str] = []


def _cube(x: Tensor, factor: float) -> Tensor:
    CALLS.append("forward")
    return x * x * x * factor


def _save(ctx, inputs, output) -> None:
    CALLS.append("save")
    x, ctx.factor = inputs
    ctx.save_for_backward(x)


def _cube_backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    return 3 * x * x * gradient * ctx.factor, None


def _like(x: Tensor, *_) -> Tensor:
    return torch.empty_like(x)


SCHEMA = "(Tensor x, float factor) -> Tensor"
cube = register("test_cube", SCHEMA, _cube, _like, _cube_backward, _save)
flat = register("test_flat", SCHEMA, _cube, _like)
total = register(
    "test_total",
    "(Tensor[] xs) -> Tensor",
    lambda xs: xs[0] + xs[1],
    lambda xs: torch.empty_like(xs[0]),
    lambda ctx, gradient: [gradient, gradient],
    lambda ctx, inputs, output: CALLS.append("save"),
)


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


def test_a_registered_op_passes_torchs_own_checks(opcheck):
    opcheck("test_cube", (torch.randn(2, 3, requires_grad=True), 2.0))
    opcheck("test_flat", (torch.randn(2, 3), 2.0), compiled=False)


def test_a_wrong_fake_is_found_by_the_check(opcheck):
    register("test_wrong_fake", SCHEMA, lambda x, factor: (x * factor).t(), _like)
    with pytest.raises(Exception, match="Stride mismatch"):
        opcheck("test_wrong_fake", (torch.randn(2, 2), 2.0), compiled=False)


def test_gradients_flow_through_an_op_with_a_backward():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: cube(x, 0.7), (x,))
    assert "save" in CALLS


def test_a_tensor_in_a_list_is_noticed_as_wanting_a_gradient():
    x = torch.randn(3, requires_grad=True)
    total([torch.ones(3), x]).sum().backward()
    assert torch.equal(x.grad, torch.ones(3))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_call_that_wants_no_gradient_saves_nothing(context):
    x = torch.randn(3, requires_grad=context is not torch.enable_grad)
    with context():
        out = cube(x, 1.0)
    assert CALLS == ["forward"] and not out.requires_grad


def test_an_op_without_a_backward_says_so_when_asked_for_a_gradient():
    x = torch.randn(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="mezzotint::test_flat has no gradient"):
        flat(x, 1.0).sum().backward()


def test_an_op_is_one_node_in_a_compiled_graph():
    names = []

    def backend(graph, example_inputs):
        names.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    compiled = torch.compile(lambda x: cube(x, 2.0), backend=backend, fullgraph=True)
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
    assert names == ["mezzotint.test_cube.default"]


def test_every_op_is_in_the_mezzotint_namespace():
    assert library.ns == "mezzotint"
    assert torch.ops.mezzotint.test_cube.default._schema.name == "mezzotint::test_cube"


def test_every_public_name_is_there():
    for name in mezzotint_kernels.__all__:
        assert getattr(mezzotint_kernels, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = mezzotint_kernels.absent
