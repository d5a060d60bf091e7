from __future__ import annotations

import re
import unicodedata

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.data.dedup.sets import collect_shingles
from espalier.data.dedup.sketch import HIGH, LOW, sketch_texts
from espalier.data.dedup.words import hash_texts, read_words


def texts_of(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def words_of(text: str) -> list[str]:
    (words,) = read_words(texts_of(text))
    return bytes(words.text).decode().split(" ") if len(words.text) else []


def reference(text: str) -> list[str]:
    """The same by a regular expression over the characters' categories, for text without unspaced scripts."""
    kinds = ""
    for character in text:
        category = unicodedata.category(character)
        kinds += "m" if category[0] == "M" else "w" if category[0] in "LN" or category == "Pc" else " "
    return [text[run.start() : run.end()] for run in re.finditer("w[wm]*", kinds)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World! x_1", ["hello", "world", "x_1"]),
        ("", []),
        ("... !?", []),
        ("ÄÖÜ Straße ΣΊΣΥΦΟΣ", ["äöü", "straße", "σίσυφοσ"]),
        ("東京です 2024", ["東", "京", "で", "す", "2024"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("ที่นี่", ["ที่", "นี่"]),  # marks stay on what they stand over
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("don't", ["don", "t"]),
        ("\u0301alone", ["alone"]),
        ("𐐀 𝔘𝔫 𠀀𠀁", ["𐐨", "𝔘𝔫", "𠀀", "𠀁"]),
    ],
)
def test_words_are_runs_of_letters_and_in_unspaced_scripts_characters(text: str, words: list[str]) -> None:
    assert words_of(text) == words


SPACED = st.characters(max_codepoint=0x0DFF, exclude_categories=["Cs"]) | st.sampled_from("한국어Ⱥᏸꭰ𐐀𝔘ⰀıİẞǅΣ")


@given(st.text(SPACED, max_size=60))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_words_are_what_a_regular_expression_over_categories_finds(text: str) -> None:
    found = words_of(text)
    expected = reference(text)
    # Simple lower case is one code point for one, which str.lower is but for İ.
    assert [len(word) for word in found] == [len(word) for word in expected]
    assert [word for word in found if "i" not in word] == [
        "".join(c.lower() for c in word) for word, made in zip(expected, found, strict=True) if "i" not in made
    ]


@given(st.lists(st.text(max_size=40), max_size=30), st.integers(0, 5), st.integers(1, 4))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_slice_of_texts_reads_as_the_texts_themselves(texts: list[str], start: int, size: int) -> None:
    """Buffers of a slice begin elsewhere; each text is read alone whatever stands beside it."""
    column = texts_of(*texts)[start:]
    one_by_one = [collect_shingles(texts_of(text), size)[0].as_py() for text in texts[start:]]
    assert collect_shingles(column, size).to_pylist() == one_by_one
    assert hash_texts(column) == [hash_texts(texts_of(text))[0] for text in texts[start:]]


def test_blocks_of_texts_give_what_one_text_at_a_time_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of(*(f"text number {n} says {n * n} and nothing else" for n in range(200)), "", "x" * 900)
    whole = sketch_texts(texts, 0.8, 3)
    monkeypatch.setattr("espalier.data.dedup.words._BLOCK_BYTES", 100)
    assert sketch_texts(texts, 0.8, 3).equals(whole)


def test_the_digest_is_over_the_words_and_without_words_over_the_bytes() -> None:
    sketch = sketch_texts(texts_of("A b, c!", "a B c", "", "?!", "!?", "ab c"), 1, 3)
    digests = [
        (high << 64) | low for high, low in zip(*(sketch.column(n).to_pylist() for n in (HIGH, LOW)), strict=True)
    ]
    assert digests[0] == digests[1] == xxhash.xxh3_128_intdigest(b"a b c")
    assert len(set(digests)) == 5
    assert hash_texts(texts_of("A b, c!", "...")) == [xxhash.xxh3_64_intdigest(b"a b c"), xxhash.xxh3_64_intdigest(b"")]


@given(st.lists(st.sampled_from(["ab", "cd", "ef"]), max_size=12), st.integers(1, 4))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_shingles_are_as_many_as_there_are_different_runs_of_words(words: list[str], size: int) -> None:
    runs = {tuple(words[start : start + size]) for start in range(max(1, len(words) - size + 1))} if words else set()
    shingles = collect_shingles(texts_of(" ".join(words)), size)[0].as_py()
    assert len(shingles) == len(set(shingles)) == len(runs)
