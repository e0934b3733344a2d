import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import Field

from mezzotint import Conditioning, Denoiser, Image, Latents, PluginError, Port, Source, Video
from mezzotint.signature import MISSING, described, edge_type, read_hints, read_inputs, read_outputs

if TYPE_CHECKING:
    from decimal import Decimal


def inputs_of(fn):
    return read_inputs(fn, read_hints(fn, "node"), "node 'acme.x'")


def outputs_of(fn):
    return read_outputs(fn, read_hints(fn, "node"), "node 'acme.x'")


# --- edge types ---


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (bool, "boolean"),
        (dict, "object"),
        (dict[str, int], "object"),
        (Mapping[str, Any], "object"),
        (Any, "any"),
        (Path, "file"),
        (Source, "source"),
        (Image, "Image"),
        (Image | None, "Image or null"),
        (int | None, "integer or null"),
        (Annotated[int, Field(ge=0)], "integer"),
        (Annotated[int, Field(ge=0)] | None, "integer or null"),
        (Literal["a", "b"], "string"),
        (Literal[1, "a"], "any"),
        (int | str, "any"),
        (list, "list of any"),
        (list[Image], "list of Image"),
        (tuple[Image, ...], "list of Image"),
        (tuple[int, str], "list of any"),
        (list[list[int]], "list of list of integer"),
    ],
)
def test_an_annotation_says_what_may_travel_along_the_edge(annotation, text):
    assert str(edge_type(annotation, "here")) == text


def test_a_union_of_ports_is_refused_with_advice():
    with pytest.raises(PluginError, match="here: a union of ports is not supported; make two inputs"):
        edge_type(Image | Video, "here")


@pytest.mark.parametrize("annotation", [complex, bytes, object, set[int]])
def test_what_no_edge_can_carry_is_refused(annotation):
    with pytest.raises(PluginError, match="here"):
        edge_type(annotation, "here")


class Sketch(Image):
    pass


@pytest.mark.parametrize(
    ("wanted", "given", "fits"),
    [
        (Image, Image, True),
        (Image, Sketch, True),
        (Sketch, Image, False),
        (Image, Video, False),
        (Image, int, False),
        (int, Image, False),
        (Any, Image, True),
        (Image, Any, True),
        (float, int, True),
        (int, float, False),
        (Image | None, Image, True),
        (Image, Image | None, False),
        (Image | None, Image | None, True),
        (list[Image], list[Sketch], True),
        (list[Image], Image, False),
        (Path, str, True),
        (str, Path, False),
        (Source, str, True),
        (Port, Image, True),
    ],
)
def test_links_fit_when_the_types_say_so(wanted, given, fits):
    assert edge_type(wanted, "").accepts(edge_type(given, "")) is fits


# --- inputs ---


def test_inputs_are_the_parameters_after_the_context():
    def fn(ctx, image: Image, *, strength: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Image:
        """Fade.

        image: any size.
        strength: how much,
            in 0..1.
        """

    wants_context, (image, strength) = inputs_of(fn)
    assert wants_context
    assert (image.name, image.required, image.default, image.description) == ("image", True, MISSING, "any size.")
    assert (strength.required, strength.default, strength.description) == (False, 0.5, "how much, in 0..1.")


def test_without_a_parameter_named_ctx_no_context_is_wanted():
    def fn(image: Image) -> Image: ...

    assert inputs_of(fn)[0] is False


def test_a_default_of_none_is_a_value():
    def fn(mask: Image | None = None) -> Image: ...

    (mask,) = inputs_of(fn)[1]
    assert not mask.required and mask.default is None and mask.type.optional


def test_a_parameter_without_annotation_is_refused_by_name():
    def fn(image) -> Image: ...

    with pytest.raises(PluginError, match=r"node 'acme.x': parameter 'image' has no annotation"):
        inputs_of(fn)


@pytest.mark.parametrize("fn", [lambda *images: 0, lambda **more: 0])
def test_star_parameters_are_refused(fn):
    with pytest.raises(PluginError, match="cannot be a port; use a list"):
        inputs_of(fn)


def test_a_name_imported_for_type_checking_only_is_refused_with_advice():
    def fn(image: "Decimal") -> Image: ...

    with pytest.raises(PluginError, match="import it outside `if TYPE_CHECKING`, the engine reads it"):
        inputs_of(fn)


def test_the_schema_of_a_literal_has_range_default_and_description():
    def fn(*, steps: Annotated[int, Field(ge=1, le=9)] = 4, file: Path = Path("a.png")) -> Image:
        """Run.

        steps: how many.
        """

    steps, file = inputs_of(fn)[1]
    assert steps.json_schema() == {
        "type": "integer", "minimum": 1, "maximum": 9, "default": 4, "description": "how many."
    }  # fmt: skip
    assert file.json_schema() == {"type": "string", "format": "path", "default": "a.png"}
    assert json.loads(json.dumps(steps.json_schema())) == steps.json_schema()


def test_ports_have_no_literals():
    def fn(image: Image, images: list[Image], count: int) -> Image: ...

    image, images, count = inputs_of(fn)[1]
    assert (image.holds_ports, images.holds_ports, count.holds_ports) == (True, True, False)
    assert image.json_schema() == images.json_schema() == {}


def test_literals_are_checked_against_the_annotation():
    def fn(*, mode: Literal["a", "b"] = "a", low: int | None = None, source: Source | None = None) -> Image: ...

    mode, low, source = inputs_of(fn)[1]
    assert mode.adapter.validate_python("b") == "b"
    with pytest.raises(ValueError, match="'a' or 'b'"):
        mode.adapter.validate_python("c")
    assert low.adapter.validate_python(None) is None
    assert source.adapter.validate_python("bundled:smallworld") == "bundled:smallworld"
    assert source.adapter.validate_python(None) is None


# --- outputs ---


@pytest.mark.parametrize(
    ("returned", "name"),
    [
        (Image, "image"),
        (Denoiser, "denoiser"),
        (list[Image], "images"),
        (list[Latents], "latents"),
        (int, "value"),
        (Image | None, "image"),
        (Conditioning, "conditioning"),
    ],
)
def test_a_single_output_is_named_after_its_type(returned, name):
    def fn(): ...

    fn.__annotations__ = {"return": returned}
    named, (output,) = outputs_of(fn)
    assert (named, output.name) == (False, name)


class Halves(NamedTuple):
    """Two.

    left: the one.
    """

    left: Image
    right: Image | None


def test_a_named_tuple_gives_several_outputs_with_their_docs():
    def fn() -> Halves:
        """Split.

        right: the other.
        """

    named, (left, right) = outputs_of(fn)
    assert named
    assert (left.name, str(left.type), left.description) == ("left", "Image", "the one.")
    assert (right.name, str(right.type), right.description) == ("right", "Image or null", "the other.")


@pytest.mark.parametrize("annotations", [{}, {"return": None}])
def test_a_node_must_give_something(annotations):
    def fn(): ...

    fn.__annotations__ = annotations
    with pytest.raises(PluginError, match="no return annotation; a node gives at least one value"):
        outputs_of(fn)


def test_descriptions_join_their_lines_and_stop_at_a_blank_one():
    doc = inspect.cleandoc(
        """Do it.

        a: one
          two.
        b: three.

        Raises: nothing.
        """
    )
    assert described(doc) == {"a": "one two.", "b": "three.", "Raises": "nothing."}
