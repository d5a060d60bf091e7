"""ROUGE-L between short texts, and a pool that takes in only what is unlike all it holds. Knows texts only.

Source: Lin (2004), "ROUGE: A Package for Automatic Evaluation of Summaries", section 3 (sentence level, beta = 1). The
longest common subsequence is counted in bits (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

# Words; characters of scripts that put no space between words stand alone, else a sentence would be one word.
_WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")  # fmt: skip  # noqa: E501


def words_of(text: str) -> list[str]:
    """The text's words in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """The F-measure of the longest common subsequence of two lists of words, 0 to 1; 0 when either is empty."""
    if not one or not other:
        return 0.0
    return 2 * _common_words(one, other) / (len(one) + len(other))


class Pool:
    """Texts of which no two are alike: `find_like` before `add`."""

    def __init__(self, threshold: float, texts: Iterable[str] = ()) -> None:
        self._threshold = threshold
        self._texts: list[str] = []
        self._words: list[list[str]] = []
        self._holders: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)  # word -> (text, times in it)
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._texts)

    def find_like(self, text: str) -> tuple[str, float] | None:
        """The text most like this one and its ROUGE-L, when that reaches the threshold; the earliest of equals."""
        words = words_of(text)
        best: tuple[str, float] | None = None
        for place in self._candidates(words):
            value = rouge_l(words, self._words[place])
            if value >= self._threshold and (best is None or value > best[1]):
                best = self._texts[place], value
        return best

    def add(self, text: str) -> None:
        words = words_of(text)
        place = len(self._texts)
        self._texts.append(text)
        self._words.append(words)
        for word, times in Counter(words).items():
            self._holders[word].append((place, times))

    def _candidates(self, words: Sequence[str]) -> list[int]:
        """Texts that share enough words, in any order, to reach the threshold: no other can. In order."""
        shared: defaultdict[int, int] = defaultdict(int)
        for word, times in Counter(words).items():
            for place, held in self._holders.get(word, ()):
                shared[place] += min(times, held)
        enough = self._threshold / 2
        return sorted(
            place for place, count in shared.items() if count >= enough * (len(words) + len(self._words[place])) - 1e-9
        )


def _common_words(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence: a bit for each word of `one`, a step for each of `other`."""
    places: defaultdict[str, int] = defaultdict(int)
    for place, word in enumerate(one):
        places[word] |= 1 << place
    everything = (1 << len(one)) - 1
    row = everything
    for word in other:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & everything
    return len(one) - row.bit_count()
