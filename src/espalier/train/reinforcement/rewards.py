"""Graders as TRL calls them: answers to prompts -> a number each. Knows metrics; knows neither torch nor TRL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.metrics.metric import Answered, Metric

ROW = "row"  # the column of a prompt's number
JUDGED_AT_ONCE = 16

Reward = Callable[..., list[float]]


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt, and what a grader may compare an answer with."""

    id: str
    question: tuple[Message, ...]
    reference: str
    tags: dict[str, str]

    def answered(self, answer: str) -> Answered:
        return Answered(self.id, answer, self.reference, self.question, self.tags)


def read_case(example: Example) -> Case:
    """The example as a question; its last answer, when it ends with one, is the reference. Raises InvalidInput."""
    turns = example.messages or ([Message("user", example.text)] if example.text else [])
    reference = turns[-1].content if turns and turns[-1].role == "assistant" else ""
    question = tuple(turns[:-1] if turns and turns[-1].role == "assistant" else turns)
    if not question:
        raise InvalidInput("there is no question to answer", where=f"example {example.id}")
    return Case(example.id, question, reference, dict(example.tags))


def make_reward(metric: Metric, cases: Sequence[Case]) -> Reward:
    """What TRL calls with `completions` and each one's `row`; less is better where the metric says so."""
    sign = 1.0 if metric.higher_is_better else -1.0

    def measure(row: int, answer: str) -> float:
        return sign * metric.measure(cases[row].answered(answer)).value

    def reward(completions: Sequence[str], row: Sequence[int], **others: Any) -> list[float]:
        if not getattr(metric, "waits", False):
            return [measure(number, answer) for number, answer in zip(row, completions, strict=True)]
        with ThreadPoolExecutor(JUDGED_AT_ONCE) as pool:
            return list(pool.map(measure, row, completions))

    reward.__name__ = metric.name
    return reward


def make_model_reward(score: Callable[[Sequence[Sequence[Message]]], list[float]], cases: Sequence[Case]) -> Reward:
    """A trained reward model's judgement of question and answer."""

    def reward_model(completions: Sequence[str], row: Sequence[int], **others: Any) -> list[float]:
        pairs = zip(row, completions, strict=True)
        return score([[*cases[number].question, Message("assistant", answer)] for number, answer in pairs])

    return reward_model
