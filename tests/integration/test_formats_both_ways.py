"""A dataset version that goes out in any format comes back in by an ordinary recipe, saying the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from espalier.core.types import Example, Message
from espalier.data.build import build_dataset
from espalier.data.exchange.export import export_dataset
from espalier.data.exchange.inspect import inspect_source
from espalier.data.spec import DataSpec
from espalier.store.examples import read_examples, write_examples

WAYS = [
    ("openai-chat", "jsonl"),
    ("openai-chat", "parquet"),
    ("openai-chat", "hf"),
    ("bedrock-conversation", "jsonl"),
    ("bedrock-conversation", "parquet"),
    ("bedrock-claude", "jsonl"),
    ("bedrock-completion", "csv"),
    ("sharegpt", "jsonl"),
    ("sharegpt", "hf"),
    ("alpaca", "jsonl"),
    ("alpaca", "csv"),
    ("completion", "parquet"),
    ("question-answer", "csv"),
]


def conversation(number: int) -> list[Message]:
    asked = f'Question {number}: what is "{number}, {number + 1}"?\nSecond line, with ümlauts and 漢字.'
    return [Message("user", asked), Message("assistant", f"Answer {number}; it has\n\n  two lines.")]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("version")
    made = [Example(f"ex_{n}", conversation(n)) for n in range(30)]
    write_examples(folder / "data" / "train-00000.parquet", made)
    return folder


def build(source: Path, out: Path, task: dict[str, Any]) -> list[Example]:
    spec = {"task": task, "steps": [{"step": "length"}], "split": {"near": 1}, "leaks": {"near": 1}, "workers": 1}
    build_dataset(DataSpec.model_validate(spec), out, source=source)
    return list(read_examples(out))


@pytest.mark.parametrize(("name", "container"), WAYS)
def test_conversations_come_back_as_they_went(version: Path, tmp_path: Path, name: str, container: Any) -> None:
    export_dataset(version, tmp_path / "out", format=name, container=container)
    found = build(tmp_path / "out", tmp_path / "again", {"kind": "chat"})
    key = lambda turns: turns[0].content  # noqa: E731
    assert sorted((example.messages for example in found), key=key) == sorted(map(conversation, range(30)), key=key)
    same = {"bedrock-completion": "completion", "bedrock-claude": "openai-chat"}  # told apart by a system text only
    assert inspect_source(tmp_path / "out").detection.format == same.get(name, name)


@pytest.mark.parametrize(
    ("name", "container"), [("preference", "hf"), ("preference", "csv"), ("openai-preference", "jsonl")]
)
def test_pairs_come_back_as_they_went(tmp_path: Path, name: str, container: Any) -> None:
    def pair(number: int) -> tuple[list[Message], ...]:
        answers = ([Message("assistant", f"{word} answer to number {number}")] for word in ("A good", "A bad"))
        return ([conversation(number)[0]], *answers)

    made = [Example(f"ex_{n}", prompt, chosen=good, rejected=bad) for n in range(9) for prompt, good, bad in [pair(n)]]
    write_examples(tmp_path / "version" / "data" / "train-00000.parquet", made)
    export_dataset(tmp_path / "version", tmp_path / "out", format=name, container=container)
    found = build(tmp_path / "out", tmp_path / "again", {"kind": "preference"})
    assert len(found) == 9
    assert all((each.messages, each.chosen, each.rejected) in [pair(n) for n in range(9)] for each in found)
