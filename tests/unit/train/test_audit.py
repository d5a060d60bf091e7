"""The mask audit: what it counts, and the sample a person looks at."""

from __future__ import annotations

from pathlib import Path

from espalier.core.types import Example, Message
from espalier.tokens.tokenizer import load_tokenizer
from espalier.train.audit import audit


def test_the_sample_marks_exactly_the_answer(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    _, report = audit(
        tokenizer, [Example("x", [Message("user", "Hi"), Message("assistant", "Yes")])], context_tokens=99
    )
    assert report.sample == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Yes<|im_end|>⟧"


def test_cut_and_dropped_examples_are_counted(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    examples = [
        Example("whole", [Message("user", "Hi"), Message("assistant", "Yes")]),
        Example("cut", [Message("user", "Hi"), Message("assistant", "Yes " * 200)]),
        Example("lost", [Message("user", "Hi " * 200), Message("assistant", "Yes")]),
        Example("mute", [Message("user", "Hi")]),
    ]
    kept, report = audit(tokenizer, examples, context_tokens=100)
    assert [document.id for document in kept] == ["whole", "cut"]
    assert (report.examples, report.truncated, report.dropped) == (2, 2, 2)
    assert report.longest_tokens == 100
    assert 0 < report.supervised_share < 1
