from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from espalier.core.types import Example, Generation, Message, SamplingSpec, Usage
from espalier.evals.cases import Evaluation
from espalier.evals.run import Subject, evaluate
from espalier.metrics.text import exact_match

Score = Callable[..., Evaluation]


class Parrot:
    """A `Generate` that answers from a rule and counts what it was asked."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        self.rule = rule
        self.asked: list[list[Message]] = []
        self.batches: list[int] = []

    def __call__(self, batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
        self.batches.append(len(batch))
        self.asked.extend(list(messages) for messages in batch)
        return [
            Generation(
                text=self.rule(messages[-1].content),
                finish_reason="stop",
                usage=Usage(prompt_tokens=len(messages), completion_tokens=1),
            )
            for messages in batch
        ]


def example(i: int, **fields: object) -> Example:
    turns = [Message("user", f"q{i}"), Message("assistant", f"a{i}")]
    return Example(id=f"e{i:02d}", messages=turns, split="test", **fields)  # type: ignore[arg-type]


@pytest.fixture
def make_examples() -> Callable[[int], list[Example]]:
    return lambda count: [example(i) for i in range(count)]


@pytest.fixture
def parrot() -> type[Parrot]:
    return Parrot


@pytest.fixture
def score() -> Score:
    """`score(right)`: an evaluation of 40 cases in which the first `right` are answered rightly."""

    def make(right: int, label: str = "x", count: int = 40, dataset: str = "d" * 64) -> Evaluation:
        answers = Parrot(lambda text: text.replace("q", "a") if int(text[1:]) < right else "?")
        subject = Subject(f"adapter:{label}", label, dataset)
        return evaluate([example(i) for i in range(count)], answers, [exact_match()], subject)

    return make
