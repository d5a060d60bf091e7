"""Ids from elsewhere become the deltas the embedded engine would tell: text, stops, calls, several answers, usage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from espalier.core.errors import EspalierError
from espalier.core.ports import Delta
from espalier.core.types import SamplingSpec
from espalier.nn.base import LoadedBase, load_base
from espalier.serve.engines.answers import Answers
from espalier.serve.shape import PLAIN, Shape


@pytest.fixture(scope="module")
def base(tiny_folder: Path) -> LoadedBase:
    return load_base(f"path:{tiny_folder}")


def chunk(ids: Sequence[int], finish: str | None = None, index: int = 0, used: int = 1) -> bytes:
    body = {
        "model": "m", "choices": [{"index": index, "text": "", "token_ids": list(ids), "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": used},
    }  # fmt: skip
    return b"data: " + json.dumps(body).encode()


def total(used: int) -> bytes:
    body = {"model": "m", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": used}}
    return b"data: " + json.dumps(body).encode()


def read_all(answers: Answers, lines: list[bytes]) -> list[Delta]:
    return [delta for line in lines for delta in answers.read(line)]


def test_the_token_that_ends_an_answer_counts_and_is_no_text(base: LoadedBase) -> None:
    ids, end = base.tokenizer.encode("quick fox"), min(base.eos_ids)
    deltas = read_all(Answers(SamplingSpec(), base, PLAIN), [chunk(ids), chunk([end], "stop"), total(len(ids) + 1)])
    assert "".join(delta.text for delta in deltas) == "quick fox"
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].usage is not None and deltas[-1].usage.completion_tokens == len(ids) + 1


def test_a_character_is_never_told_in_parts(base: LoadedBase) -> None:
    ids = base.tokenizer.encode("a\u72d0b")
    lines = [chunk([id]) for id in ids]
    deltas = read_all(Answers(SamplingSpec(), base, PLAIN), [*lines, chunk([], "length"), total(len(ids))])
    assert "".join(delta.text for delta in deltas) == "a\u72d0b"
    assert all("\ufffd" not in delta.text for delta in deltas)


def test_text_stops_before_a_stop_string_and_the_rest_is_not_waited_for(base: LoadedBase) -> None:
    answers = Answers(SamplingSpec(stop=("fox",)), base, PLAIN)
    deltas = read_all(answers, [chunk(base.tokenizer.encode("quick fox jumps"), used=6)])
    assert (deltas[-1].text, deltas[-1].finish_reason, answers.done) == ("quick ", "stop", True)


def test_where_nothing_is_drawn_one_answer_is_told_as_often_as_was_wanted(base: LoadedBase) -> None:
    ids = base.tokenizer.encode("fox")
    deltas = read_all(Answers(SamplingSpec(n=3), base, PLAIN), [chunk(ids), chunk([], "length"), total(len(ids))])
    texts = {index: "".join(d.text for d in deltas if d.index == index) for index in range(3)}
    assert set(texts.values()) == {"fox"}
    assert sorted(d.index for d in deltas if d.finish_reason) == [0, 1, 2]
    assert deltas[-1].usage is not None and deltas[-1].usage.completion_tokens == 3 * len(ids)


def test_drawn_answers_end_one_by_one_and_the_last_is_held_back_for_the_usage(base: LoadedBase) -> None:
    answers = Answers(SamplingSpec(n=2, temperature=1.0), base, PLAIN)
    ids = base.tokenizer.encode("fox")
    before = read_all(answers, [chunk(ids, "length"), chunk(ids, index=1), chunk([], "length", 1)])
    assert [delta.index for delta in before if delta.finish_reason] == [0]
    after = read_all(answers, [total(9)])
    assert [(d.index, d.finish_reason, d.usage and d.usage.completion_tokens) for d in after] == [(1, "length", 9)]


def test_a_call_of_a_tool_comes_whole_and_one_that_may_come_alone_ends_the_answer(base: LoadedBase) -> None:
    said = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call> and more'
    answers = Answers(SamplingSpec(), base, Shape(None, "hermes", frozenset({"add"}), several=False))
    deltas = read_all(answers, [chunk([id], used=n) for n, id in enumerate(base.tokenizer.encode(said), 1)])
    assert deltas[-1].finish_reason == "tool_calls"
    (call,) = [call for delta in deltas for call in delta.tool_calls]
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1})
    assert "".join(delta.text for delta in deltas) == ""


@pytest.mark.parametrize("lines", [[b"data: [DONE]"], [total(1)]])
def test_a_stream_that_ends_before_its_answers_is_an_error(base: LoadedBase, lines: list[bytes]) -> None:
    with pytest.raises(EspalierError, match="broke off"):
        read_all(Answers(SamplingSpec(), base, PLAIN), lines)


def test_answers_that_will_not_come_end_as_cancelled_with_the_usage_so_far(base: LoadedBase) -> None:
    answers = Answers(SamplingSpec(n=2, temperature=1.0), base, PLAIN)
    read_all(answers, [chunk(base.tokenizer.encode("fox"), "stop", used=3)])
    (last,) = answers.cancel()
    assert (last.index, last.finish_reason) == (1, "cancelled")
    assert last.usage is not None and last.usage.completion_tokens == 3
