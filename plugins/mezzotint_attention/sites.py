"""Which of a denoiser's attention layers: a selector as a value, and the node that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import AttentionSite, Port, UserError, node

if TYPE_CHECKING:
    from mezzotint import SiteKind

__all__ = ["Sites", "sites"]


@dataclass(frozen=True, eq=False)
class Sites(Port):
    """Attention layers of a denoiser, by what they are. An empty field holds for all.

    kinds: self, cross, joint, temporal. parts: down, middle, up. levels: how often the picture was halved there.
    largest: no layer that sees more than this many places along its longer side. names: paths of layers in the
    network, or their beginnings, or patterns with * and ?.
    """

    kinds: tuple[SiteKind, ...] = ()
    parts: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    largest: int = 0
    names: tuple[str, ...] = ()

    def of(self, model: Any, side: int = 0) -> list[AttentionSite]:
        """The layers of a realised denoiser that are meant.

        side: of the latents, longer one, for `largest`; 0 leaves it out.
        Raises: UserError: the denoiser has no attention, or none of that description.
        """
        there: Sequence[AttentionSite] = getattr(model, "attention_sites", ())
        if not there:
            raise UserError("the denoiser has no attention layers that could be changed; take one with attention")
        found = [site for site in there if self._means(site, side)]
        if not found:
            raise UserError(f"no attention layer is {self._words()}; the denoiser has: {_listed(there)}")
        return found

    def _means(self, site: AttentionSite, side: int) -> bool:
        if self.largest and side and -(-side // 2**site.level) > self.largest:
            return False
        chosen = (
            (self.kinds, site.kind in self.kinds),
            (self.parts, site.part in self.parts),
            (self.levels, site.level in self.levels),
            (self.names, any(site.name.startswith(name) or fnmatchcase(site.name, name) for name in self.names)),
        )
        return all(holds for asked, holds in chosen if asked)

    def _words(self) -> str:
        asked = {"kind": self.kinds, "part": self.parts, "level": self.levels, "name": self.names}
        words = [f"of {name} {' or '.join(map(str, values))}" for name, values in asked.items() if values]
        if self.largest:
            words.append(f"of at most {self.largest} places a side")
        return " and ".join(words) or "there"


def _listed(there: Sequence[AttentionSite], most: int = 24) -> str:
    shown = [f"{site.name} ({site.kind}, level {site.level})" for site in there[:most]]
    return ", ".join(shown) + (f" and {len(there) - most} more" if len(there) > most else "")


@node("attention.sites")
def sites(
    *,
    kinds: list[Literal["self", "cross", "joint", "temporal"]] | None = None,
    parts: list[Literal["down", "middle", "up"]] | None = None,
    levels: list[Annotated[int, Field(ge=0, le=16)]] | None = None,
    largest: Annotated[int, Field(ge=0, le=65536)] = 0,
    names: list[Annotated[str, Field(min_length=1, max_length=500)]] | None = None,
) -> Sites:
    """Choose attention layers of a denoiser, for an injector. What is left out chooses all.

    kinds: self (the picture's places among themselves), cross (places to text), joint (both at once), temporal.
    parts: of the U-Net.
    levels: how often the picture was halved there: 0 is its full size in latents.
    largest: leave out layers that see more places than this along the picture's longer side; 0 leaves out none.
    names: of layers in the network, their beginnings, or patterns with * and ?.

    A selection that matches no layer of the denoiser is an error when the denoiser runs, which lists its layers.
    """
    return Sites(tuple(kinds or ()), tuple(parts or ()), tuple(levels or ()), largest, tuple(names or ()))
