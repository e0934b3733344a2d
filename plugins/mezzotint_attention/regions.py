"""Regional prompts inside of the cross-attention: each place reads the words of the prompts that hold there.

    out = sum_r share_r(place) * attention(query, keys of prompt r, values of prompt r),   shares adding up to 1

One softmax for each prompt, of the same queries; the picture stays one, since the self-attention does. The network
is evaluated as often as without. `sampling.combine_conditions` does it with predictions, one evaluation a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Denoiser, UserError, node
from mezzotint_attention.injection import Injection, Opened, inject
from mezzotint_attention.looking import bare, limited, reading
from mezzotint_attention.sites import Sites

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Attend, AttentionCall, AttentionSite, Context, Predictor
    from mezzotint_attention.injection import Evaluation
    from mezzotint_sampling import Part

__all__ = ["RegionalPrompts", "regional_prompts", "shares_of"]

Part01 = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class RegionalPrompts(Injection):
    """Further prompts for parts of the picture, beside the run's own.

    regions: with mask, area, weight and time each. base: weight of the run's own prompt where a region is; it has
    all of the weight elsewhere.
    """

    sites: Sites = field(default_factory=lambda: Sites(kinds=("cross",)))
    regions: tuple[Any, ...] = ()
    base: float = 0.2
    order: int = 100

    def open(self, model: Predictor, ctx: Context) -> Opened:
        return _Regions(self, bare(model), self.sites.of(model))


class _Regions(Opened):
    """Keys and values of the regions' prompts are read once: they do not depend on the sample."""

    def __init__(self, settings: RegionalPrompts, model: Any, sites: list[AttentionSite]) -> None:
        self.settings = settings
        self.model = model
        self.sites = sites
        self.read: list[dict[str, tuple[Tensor, Tensor]]] = []
        self.parts: list[int] = []
        self.evaluation: Evaluation | None = None

    def begin(self, evaluation: Evaluation) -> bool:
        parts = [i for i, part in enumerate(self.settings.regions) if part.active(evaluation.level)]
        if not parts or not any(evaluation.rows.own):
            return False
        if not self.read:
            _check_masks(self.settings.regions, evaluation)
            self.read = [self._asked(part, evaluation) for part in self.settings.regions]
        self.evaluation, self.parts = evaluation, parts
        return True

    def _asked(self, part: Part, evaluation: Evaluation) -> dict[str, tuple[Tensor, Tensor]]:
        """The prompt's keys and values [1, H, M, D] at each site, from one evaluation of a single row."""
        with reading(self.model, self.sites) as kept:
            self.model.predict(evaluation.x[:1], evaluation.level, _one_row(part.conditioning))
        return {name: (key[:1], value[:1]) for name, (key, value) in kept.items()}

    def attend(self, call: AttentionCall, attend: Attend) -> Tensor:
        assert self.evaluation is not None
        if call.size is None:
            raise UserError(f"attention.regional_prompts: the tokens of {call.site.name!r} are no picture")
        rows = self.evaluation.rows
        regions = [self.settings.regions[i] for i in self.parts]
        shares = shares_of(regions, self.settings.base, call.size, call.query)  # [B or 1, 1 + R, N]
        shares = shares.expand(len(rows.samples) if shares.shape[0] == 1 else -1, -1, -1)
        if shares.shape[0] != len(rows.samples):  # a mask for each sample
            shares = shares[list(rows.samples)]
        shares = shares.repeat_interleave(rows.frames, 0)
        own = [row * rows.frames + f for row, mine in enumerate(rows.own) if mine for f in range(rows.frames)]
        plain = attend(call)
        return _mixed(call, plain, own, shares, [self.read[i][call.site.name] for i in self.parts])


def _mixed(
    call: AttentionCall,
    plain: Tensor,
    own: list[int],
    shares: Tensor,
    read: list[tuple[Tensor, Tensor]],
) -> Tensor:
    """The plain output by its share, and the regions' terms added, in the rows `own`; others stay as they are."""
    import torch
    from torch.nn.functional import pad

    from mezzotint_kernels import attention_terms

    longest = max(key.shape[2] for key, _ in read)
    lengths = torch.tensor([key.shape[2] for key, _ in read])
    key, value = (
        torch.cat([pad(each[i], (0, 0, 0, longest - each[i].shape[2])) for each in read]).contiguous()
        for i in (0, 1)
    )
    table = torch.arange(len(read)).view(1, -1, 1).expand(len(own), -1, 1).contiguous()
    rows = torch.tensor(own)[:, None].expand(-1, len(read)).contiguous()
    place = torch.tensor(own, device=plain.device)
    masks = shares[place]
    added = attention_terms(
        call.query, key, value, rows, table,
        masks=masks[:, 1:].float().contiguous(), lengths=lengths, scale=call.scale,
    )  # fmt: skip
    out = plain.clone()
    out[place] = plain[place] * masks[:, 0, None, :, None].to(plain.dtype) + added
    return out


