"""Steps over batches that rewrite or drop by one document at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.plugins import find_plugins, load_plugin
from espalier.core.types import Document, Span
from espalier.data.clean import length
from espalier.data.clean.length import LengthSpec
from espalier.data.clean.replies import RepliesSpec
from espalier.data.clean.wrap import UnwrapSpec
from espalier.data.flow.batch import to_batch
from espalier.data.flow.outcome import Outcome, apply_outcome
from espalier.data.flow.step import CleanStep


def run(spec: Any, *documents: tuple[str, dict[str, str]]) -> Outcome:
    batch = to_batch([Document(f"d{n}", text, Span("0" * 64, "u"), tags) for n, (text, tags) in enumerate(documents)])
    declared: CleanStep = load_plugin("espalier.cleaners", spec.step)
    outcome: Outcome = declared.prepare(spec, Path()).apply(batch)  # type: ignore[union-attr]
    return outcome


@pytest.mark.parametrize("name", sorted(find_plugins("espalier.cleaners")))
def test_every_step_is_declared_under_the_name_its_parameters_have(name: str) -> None:
    declared: CleanStep = load_plugin("espalier.cleaners", name)
    fields = declared.spec.model_fields
    assert isinstance(declared, CleanStep) and declared.name == name and fields["step"].default in (name, None, ...)
    assert set(declared.files) <= set(fields)


_TEXTS = [
    "",
    " \n\n ",
    "The harbour was quiet,  and the boats lay there.\u200b\r\n\r\n\r\nNobody had come to be with them that day. " * 4,
    "Der Hafen war still. Café “zu” e\u0301t\u00e9 – ja…",
    "港は静かだった。" * 30,
    "Subject: a\n\nAn answer.\n\nKind regards,\nAnn\n> quoted",
]
_BY_ROW = [
    {"step": "normalise"},
    {"step": "normalise", "form": "NFKC", "messages": True},
    {"step": "replies"},
    {"step": "unwrap"},
    {"step": "length"},
    {"step": "language", "keep": ["en", "ja"]},
    {"step": "quality", "fineweb": {}},
    {"step": "toxicity", "lists": ["words.txt"], "max_share": 0.1},
    {"step": "licence", "keep": ["MIT"]},
    {"step": "chunk", "size": 64, "overlap": 10},
    {"step": "chunk", "by": "sentences", "size": 64},
    {"step": "chunk", "by": "headings", "size": 64, "min_size": 20},
]


@pytest.mark.parametrize("parameters", _BY_ROW, ids=lambda parameters: parameters["step"])
def test_a_row_has_the_same_outcome_alone_as_among_others(parameters: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("harbour\nanswer")
    tags = [{"format": "eml", "licence": "MIT"}, {"format": "txt", "licence": "GPL-2.0"}, {"language": "en"}]
    batch = to_batch([Document(f"d{n}", text, Span("0" * 64, "u"), tags[n % 3]) for n, text in enumerate(_TEXTS)])
    declared: CleanStep = load_plugin("espalier.cleaners", parameters["step"])
    step: Any = declared.prepare(declared.spec.model_validate(parameters), tmp_path)
    together = step.apply(batch)
    alone = [step.apply(batch.slice(row, 1)) for row in range(len(batch))]
    rows = [row for n, outcome in enumerate(alone) for row in apply_outcome(batch.slice(n, 1), outcome).to_pylist()]
    assert apply_outcome(batch, together).to_pylist() == rows
    assert (together.reasons.to_pylist() if together.reasons is not None else [None] * len(batch)) == [
        outcome.reasons.to_pylist()[0] if outcome.reasons is not None else None for outcome in alone
    ]
    summed: Counter[str] = Counter()
    for outcome in alone:
        summed.update(outcome.counts)
    assert {name: count for name, count in summed.items() if count} == {
        name: count for name, count in together.counts.items() if count
    }
    assert apply_outcome(batch.slice(0, 0), step.apply(batch.slice(0, 0))).num_rows == 0


def test_only_mails_lose_quotes_and_only_wrapped_formats_are_unwrapped() -> None:
    quoted, wrapped = (
        "A note.\n> a quote",
        "This is one long line that was broken for the sake of\nthe page it stood on",
    )
    replies = run(RepliesSpec(), (quoted, {"format": "md"}), (quoted, {"format": "eml"}), (quoted, {}))
    assert replies.texts.to_pylist() == [quoted, "A note.", quoted] and replies.counts == {"changed": 1}
    unwrapped = run(UnwrapSpec(), (wrapped, {"format": "pdf"}), (wrapped, {"format": "md"}))
    assert unwrapped.texts.to_pylist() == [wrapped.replace("\n", " "), wrapped]
    assert run(UnwrapSpec(), ("short", {"format": "pdf"})).texts is None


def test_a_document_is_dropped_for_its_length_with_the_figure_and_the_bound() -> None:
    texts = ["", "word " * 3, "a b c " * 20, "long " * 200]
    outcome = run(LengthSpec(min_chars=10, min_words=4, max_chars=500), *((text, {}) for text in texts))
    assert outcome.reasons.to_pylist() == [
        "too short: 0 characters, min_chars is 10",
        "too short: 3 words, min_words is 4",
        None,
        "too long: 1000 characters, max_chars is 500",
    ]
    assert run(LengthSpec(), ("enough of a text, I say", {})).reasons is None


@given(st.lists(st.text(max_size=30)))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_words_are_counted_alike_compiled_or_not(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(length, "is_worth_compiling", lambda column: True)
        assert length.count_words(pa.array(texts, pa.large_string())).tolist() == [len(text.split()) for text in texts]
