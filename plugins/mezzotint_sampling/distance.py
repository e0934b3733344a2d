"""How far results are from a reference: the error of a sampler against its steps."""

from __future__ import annotations

from mezzotint import Latents, Report, UserError, node

__all__ = ["distance"]


@node("sampling.distance", version=1)
def distance(latents: list[Latents], reference: Latents, *, at: list[float], name: str = "steps") -> Report:
    """Root-mean-square distances of latents from a reference, as rows for a chart.

    latents: any number, each of the reference's shape.
    reference: such as the same run with very many steps.
    at: one number for each of the latents, such as its number of steps.
    name: what that number is called in the rows, which are [{name: at, "distance": d}, ...].

    Raises: UserError: another number of values in `at`, latents of another shape, or the name "distance".
    """
    if name == "distance":
        raise UserError('sampling.distance: "distance" is the other column; call the numbers something else')
    if len(at) != len(latents):
        raise UserError(f"sampling.distance: {len(at)} numbers in 'at' for {len(latents)} latents")
    wanted = reference.data.double()
    rows = []
    for number, one in zip(at, latents, strict=True):
        if one.data.shape != wanted.shape:
            raise UserError(
                f"sampling.distance: latents of shape {tuple(one.data.shape)}; "
                f"the reference has {tuple(wanted.shape)}"
            )
        error = (one.data.double().to(wanted.device) - wanted).square().mean().sqrt().item()
        rows.append({name: number, "distance": error})
    return Report({"rows": rows})