def shares_of(regions: list[Any], base: float, size: tuple[int, int], like: Tensor) -> Tensor:
    """[B or 1, 1 + regions, h * w]: the own prompt's share at each place, then each region's; they add up to 1.

    Masks of any size are averaged to `size`. At a place covered in part, the rest is the own prompt's.
    """
    import torch

    from mezzotint_sampling import share_of

    grid = torch.empty((1, 1, *size), dtype=torch.float32, device=like.device)
    each = [share_of(region, grid).expand(-1, 1, *size) for region in regions]
    rows = max(share.shape[0] for share in each)
    stacked = torch.cat([share.expand(rows, -1, -1, -1) for share in each], dim=1)
    weights = torch.tensor([region.weight for region in regions], device=like.device).view(1, -1, 1, 1)
    taken = (1 - base) * (stacked / weights).amax(1, keepdim=True).clamp(0, 1)
    among = stacked / stacked.sum(1, keepdim=True).clamp(min=1e-12)
    return torch.cat([1 - taken, taken * among], dim=1).flatten(2)


def _one_row(conditioning: Conditioning) -> Conditioning:
    """A region's prompt, for one row. Raises: UserError: it has no text, or several."""
    if conditioning.context is None:
        raise UserError("attention.regional_prompts: a region's condition has no text; encode a prompt for it")
    if conditioning.context.shape[0] != 1:
        raise UserError(
            f"attention.regional_prompts: a region wants one prompt for all pictures, got "
            f"{conditioning.context.shape[0]}"
        )
    return conditioning


def _check_masks(regions: tuple[Any, ...], evaluation: Evaluation) -> None:
    """Raises: UserError: an empty mask, one of another shape than the picture or for other samples."""
    height, width = evaluation.x.shape[-2:]
    for number, region in enumerate(regions):
        if region.mask is None:
            continue
        rows, tall, wide = region.mask.shape[0], region.mask.shape[-2], region.mask.shape[-1]
        where = f"attention.regional_prompts: the mask of region {number + 1}"
        if not bool((region.mask > 0).any()):
            raise UserError(f"{where} is empty: it holds nowhere. Draw it, or leave the region out")
        samples = len(set(evaluation.rows.samples))
        if rows not in (1, samples):
            raise UserError(
                f"{where} is for {rows} pictures, and the batch has {samples}; give one, or one for each"
            )
        if tall * width != wide * height:
            raise UserError(
                f"{where} is {wide} x {tall}, which is not the picture's shape, {width} : {height}; draw it at "
                "the picture's size"
            )


@node("attention.regional_prompts")
def regional_prompts(
    denoiser: Denoiser,
    sites: Sites | None = None,
    *,
    regions: Annotated[list[Conditioning], Field(min_length=1)],
    base: Part01 = 0.2,
    start: Part01 = 0.0,
    end: Part01 = 1.0,
) -> Denoiser:
    """Prompts for parts of the picture, inside of the cross-attention: as many evaluations as without.

    The run's own prompt holds outside of all regions, and by a share inside.

    denoiser: the model, guided or not.
    sites: layers to work at; null takes all cross-attention.
    regions: encoded prompts, each with a mask, an area or both, a weight and a time by `sampling.limit_condition`.
    base: the own prompt's share inside of a region, 0..1; at 1 regions have no say, and every bit is as without.
    start: from which part of the run on, 0 the noisiest end.
    end: up to which.

    Raises: UserError: a region without a mask or an area; when it runs, an empty mask, one that is not of the
    picture's shape, a region with several prompts.
    """
    from mezzotint_sampling import parts_of

    parts = tuple(part for condition in regions for part in parts_of(condition))
    for number, part in enumerate(parts):
        if part.mask is None and part.area is None:
            raise UserError(
                f"attention.regional_prompts: region {number + 1} has no place; give it a mask or an area by "
                "sampling.limit_condition"
            )
    if base >= 1:
        return denoiser
    return inject(
        denoiser,
        RegionalPrompts(
            sites=limited(sites, Sites(kinds=("cross",)), "attention.regional_prompts"),
            regions=parts,
            base=base,
            start=start,
            end=end,
        ),
    )
