"""Tokenizer: CLIP's own classes load it, and every word of the grammar is one token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mezzotint_smallworld.captions import caption, full_caption
from mezzotint_smallworld.scene import UNNAMED_COLOURS, UNNAMED_SHAPES, sample_scene
from mezzotint_smallworld.tokens import (
    LENGTH,
    SPARE_WORDS,
    grammar_words,
    vocabulary,
    write_tokenizer,
)

FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture(scope="module", params=["CLIPTokenizer", "CLIPTokenizerFast"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import transformers

    root = tmp_path_factory.mktemp("pipeline")
    write_tokenizer(root / "tokenizer")
    return getattr(transformers, request.param).from_pretrained(root, subfolder="tokenizer")


def test_every_word_of_the_captions_is_in_the_grammar() -> None:
    words = set(grammar_words())
    for seed in range(3000):
        scene = sample_scene(seed)
        for text in (caption(scene, seed), full_caption(scene)):
            assert set(text.replace(",", " , ").split()) <= words


def test_every_grammar_and_spare_word_is_one_token(tokenizer: Any) -> None:
    for word in (*grammar_words(), *SPARE_WORDS):
        assert tokenizer.tokenize(word) == [word + "</w>"]
        assert len(tokenizer(word).input_ids) == 3


def test_never_named_words_are_spare_and_no_spare_word_is_in_the_grammar() -> None:
    assert {*UNNAMED_COLOURS, *UNNAMED_SHAPES} <= set(SPARE_WORDS)
    assert not set(SPARE_WORDS) & set(grammar_words())


def test_captions_come_back_from_their_tokens(tokenizer: Any) -> None:
    for seed in range(200):
        text = caption(sample_scene(seed), seed)
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text.replace(",", " ,")


def test_longest_caption_fits(tokenizer: Any) -> None:
    texts = [caption(sample_scene(seed, things=2), seed) for seed in range(2000)]
    assert max(len(ids) for ids in tokenizer(texts).input_ids) <= LENGTH - 8
    assert tokenizer.model_max_length == LENGTH


def test_special_tokens_sit_where_stable_diffusion_wants_them(tokenizer: Any) -> None:
    ids = tokenizer("a ring", padding="max_length").input_ids
    end = tokenizer.eos_token_id
    assert len(ids) == LENGTH
    assert ids[0] == tokenizer.bos_token_id and ids[3:] == [end] * (LENGTH - 3)
    assert tokenizer.pad_token_id == tokenizer.unk_token_id == end == len(tokenizer) - 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zebra!",
        "Ünïcödé 雪 🎉 \x00 \ufffd",
        "a" * 500,
        "\uff11\uff12 \ufdfd",
        "<|endoftext|> x",
    ],
)
def test_unknown_text_falls_back_to_bytes(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, truncation=True, max_length=LENGTH, padding="max_length").input_ids
    assert len(ids) == LENGTH and max(ids) < len(tokenizer)


def test_upper_case_does_not_matter(tokenizer: Any) -> None:
    assert tokenizer("A LARGE Ring").input_ids == tokenizer("a large ring").input_ids


def test_files_are_the_same_on_every_run_and_ids_are_dense(tmp_path: Path) -> None:
    first, second = write_tokenizer(tmp_path / "a"), write_tokenizer(tmp_path / "b")
    assert sorted(path.name for path in first.iterdir()) == sorted(FILES)
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in FILES)
    assert sorted(vocabulary().values()) == list(range(len(vocabulary())))
