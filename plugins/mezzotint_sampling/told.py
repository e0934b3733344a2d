"""What a model without words is told: a class, or nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzotint import Conditioning, UserError, node

__all__ = ["condition"]

Class = Annotated[int, Field(ge=0, lt=2**31)]


@node("sampling.condition", version=1)
def condition(*, label: Class | list[Class] | None = None) -> Conditioning:
    """A condition without a picture or words, for models of classes and for those that are told nothing.

    label: the class of all samples, or one for each; null is no class, for an unconditional model. A model
        that was trained on C classes takes class C for "any", which is the negative of its guidance.

    Raises: UserError: an empty list.
    """
    import torch

    if label is None:
        return Conditioning()
    labels = label if isinstance(label, list) else [label]
    if not labels:
        raise UserError("sampling.condition: wanted a class, or one for each sample; got an empty list")
    return Conditioning(label=torch.tensor(labels, dtype=torch.int64))
