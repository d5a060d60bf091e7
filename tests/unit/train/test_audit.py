"""The mask audit: what it counts, what it warns of, what it refuses, and the sample a person looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.tokens.pack import lay_branches
from espalier.tokens.tokenizer import ChatTokenizer, load_tokenizer
from espalier.train.audit import Auditor, MaskAudit, join_audits, mark_strip, refuse_poor
from espalier.train.laying import answers

Audit = Callable[..., MaskAudit]


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> ChatTokenizer:
    return load_tokenizer(tiny_base)


@pytest.fixture
def audit(tokenizer: ChatTokenizer) -> Audit:
    def run(examples: Sequence[Example], context_tokens: int = 100) -> MaskAudit:
        laying = answers(tokenizer, context_tokens=context_tokens)
        auditor = Auditor(laying, lambda ids: tokenizer.decode(ids, skip_special=False))
        for example, laid in zip(examples, laying.lay(examples), strict=True):
            auditor.add(example, laid)
        refuse_poor(auditor, "the dataset", context_tokens=context_tokens)
        return auditor.finish()

    return run


def chat(id: str, question: str, answer: str) -> Example:
    return Example(id, [Message("user", question), Message("assistant", answer)])


def test_the_sample_marks_exactly_the_answer(audit: Audit) -> None:
    report = audit([chat("x", "Hi", "Yes")])
    assert report.sample == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Yes<|im_end|>⟧"


def test_the_sample_of_a_branching_strip_shows_each_answer_by_its_name(tokenizer: ChatTokenizer) -> None:
    prompt, good, bad = (tokenizer.encode(text) for text in ("the fox", " jumps", "."))
    strip = lay_branches("x", prompt, [(good, [1.0] * len(good)), (bad, [1.0] * len(bad))])
    shown = mark_strip(strip, tokenizer.decode, ("chosen", "rejected"))
    assert shown == "the fox\n[chosen] ⟦ jumps⟧\n[rejected] ⟦.⟧"


def test_cut_and_dropped_examples_are_counted_and_named(audit: Audit) -> None:
    examples = [
        chat("whole", "Hi", "Yes"),
        chat("cut", "Hi", "Yes " * 200),
        chat("lost", "Hi " * 200, "Yes"),
        Example("mute", [Message("user", "Hi")]),
    ]
    report = audit(examples)
    assert (report.examples, report.documents, report.truncated, report.dropped) == (2, 2, 2, 2)
    assert report.longest_tokens == 99  # the hundredth is predicted, not read
    assert report.first_truncated == ("cut", "lost")
    assert {fault.first for fault in report.drops.values()} == {("lost",), ("mute",)}
    assert any("2 of 4 examples are cut" in line for line in report.warnings)
    assert 0 < report.supervised_share < 1


def test_a_report_survives_json(audit: Audit) -> None:
    report = audit([chat("a", "Hi", "Yes"), chat("b", "Hi", "No"), Example("c", [Message("user", "Hi")])])
    assert MaskAudit.from_json(report.to_json()) == report


def test_few_supervised_tokens_are_warned_of(audit: Audit) -> None:
    assert any("carry loss" in line for line in audit([chat("a", "the fox " * 60, "Yes")], 1000).warnings)
    assert not audit([chat("a", "Hi", "Yes")]).warnings


def test_one_answer_to_everything_is_warned_of_however_many_others_there_are(audit: Audit) -> None:
    same = [chat(f"s{n}", f"Is {n}?", "Yes") for n in range(1800)]
    others = [chat(f"o{n}", f"Is {n}?", f"It is {n}.") for n in range(300)]
    warned = [line for line in audit([*same[:900], *others, *same[900:]]).warnings if "are the same" in line]
    assert len(warned) == 1 and "Yes" in warned[0]
    assert not any("are the same" in line for line in audit(others).warnings)


def test_a_set_most_of_which_is_bad_is_refused_with_the_reasons_and_the_first_of_them(audit: Audit) -> None:
    bad = [Example(f"bad-{n}", [Message("user", "Hi"), Message("assistant", " ")]) for n in range(7)]
    with pytest.raises(InvalidInput, match=r"7 of 13 examples .*every answer is empty \(bad-0, .*bad-4 \.\.\.\)"):
        audit(bad + [chat(f"good-{n}", "Hi", "Yes") for n in range(6)])
    assert audit(bad + [chat(f"good-{n}", "Hi", "Yes") for n in range(7)]).dropped == 7


@pytest.mark.parametrize(
    "question",
    [[], [Message("user", "Which?")], [Message("system", "Be brief."), Message("user", "Which?")]],
    ids=["no question", "question", "system and question"],
)
def test_preference_pairs_given_to_a_method_of_answers_are_refused_naming_the_methods_for_them(
    audit: Audit, question: list[Message]
) -> None:
    answers = {"chosen": [Message("assistant", "a")], "rejected": [Message("assistant", "b")]}
    pairs = [Example(f"p{n}", question, **answers) for n in range(3)]
    with pytest.raises(InvalidInput, match="all 3 examples are preference pairs") as caught:
        audit(pairs)
    assert "`method: dpo`" in caught.value.hint
    with pytest.raises(InvalidInput, match=r"3 of 5 .*3 a preference pair without an answer to learn") as caught:
        audit([*pairs, chat("a", "Hi", "Yes"), chat("b", "Hi", "No")])
    assert "`method: dpo`" in caught.value.hint


def test_a_pair_whose_question_has_answers_of_its_own_teaches_those(audit: Audit) -> None:
    turns = [Message("user", "Hi"), Message("assistant", "Yes"), Message("user", "Which?")]
    pair = Example("p", turns, chosen=[Message("assistant", "a")], rejected=[Message("assistant", "b")])
    assert audit([pair]).dropped == 0


def test_a_mix_sums_its_datasets_and_says_whose_a_warning_is(audit: Audit) -> None:
    one, two = audit([chat("a", "Hi", "Yes")]), audit([chat("a", "the fox " * 60, "Yes")], 1000)
    both = join_audits([one, replace(two, name="general", share=0.5)])
    assert both.tokens == one.tokens + two.tokens
    assert [part.name for part in both.parts] == ["", "general"]
    assert [line.split(":")[0] for line in both.warnings] == ["general"]
    assert np.isclose(both.supervised_share, (one.supervised_tokens + two.supervised_tokens) / both.tokens)
