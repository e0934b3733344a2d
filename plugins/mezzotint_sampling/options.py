"""A sampler's own options: its keyword-only parameters, checked by their annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from mezzotint import UserError

if TYPE_CHECKING:
    from mezzotint_sampling.protocol import Sampler

__all__ = ["checked_options"]


def checked_options(name: str, sampler: Sampler, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the sampler takes them.

    A parameter's annotation says what it takes, with ranges as pydantic's `Field` has them; one
    without an annotation takes anything.
    Raises: UserError: an option that the sampler has not, with the nearest; a value out of range;
        or one left out that has no default.
    """
    own = {p.name: p for p in inspect.signature(sampler).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for option in options:
        if option not in own:
            raise UserError(f"sampler {name!r} has no option {option!r}; {_known(option, list(own))}")
    for option, parameter in own.items():
        if parameter.default is parameter.empty and option not in options:
            raise UserError(f"sampler {name!r} needs the option {option!r}; got {sorted(options)}")
    return {option: _checked(name, sampler, own[option], value) for option, value in options.items()}


def _checked(name: str, sampler: Sampler, parameter: inspect.Parameter, value: Any) -> Any:
    annotation = _resolved(sampler, parameter)
    if annotation is parameter.empty:
        return value
    try:
        return TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        wanted = "; ".join(detail["msg"] for detail in error.errors())
        raise UserError(
            f"option {parameter.name!r} of sampler {name!r} is {value!r}; wanted: {wanted.lower()}"
        ) from None


def _resolved(sampler: Sampler, parameter: inspect.Parameter) -> Any:
    """The annotation of this parameter alone: the others may name what is imported for type checkers only."""
    alone = type("Alone", (), {"__annotations__": {parameter.name: parameter.annotation}})
    if parameter.annotation is parameter.empty:
        return parameter.empty
    names = getattr(sampler, "__globals__", {})
    return typing.get_type_hints(alone, globalns=names, include_extras=True)[parameter.name]


def _known(option: str, own: list[str]) -> str:
    if not own:
        return "it has no options"
    near = get_close_matches(option, own, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}its options: {', '.join(own)}"
