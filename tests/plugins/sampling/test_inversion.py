"""DDIM inversion: up to noise, and back down to the same picture."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from mezzotint import Cancelled, Conditioning, Denoiser, Latents, Noise, NoiseSchedule, Sigmas, UserError
from mezzotint.testing import check_node, tiny_denoiser
from mezzotint_kernels import normals
from mezzotint_sampling import nodes, sampler_node
from mezzotint_sampling.inversion import ddim_inversion
from mezzotint_sampling.levels import reversed_levels
from mezzotint_sampling.noise import numbers_of
from mezzotint_sampling.run import levels_of, run
from mezzotint_sampling.samplers import SAMPLERS, State
from mezzotint_sampling.schedule import alphas_cumprod
from mezzotint_sampling.sigmas import make_sigmas

SHAPE = (2, 3, 4, 4)
STABLE = NoiseSchedule()
NUMBERS = numbers_of(Noise(0), SHAPE)
PROMPT = Conditioning(context=torch.ones(1, 4, 8))


def upward(sigmas: Sigmas) -> Sigmas:
    return Sigmas(sigmas.alphas[::-1], sigmas.sigmas[::-1], sigmas.times[::-1])


def picture() -> torch.Tensor:
    return 0.5 * normals(2, SHAPE, dtype=torch.float64)


def there_and_back(model: Any, steps: int, iterations: int) -> float:
    """The largest error of a picture that is inverted and sampled again."""
    sigmas = make_sigmas(STABLE, steps)
    noisy = run(
        ddim_inversion, model, None, picture(), upward(sigmas), NUMBERS, options={"iterations": iterations}
    )
    back = run("ddim", model, None, noisy, sigmas, NUMBERS)
    return float((back - picture()).abs().max())


def test_more_iterations_bring_the_picture_back_closer(random_model: Any) -> None:
    errors = [there_and_back(random_model(), 20, iterations) for iterations in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0], errors


def test_at_the_fixed_point_ddim_undoes_the_inversion_exactly(gaussian: Any) -> None:
    assert there_and_back(gaussian(), 20, 60) < 1e-9


def test_inversion_follows_the_exact_flow_backwards(gaussian: Any) -> None:
    model, sigmas = gaussian(), make_sigmas(STABLE, 200)
    levels = levels_of(sigmas)
    noisy = run(ddim_inversion, model, None, picture(), upward(sigmas), NUMBERS, options={"iterations": 4})
    exact = model.exact(picture(), levels[-1], levels[0])
    assert float((noisy - exact).abs().max() / exact.abs().max()) < 0.05


def test_one_iteration_is_the_inversion_of_diffusers(random_model: Any) -> None:
    scheduler = diffusers.DDIMInverseScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.alphas_cumprod = torch.from_numpy(alphas_cumprod(STABLE).copy())
    scheduler.initial_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(10)
    model, x = random_model(), picture()
    sigmas = make_sigmas(STABLE, 10)
    assert scheduler.timesteps.tolist() == list(sigmas.times[-2::-1])
    mine: list[torch.Tensor] = []
    run(
        ddim_inversion, model, None, x, upward(sigmas), NUMBERS, options={"iterations": 1},
        on_state=lambda state, _: mine.append(state.x),
    )  # fmt: skip
    for state, time in zip(mine, scheduler.timesteps, strict=True):
        x = scheduler.step(model.output(x, float(time)), time, x).prev_sample
        assert float((state - x).abs().max() / x.abs().max()) < 1e-5


def test_inversion_goes_on_from_any_state_with_the_same_bytes(random_model: Any) -> None:
    states: list[State] = []
    sigmas = upward(make_sigmas(STABLE, 4))
    x = picture().float()
    whole = run(
        ddim_inversion, random_model(), None, x, sigmas, NUMBERS, options={"iterations": 3},
        on_state=lambda state, _: states.append(state),
    )  # fmt: skip
    assert len(states) == 12
    for state in states[:-1]:
        bare = State(state.step, state.x.clone(), tuple(h.clone() for h in state.history))
        empty = torch.full(SHAPE, torch.nan)
        again = run(
            ddim_inversion, random_model(), None, empty, sigmas, NUMBERS, state=bare, options={"iterations": 3}
        )
        assert torch.equal(again, whole)


def test_inversion_wants_levels_that_rise_and_end_before_pure_noise(random_model: Any) -> None:
    model = random_model("v")
    with pytest.raises(UserError, match="'ddim_inversion' needs sigmas that rise at every step"):
        run(ddim_inversion, model, None, picture(), make_sigmas(STABLE, 4), NUMBERS)
    zero = make_sigmas(NoiseSchedule(prediction="v", zero_terminal_snr=True), 4)
    with pytest.raises(UserError, match=r"cannot end in pure noise \(alpha = 0\)"):
        run(ddim_inversion, model, None, picture(), upward(zero), NUMBERS)
    assert model.batches == []


def test_the_node_inverts_and_sampling_without_noise_gives_the_picture_back(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    given = Latents(data=picture().float(), space="s")
    sigmas = nodes.sigmas(denoiser, steps=20)
    ctx = context(random_model())
    noisy = sampler_node.invert(ctx, denoiser, PROMPT, given, sigmas, iterations=8)
    assert ctx.reports[-1] == (160, 160)
    assert (noisy.space, noisy.data.dtype) == ("s", torch.float32)
    back = sampler_node.sample(
        context(random_model()), denoiser, PROMPT, noisy, sigmas, nodes.noise(), sampler="ddim", add_noise=False
    )
    assert float((back.data - given.data).abs().max()) < 0.02
    assert float((noisy.data - given.data).abs().max()) > 0.5


def test_the_node_wants_the_levels_of_the_sampling_run(denoiser: Denoiser, context: Any) -> None:
    given = Latents(data=picture().float(), space="s")
    rising = reversed_levels(nodes.sigmas(denoiser, steps=4))
    with pytest.raises(UserError, match="sigmas: levels must fall from noisy to clean; level 0 has"):
        sampler_node.invert(context(None), denoiser, PROMPT, given, rising)


def test_a_cancelled_inversion_goes_on_to_the_same_bytes(
    denoiser: Denoiser, random_model: Any, context: Any
) -> None:
    given = Latents(data=picture().float(), space="s")
    sigmas = nodes.sigmas(denoiser, steps=4)
    whole = sampler_node.invert(context(random_model()), denoiser, PROMPT, given, sigmas)
    interrupted = context(random_model(), cancel_at=7)
    with pytest.raises(Cancelled):
        sampler_node.invert(interrupted, denoiser, PROMPT, given, sigmas)
    resumed = context(random_model(), state=interrupted.states[-1])
    assert torch.equal(sampler_node.invert(resumed, denoiser, PROMPT, given, sigmas).data, whole.data)


def test_the_node_keeps_what_every_node_promises() -> None:
    model = tiny_denoiser()
    levels = nodes.sigmas(model, steps=3)
    given = nodes.empty_latents(model, width=64, height=64)
    check_node(
        sampler_node.invert, denoiser=model, conditioning=PROMPT, latents=given, sigmas=levels, iterations=2
    )


def test_inversion_is_no_sampler_of_pictures() -> None:
    assert "ddim_inversion" not in SAMPLERS
