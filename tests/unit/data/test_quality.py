"""The quality rules against a plain reading of the papers."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from espalier.core.types import Document, Span
from espalier.data.clean.quality import (
    FineWebRules,
    GopherRules,
    QualitySpec,
    RepetitionRules,
    measure,
    prepare,
)
from espalier.data.flow.batch import to_batch
from espalier.data.flow.outcome import Outcome

ALL = QualitySpec(fineweb=FineWebRules())
NO_LIMIT = RepetitionRules(max_top={2: 0, 3: 0, 4: 0}, max_repeated=dict.fromkeys(range(5, 11), 0))
PROSE = (
    "The harbour was quiet that morning, and the boats lay with their sails furled. Nobody had come to mend the "
    "nets, which is what one would have thought of first. Later a woman walked down the steps to look for her "
    "brother, who should have been back by noon; she waited until dusk, counting gulls and stones."
)


def judge(spec: QualitySpec, *texts: str, **tags: str) -> list[str | None]:
    documents = [Document(f"d{n}", text, Span("0" * 64, "a.txt"), tags) for n, text in enumerate(texts)]
    outcome: Outcome = prepare(spec, Path()).apply(to_batch(documents))
    return [None] * len(texts) if outcome.reasons is None else outcome.reasons.to_pylist()


# An independent reference, as plain as it can be


def refer(text: str) -> dict[str, float]:
    words, breaks = text.split(), text.count("\n")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    stops = {"the", "be", "to", "of", "and", "that", "have", "with"}
    found: dict[str, float] = {
        "gopher.min_words": len(words),
        "gopher.max_words": len(words),
        "gopher.min_word_chars": over(sum(map(len, words)), len(words)),
        "gopher.max_word_chars": over(sum(map(len, words)), len(words)),
        "gopher.max_hashes": over(text.count("#"), len(words)),
        "gopher.max_ellipses": over(text.count("...") + text.count("…"), len(words)),
        "gopher.max_bullet_lines": over(sum(line.startswith(("•", "-")) for line in lines), len(lines)),
        "gopher.max_ellipsis_lines": over(sum(line.endswith(("...", "…")) for line in lines), len(lines)),
        "gopher.min_alphabetic_words": over(sum(any(c.isalpha() for c in word) for word in words), len(words)),
        "gopher.min_stop_words": len(stops & set(words)),
    }
    paragraphs = [part for part in re.split(r"\n(?:[^\S\n]*\n)+", text) if part.strip()]
    again, again_chars = repeats([tuple(line.split()) for line in lines], list(map(len, lines)))
    found["repetition.max_lines"] = over(again, len(lines))
    found["repetition.max_line_chars"] = over(again_chars, len(text))
    stripped = [part.strip() for part in paragraphs]
    again, chars = repeats([tuple(part.split()) for part in stripped], list(map(len, stripped)))
    found["repetition.max_paragraphs"] = over(again, len(paragraphs))
    found["repetition.max_paragraph_chars"] = over(chars, len(text))
    for n in (2, 3, 4):
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        top, count = grams.most_common(1)[0] if grams else ((), 0)
        found[f"repetition.max_top.{n}"] = over(len(" ".join(top)) * count if count > 1 else 0, len(text))
    for n in range(5, 11):
        seen, at, chars = set(), 0, 0
        while at < len(words) - n + 1:
            gram = tuple(words[at : at + n])
            if gram in seen:
                chars, at = chars + len("".join(gram)), at + n
            else:
                seen.add(gram)
                at += 1
        found[f"repetition.max_repeated.{n}"] = over(chars, len(text))
    ends = (".", "'", '"', "!", "?")
    found["fineweb.min_ended_lines"] = over(sum(line.endswith(ends) for line in lines), len(lines))
    found["fineweb.max_short_lines"] = over(sum(len(line) <= 30 for line in lines), len(lines))
    found["fineweb.max_repeated_line_chars"] = over(again_chars, len(text.replace("\n", "")))
    found["fineweb.max_line_breaks"] = over(breaks, len(words))
    return found


def over(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def repeats(items: list[tuple[str, ...]], widths: list[int]) -> tuple[int, int]:
    seen: set[tuple[str, ...]] = set()
    count = chars = 0
    for item, width in zip(items, widths, strict=True):
        if item in seen:
            count, chars = count + 1, chars + width
        seen.add(item)
    return count, chars


_WORDS = st.sampled_from(
    ["the", "be", "to", "a", "bb", "über", "漢字", "#", "...", "…", "-", "•", "42", "x.", "y...", "no\u00a0w"]
)
_GAPS = st.sampled_from([" ", "  ", "\n", "\n\n", "\n \n", "\t", "\r\n", "\u3000", ""])
_TEXTS = st.lists(st.tuples(_WORDS, _GAPS), max_size=60).map(lambda parts: "".join(w + g for w, g in parts))


@given(st.lists(_TEXTS | st.text(max_size=60), max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_rule_measures_what_a_plain_reading_measures(texts: list[str]) -> None:
    spec = QualitySpec(repetition=NO_LIMIT, fineweb=FineWebRules())
    for rule in measure(pa.array(texts, pa.large_string()), spec):
        expected = [refer(text)[rule.name] for text in texts]
        assert rule.values.tolist() == pytest.approx(expected, abs=1e-12), rule.name


@given(st.lists(_TEXTS, min_size=1, max_size=3), st.integers(1, 6))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_value_that_a_bound_spared_is_within_its_limit(texts: list[str], times: int) -> None:
    texts = [text * times for text in texts]
    for rule in measure(pa.array(texts, pa.large_string()), ALL):
        for text, value in zip(texts, rule.values.tolist(), strict=True):
            exact = refer(text)[rule.name]
            assert value == pytest.approx(exact, abs=1e-12) or (value == 0 and exact <= rule.bound), rule.name


# Each rule by an example

_EXAMPLES = {
    "gopher.min_words": "The rest of it is to be had with that.",
    "gopher.max_words": f"{PROSE} " * 2000,
    "gopher.min_word_chars": "to be of a b c d e f g the " * 8 + PROSE[:60],
    "gopher.max_word_chars": "the of and " + "incomprehensibilities " * 60,
    "gopher.max_hashes": PROSE.replace("t", "#"),
    "gopher.max_ellipses": PROSE.replace(", ", "... ").replace("the", "the..."),
    "gopher.max_bullet_lines": "\n".join(f"- {part} together with the" for part in PROSE.split(" ")),
    "gopher.max_ellipsis_lines": "\n".join(f"{part} with the words in it, and more …" for part in PROSE.split(",")),
    "gopher.min_alphabetic_words": PROSE + " 12345" * 30,
    "gopher.min_stop_words": re.sub(r"\b(the|be|to|of|and|that|have|with)\b", "le", PROSE),
}


@pytest.mark.parametrize("rule", _EXAMPLES)
def test_a_text_fails_a_rule_of_gopher_and_the_reason_says_which_and_by_how_much(rule: str) -> None:
    [reason] = judge(QualitySpec(repetition=None), _EXAMPLES[rule])
    assert reason is not None and reason.startswith(f"quality {rule}: ")
    off = GopherRules.model_validate({rule.removeprefix("gopher."): None})
    [other] = judge(QualitySpec(gopher=off, repetition=None), _EXAMPLES[rule])
    assert other is None or not other.startswith(f"quality {rule}: ")


def test_prose_passes_all_rules() -> None:
    text = PROSE.replace(". ", ".\n")
    assert judge(ALL, text) == [None] and judge(QualitySpec(), PROSE) == [None]


def test_a_reason_names_the_value_and_the_bound() -> None:
    assert judge(QualitySpec(), "Too short.") == ["quality gopher.min_words: 2, must be at least 50"]


def test_repeated_lines_paragraphs_and_phrases_are_found() -> None:
    spec = QualitySpec(gopher=None)
    lines = "\n".join(["first things come first", "again", "again", "and last things last"])
    assert judge(spec, lines) == [None]  # 1 of 4 lines
    assert judge(spec, "once\ntwice\nonce\ntwice")[0] == "quality repetition.max_lines: 0.5, must be at most 0.3"
    parts = "One of the two.\n\n" * 2 + "another\n\nthird"
    [reason] = judge(QualitySpec(gopher=None, repetition=RepetitionRules(max_lines=None, max_line_chars=None)), parts)
    assert reason is not None and reason.startswith("quality repetition.max_paragraph_chars: 0.3")
    phrase = " ".join(f"{word} call us now" for word in PROSE.split()[:20])
    assert (judge(spec, phrase)[0] or "").startswith("quality repetition.max_top.2: ")
    long = f"{PROSE} But then it was said: {PROSE}"
    assert (judge(spec, long)[0] or "").startswith("quality repetition.max_repeated.5: ")


def test_a_menu_fails_the_rules_of_fineweb_and_they_are_off_by_default() -> None:
    menu = "\n".join(["Home", "About us", "Contact", "Imprint", "Sign in"])
    none = QualitySpec(gopher=None, repetition=None)
    assert judge(none, menu) == [None]
    spec = none.model_copy(update={"fineweb": FineWebRules()})
    assert judge(spec, menu) == ["quality fineweb.min_ended_lines: 0, must be above 0.12"]
    [reason] = judge(spec, "\n".join(f"{n}." for n in range(9)))
    assert reason == "quality fineweb.max_short_lines: 1, must be below 0.67"


def test_only_the_languages_that_are_asked_for_are_judged() -> None:
    spec = QualitySpec(languages=("en",))
    assert judge(spec, "短い。", language="ja") == [None]
    assert judge(spec, "Short.", language="en") != [None]
    assert judge(spec, "Of no known language.") == [None]


def test_a_slice_of_a_column_is_measured_by_itself() -> None:
    texts = pa.array(["a b c", PROSE, "d"], pa.large_string())
    [first, *_] = measure(texts.slice(1, 1), ALL)
    assert first.values.tolist() == [len(PROSE.split())]


@pytest.mark.parametrize("rules", [{"max_top": {1: 0.2}}, {"max_repeated": {5: -1}}, {"max_line": 0.2}])
def test_a_rule_that_makes_no_sense_is_refused(rules: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RepetitionRules.model_validate(rules)
