import pytest

from mezzotint import Image, Port, Value, node
from mezzotint.codec import type_name
from mezzotint.contribution import Contribution, Provenance
from mezzotint.errors import PluginError
from mezzotint.registry import Registry

ACME = Provenance("acme-nodes", "0.3", "acme_nodes")
OTHER = Provenance("other-nodes", "1.0", "other_nodes")
BUNDLED = Provenance("mezzotint", "0.1.0", "mezzotint_image")


def make(id, version=1):
    @node(id, version=version)
    def copy(image: Image) -> Image:
        """Copy.

        image: any.
        """
        return image

    return copy


def test_a_registered_node_is_found_by_id_and_version():
    registry = Registry()
    registry.add_node(make("acme.copy"), ACME)
    registry.add_node(make("acme.copy", 2), ACME)
    found = registry.node("acme.copy", 1)
    assert found is not None and found.use == "acme.copy@1"
    newest = registry.newest("acme.copy")
    assert newest is not None and newest.version == 2
    assert registry.node("acme.copy", 3) is None
    assert registry.node("acme.blur", 1) is None
    assert registry.newest("acme.blur") is None
    assert registry.ids() == ["acme.copy"]
    assert [s.use for s in registry.specs()] == ["acme.copy@1", "acme.copy@2"]
    assert registry.provenance("acme.copy") is ACME


def test_the_engines_own_types_are_there_from_the_start():
    registry = Registry()
    assert registry.types["mezzotint.ports.Image"] is Image
    assert registry.types["Image"] is Image
    assert registry.ports["Latents"].port_name == "Latents"
    assert type_name(Value) in registry.types


def test_two_packages_with_one_node_id_are_refused_by_name():
    registry = Registry()
    registry.add_node(make("acme.copy"), ACME)
    with pytest.raises(
        PluginError, match=r"node 'acme.copy' is provided by both acme-nodes 0.3 and other-nodes 1.0"
    ):
        registry.add_node(make("acme.copy"), OTHER)


def test_a_disputed_id_is_nobodys():
    registry = Registry()
    registry.add_node(make("acme.copy"), ACME)
    with pytest.raises(PluginError):
        registry.add_node(make("acme.copy"), OTHER)
    assert registry.node("acme.copy", 1) is None
    assert registry.ids() == []
    assert "other-nodes" in registry.clashes["node 'acme.copy'"]


def test_the_configuration_decides_a_dispute_in_any_order():
    for order in ((ACME, OTHER), (OTHER, ACME)):
        registry = Registry(prefer={"acme.copy": "Other_Nodes"})
        for given in order:
            registry.add_node(make("acme.copy"), given)
        assert registry.provenance("acme.copy") is OTHER


def test_the_bundled_namespaces_are_closed_to_others_unless_preferred():
    with pytest.raises(PluginError, match=r"namespace 'image' is mezzotint's; to replace that node write prefer"):
        Registry().add_node(make("image.load"), ACME)
    registry = Registry(prefer={"image.load": "acme-nodes"})
    registry.add_node(make("image.load"), BUNDLED)
    registry.add_node(make("image.load"), ACME)
    assert registry.provenance("image.load") is ACME
    with pytest.raises(PluginError, match="namespace 'image' is mezzotint's"):
        registry.add_node(make("image.save"), ACME)


@pytest.mark.parametrize("id", ["flow.loop", "graph.other", "inputs.seed"])
def test_the_engines_namespaces_are_reserved_even_for_bundled_plugins(id):
    with pytest.raises(PluginError, match="is the engine's own"):
        Registry().add_node(make(id), BUNDLED)


def test_a_function_without_the_decorator_is_refused():
    with pytest.raises(PluginError, match="'make' is not a node: decorate it with @node"):
        Registry().add_node(make, ACME)


def test_a_plugin_that_is_refused_leaves_nothing_behind():
    contribution = Contribution(ACME)
    contribution.node(make("acme.copy"))
    contribution.node(make("flow.loop"))
    registry = Registry()
    with pytest.raises(PluginError):
        registry.add(contribution)
    assert registry.ids() == []


class Depth(Port):
    pass


def test_a_port_name_belongs_to_one_package():
    registry = Registry()
    first, second = Contribution(ACME), Contribution(OTHER)
    first.port(Depth)
    second.port(type("OtherDepth", (Port,), {"port_name": "Depth", "__module__": "other"}))
    assert registry.add(first) == []
    assert registry.ports["Depth"] is Depth
    (message,) = registry.add(second)
    assert message.startswith("port 'Depth' is provided by both acme-nodes 0.3 and other-nodes 1.0")
    assert "Depth" not in registry.ports


def test_loaders_and_samplers_are_not_shadowed():
    registry = Registry()
    for given in (ACME, OTHER):
        contribution = Contribution(given)
        contribution.sampler("swirl", lambda: None)
        contribution.loader("acme.unet", lambda: None)
        messages = registry.add(contribution)
    assert [m.partition(" is provided")[0] for m in messages] == ["loader 'acme.unet'", "sampler 'swirl'"]
    assert "swirl" not in registry.samplers
    assert "acme.unet" not in registry.loaders


def test_a_bundled_sampler_stays_whoever_comes_first():
    for order in ((ACME, BUNDLED), (BUNDLED, ACME)):
        registry = Registry()
        for given in order:
            contribution = Contribution(given)
            contribution.sampler("euler", lambda given=given: given)
            registry.add(contribution)
        assert registry.samplers["euler"]() is BUNDLED


def test_a_writer_serves_derived_ports_too():
    def write(value, info):
        return [b"png"]

    contribution = Contribution(BUNDLED)
    contribution.port(Image, suffix=".png", media_type="image/png", writer=write)
    registry = Registry()
    assert registry.add(contribution) == []
    derived = type("Sketch", (Image,), {"__module__": "acme"})
    for port in (Image, derived):
        writer = registry.writer(port)
        assert writer is not None and (writer.suffix, writer.fn) == ("png", write)
    assert registry.writer(Depth) is None


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("node", (42,), "42 is not a node"),
        ("port", (int,), "wanted a class derived from Port or Value, got <class 'int'>"),
        ("port", ("Depth",), "wanted a class derived from Port or Value, got 'Depth'"),
        ("loader", ("unet", print), "a loader's name is 'namespace.name', got 'unet'"),
        ("loader", ("acme.unet", 42), "loader 'acme.unet' must be a function, got 42"),
        ("sampler", (42, print), "a sampler's name is a string, got 42"),
        ("sampler", ("swirl", None), "sampler 'swirl' must be a function, got None"),
    ],
)
def test_registering_the_wrong_thing_says_what_was_wanted(method, arguments, message):
    with pytest.raises(PluginError, match=message.replace("(", r"\(")):
        getattr(Contribution(ACME), method)(*arguments)


@pytest.mark.parametrize("method", ["loader", "sampler"])
def test_a_plugin_cannot_register_a_name_twice(method):
    contribution = Contribution(ACME)
    getattr(contribution, method)("acme.thing", print)
    with pytest.raises(PluginError, match="is registered twice"):
        getattr(contribution, method)("acme.thing", print)


def test_two_functions_cannot_be_one_version_of_a_node():
    contribution = Contribution(ACME)
    contribution.node(make("acme.copy"))
    with pytest.raises(PluginError, match=r"node 'acme.copy@1' is registered twice"):
        contribution.node(make("acme.copy"))
