"""A token's bytes: every text is its tokens' bytes in a row, whatever character they cut."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models

from espalier.tokens.spelling import speller
from espalier.tokens.tokenizer import train_tokenizer


@pytest.mark.parametrize("text", ["plain words", "naïve — 狐\n", "🦊🦊", "a\tb  c\x00\x7f\xad"])
def test_a_text_is_the_bytes_of_its_tokens(text: str) -> None:
    tokenizer = train_tokenizer(["The quick brown fox, naïve."], vocabulary=300)
    spell = speller(tokenizer.backend)
    assert b"".join(map(spell, tokenizer.encode(text))) == text.encode()


def test_a_special_token_is_its_own_word() -> None:
    tokenizer = train_tokenizer(["The quick brown fox."], vocabulary=300)
    assert speller(tokenizer.backend)(1) == b"<|im_start|>"


def test_a_byte_of_sentencepiece_is_that_byte_and_its_blank_a_space() -> None:
    words = {"<unk>": 0, "<0xE2>": 1, "▁fox": 2, "ï": 3}
    backend = Tokenizer(models.BPE(vocab=words, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    assert [speller(backend)(id) for id in range(1, 4)] == [b"\xe2", b" fox", "ï".encode()]


def test_an_id_that_is_none_has_no_bytes() -> None:
    tokenizer = train_tokenizer(["The quick brown fox."], vocabulary=300)
    assert speller(tokenizer.backend)(100_000) == b""
