"""A denoiser that learns more by new experts: each is a change to a few layers, and a router chooses by the text.

Old experts and the denoiser itself are never touched again, so what they draw stays as it is, to the bit, for all
texts that are still sent to them. Each row of a batch has its own expert, or none, in one evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from mezzotint import (
    Conditioning,
    Context,
    Denoiser,
    NoiseLevel,
    Patch,
    Report,
    TextEncoder,
    UserError,
    Weights,
    node,
)
from mezzotint_models.learnt_words import LearntWords, pack_words, worded
from mezzotint_models.networks import part_of
from mezzotint_models.packed import recipe_for

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mezzotint import Prediction, Predictor

__all__ = ["ExpertMixture", "MixtureOfExperts", "mixture_of_experts", "route"]

_WHERE = "models.mixture_of_experts"
Texts = Annotated[list[str], Field(min_length=2, max_length=10_000)]


class MixtureOfExperts(NamedTuple):
    """denoiser: with the experts, and the router that chooses among them.
    encoder: with the words of all of them.
    routes: which expert each of `tried` is sent to, from 0; -1 is none. "nearness" is to the chosen one.
    """

    denoiser: Denoiser
    encoder: TextEncoder
    routes: Report


@dataclass(frozen=True, eq=False)
class ExpertMixture(Patch):
    """Experts on a denoiser.

    experts: differences of linear layers' tensors. prototypes: [K, P] of length 1, one for each. centre: [P] and
    metric: [P, P], by which a text's tokens are made comparable. threshold: below it there is no expert.
    """

    experts: tuple[Weights, ...]
    prototypes: Any
    centre: Any
    metric: Any
    threshold: float
    mutates: ClassVar[bool] = True

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        """Raises: UserError: an expert for another model."""
        yield ExpertPredictor(model, self)


class ExpertPredictor:
    """A predictor whose linear layers answer each row as its expert does."""

    def __init__(self, model: Any, mixture: ExpertMixture) -> None:
        self.model, self.schedule, self.mixture = model, model.schedule, mixture
        module = getattr(model.module, "network", model.module)
        self.layers = [_layers(module, one.tensors, f"expert {k}") for k, one in enumerate(mixture.experts)]

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """The model's prediction, each row by the expert that its text is sent to.

        Raises: UserError: a conditioning without a text, which the router reads.
        """
        if conditioning is None or conditioning.context is None:
            raise UserError(
                f"{_WHERE}: the router reads the text's tokens, and this conditioning has none; make it with "
                "models.encode_text and the encoder that this node gives"
            )
        mine = self.mixture
        chosen, _ = route(conditioning.context, mine.prototypes, mine.centre, mine.metric, mine.threshold)
        chosen = chosen.to(x.device).expand(x.shape[0])
        with ExitStack() as after:
            for number in sorted({*chosen.tolist()} - {-1}):
                for layer, changed in self.layers[number].items():
                    hook = layer.register_forward_hook(_answering(changed, chosen == number))
                    after.callback(hook.remove)
            prediction: Prediction = self.model.predict(x, level, conditioning)
        return prediction


@node("models.mixture_of_experts", device=True)
def mixture_of_experts(
    ctx: Context,
    denoiser: Denoiser,
    encoder: TextEncoder,
    experts: list[Weights],
    *,
    known: Texts,
    prompts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1000)],
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    tried: Annotated[list[str], Field(max_length=10_000)] = [],  # noqa: B006
) -> MixtureOfExperts:
    """A denoiser with experts that were learnt one after the other, and a router that sends each text to one.

    An expert's prototype is the mean feature of its words' tokens in `prompts`, and a text is as near as the
    nearest of its tokens. Features are compared by their
    cosine, less the mean of the known texts' and by the metric in which those spread evenly. To add an expert is
    to put it at the list's end: those before stay as they are.

    denoiser, encoder: what each expert was learnt on, as they are.
    experts: what training.personalise gave with a word and layers such as attn2.to_k and attn2.to_v.
    known: texts that the denoiser itself is good at, the empty one of guidance among them; the more, the better.
    prompts: with "{}" for an expert's word.
    threshold: least cosine with an expert's prototype; texts below it get the denoiser itself.
    tried: texts of which the routes are reported.

    Raises: UserError: no expert; one without a word, of another model, or with layers that are not linear; a word
        in two of them; a prompt without "{}".
    """
    import torch

    if not experts:
        raise UserError(f"{_WHERE}: wanted at least one expert, got an empty list")
    if any("{}" not in prompt for prompt in prompts):
        raise UserError(f'{_WHERE}: each of prompts wants "{{}}" where the word belongs, such as "a {{}}"')
    tuned, words = _parts(experts)
    rows = {word: value for one in words for word, value in one.items()}
    model = ctx.realise(encoder)
    with torch.no_grad():
        centre, metric = _metric(torch.cat([row for text in known for row in _context(model, text)]))
        with worded(model, {word: value.to(ctx.device) for word, value in rows.items()}) as taught:
            means = [
                torch.stack([_said(taught, p, word) for word in one for p in prompts]).mean(0) for one in words
            ]
            means = [_compared(mean, centre, metric) for mean in means]
            prototypes = torch.nn.functional.normalize(torch.stack(means), dim=-1)
            read = [_context(taught, text) for text in tried]
            asked = route(torch.cat(read), prototypes, centre, metric, threshold) if tried else None
    mixture = ExpertMixture(tuple(tuned), prototypes, centre, metric, threshold)
    module = ctx.realise(denoiser).module
    for number, one in enumerate(tuned):
        _layers(getattr(module, "network", module), one.tensors, f"expert {number}")
    _, recipe = recipe_for("words", pack_words(rows), None, "", node=_WHERE)
    return MixtureOfExperts(
        # Inside of all that guides: each row of guidance's batch has a text of its own.
        denoiser.replace(patches=(mixture, *denoiser.patches)),
        encoder.patched(LearntWords(**recipe)),
        Report({"routes": _told(tried, asked), "experts": [sorted(one) for one in words]}),
    )


def route(
    context: Tensor, prototypes: Tensor, centre: Tensor, metric: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """(the expert of each row [B], -1 for none; its nearness [B]): the nearest prototype to a token.

    context: [B, L, P].
    """
    import torch

    # Row by row: the last bits of a product of matrices, and so the route, must not depend on a row's company.
    found = [_compared(row.cpu(), centre.cpu(), metric.cpu()) for row in context]
    near = torch.stack([(torch.nn.functional.normalize(r, dim=-1) @ prototypes.cpu().T).amax(0) for r in found])
    most, which = near.max(-1)
    return torch.where(most >= threshold, which, -1), most


def _compared(features: Tensor, centre: Tensor, metric: Tensor) -> Tensor:
    return (features.double() - centre) @ metric


def _metric(usual: Tensor) -> tuple[Tensor, Tensor]:
    """(mean [P], [P, P] in which the features [N, P] spread evenly, as far as they spread), float64."""
    import torch

    usual = usual.double()
    centre = usual.mean(0)
    values, vectors = torch.linalg.eigh((usual - centre).T @ (usual - centre) / len(usual))
    # Directions in which the known texts hardly differ are where a new word shows; but not without bound.
    least = 1e-2 * values.clamp(min=0).mean() + 1e-12
    return centre, vectors @ torch.diag((values.clamp(min=0) + least).rsqrt()) @ vectors.T


def _context(model: Any, text: str) -> Tensor:
    """[1, L, P] on the CPU."""
    found: Tensor = model.condition([text]).context
    return found.cpu()


def _said(model: Any, prompt: str, word: str) -> Tensor:
    """[P]: the mean feature of a word's tokens in a prompt."""
    text = prompt.replace("{}", word)
    own = set(model.tokenizer.convert_tokens_to_ids(model.tokenizer.spelt[word]))
    places = [place for place, number in enumerate(model.tokens([text])[0].tolist()) if number in own]
    if not places:
        raise UserError(f"{_WHERE}: {word!r} lies behind what the text encoder reads; shorten the prompts")
    return _context(model, text)[0, places].double().mean(0)


