from typing import NamedTuple

import pytest

from mezzotint import Context, Image, Mask, PluginError, node
from mezzotint.nodes import spec_of
from mezzotint.testing import fake_context, fake_image, fake_mask


@node("acme.fade", version=3, device=True, timeout=5.0, upgrades={1: dict, 2: dict})
def fade(ctx: Context, image: Image, *, strength: float = 0.5) -> Image:
    """Fade to black.

    More words.
    """
    return image.replace(data=image.data * (1 - strength))


class Parts(NamedTuple):
    image: Image
    mask: Mask | None


@node("acme.split")
def split(image: Image, *, wrong: int = 0) -> Parts:
    """Split."""
    return [Parts(image, None), Parts(image, fake_mask()), (image, None), image][wrong]


def test_a_decorated_function_stays_a_plain_function():
    image = fake_image()
    assert fade(fake_context(), image, strength=1.0).data.sum() == 0


def test_the_spec_holds_what_the_decorator_and_the_signature_say():
    spec = spec_of(fade)
    assert (spec.id, spec.version, spec.use) == ("acme.fade", 3, "acme.fade@3")
    assert (spec.device, spec.cacheable, spec.timeout, sorted(spec.upgrades)) == (True, True, 5.0, [1, 2])
    assert (list(spec.inputs), list(spec.outputs)) == (["image", "strength"], ["image"])
    assert spec.summary == "Fade to black."
    assert spec.doc == "Fade to black.\n\nMore words."


def test_calling_a_spec_gives_the_outputs_by_name():
    image = fake_image()
    outputs = spec_of(fade).call(fake_context(), {"image": image, "strength": 0.0})
    assert list(outputs) == ["image"]
    both = spec_of(split).call(None, {"image": image, "wrong": 1})
    assert both["image"] is image and isinstance(both["mask"], Mask)
    assert spec_of(split).call(None, {"image": image})["mask"] is None


@pytest.mark.parametrize(("wrong", "got"), [(2, "tuple"), (3, "Image")])
def test_something_else_than_the_declared_tuple_is_an_error(wrong, got):
    with pytest.raises(PluginError, match=f"node 'acme.split' returned {got}, wanted a NamedTuple of image, mask"):
        spec_of(split).call(None, {"image": fake_image(), "wrong": wrong})


def test_an_output_of_the_wrong_port_is_an_error():
    @node("acme.wrong")
    def wrong() -> Image:
        """Wrong."""
        return fake_mask()

    with pytest.raises(PluginError, match=r"node 'acme.wrong' returned Mask for output 'image', wanted Image"):
        spec_of(wrong).call(None, {})


@pytest.mark.parametrize("id", ["fade", "Acme.fade", "acme.", ".fade", "acme.fa de", "acme.fade@1", "1acme.fade"])
def test_a_badly_formed_id_is_refused(id):
    with pytest.raises(PluginError, match=r"an id is namespace\.name, of lower-case letters, digits and _"):
        node(id)(lambda: 0)


@pytest.mark.parametrize("version", [0, -1, "1", 1.5])
def test_a_version_is_a_positive_integer(version):
    with pytest.raises(PluginError, match="version must be an integer from 1"):
        node("acme.fade", version=version)(lambda: 0)


def test_an_undecorated_function_has_no_spec():
    with pytest.raises(PluginError, match="'print' is not a node: decorate it with @node"):
        spec_of(print)
