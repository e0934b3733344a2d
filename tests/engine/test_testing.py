import subprocess
import sys

import pytest

from mezzotint import Cancelled, Context, GraphError, Image, Latents, NodeError, NoiseLevel, PluginError, node
from mezzotint import testing as kit
from mezzotint.ports import NoiseSchedule
from mezzotint.testing import check_node, fake_context, fake_image, fake_latents, run_graph, tiny_denoiser


@node("acme.grain")
def grain(ctx: Context, latents: Latents, *, strength: float = 0.1, seed: int = 0) -> Latents:
    """Add noise.

    latents: any.
    strength: how much.
    seed: of the noise.
    """
    return latents.replace(data=latents.data + strength * ctx.noise(seed).normal(latents.data.shape))


@node("acme.count")
def count(ctx: Context, *, to: int = 3) -> int:
    """Count slowly, and go on where it stopped.

    to: the last number.
    """
    done = (ctx.resume() or {"done": 0})["done"]
    while done < to:
        done += 1
        ctx.save_state({"done": done})
        ctx.progress(done, to, preview=fake_image)
    return done


def failing(problem):
    """A node that breaks one promise."""
    rest = {"calls": 0}

    @node("acme.bad")
    def in_place(image: Image) -> Image:
        """Bad.

        image: any.
        """
        image.data.mul_(0.5)
        return image

    @node("acme.bad")
    def random(image: Image) -> Image:
        """Bad.

        image: any.
        """
        rest["calls"] += 1
        return image.replace(data=image.data + rest["calls"])

    @node("acme.bad")
    def undocumented(image: Image) -> Image:
        """Bad."""
        return image

    @node("acme.bad")
    def wrong_type(image: Image) -> Latents:
        """Bad.

        image: any.
        """
        return image

    @node("acme.bad")
    def unstorable(image: Image) -> Image:
        """Bad.

        image: any.
        """
        return image.replace(data={1, 2})

    return locals()[problem]


# --- contexts ---


def test_a_fake_context_records_progress_previews_and_states():
    ctx = fake_context()
    assert count(ctx, to=2) == 2
    assert ctx.reports == [(1, 2), (2, 2)]
    assert [type(p) for p in ctx.previews] == [Image, Image]
    assert ctx.states == [{"done": 1}, {"done": 2}]


def test_a_fake_context_can_cancel_and_resume():
    ctx = fake_context(cancel_at=2)
    with pytest.raises(Cancelled):
        count(ctx)
    resumed = fake_context(state=ctx.states[-1], previews=False)
    assert count(resumed) == 3
    assert resumed.reports == [(3, 3)]
    assert resumed.previews == []


def test_a_fake_context_realises_recipes_and_takes_patches_off(tmp_path):
    ctx = fake_context(loaders={"acme.model": lambda recipe, ctx: "model"}, assets={"a.txt": tmp_path})
    assert ctx.realise(tiny_denoiser().replace(loader="acme.model")) == "model"
    assert ctx.asset("a.txt") == tmp_path
    with pytest.raises(PluginError, match=r"no loader 'acme.other'; give fake_context"):
        ctx.realise(tiny_denoiser().replace(loader="acme.other"))
    with pytest.raises(PluginError, match=r"no asset 'b.txt'"):
        ctx.asset("b.txt")


def test_a_fake_context_reads_the_fake_data_set():
    reader = fake_context().open_dataset(kit.fake_dataset(length=3, side=4))
    assert [item["caption"] for item in reader] == ["picture 0", "picture 1", "picture 2"]
    assert (reader[2]["image"].shape, reader[2]["image"].dtype.name) == ((4, 4, 3), "uint8")


def test_two_node_types_draw_different_noise():
    one, two = fake_context(node_type="acme.a"), fake_context(node_type="acme.b")
    assert one.noise(0).normal((4,)).tolist() != two.noise(0).normal((4,)).tolist()
    assert one.noise(0, "common").normal((4,)).tolist() == two.noise(0, "common").normal((4,)).tolist()


# --- values ---


@pytest.mark.parametrize("name", [n for n in kit.__all__ if n.startswith("fake_") and n != "fake_context"])
def test_every_fake_value_can_be_stored_and_is_the_same_twice(name):
    from mezzotint.codec import encode
    from mezzotint.testing.checks import same, snapshot

    make = getattr(kit, name)
    encode(make())
    assert same(snapshot(make()), make())


def test_shapes_are_as_asked():
    assert fake_latents(2, 3, 4, 5).data.shape == (2, 3, 4, 5)
    assert fake_latents(2, 3, 4, 5, frames=6).data.shape == (2, 3, 6, 4, 5)
    assert kit.fake_mask(frames=2).data.shape == (1, 2, 16, 16)
    assert kit.fake_sigmas(4).alphas[-1] == 1.0 and kit.fake_sigmas(4).sigmas[-1] == 0.0


