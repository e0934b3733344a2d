"""A run: going on from any state, the known region, and where its noise comes from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Noise, NoiseLevel, NoiseSchedule
from mezzotint_kernels import Coefficients, Draw, normals
from mezzotint_sampling.noise import numbers_of, starting_point
from mezzotint_sampling.run import Region, run
from mezzotint_sampling.samplers import SAMPLERS, State
from mezzotint_sampling.sigmas import make_sigmas

SHAPE = (2, 3, 4, 4)
SIGMAS = make_sigmas(NoiseSchedule(), 5)
OPTIONS = {"ddim": {"eta": 0.8}}


def states_of(sampler: str, model: Any, x: torch.Tensor, noise: Noise, **rest: Any) -> list[State]:
    states: list[State] = []
    numbers = numbers_of(noise, tuple(x.shape))
    options = OPTIONS.get(sampler, {})
    run(
        sampler, model, None, x, SIGMAS, numbers, on_state=lambda s, _: states.append(s),
        options=options, **rest,
    )  # fmt: skip
    return states


def half_mask() -> torch.Tensor:
    mask = torch.ones(1, 1, 4, 4)
    mask[..., 2:] = 0
    return mask


@pytest.mark.parametrize("kind", ["philox", "torch"])
@pytest.mark.parametrize("inpaint", [False, True])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_going_on_from_any_state_gives_the_same_bytes(
    sampler: str, inpaint: bool, kind: Any, random_model: Any
) -> None:
    x = normals(1, SHAPE)
    noise = Noise(seed=4, kind=kind)
    rest: dict[str, Any] = {"region": Region(half_mask(), normals(9, SHAPE))} if inpaint else {}
    states = states_of(sampler, random_model(), x, noise, **rest)
    for state in states[:-1]:
        bare = State(state.step, state.x.clone(), tuple(h.clone() for h in state.history))
        rest["state"] = bare
        again = states_of(sampler, random_model(), torch.full(SHAPE, torch.nan), noise, **rest)
        assert len(again) == len(states) - state.step
        assert torch.equal(again[-1].x, states[-1].x)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_run_leaves_its_inputs_as_they_were(sampler: str, random_model: Any) -> None:
    x, known, mask = normals(1, SHAPE), normals(2, SHAPE), half_mask()
    copies = x.clone(), known.clone(), mask.clone()
    states_of(sampler, random_model(), x, Noise(1), region=Region(mask, known))
    assert all(torch.equal(a, b) for a, b in zip((x, known, mask), copies, strict=True))


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_the_known_region_comes_back_exactly(sampler: str, random_model: Any) -> None:
    known = normals(9, SHAPE)
    region = Region(half_mask(), known)
    states = states_of(sampler, random_model(), normals(1, SHAPE), Noise(3), region=region)
    last = states[-1].x
    assert torch.equal(last[..., 2:], known[..., 2:])
    assert not torch.isclose(last[..., :2], known[..., :2]).any()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_mask_of_ones_changes_nothing(sampler: str, random_model: Any) -> None:
    x = normals(1, SHAPE)
    region = Region(torch.ones(1, 1, 4, 4), torch.zeros(SHAPE))
    masked = states_of(sampler, random_model(), x, Noise(3), region=region)
    plain = states_of(sampler, random_model(), x, Noise(3))
    assert torch.equal(masked[-1].x, plain[-1].x)


def test_until_the_end_the_known_region_has_each_levels_own_noise(random_model: Any) -> None:
    known = normals(9, SHAPE)
    noise = Noise(3, stream="here")
    states = states_of("euler", random_model(), normals(1, SHAPE), noise, region=Region(half_mask(), known))
    for state in states[:-1]:
        drawn = normals(3, SHAPE, step=state.step, stream="here.known")
        wanted = SIGMAS.alphas[state.step] * known + SIGMAS.sigmas[state.step] * drawn
        torch.testing.assert_close(state.x[..., 2:], wanted[..., 2:])


def test_a_soft_mask_mixes(random_model: Any) -> None:
    known, x = normals(9, SHAPE), normals(1, SHAPE)
    states = states_of("euler", random_model(), x, Noise(3))
    state = State(4, states[3].x)
    mask = torch.full((1, 1, 4, 4), 0.25)
    numbers = numbers_of(Noise(3), SHAPE)
    region = Region(mask, known)
    mixed = run("euler", random_model(), None, x, SIGMAS, numbers, state=state, region=region)
    torch.testing.assert_close(mixed, 0.25 * states[-1].x + 0.75 * known)


def test_a_clip_is_sampled_like_a_picture(random_model: Any) -> None:
    """A mask without frames, broadcast; frames with one noise and a frame-wise model stay equal."""
    shape = (1, 3, 4, 4, 4)
    known = normals(9, (1, 3, 1, 4, 4)).expand(shape)
    x = normals(1, (1, 3, 1, 4, 4)).expand(shape).contiguous()
    region = Region(half_mask().unsqueeze(2), known)
    noise = Noise(3, frames="shared")
    last = states_of("euler_ancestral", random_model(), x, noise, region=region)[-1].x
    assert last.shape == shape
    assert torch.equal(last, last[:, :, :1].expand(shape))
    own = states_of("euler_ancestral", random_model(), x, Noise(3), region=region)[-1].x
    assert not torch.equal(own[:, :, 0], own[:, :, 1])


@pytest.mark.parametrize("kind", ["philox", "torch"])
def test_a_samples_noise_does_not_depend_on_its_batch(kind: Any) -> None:
    def drawn(seed: int, batch: int, draw: int) -> torch.Tensor:
        numbers = numbers_of(Noise(seed, kind=kind), (batch, 3, 4, 4)).at(draw)
        return numbers.normals((batch, 3, 4, 4)) if isinstance(numbers, Draw) else numbers

    for draw in (0, 1, 5):
        assert torch.equal(drawn(10, 3, draw)[2:], drawn(12, 1, draw))


def test_torch_numbers_can_be_asked_for_in_any_order() -> None:
    forward = numbers_of(Noise(1, kind="torch"), SHAPE)
    wanted = [forward.at(i) for i in range(4)]
    other = numbers_of(Noise(1, kind="torch"), SHAPE)
    for draw in (2, 0, 3, 1, 1):
        assert torch.equal(other.at(draw), wanted[draw])


def test_steps_the_known_region_and_other_streams_have_different_noise() -> None:
    numbers, other = numbers_of(Noise(1), SHAPE), numbers_of(Noise(1, stream="b"), SHAPE)
    draws = [numbers.at(0), numbers.at(1), numbers.known(1), other.at(0), other.known(1)]
    tensors = [draw.normals(SHAPE) for draw in draws]
    for i, a in enumerate(tensors):
        assert not any(torch.equal(a, b) for b in tensors[:i])


@pytest.mark.parametrize("kind", ["philox", "torch"])
def test_shared_frames_are_equal(kind: Any) -> None:
    shape = (2, 3, 5, 4, 4)
    level = NoiseLevel(0.0, 1.0, 999.0)
    numbers = numbers_of(Noise(1, kind=kind, frames="shared"), shape)
    x = starting_point(torch.zeros(shape), level, numbers)
    assert torch.equal(x, x[:, :, :1].expand(shape))


def test_a_run_starts_from_the_picture_noised_to_the_first_level() -> None:
    latents = normals(2, SHAPE)
    numbers = numbers_of(Noise(1), SHAPE)
    x = starting_point(latents, NoiseLevel(0.6, 0.8, 500.0), numbers)
    wanted = 0.6 * latents + 0.8 * numbers.at(0).normals(SHAPE)
    torch.testing.assert_close(x, wanted)


def test_an_empty_picture_starts_from_noise_of_unit_variance() -> None:
    numbers = numbers_of(Noise(1), SHAPE)
    x = starting_point(torch.zeros(SHAPE), NoiseLevel(0.6, 0.8, 500.0), numbers)
    assert torch.equal(x, numbers.at(0).normals(SHAPE))


def test_a_sampler_that_miscounts_its_evaluations_is_caught(random_model: Any) -> None:
    def wrong(advance: Any, levels: Any, state: State) -> Any:
        result = advance(state.x, levels[0], levels[1], Coefficients(cx=1.0))
        yield State(2, result.x)

    with pytest.raises(RuntimeError, match="yielded step 2 after 1 evaluations"):
        run(wrong, random_model(), None, normals(1, SHAPE), SIGMAS, numbers_of(Noise(1), SHAPE))


def test_each_evaluation_is_announced_before_and_after(random_model: Any) -> None:
    events: list[tuple[Any, ...]] = []

    class Hooks:
        def before_step(self, *, step: int, steps: int, x: Any, level: NoiseLevel) -> None:
            events.append(("before", step, steps, level.step, level.progress))

        def after_step(self, *, step: int, steps: int, x: Any, x0: Any) -> None:
            assert x.shape == x0.shape == SHAPE
            events.append(("after", step, steps))

    numbers = numbers_of(Noise(1), SHAPE)
    run("heun", random_model(), None, normals(1, SHAPE), SIGMAS, numbers, hooks=Hooks())
    assert events[:4] == [
        ("before", 0, 9, 0, 0.0),
        ("after", 0, 9),
        ("before", 1, 9, 1, 0.25),
        ("after", 1, 9),
    ]
    assert events[-2:] == [("before", 8, 9, 4, 1.0), ("after", 8, 9)]
