"""What a denoiser is told while it is trained: a conditioner as a value on an edge, and what it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mezzotint import Port

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mezzotint import Conditioning, Context, Weights

__all__ = ["Conditioner", "Conditions"]


@dataclass(frozen=True, eq=False)
class Conditioner(Port):
    """What to tell a denoiser of an item, as a description.

    A plugin derives a frozen dataclass from it, registers that in `register_ports`, and has a node that makes one;
    `training.diffusion` takes any.
    """

    def open(self, ctx: Context, reader: Any, seed: int) -> Conditions:
        """Build the networks, on the CPU and in float32, from torch's own generator, which is seeded.

        reader: of the data set, see `Context.open_dataset`.

        Raises: UserError: the data set lacks what is to be told.
        """
        raise NotImplementedError


class Conditions(Protocol):
    """A conditioner, opened. Derive from it: all but `read` and `__call__` may be left out.

    modules: networks that are trained along with the denoiser, by names that the denoiser's "unet" is not among;
        the trainer owns their device, their mode and their averages.
    drops: None, or the shares in which parts of what is told are dropped, each by itself.
    """

    modules: Mapping[str, nn.Module] = {}
    drops: tuple[float, ...] | None = None

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """What to remember of items: tensors of one row per item, on the CPU, each a function of its item alone.

        It is called once per item, and may be slow: a frozen encoder's output belongs here.

        Raises: UserError: an item lacks what is to be told.
        """
        ...

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        """What the denoiser is told of a batch, differentiable in the parameters of `modules`.

        rows: of `read`, for B items, on the device. dropped: [B] bool, or [B, len(drops)]; what is dropped becomes
        the null that guidance goes away from.
        """
        ...

    def parts(self) -> dict[str, Weights]:
        """What ships with the denoiser, from what the modules hold now, by name."""
        return {}

    def meta(self) -> dict[str, Any]:
        """What the denoiser's own weights say of this, as JSON: names of classes, for one."""
        return {}