def test_importing_the_kit_imports_no_torch():
    code = "import sys, mezzotint.testing; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the exact denoiser ---


@pytest.mark.parametrize("kind", ["eps", "v", "x0", "flow"])
def test_every_kind_of_prediction_describes_the_same_picture(kind):
    recipe = tiny_denoiser(mean=2.0, std=0.5, schedule=NoiseSchedule(prediction=kind))
    predictor = fake_context().realise(recipe)
    alpha, sigma = (0.4, 0.6) if kind == "flow" else (0.8, 0.6)
    x = fake_latents().data
    out = predictor.predict(x, NoiseLevel(alpha, sigma, 0.0), None).combined()
    found = {
        "x0": lambda: out,
        "eps": lambda: (x - sigma * out) / alpha,
        "v": lambda: alpha * x - sigma * out,
        "flow": lambda: x - sigma * out,
    }[kind]()
    exact = 2.0 + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x - alpha * 2.0)
    assert (found - exact).abs().max() < 1e-5


def test_the_conditioning_moves_the_mean():
    predictor = fake_context().realise(tiny_denoiser(schedule=NoiseSchedule(prediction="x0")))
    conditioning = kit.fake_conditioning()
    level = NoiseLevel(0.0, 1.0, 999.0)
    moved = predictor.predict(fake_latents().data, level, conditioning).combined()
    assert (moved - conditioning.context.mean()).abs().max() < 1e-6


# --- node checks ---


def test_a_good_node_passes_and_its_outputs_come_back():
    outputs = check_node(grain, latents=fake_latents(), strength=0.5)
    assert outputs["latents"].data.shape == (1, 4, 8, 8)
    assert check_node(count, to=2) == {"value": 2}
    check_node(kit.denoiser)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("in_place", "it changes its inputs; make new tensors instead"),
        ("random", "a second call gives other outputs"),
        ("undocumented", "the docstring has no line 'image: ...'"),
        ("wrong_type", "returned Image for output 'latents', wanted Latents"),
        ("unstorable", "output 'image' cannot be stored"),
    ],
)
def test_a_broken_promise_is_named(problem, message):
    with pytest.raises(AssertionError, match=message.replace(".", r"\.")):
        check_node(failing(problem), image=fake_image())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'latents' is required; give check_node a value"),
        ({"latents": fake_image}, "input 'latents': wanted Latents, got function"),
        ({"latents": None, "sed": 3}, "it has no input 'sed'"),
        ({"strength": "much"}, "input 'strength': 1 validation error"),
    ],
)
def test_wrong_arguments_are_told_before_the_node_runs(inputs, message):
    with pytest.raises(AssertionError, match=message.replace(".", r"\.")):
        check_node(grain, **inputs)


def test_a_heavy_import_at_the_top_of_a_module_is_found(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("")  # a stand-in: the real ones take seconds
    (tmp_path / "acme_heavy.py").write_text(
        "import torchvision\nfrom mezzotint import Image, node\n\n@node('acme.heavy')\n"
        "def heavy(image: Image) -> Image:\n    '''Copy.\n\n    image: any.\n    '''\n    return image\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import acme_heavy

    del sys.modules["torchvision"]  # for good: `monkeypatch.delitem` would put the stand-in back
    with pytest.raises(
        AssertionError, match="importing acme_heavy imports torchvision; import it in the node's body"
    ):
        check_node(acme_heavy.heavy, image=fake_image())


# --- running graphs ---


def graph(use, **inputs):
    return {
        "format": 1,
        "name": "test",
        "inputs": {"to": {"type": "integer", "default": 2}},
        "nodes": {"it": {"use": use, "inputs": inputs}},
        "outputs": {"result": {"ref": "it"}},
    }


def test_a_graph_runs_with_functions_modules_and_files(tmp_path):
    assert run_graph(graph("acme.count@1", to={"ref": "inputs.to"}), [count], to=4).outputs["result"] == 4
    (tmp_path / "one.py").write_text(
        "from mezzotint import hookimpl, node\n\n"
        "@node('one.two')\ndef two() -> int:\n    '''Two.'''\n    return 2\n\n"
        "@hookimpl\ndef register_nodes(register):\n    register(two)\n"
    )
    assert run_graph(graph("one.two@1"), [tmp_path / "one.py"]).outputs["result"] == 2
    assert run_graph(graph("testing.denoiser@1"), [sys.modules[__name__]]).outputs["result"].loader


def test_graphs_of_two_runs_share_nothing():
    assert run_graph(graph("acme.count@1"), [count]).outputs["result"] == 3
    with pytest.raises(GraphError, match=r"unknown node 'acme.count'"):
        run_graph(graph("acme.count@1"))


def test_a_failing_node_is_a_node_error():
    @node("acme.fails")
    def fails() -> int:
        """Fail."""
        raise ValueError("of mine")

    with pytest.raises(NodeError, match="ValueError: of mine"):
        run_graph(graph("acme.fails@1"), [fails])
