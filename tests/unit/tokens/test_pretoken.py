"""Compiled patterns cut as the regex engine of tokenizers does, character for character."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers, pre_tokenizers

from espalier.tokens import pretoken_charsets
from espalier.tokens.columns import Bytes
from espalier.tokens.pretoken_kernels import TEXT, cut_added, cut_pattern, mark_suspects
from espalier.tokens.pretoken_pattern import Automaton, UnknownPattern, compile_pattern, compile_set, is_total
from espalier.tokens.pretokenizer import GPT2, LLAMA3, O200K, QWEN2, add_tokens, composable
from espalier.tokens.tokenizer import PIECES

EVERY_CHARACTER = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
EVERY_POINT = np.array([*range(0xD800), *range(0xE000, 0x110000)])
PATTERNS = {"gpt2": GPT2, "llama3": LLAMA3, "qwen2": QWEN2, "o200k": O200K, "seedling": PIECES}
PATTERNS |= {
    "counts": r"a{2}|b{1,3}|c{2,}|d{0,2}e",
    "preference": r"a|ab|abc?|(?:x|xy)(?:z|yz)*",
    "look-ahead": r"a(?=b)|a(?!c)b?|\s(?=\S)|.",
    "gaps": r"[0-9]+|xyz",
    "nested": r"(?:(a|b)+c?|(?i:k[st]))+",
    "brackets": r"[[:alpha:]]+|[a-z0-9&&[^aeiou5]]|[^\s[.,<>]]{2}",
    "negated": r"[^a-c\s]+|\P{L}",
}


def _cut(text: str, automaton: Automaton) -> list[str]:
    content = text.encode()
    data: Bytes = np.frombuffer(content, np.uint8)
    ends = np.array([len(content)] if content else [], np.int64)
    out_ends, out_kinds = np.empty(len(content), np.int64), np.empty(len(content), np.int32)
    count = cut_pattern(data, 0, ends, np.full(len(ends), TEXT, np.int32), len(ends), automaton, out_ends, out_kinds)
    places = [0, *out_ends[:count].tolist()]
    return [content[start:end].decode() for start, end in itertools.pairwise(places)]


def _cut_by_tokenizers(text: str, pattern: str) -> list[str]:
    splitter = pre_tokenizers.Split(Regex(pattern), "isolated")
    return [piece for piece, _ in splitter.pre_tokenize_str(text)]


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=150)
@given(
    text=st.one_of(
        st.text(max_size=40),
        st.text("abcdexyzkKsſtST'lLvVeErRmMdD019 \n\r\t.,<>/=\"éß漢\u0301\u212aǅʰ٣½", max_size=40),
    )
)
def test_a_compiled_pattern_cuts_as_the_engine_does(name: str, text: str) -> None:
    assert _cut(text, compile_pattern(PATTERNS[name])) == _cut_by_tokenizers(text, PATTERNS[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        r"\p{L}",
        r"\p{N}",
        r"\s",
        r"\S",
        r"[^\s\p{L}\p{N}]",
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
        r"\p{Ll}",
        r"[\p{P}\p{S}]",
    ],
)
def test_a_set_holds_exactly_the_characters_the_engine_matches(pattern: str) -> None:
    splitter = pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed")
    matched = np.ones(len(EVERY_CHARACTER), np.bool_)
    for _, (start, end) in splitter.pre_tokenize_str(EVERY_CHARACTER):
        matched[start:end] = False

    assert np.array_equal(pretoken_charsets.charset(pattern)[EVERY_POINT], matched)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["s", "K", "t", "[sdmt]", "'", "[a-z]"])
def test_a_folded_set_holds_exactly_the_characters_the_engine_matches(pattern: str) -> None:
    splitter = pre_tokenizers.Split(Regex(f"(?i:{pattern})+"), "removed")
    matched = np.ones(len(EVERY_CHARACTER), np.bool_)
    for _, (start, end) in splitter.pre_tokenize_str(EVERY_CHARACTER):
        matched[start:end] = False

    assert np.array_equal(pretoken_charsets.folded_charset(pattern)[EVERY_POINT], matched)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Digits", "Punctuation"])
def test_digits_and_punctuation_are_those_of_their_pre_tokenizers(kind: str) -> None:
    cutter = pre_tokenizers.Digits() if kind == "Digits" else pre_tokenizers.Punctuation()
    found = pretoken_charsets.kind_charset(kind)
    text = "a" + "".join(f"{one}a" for one in EVERY_CHARACTER)
    cut_off = np.zeros(len(EVERY_CHARACTER), np.bool_)
    for _, (start, end) in cutter.pre_tokenize_str(text):
        if start % 2 == 1 and end == start + 1:
            cut_off[start // 2] = True

    assert np.array_equal(found[EVERY_POINT], cut_off)
    assert found[ord("7" if kind == "Digits" else "!")]


def test_sets_cut_one_by_one_or_in_runs() -> None:
    digits = pretoken_charsets.kind_charset("Digits")

    assert _cut("ab12c3²", compile_set(digits, runs=False)) == ["ab", "1", "2", "c", "3", "²"]
    assert _cut("ab12c3²", compile_set(digits, runs=True)) == ["ab", "12", "c", "3²"]


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<=a)b",
        r"a++",
        r"a*?",
        r"a{1,3}+",
        r"^a",
        r"a$",
        r"(a)\1",
        r"\bword",
        r"(?=ab)a",
        r"[]a]",
        r"[^]a]",
        r"[a",
        r"(?i:\p{Lu})",
        r"(?i:[é])",
        r"(?i:ss)",
        r"(?i:é)",
        r"a*",
        r"(?:",
        r"a)",
        r"a{200}",
        r"(?>a)",
        r"",
    ],
)
def test_what_the_compiler_does_not_know_is_refused(pattern: str) -> None:
    with pytest.raises(UnknownPattern):
        compile_pattern(pattern)


def test_a_pattern_that_leaves_nothing_between_its_matches_is_known() -> None:
    assert all(is_total(compile_pattern(pattern)) for pattern in (GPT2, LLAMA3, O200K, PIECES))
    assert not is_total(compile_pattern(r"\p{L}+|\s+"))
    assert not is_total(compile_pattern(r"ab|[^a]"))


def test_characters_that_normalising_leaves_alone_stay_in_any_order() -> None:
    marks = composable()
    quiet = [one for one in EVERY_CHARACTER if not marks[ord(one)]]
    assert len(quiet) > 90_000
    random.Random(3).shuffle(quiet)
    text = "".join(quiet)

    assert normalizers.NFC().normalize_str(text) == text
    assert marks[0x0301]
    assert marks[0x1161]
    assert not marks[ord("é")]


def test_suspects_are_found_in_the_text_they_are_in() -> None:
    data: Bytes = np.frombuffer("abc\u0301éé".encode(), np.uint8)
    offsets = np.array([0, 2, 5, 7, 9])

    assert mark_suspects(data, offsets, composable()).tolist() == [False, True, False, False]


def test_the_longest_added_token_is_found_first_and_from_the_left() -> None:
    added = add_tokens(
        {"content": content, "id": number} for number, content in enumerate(["<a", "<a>", "a>", "b", "é"])
    )
    content = "x<a><ab<a>>é".encode()
    data: Bytes = np.frombuffer(content, np.uint8)
    out_ends, out_kinds = np.empty(len(content), np.int64), np.empty(len(content), np.int32)
    count = cut_added(data, 0, np.array([len(content)]), np.array([TEXT], np.int32), 1, added, out_ends, out_kinds)

    assert list(zip(out_ends[:count].tolist(), out_kinds[:count].tolist(), strict=True)) == [
        (1, TEXT),
        (4, 1),
        (6, 0),
        (7, 3),
        (10, 1),
        (11, TEXT),
        (13, 4),
    ]
