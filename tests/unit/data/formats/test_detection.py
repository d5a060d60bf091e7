from __future__ import annotations

from typing import Any

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.formats.detect import ROWS, detect_format

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def test_what_was_seen_is_told_in_numbers() -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": "i", "input": "" if n < 40 else "x", "output": "o"} for n in range(97)
    ]
    rows += [{"instruction": "i"}] * 3
    found = detect_format(rows)
    assert (found.format, found.confidence, found.rows) == ("alpaca", 0.97, 100)
    assert found.because == "97 of 100 rows have `instruction` and `output`: Alpaca; `input` is empty in 40"


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("openai-chat", {"messages": CHAT, "text": "t"}),
        ("openai-chat", {"prompt": "p", "prompt_id": "1", "messages": CHAT}),
        ("bedrock-conversation", {"schemaVersion": "bedrock-conversation-2024", "messages": [{"role": "user"}]}),
        ("bedrock-conversation", {"messages": [{"role": "user", "content": [{"text": "q"}]}]}),
        ("bedrock-claude", {"system": "s", "messages": CHAT}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}], "id": 1}),
        ("alpaca", {"instruction": "i", "input": "", "output": "o", "text": "t"}),
        ("completion", {"prompt": "q", "completion": "a"}),
        ("kto", {"prompt": "q", "completion": "a", "label": True}),
        ("completion", {"prompt": "q", "completion": "a", "label": "not a verdict"}),
        ("question-answer", {"id": 1, "context": "c", "question": "q", "answer": "a", "text": "t"}),
        ("text-label", {"text": "t", "label": 3}),
        ("text", {"text": "t", "url": "u"}),
        ("preference", {"chosen": "a", "rejected": "b"}),
        ("openai-preference", {"input": {}, "preferred_output": [], "non_preferred_output": []}),
    ],
)
def test_each_format_is_known_by_its_columns(name: str, row: dict[str, Any]) -> None:
    assert detect_format([row] * 3).format == name


def test_confidence_counts_rows_that_can_be_read() -> None:
    rows = [{"prompt": "q", "completion": "a"}] * 3 + [{"prompt": "q", "completion": ""}]
    found = detect_format(rows)
    assert found.confidence == 0.75
    assert "1 cannot be read, such as: `completion` must be a text that is not empty" in found.because
    (candidate,) = found.candidates
    assert (candidate.fits, candidate.reads) == (4, 3)


def test_columns_that_are_not_read_are_named() -> None:
    found = detect_format([{"text": "t", "category": "c", "url": "u"}])
    assert found.because.endswith("not read: `category` and `url`")


def test_an_ambiguity_is_refused_with_its_candidates() -> None:
    row = {"messages": CHAT, "chosen": CHAT, "rejected": CHAT}
    with pytest.raises(InvalidInput) as refusal:
        detect_format([row] * 5)
    assert "openai-chat (5 of 5 rows look like it)" in refusal.value.message
    assert "preference (5 of 5 rows look like it)" in refusal.value.message
    assert refusal.value.hint == "say which: format"


def test_rows_of_several_formats_are_refused() -> None:
    rows: list[dict[str, Any]] = [{"messages": CHAT}, {"instruction": "i", "output": "o"}] * 5
    with pytest.raises(InvalidInput, match=r"alpaca \(5 of 10 .* openai-chat \(5 of 10"):
        detect_format(rows)


def test_too_few_rows_of_a_format_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"too few rows are of one format: openai-chat \(1 of 9"):
        detect_format([{"messages": CHAT}] + [{"x": 1}] * 8)


def test_unknown_columns_are_refused_and_named() -> None:
    with pytest.raises(InvalidInput, match="2 rows with `mr` in 2, `ref` in 1"):
        detect_format([{"mr": "m", "ref": "r"}, {"mr": "m"}])
    with pytest.raises(InvalidInput, match="no row"):
        detect_format([])


def test_only_the_first_rows_are_looked_at() -> None:
    def rows() -> Any:
        for _ in range(ROWS):
            yield {"text": "t"}
        raise AssertionError("read on")

    assert detect_format(rows()).rows == ROWS


def test_a_column_of_few_short_values_beside_a_text_may_be_its_label() -> None:
    rows = [{"text": f"t {n}", "category": "ab"[n % 2], "id": n} for n in range(20)]
    found = detect_format(rows)
    assert found.format == "text" and found.labels == ("category",)
    assert "`category` takes 2 values: a label?" in found.because
    assert detect_format([{**rows[0], "category": None}, *rows]).labels == ()


def test_two_columns_of_text_are_suggested_as_question_and_answer() -> None:
    with pytest.raises(InvalidInput) as refusal:
        detect_format([{"mr": "m", "ref": "r"}])
    assert "{kind: completion, prompt: mr, completion: ref}" in refusal.value.hint
