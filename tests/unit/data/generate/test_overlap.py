"""ROUGE-L by the textbook, and a pool that agrees with comparing everything with everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.data.generate.overlap import Pool, rouge_l, words_of

WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


def longest(one: list[str], other: list[str]) -> int:
    """The longest common subsequence by the textbook's table (Cormen et al., section 15.4)."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, first in enumerate(one):
        for j, second in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if first == second else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(WORDS, WORDS)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    expected = 2 * longest(one, other) / (len(one) + len(other)) if one and other else 0.0
    assert rouge_l(one, other) == pytest.approx(expected)


@pytest.mark.parametrize(("candidate", "value"), [("police kill the gunman", 3 / 4), ("the gunman kill police", 2 / 4)])
def test_it_gives_the_figures_of_lins_paper(candidate: str, value: float) -> None:
    # Lin (2004), section 3.1: S1 "police killed the gunman"; S2 scores 3/4, S3 2/4 with beta = 1.
    assert rouge_l(words_of("police killed the gunman"), words_of(candidate)) == pytest.approx(value)


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert words_of("Grüß Gott, 3.5 you_all!") == ["grüß", "gott", "3", "5", "you_all"]
    assert words_of("今日は good 天気") == ["今", "日", "は", "good", "天", "気"]
    assert words_of("สวัสดี")[0] == "ส"


@given(st.lists(WORDS.map(" ".join), max_size=12), WORDS.map(" ".join), st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_a_pool_finds_what_comparing_with_everything_finds(texts: list[str], text: str, threshold: float) -> None:
    pool = Pool(threshold, texts)
    every = [(other, rouge_l(words_of(text), words_of(other))) for other in texts]
    near = [each for each in every if each[1] >= threshold]
    assert pool.find_like(text) == (max(near, key=lambda each: each[1]) if near else None)