def _parts(experts: Sequence[Weights]) -> tuple[list[Weights], list[dict[str, Tensor]]]:
    """(differences, rows by word) of each. Raises: UserError: see `mixture_of_experts`."""
    tuned, words = [], []
    seen: set[str] = set()
    for number, one in enumerate(experts):
        try:
            tuned.append(part_of(one, "tuned"))
            rows = dict(part_of(one, "words").tensors)
        except UserError as error:
            raise UserError(f"{_WHERE}: expert {number}: {error}") from error
        if seen & rows.keys():
            both = min(seen & rows.keys())
            raise UserError(f"{_WHERE}: two experts have the word {both!r}; learn one of them under another word")
        seen |= rows.keys()
        words.append(rows)
    return tuned, words


def _layers(module: nn.Module, changes: Mapping[str, Tensor], which: str) -> dict[nn.Module, tuple[Tensor, Any]]:
    """(weight, bias) of each layer that an expert changes. Raises: UserError: none such, or no linear layer."""
    import torch

    found: dict[str, dict[str, Tensor]] = {}
    for name, change in changes.items():
        layer, _, leaf = name.rpartition(".")
        found.setdefault(layer, {})[leaf] = change
    made = {}
    modules = dict(module.named_modules())
    for layer, moved in found.items():
        there = modules.get(layer)
        if not isinstance(there, torch.nn.Linear):
            what = "no such layer" if there is None else f"a {type(there).__name__}"
            raise UserError(f"{_WHERE}: {which} changes {layer}, here {what}; wanted linear layers of this model")
        now = {leaf: getattr(there, leaf, None) for leaf in ("weight", "bias")}
        for leaf, change in moved.items():
            value = now.get(leaf)
            if value is None or value.shape != change.shape:
                got = list(change.shape)
                raise UserError(f"{_WHERE}: {which} was tuned on another model: {layer}.{leaf} is {got} there")
            now[leaf] = (value.detach().float() + change.to(value.device, torch.float32)).to(value.dtype)
        made[there] = (now["weight"], now["bias"])
    return made


def _answering(changed: tuple[Tensor, Any], rows: Tensor) -> Any:
    """A hook by which a layer answers those rows with other weights. rows: [B] bool; a layer may have B * n."""

    def hook(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        import torch

        mine = rows.repeat_interleave(out.shape[0] // len(rows))
        other = torch.nn.functional.linear(given[0], *changed)
        return torch.where(mine.view(-1, *[1] * (out.ndim - 1)), other, out)

    return hook


def _told(tried: Sequence[str], asked: tuple[Tensor, Tensor] | None) -> list[dict[str, Any]]:
    if asked is None:
        return []
    rows = zip(tried, asked[0].tolist(), asked[1].tolist(), strict=True)
    return [{"text": text, "expert": which, "nearness": near} for text, which, near in rows]
