"""The core of injectors: no trace when off, a stated order, conflicts named, whose row a row is, steps edited."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from text_network import text_model as model

from mezzotint import Conditioning, Denoiser, NoiseLevel, Rows, Source, UserError
from mezzotint.testing import fake_context
from mezzotint_attention import Injection, Opened, Sites, inject
from mezzotint_attention.injection import Injected
from mezzotint_attention.words import columns
from mezzotint_kernels import normals
from mezzotint_sampling.combined import CombinedConditioning, Part, combining
from mezzotint_sampling.conditioning import numbered
from mezzotint_sampling.guidance import ClassifierFree, ClassifierFreePredictor

LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=4, steps=9)
X = normals(1, (2, 4, 8, 8))
TEXT, EMPTY = (Conditioning(context=normals(seed, (2, 5, 8), stream="c")) for seed in (1, 2))


@dataclass(frozen=True, eq=False)
class Doubling(Injection):
    """Twice what there would be; and notes what it sees."""

    factor: float = 2.0
    claims: ClassVar[tuple[str, ...]] = ("maps",)

    def open(self, model: Any, ctx: Any) -> Opened:
        return Doubled(self.factor)


class Doubled(Opened):
    def __init__(self, factor: float) -> None:
        self.factor, self.seen, self.calls, self.steps = factor, [], [], torch.zeros(1)

    def begin(self, evaluation: Any) -> bool:
        self.seen.append(evaluation.rows)
        return True

    def attend(self, call: Any, attend: Any) -> torch.Tensor:
        self.calls.append((call.site.name, self.factor))
        return attend(call) * self.factor

    def after_step(self, x: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
        self.steps = self.steps + 1
        return x * self.factor

    def remembered(self) -> dict[str, torch.Tensor]:
        return {"steps": self.steps}

    def remember(self, tensors: dict[str, torch.Tensor]) -> None:
        self.steps = tensors["steps"]


def put(inner: Any, *injections: Injection) -> Any:
    for injection in injections:
        inner = Injected(inner, injection, fake_context())
    return inner


def out(predictor: Any, told: Conditioning = TEXT, level: NoiseLevel = LEVEL) -> torch.Tensor:
    with torch.no_grad():
        return predictor.predict(X, level, told).combined()


@pytest.mark.parametrize(("start", "end", "works"), [(0.0, 0.5, False), (0.5, 0.6, True), (0.6, 1.0, False)])
def test_outside_of_its_window_an_injection_leaves_every_bit_as_it_is(
    start: float, end: float, works: bool
) -> None:
    inner = model()
    wanted = out(inner)
    assert torch.equal(out(put(inner, Doubling(start=start, end=end))), wanted) is not works
    assert torch.equal(out(inner), wanted)


def test_the_clean_end_belongs_to_a_window_that_ends_with_the_run() -> None:
    last = replace(LEVEL, step=8)
    assert Doubling(end=1.0).active(last) and not Doubling(end=0.99).active(last)


def test_only_chosen_layers_are_worked_at() -> None:
    inner = model()
    predictor = put(inner, Doubling(sites=Sites(kinds=("cross",), parts=("up",))))
    out(predictor)
    assert {name for name, _ in predictor.opened.calls} == {
        site.name for site in inner.attention_sites if site.kind == "cross" and site.part == "up"
    }


def test_a_selection_of_nothing_names_the_layers_there_are() -> None:
    with pytest.raises(UserError, match=r"no attention layer is of kind temporal.*attn1 \(self, level 0\)"):
        put(model(), Doubling(sites=Sites(kinds=("temporal",))))
    with pytest.raises(UserError, match="no attention layer is of at most 2 places a side"):
        Sites(largest=2).of(model(), side=8)


def test_lower_orders_are_nearer_to_the_plain_attention_and_guidance_lies_outside() -> None:
    guided = ClassifierFree(EMPTY, 3.0)
    denoiser = Denoiser(source=Source("none", "", "0"), loader="test.none").patched(guided)
    for factor, order in ((1.0, 50), (2.0, 0), (3.0, 100), (4.0, 0)):
        denoiser = inject(denoiser, Doubling(factor=factor, order=order))
    assert denoiser.patches[-1] is guided
    inner = model()
    for patch in denoiser.patches[:-1]:
        inner = Injected(inner, _unclaimed(patch), fake_context())
    predictor, opened = inner, []
    while isinstance(predictor, Injected):
        opened.append(predictor.opened)
        predictor = predictor.model
    order: list[float] = []
    for one in opened:
        one.calls = order  # one list for all, in the order of the calls
    out(inner)
    first = order[0][0]  # type: ignore[index]
    assert [factor for name, factor in order if name == first] == [3.0, 1.0, 4.0, 2.0]  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class Free(Doubling):
    """One that claims nothing."""

    claims: ClassVar[tuple[str, ...]] = ()


def _unclaimed(patch: Any) -> Free:
    return Free(factor=patch.factor, order=patch.order)


def test_two_that_want_the_same_maps_at_one_time_are_told_apart() -> None:
    with pytest.raises(
        UserError, match=r"Doubling and Doubling both decide the attention's maps at .*0\.2 to 0\.5"
    ):
        put(model(), Doubling(end=0.5), Doubling(start=0.2))
    put(model(), Doubling(end=0.5), Doubling(start=0.5))
    put(model(), Doubling(sites=Sites(kinds=("self",))), Doubling(sites=Sites(kinds=("cross",))))


def test_a_window_that_is_none_is_refused() -> None:
    denoiser = Denoiser(source=Source("none", "", "0"), loader="test.none")
    with pytest.raises(UserError, match=r"both in 0\.\.1 and start first; got 0\.6 to 0\.4"):
        inject(denoiser, Doubling(start=0.6, end=0.4))


def test_an_injection_knows_the_samples_rows_from_those_that_guidance_compares_with() -> None:
    predictor = put(model(), Doubling())
    guided = ClassifierFreePredictor(ClassifierFreePredictor(predictor, EMPTY, 2.0), EMPTY, 3.0)
    out(guided, numbered(TEXT, 2))
    # Two kinds of guidance: the samples, what each compares with, and what that is compared with.
    assert predictor.opened.seen == [Rows((0, 1) * 4, (True, True) + (False,) * 6)]
    parts = CombinedConditioning(parts=(Part(TEXT), Part(EMPTY)))
    predictor.opened.seen.clear()
    out(combining(predictor), numbered(parts, 2))
    assert predictor.opened.seen == [Rows((0, 1, 0, 1), (True,) * 4)]


def test_without_a_note_every_row_is_a_sample_of_its_own() -> None:
    assert Rows.of(None, 3) == Rows((0, 1, 2), (True,) * 3) == Rows.of(TEXT, 3)
    assert Rows.of(None, 1, frames=4).frames == 4


def test_new_samples_go_through_all_injections_and_what_they_gather_comes_back() -> None:
    predictor = put(model(), Free(factor=2.0), Free(factor=5.0))
    assert torch.equal(combining(predictor).after_step(X, LEVEL), X * 10)
    kept = predictor.remembered()
    other = put(model(), Free(factor=2.0), Free(factor=5.0))
    other.remember(kept)
    assert other.remembered().keys() == kept.keys() and len(kept) == 2
    assert all(torch.equal(other.remembered()[name], tensor) for name, tensor in kept.items())


class Tokenised:
    """A text encoder whose words are tokens; a long one is two."""

    vocabulary = ("<", ">", "a", "red", "star", "blue", "hexa", "gon", ",")

    def tokenizer(self, text: str, add_special_tokens: bool = True) -> Any:
        words = text.lower().replace("hexagon", "hexa gon").replace(",", " ,").split()
        ids = [self.vocabulary.index(word) if word in self.vocabulary else 99 for word in words]
        return type("Encoding", (), {"input_ids": ids})

    def tokens(self, texts: list[str]) -> torch.Tensor:
        ids = [0, *self.tokenizer(texts[0]).input_ids, 1]
        return torch.tensor([ids + [1] * (10 - len(ids))])


def test_words_are_found_among_the_tokens_with_all_their_pieces_and_all_their_places() -> None:
    encoder = Tokenised()
    assert columns(encoder, "a red hexagon, a star", "hexagon") == [3, 4]
    assert columns(encoder, "a red hexagon, a star", ["a", "star"]) == [1, 6, 7]
    assert columns(encoder, "a red star", "red star") == [2, 3]
    with pytest.raises(
        UserError, match=r"'stars' is not in the prompt 'a red star'; the nearest word there is 'star'"
    ):
        columns(encoder, "a red star", "stars")
    with pytest.raises(UserError, match="which is empty"):
        columns(encoder, "", "star")
