"""The word cache and the merges under it: whatever a cache holds, and wherever, ids stay the same."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from espalier.tokens import bpe_tables, wordcache, wordengine
from espalier.tokens.bpe_kernels import SHORT_WORD, encode_word
from espalier.tokens.fast import FastTokenizer
from espalier.tokens.wordcache import WordCache
from espalier.tokens.wordengine import WordEngine


@pytest.fixture
def engine(families: dict[str, Tokenizer]) -> WordEngine:
    return WordEngine(json.loads(families["llama3"].to_str()), families["llama3"])


def _words(count: int) -> pa.LargeStringArray:
    """Different words of many lengths, some the same for their first sixteen bytes, some with zeros at the end."""
    names = [str(number).translate(str.maketrans("0123456789", "abcdefghij")) for number in range(count)]
    words = [f" w{name}" for name in names] + [f" {'samebeginning' * 2}{name}" for name in names[::4]]
    words += ["a" + "\x00" * number for number in range(20)] + ["z" * number for number in range(1, 200)]
    return pa.array([" ".join(words[start : start + 50]) for start in range(0, len(words), 50)], pa.large_string())


def _encode(engine: WordEngine, cache: WordCache, texts: pa.LargeStringArray) -> list[int]:
    engine._idle[:] = [cache]
    ids, _ = engine.encode(texts)
    assert engine._idle == [cache]
    return ids.tolist()


def test_words_of_equal_hashes_are_told_apart_by_their_bytes(
    engine: WordEngine, families: dict[str, Tokenizer]
) -> None:
    texts = _words(300)
    expected = [
        one for text in texts.to_pylist() for one in families["llama3"].encode(text, add_special_tokens=False).ids
    ]
    everything_in_one_place = WordCache(hash_mask=0, pinned=engine._pinned)

    assert _encode(engine, everything_in_one_place, texts) == expected
    assert _encode(engine, everything_in_one_place, texts) == expected
    assert len(everything_in_one_place) > 300


def test_the_cache_grows_and_gives_the_same_ids(engine: WordEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = _words(5000)
    expected = _encode(engine, WordCache(pinned=engine._pinned), texts)
    monkeypatch.setattr(wordcache, "FIRST_SLOTS", 4)
    small = WordCache(pinned=engine._pinned)
    assert len(small.slots.table) < 64

    assert _encode(engine, small, texts) == expected
    assert _encode(engine, small, texts) == expected
    assert len(small) > 5000
    assert len(small.slots.table) >= 2 * 5000


def test_a_full_cache_takes_in_no_more_and_gives_the_same_ids(engine: WordEngine) -> None:
    texts = _words(3000)
    expected = _encode(engine, WordCache(pinned=engine._pinned), texts)
    bounded = WordCache(max_slots=256, pinned=engine._pinned)

    assert _encode(engine, bounded, texts) == expected
    assert _encode(engine, bounded, texts) == expected
    assert not bounded.open
    assert len(bounded.slots.table) == 256
    assert len(bounded) <= 128


def test_long_words_are_not_kept(engine: WordEngine) -> None:
    cache = WordCache()
    _encode(engine, cache, pa.array(["q" * wordcache.WORD_BYTES], pa.large_string()))
    assert len(cache) == 1
    _encode(engine, cache, pa.array(["q" * (wordcache.WORD_BYTES + 1)], pa.large_string()))
    assert len(cache) == 1


def test_words_a_model_keeps_whole_are_found_however_long_and_however_small_the_cache(
    engine: WordEngine, families: dict[str, Tokenizer]
) -> None:
    texts = pa.array([" unmerged", "xyzzy" * 40, "q!", "xyzzy" * 41], pa.large_string())
    expected = [families["llama3"].encode(text, add_special_tokens=False).ids for text in texts.to_pylist()]
    assert [len(ids) for ids in expected[:2]] == [1, 1]
    tiny = WordCache(max_slots=2, pinned=engine._pinned)
    assert tiny.word_bytes == 200

    assert _encode(engine, tiny, texts) == [one for ids in expected for one in ids]


@pytest.mark.parametrize("name", ["gpt2", "llama2"])
def test_short_and_long_words_merge_as_in_tokenizers(name: str, families: dict[str, Tokenizer]) -> None:
    model = json.loads(families[name].to_str())["model"]
    merges = bpe_tables.byte_merges(model) if name == "gpt2" else bpe_tables.character_merges(model)
    bare = Tokenizer.from_str(json.dumps({**json.loads(families[name].to_str()), "normalizer": None}))
    chance = np.random.default_rng(2)
    for size in (1, 2, SHORT_WORD - 1, SHORT_WORD, SHORT_WORD + 1, 300, 3000):
        for letters in ("a", "th", "the quickbrown".replace(" ", ""), "été漢字한글"):
            word = "".join(chance.choice(list(letters), size))
            content = np.frombuffer(word.encode(), np.uint8)
            out = np.empty(len(content), np.int32)
            count = encode_word(content, 0, len(content), merges, out, 0)
            assert out[:count].tolist() == bare.encode(word, add_special_tokens=False).ids, word


def test_a_text_longer_than_a_block_and_many_texts_in_one_give_the_same_ids(
    families: dict[str, Tokenizer], scripts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = FastTokenizer(families["o200k"])
    texts = pa.array([*scripts.values(), "", " ".join(scripts.values())])
    assert one.path.startswith("word cache")
    expected = one.encode(texts)
    for size in (1, 100, 1000):
        monkeypatch.setattr(wordengine, "BLOCK_BYTES", size)
        assert one.encode(texts).equals(expected)
        assert one.count(texts).tolist() == [len(ids) for ids in expected.to_pylist()]
